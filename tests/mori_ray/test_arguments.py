"""Arguments of tasks and actors are references: the worker maps the same region, wherever they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray

import mori
from mori.memory.lease import expire_graces
from mori.wire.transport import use_transport
from mori_ray import serialize
from tests.mori_ray.tasks import AsyncKeeper, Keeper, call, mapped, name_of

pytestmark = pytest.mark.usefixtures("one_node")

ROWS = 50_000


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": rng.random(ROWS),
            "b": rng.random(ROWS),
            "n": np.arange(ROWS),
            "s": pd.array(
                [f"row {i}" for i in range(ROWS)], dtype=pd.StringDtype("pyarrow", na_value=np.nan)
            ),
            "c": pd.Categorical.from_codes(np.arange(ROWS) % 3, ["x", "y", "z"]),
            "t": pd.date_range("2026-01-01", periods=ROWS, freq="s", tz="UTC"),
        },
        index=pd.Index(np.arange(ROWS) * 2, name="at"),
    )


@dataclass
class Holder:
    inside: Any


def written(x: Any) -> Any:
    x["n"] = np.int8(1)
    return x


ARRAY = np.arange(100_000.0).reshape(100, 1000)
PARTS: dict[str, Any] = {
    "an array": (lambda: ARRAY, lambda x: x),
    "a slice": (lambda: ARRAY, lambda x: x[10:20, ::2]),
    "a transpose": (lambda: ARRAY, lambda x: x.T),
    "a list": (lambda: [ARRAY, 1, "two"], lambda x: x),
    "an element": (lambda: [ARRAY, ARRAY + 1], lambda x: x[1]),
    "a dict": (lambda: {"a": ARRAY, "b": (ARRAY * 2, None)}, lambda x: x),
    "a tuple": (lambda: (ARRAY, ARRAY), lambda x: x),
    "a frame": (frame, lambda x: x),
    "a column": (frame, lambda x: x["a"]),
    "a column of strings": (frame, lambda x: x["s"]),
    "a column of categories": (frame, lambda x: x["c"]),
    "a column of times": (frame, lambda x: x["t"]),
    "some columns": (frame, lambda x: x[["a", "b"]]),
    "some rows": (frame, lambda x: x.iloc[100:2000]),
    "an index": (frame, lambda x: x.index),
    "a written frame": (frame, written),
    "a series": (lambda: frame()["a"], lambda x: x),
    "plain containers": (lambda: ARRAY, lambda x: {"a": [x, x[0]], "b": (x.T,)}),
    "an object of a class": (lambda: ARRAY, Holder),
}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), check_flags=False)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(pd.Series(one), pd.Series(other))
    elif isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, other)
    elif isinstance(one, Holder):
        assert_equal(one.inside, other.inside)
    elif isinstance(one, dict | mori.SharedDict):
        assert list(one) == list(other)
        assert_equal(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple | mori.SharedList | mori.SharedTuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("part", PARTS)
def test_an_argument_maps_the_region_in_the_worker(part: str, wire: list[int]) -> None:
    make, take = PARTS[part]
    whole = mori.share(make())
    name = mori.shared_name(whole)
    x = take(whole)

    def look(theirs: Any, name: str = name) -> tuple[bool, Any]:
        return name in mapped(), mori.materialize(theirs)

    is_mapped, back = ray.get(call.remote(look, x))
    assert is_mapped
    assert_equal(x, back)
    ray.get(call.remote(len, [x]))
    assert wire[-1] < ROWS + 8000, "its data must not be on the wire"


def test_what_the_user_has_a_serializer_for_is_a_reference_all_the_same(wire: list[int]) -> None:
    x = mori.share(Holder(ARRAY))
    ray.util.register_serializer(Holder, serializer=lambda x: x.inside, deserializer=Holder)
    try:
        name = mori.shared_name(x)
        assert ray.get(call.remote(name_of, x)) == name
        ray.get(call.remote(len, [x]))
        assert wire[-1] < 8000
        ray.get(call.remote(len, [Holder(ARRAY)]))
        assert wire[-1] > ARRAY.nbytes
    finally:
        ray.util.deregister_serializer(Holder)


def test_a_reference_weighs_a_hundred_bytes_and_some_for_ray(wire: list[int]) -> None:
    x = mori.share(ARRAY)
    ray.get(call.remote(np.sum, x))
    ray.get(Keeper.remote(x).call.remote(np.sum))
    sizes = [size for size in wire if size > 100]
    assert sizes
    assert max(sizes) < 350


def test_the_store_of_ray_does_not_grow() -> None:
    before = ray.available_resources()["object_store_memory"]
    x = mori.share(np.ones(10 << 20, np.uint8))
    refs = [call.remote(np.sum, x) for _ in range(4)]
    assert ray.get(refs) == [10 << 20] * 4
    assert before - ray.available_resources()["object_store_memory"] < 1 << 20


def test_a_whole_array_has_the_same_name_in_the_worker() -> None:
    x = mori.share({"a": ARRAY, "f": frame()})
    assert ray.get(call.remote(name_of, x)) == mori.shared_name(x)
    assert ray.get(call.remote(name_of, x["a"])) == mori.shared_name(x["a"])
    assert ray.get(call.remote(name_of, x["f"]["b"])) == mori.shared_name(x["f"]["b"])


def test_an_actor_gets_references_in_its_constructor_and_in_its_methods() -> None:
    x, y = mori.share(ARRAY), mori.share(ARRAY + 1)
    keeper = Keeper.remote([x])
    assert ray.get(keeper.call.remote(lambda kept: name_of(kept[0]))) == mori.shared_name(x)
    ray.get(keeper.keep.remote(y))
    assert ray.get(keeper.call.remote(name_of)) == mori.shared_name(y)


def test_an_asynchronous_actor_and_an_actor_with_threads_get_references() -> None:
    x = mori.share(ARRAY)
    name = mori.shared_name(x)
    assert ray.get(AsyncKeeper.remote().call.remote(name_of, x)) == name
    threads = Keeper.options(max_concurrency=2).remote(x)
    assert ray.get([threads.call.remote(name_of) for _ in range(4)]) == [name] * 4


def test_a_task_passes_a_reference_on_to_another_task() -> None:
    x = mori.share(ARRAY)

    def pass_on(theirs: Any) -> Any:
        return ray.get(call.options(num_cpus=0).remote(name_of, theirs))

    assert ray.get(call.remote(pass_on, x)) == mori.shared_name(x)


def test_what_a_worker_shares_itself_goes_on_as_a_reference() -> None:
    def make(rows: int) -> tuple[str | None, str | None]:
        mine = mori.share(np.arange(rows))
        return mori.shared_name(mine), ray.get(call.options(num_cpus=0).remote(name_of, mine))

    mine, theirs = ray.get(call.remote(make, 100_000))
    assert mine is not None
    assert mine == theirs


def test_what_a_user_asks_to_go_by_value_does() -> None:
    x = mori.share(ARRAY)
    with mori.by_value():
        ref = call.remote(lambda theirs: (mori.is_shared(theirs), float(theirs.sum())), x)
    assert ray.get(ref) == (False, ARRAY.sum())


def test_a_written_array_goes_by_value() -> None:
    x = mori.share(ARRAY)
    x[0, 0] = -1
    assert ray.get(call.remote(lambda theirs: (mori.is_shared(theirs), theirs[0, 0]), x)) == (False, -1)


def test_a_worker_writes_to_its_own_alone() -> None:
    def write(theirs: Any) -> float:
        theirs[:] = 0
        return float(theirs.sum())

    x = mori.share(ARRAY)
    assert ray.get(call.remote(write, x)) == 0
    np.testing.assert_array_equal(x, ARRAY)


def test_a_reference_to_what_is_gone_fails_the_task_in_one_short_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    x = mori.share(ARRAY)
    name = mori.shared_name(x)
    with use_transport("reference"):
        _, (plain,) = x.__reduce_ex__(5)
    _, (payload, node) = serialize._Put().reduce(plain)
    del x

    class Late:
        def __reduce__(self) -> Any:
            return serialize.load, (payload, node)

    expire_graces()
    capfd.readouterr()
    with pytest.raises(
        mori.RegionNotFoundError, match=f"shared region {name} could not be fetched"
    ) as caught:
        ray.get(call.options(max_retries=0).remote(len, Late()))
    text = str(caught.value)  # of the task, which Ray prefixes with where it ran
    assert "Traceback" not in text
    assert "During handling" not in text
    assert text.count("Error:") == 1, "one error, and not what it came of"
    assert text.count("could not be fetched") == 1
    assert "deserialize" not in text
    with pytest.raises(mori.RegionNotFoundError):
        len(ray.get(ray.put([Late()]))[0])
    assert capfd.readouterr() == ("", "")
