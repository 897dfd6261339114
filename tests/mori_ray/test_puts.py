"""What is put, and what a task returns, is a reference where its owner for Ray keeps the region."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import pytest
import ray

import mori
import mori_ray
from tests.mori_ray.conftest import wait_until
from tests.mori_ray.tasks import AsyncKeeper, Keeper, call, generate, name_of
from tests.mori_ray.test_lifetime import assert_freed, is_gone, let_the_grace_pass

pytestmark = pytest.mark.usefixtures("one_node")

ROWS = 300_000
SUM = float(np.arange(ROWS).sum())


def shared() -> Any:
    return mori.share([np.arange(ROWS), "two"])


def test_what_is_put_is_a_name_and_lives_as_long_as_its_reference(wire: list[int]) -> None:
    x = shared()
    name = mori.shared_name(x)
    ref = ray.put({"x": x, "part": x[0][10:]})
    assert wire[-1] < 1000
    del x
    let_the_grace_pass()
    for _ in range(2):
        back = ray.get(ref)
        assert mori.shared_name(back["x"]) == name
        assert float(back["part"].sum()) == SUM - 45
    assert ray.get(call.remote(lambda back: name_of(back["x"]), ref)) == name
    assert ray.get(call.remote(lambda refs: name_of(ray.get(refs[0])["x"]), [ref])) == name
    del ref
    assert back["x"][1] == "two"
    del back
    assert_freed(name)


def test_what_is_awaited_is_opened_on_the_thread_by_which_ray_receives() -> None:
    x = shared()
    ref = ray.put([x])

    async def wait() -> Any:
        return await ref

    for back in (ref.future().result(timeout=20), asyncio.run(wait())):
        assert mori.shared_name(back[0]) == mori.shared_name(x)


def test_what_a_worker_puts_is_a_name_for_as_long_as_it_is_needed() -> None:
    def put() -> tuple[str | None, list[Any]]:
        x = shared()
        return mori.shared_name(x), [ray.put(x)]

    name, refs = ray.get(call.remote(put))
    assert name is not None
    let_the_grace_pass()
    assert mori.shared_name(ray.get(refs[0])) == name
    assert ray.get(call.remote(name_of, refs[0])) == name
    del refs
    assert_freed(name)


def test_what_is_put_by_value_is_a_value() -> None:
    x = shared()
    with mori.by_value():
        ref = ray.put(x)
    assert not mori.is_shared(ray.get(ref))


@pytest.mark.parametrize("how", ["task", "actor", "threads", "generator", "function"])
def test_an_argument_that_is_returned_is_a_name(how: str) -> None:
    x = shared()
    name = mori.shared_name(x)
    keeper = None
    if how in ("actor", "threads"):
        keeper = Keeper.options(max_concurrency=2 if how == "threads" else 1).remote()
        ref = keeper.call.remote(lambda kept, x: {"x": x, "part": x[0][10:]}, x)
    elif how == "generator":
        ref = next(generate.remote(lambda x: {"x": x, "part": x[0][10:]}, x))
    elif how == "function":
        ref = call.remote(lambda xs: {"x": xs[0]["a"], "part": xs[1]}, [{"a": x}, x[0][10:]])
    else:
        ref = call.remote(lambda x: {"x": x, "part": x[0][10:]}, x)
    del x
    ray.wait([ref])
    if keeper is not None:
        ray.kill(keeper)
    let_the_grace_pass()
    back = ray.get(ref)
    assert mori.shared_name(back["x"]) == name
    assert float(back["part"].sum()) == SUM - 45
    del back
    let_the_grace_pass()
    assert name is not None
    assert not is_gone(name)
    assert ray.get(ref)["x"][1] == "two"
    del ref
    assert_freed(name)


def test_what_is_returned_outlives_the_worker() -> None:
    x = shared()
    name = mori.shared_name(x)
    ref = call.remote(lambda x: (os.getpid(), x), x)
    del x
    ray.wait([ref])
    pid, back = ray.get(ref)
    del back
    os.kill(pid, 9)
    assert mori.shared_name(ray.get(ref)[1]) == name


def test_a_task_returns_what_it_has_been_returned() -> None:
    x = shared()

    def pass_on(theirs: Any) -> list[Any]:
        echo = call.options(num_cpus=0).remote(lambda x: x, theirs)
        return [ray.get(echo), [echo]]

    again, (ref,) = ray.get(call.remote(pass_on, x))
    assert mori.shared_name(again) == mori.shared_name(x)
    assert mori.shared_name(ray.get(ref)) == mori.shared_name(x)


def test_what_another_task_was_given_is_returned_by_value() -> None:
    x = shared()
    keeper = Keeper.remote(x)
    first = keeper.call.remote(lambda kept: kept)
    assert not mori.is_shared(ray.get(first))
    ray.get(keeper.keep.remote(x))
    del x
    ref = keeper.call.remote(lambda kept: kept)
    ray.wait([ref])
    ray.kill(keeper)
    let_the_grace_pass()
    assert float(ray.get(ref)[0].sum()) == SUM


def test_what_an_exception_carries_goes_by_value() -> None:
    def fail(x: Any) -> None:
        raise LookupError("with data", x)

    with pytest.raises(LookupError) as caught:
        ray.get(call.remote(fail, shared()))
    carried = caught.value.cause.args[1]  # type: ignore[attr-defined]
    assert not mori.is_shared(carried)
    assert float(carried[0].sum()) == SUM


def test_what_an_event_loop_returns_goes_by_value() -> None:
    x = shared()
    back = ray.get(AsyncKeeper.remote().call.remote(lambda x: x, x))
    assert not mori.is_shared(back)
    assert float(back[0].sum()) == SUM


def test_the_store_of_ray_does_not_grow_by_what_is_put_and_returned() -> None:
    before = ray.available_resources()["object_store_memory"]
    x = mori.share(np.ones(10 << 20, np.uint8))
    refs = [ray.put(x), *(call.remote(lambda x: x, x) for _ in range(4))]
    assert all(mori.is_shared(back) for back in ray.get(refs))
    assert before - ray.available_resources()["object_store_memory"] < 1 << 20
    name = mori.shared_name(x)
    assert name is not None
    del x, refs
    wait_until(lambda: is_gone(name))


def test_what_is_put_is_there_when_the_store_is_full_and_spills() -> None:
    x = shared()
    by_name, by_value = ray.put(x), mori_ray.put([f"word {number}" for number in range(200_000)])
    others = [ray.put(np.full(6 << 20, number, float)) for number in range(8)]  # 400 MB; the store has 200
    assert ray.get(call.remote(name_of, by_name)) == mori.shared_name(x)
    assert ray.get(call.remote(lambda words: words[199_999], by_value)) == "word 199999"
    assert [float(ray.get(other)[0]) for other in others] == [*map(float, range(8))]
