"""What `mori_ray.put` puts, what a task makes, what is dumped: mori's own layout, opened in Ray's store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import ray.cloudpickle

import mori
import mori_ray
from tests.mori_ray.tasks import Keeper, call, mapped, name_of, place_of, private_kb

pytestmark = pytest.mark.usefixtures("one_node")

MANY = {"a": np.arange(1 << 20), "list": [np.full(1 << 16, i) for i in range(8)]}


def make_many() -> Any:
    return mori.share({"a": np.arange(1 << 20), "list": [np.full(1 << 16, i) for i in range(8)]})


def assert_in_plasma(x: Any) -> None:
    array = np.asarray(x)
    assert "plasma" in place_of(array)
    assert array.ctypes.data % 64 == 0
    assert not mori.is_shared(x)


def assert_many(many: Any) -> None:
    assert type(many).__name__ == "SmallDict"
    assert not mori.is_shared(many)
    assert_in_plasma(many["a"])
    assert_in_plasma(many["list"][3])
    np.testing.assert_array_equal(many["a"], MANY["a"])
    np.testing.assert_array_equal(many["list"][7], MANY["list"][7])


def test_what_is_put_is_opened_in_place() -> None:
    ref = mori_ray.put(make_many())  # nothing is kept: the value is Ray's
    assert_many(ray.get(ref))
    ray.get(call.remote(assert_many, ref))
    ray.get(call.remote(lambda refs: assert_many(ray.get(refs[0])), [ref]))


def test_what_a_worker_shares_and_returns_is_opened_in_place() -> None:
    assert_many(ray.get(call.remote(make_many)))


def test_what_an_actor_returns_outlives_the_actor() -> None:
    keeper = Keeper.remote()
    ref = keeper.call.remote(lambda kept: make_many())
    ray.wait([ref])
    ray.kill(keeper)
    assert_many(ray.get(ref))


def test_a_part_keeps_its_alignment() -> None:
    many = make_many()
    assert_in_plasma(ray.get(mori_ray.put(many["list"][2])))
    assert_in_plasma(ray.get(mori_ray.put(many["a"])))
    back = ray.get(mori_ray.put(many["list"]))
    assert isinstance(back, list)
    assert_in_plasma(back[5])


def test_a_value_can_be_put_again() -> None:
    first = ray.get(mori_ray.put(make_many()))
    assert_many(ray.get(mori_ray.put(first)))
    assert_many(ray.get(ray.put(first)))
    again = ray.get(ray.put(ray.get(mori_ray.put(first["list"]))))
    np.testing.assert_array_equal(again[5], MANY["list"][5])


def test_reading_takes_no_private_memory() -> None:
    def read(nothing: Any, refs: list[Any]) -> int:
        before = private_kb()
        many = ray.get(refs[0])
        assert int(many.sum()) == 48 << 20
        return private_kb() - before

    keeper = Keeper.remote()
    ref = mori_ray.put(mori.share(np.ones(48 << 20, np.uint8)))
    ray.get(keeper.call.remote(read, [ref]))
    assert ray.get(keeper.call.remote(read, [ref])) < 2048


def test_a_frame_lies_in_the_store_and_is_written_locally() -> None:
    plain = pd.DataFrame(
        {
            "a": np.arange(100_000.0),
            "b": np.arange(100_000.0),
            "s": pd.array([f"{i}" for i in range(100_000)], dtype=pd.StringDtype("pyarrow", na_value=np.nan)),
        }
    )
    ref = mori_ray.put(mori.share(plain))
    x = ray.get(ref)
    assert_in_plasma(x["a"].to_numpy())
    pd.testing.assert_frame_equal(pd.DataFrame(x), plain)
    x.loc[3, "a"] = -1
    assert x["a"][3] == -1
    assert ray.get(ref)["a"][3] == 3
    column = ray.get(mori_ray.put(mori.share(plain)["b"]))
    assert "plasma" in place_of(column.to_numpy())
    pd.testing.assert_series_equal(column, plain["b"])


def test_a_value_is_written_locally() -> None:
    ref = mori_ray.put(mori.share(MANY["a"]))
    x, y = ray.get(ref), ray.get(ref)
    x[0] = -1
    assert (x[0], y[0]) == (-1, 0)


def test_a_value_is_shared_again_and_sent_as_a_reference() -> None:
    value = ray.get(mori_ray.put(make_many()))
    x = mori.share(value)
    assert mori.is_shared(x)
    assert ray.get(call.remote(name_of, x)) == mori.shared_name(x)
    np.testing.assert_array_equal(x["list"][1], MANY["list"][1])
    again = mori.share(value["a"])
    assert mori.is_shared(again)


def test_a_value_is_passed_on_by_value() -> None:
    value = ray.get(mori_ray.put(make_many()))

    def look(theirs: Any) -> None:
        assert_many(theirs)
        assert not mapped()

    ray.get(call.remote(look, value))


def test_small_values_need_no_store() -> None:
    x = mori.share([np.arange(3), "two", None])
    back = ray.get(mori_ray.put(x))
    assert list(back[0]) == [0, 1, 2]
    assert back[1:] == ["two", None]
    assert not mori.is_shared(ray.get(call.remote(lambda: mori.share(np.arange(3)))))


def test_what_the_user_dumps_carries_its_bytes() -> None:
    x = mori.share(MANY["a"])
    dumped = ray.cloudpickle.dumps({"x": x})
    assert len(dumped) > x.nbytes
    back = ray.cloudpickle.loads(dumped)["x"]
    assert not mori.is_shared(back)
    np.testing.assert_array_equal(x, back)


def test_a_dump_inside_an_argument_carries_its_bytes() -> None:
    class Sealed:
        def __init__(self, x: Any) -> None:
            self.x = x

        def __reduce__(self) -> Any:
            return ray.cloudpickle.loads, (ray.cloudpickle.dumps(self.x),)

    x = mori.share(np.arange(1000))
    assert ray.get(call.remote(lambda theirs: (mori.is_shared(theirs), int(theirs[-1])), Sealed(x))) == (
        False,
        999,
    )


def test_what_a_generator_yields_and_what_is_awaited_is_opened_in_place() -> None:
    @ray.remote(num_returns="streaming")
    def generate() -> Any:
        for _ in range(2):
            yield make_many()

    for ref in generate.remote():
        assert_many(ray.get(ref))
    assert_many(mori_ray.put(make_many()).future().result(timeout=20))


def test_any_object_is_put_in_the_layout_of_mori() -> None:
    words = [f"word {i}" for i in range(200_000)]

    def read(nothing: Any, words: Any) -> tuple[str, str, int, int]:
        before = private_kb()
        found = words[123_456]
        return type(words).__name__, found, len(words), private_kb() - before

    ref = mori_ray.put(words)
    keeper = Keeper.remote()
    ray.get(keeper.call.remote(read, ref))
    name, word, length, private = ray.get(keeper.call.remote(read, ref))
    assert (name, word, length) == ("SharedList", "word 123456", 200_000)
    assert private < 1000
    assert ray.get(ref) == words


@pytest.mark.parametrize("obj", [None, 7, "text", b"bytes", [1, 2], (), {"a": None}, len], ids=repr)
def test_what_mori_does_not_share_is_put_all_the_same(obj: Any) -> None:
    assert ray.get(mori_ray.put(obj)) == obj
