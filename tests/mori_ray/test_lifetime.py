"""A region lives for as long as Ray can still need an argument, and no longer."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import mori
from mori import store as stores
from mori_ray import lifetime
from tests.mori_ray.conftest import GRACE, regions, wait_until
from tests.mori_ray.tasks import Keeper, call, die_once, name_of, wait_for

pytestmark = pytest.mark.usefixtures("one_node")

ROWS = 100_000
SUM = float(np.arange(ROWS).sum())


def shared() -> Any:
    return mori.share(np.arange(ROWS))


def is_gone(name: str) -> bool:
    return not any(entry.name == name for entry in stores.current().entries())


def assert_freed(name: str | None) -> None:
    assert name is not None
    start = time.monotonic()
    wait_until(lambda: is_gone(name))
    assert time.monotonic() - start < 2


def let_the_grace_pass() -> None:
    time.sleep(4 * GRACE)


def test_a_queued_task_is_served_when_nothing_else_is_left(tmp_path: Path) -> None:
    gate = wait_for.options(num_cpus=2).remote(tmp_path / "open")
    refs = [call.remote(np.sum, shared()), call.remote(lambda xs: np.sum(xs["x"][0][10:]), {"x": [shared()]})]
    names = regions()
    assert len(names) == 2
    let_the_grace_pass()
    assert regions() == names
    (tmp_path / "open").touch()
    assert ray.get(refs) == [SUM, SUM - 45]
    ray.get(gate)
    for name in names:
        assert_freed(name)


def test_a_task_that_waits_for_another_is_served(tmp_path: Path) -> None:
    gate = wait_for.remote(tmp_path / "open")
    ref = call.remote(lambda x, _: float(x.sum()), shared(), gate)
    let_the_grace_pass()
    (tmp_path / "open").touch()
    assert ray.get(ref) == SUM


def test_a_region_is_freed_when_its_last_task_is_done() -> None:
    x = shared()
    name = mori.shared_name(x)
    refs = [call.remote(np.sum, x) for _ in range(8)]
    del x
    assert ray.get(refs) == [SUM] * 8
    assert_freed(name)


def test_an_object_that_is_kept_is_not_freed_by_its_tasks() -> None:
    x = shared()
    for _ in range(3):
        assert ray.get(call.remote(np.sum, x)) == SUM
    assert regions() == {mori.shared_name(x)}
    name = mori.shared_name(x)
    del x
    assert_freed(name)


def test_a_failed_task_frees_its_region() -> None:
    def fail(x: Any) -> None:
        raise ValueError(f"{x.sum()}")

    x = shared()
    name = mori.shared_name(x)
    ref = call.remote(fail, x)
    del x
    with pytest.raises(ValueError, match=str(int(SUM))):
        ray.get(ref)
    del ref
    assert_freed(name)


def test_a_worker_that_is_killed_is_tried_again(tmp_path: Path) -> None:
    x = shared()
    name = mori.shared_name(x)
    ref = call.options(max_retries=2).remote(die_once, x, tmp_path / "died")
    del x
    assert ray.get(ref) == SUM
    assert (tmp_path / "died").exists()
    assert_freed(name)


def test_an_actor_keeps_a_region_until_it_drops_it() -> None:
    x = shared()
    name = mori.shared_name(x)
    keeper = Keeper.remote(x)
    del x
    assert ray.get(keeper.call.remote(np.sum)) == SUM
    let_the_grace_pass()
    assert regions() == {name}
    assert ray.get(keeper.call.remote(np.sum)) == SUM
    ray.get(keeper.keep.remote(None))
    assert_freed(name)


def test_an_actor_that_is_killed_frees_its_region() -> None:
    x = shared()
    name = mori.shared_name(x)
    keeper = Keeper.remote(x)
    del x
    pid = ray.get(keeper.call.remote(lambda kept: os.getpid()))
    os.kill(pid, 9)
    assert_freed(name)


def test_what_an_actor_keeps_goes_on_as_a_reference() -> None:
    x = shared()
    name = mori.shared_name(x)
    keeper = Keeper.remote(x)
    del x

    def pass_on(kept: Any) -> Any:
        return ray.get(call.options(num_cpus=0).remote(name_of, kept))

    assert ray.get(keeper.call.remote(pass_on)) == name
    del keeper
    assert_freed(name)


def test_a_nested_task_outlives_its_parent(tmp_path: Path) -> None:
    def start(x: Any, path: Path) -> list[Any]:
        gate = wait_for.options(num_cpus=0).remote(path)
        return [call.options(num_cpus=0).remote(lambda x, _: float(x.sum()), x, gate)]

    x = shared()
    name = mori.shared_name(x)
    parent = call.remote(start, x, tmp_path / "open")
    del x
    (nested,) = ray.get(parent)
    del parent
    let_the_grace_pass()
    (tmp_path / "open").touch()
    assert ray.get(nested) == SUM
    assert_freed(name)


def test_a_thousand_parts_of_a_region_have_one_token() -> None:
    whole = mori.share([np.arange(i, i + 200) for i in range(1000)])
    ref = call.remote(lambda parts: sum(int(part[0]) for part in parts), list(whole))
    found = lifetime.session()
    assert found is not None
    assert len(found._leases) == 1
    assert ray.get(ref) == 499500


@pytest.mark.parametrize("how", ["argument", "returned", "put", "part"])
def test_what_ray_counts_has_no_grace_beyond_its_last_use(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_GRACE", "3600")
    x = shared()
    name = mori.shared_name(x)
    assert name is not None
    if how == "put":
        ref = ray.put([x])
        assert ray.get(call.remote(lambda xs: float(xs[0].sum()), ref)) == SUM
    elif how == "returned":
        ref = call.remote(lambda x: x, x)
    else:
        ref = call.remote(len, x if how == "argument" else [x[10:], x[:10]])
    del x
    ray.get(ref)
    assert not is_gone(name) or how in ("argument", "part")
    del ref
    wait_until(lambda: is_gone(name), end_graces=False)


def test_a_reference_of_another_pickle_keeps_its_grace() -> None:
    x = shared()
    dumped = pickle.dumps(x)
    ref = call.remote(np.sum, x)
    del x
    ray.get(ref)
    assert float(pickle.loads(dumped).sum()) == SUM


def test_many_regions_are_freed() -> None:
    refs = [call.options(num_cpus=0.1).remote(np.sum, mori.share(np.arange(10 + i))) for i in range(200)]
    assert ray.get(refs[7]) == 136
    assert len(ray.get(refs)) == 200
    wait_until(lambda: not regions())


def test_a_child_that_is_forked_holds_nothing_for_ray(tmp_path: Path) -> None:
    gate = wait_for.options(num_cpus=2).remote(tmp_path / "open")
    ref = call.remote(np.sum, shared())
    (name,) = regions()
    into, out = os.pipe()
    child = os.fork()
    if not child:
        held = {entry.name for entry in stores.current().entries() if os.getpid() in entry.holders}
        os.write(out, str(len(held)).encode())
        os._exit(0)
    assert os.read(into, 10) == b"0"
    os.waitpid(child, 0)
    os.close(into)
    os.close(out)
    (tmp_path / "open").touch()
    assert ray.get([ref, gate])[0] == SUM
    assert_freed(name)


def test_a_large_argument_beside_it_and_a_large_return_keep_nothing() -> None:
    x = shared()
    name = mori.shared_name(x)
    ref = call.remote(lambda x, large: large[: len(x)] + x, x, np.ones(1 << 18))
    del x
    assert float(ray.get(ref).sum()) == SUM + ROWS
    del ref
    assert_freed(name)
