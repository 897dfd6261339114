"""`mori.writable`: ordinary writable arrays over the region's pages; a write is its owner's alone."""

from __future__ import annotations

import gc
import pickle
import sys
from typing import Any

import numpy as np
import pytest

import mori
from tests.worker import Worker

pytestmark = pytest.mark.each_store
COUNT = 100_000


def _anonymous_kb() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous"))


def test_an_array_is_numpys_own_and_a_write_is_seen_nowhere_else(store: str, worker: Worker) -> None:
    shared = mori.share(np.arange(COUNT))
    mine, other = mori.writable(shared), mori.writable(shared)
    assert type(mine) is np.ndarray
    assert mine.flags.writeable
    mine[0] = -1
    np.random.default_rng(0).shuffle(mine[10:])
    assert sorted(mine[10:].tolist()) == [*range(10, COUNT)]
    assert mine[10:].tolist() != [*range(10, COUNT)]
    for seen in (shared, other, mori.map_shared(mori.shared_name(shared))):
        assert np.array_equal(seen, np.arange(COUNT))
    assert worker(lambda x: int(x.sum()), shared) == sum(range(COUNT))
    assert not mori.is_shared(mine)
    assert np.array_equal(pickle.loads(pickle.dumps(mine)), mine)
    assert worker(lambda x: int(x[0]), mine) == -1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/smaps_rollup is missing on this system")
def test_it_costs_the_pages_that_are_written_to(store: str) -> None:
    shared = mori.share(np.zeros(8_000_000))
    mori.writable(shared)[0] = 1
    before = _anonymous_kb()
    mine = mori.writable(shared)
    mine[::1_000_000] = 1
    assert mine.sum() == 8
    assert _anonymous_kb() - before < 1000  # of 64,000


@pytest.mark.parametrize(
    "take",
    [
        *(lambda x: x[::-2], lambda x: x.reshape(100, -1).T, lambda x: x[5:6], lambda x: x.view("u1")[3:]),
        lambda x: x[0:0],
    ],
)
def test_a_view_is_the_same_view(store: str, take: Any) -> None:
    plain = np.arange(COUNT)
    mine = mori.writable(take(mori.share(plain)))
    assert mine.flags.writeable
    assert mine.strides == take(plain).strides
    assert np.array_equal(mine, take(plain))
    mine[...] = 0
    assert not mine.any()


def test_a_frame_is_pandas_own(store: str, worker: Worker) -> None:
    pd = pytest.importorskip("pandas")
    numbers = np.arange(COUNT)
    plain = pd.DataFrame({"a": numbers.astype(float), "b": numbers, "c": ["x", "y"] * (COUNT // 2)})
    plain["d"] = plain["c"].astype("category")
    shared = mori.share(plain, strings="arrow")
    mine = mori.writable(shared)
    assert type(mine) is pd.DataFrame
    mine.loc[0, "a"] = -1.0
    mine["b"] += 1
    assert mine["a"].iloc[0] == -1
    assert shared["a"].iloc[0] == 0
    assert shared["b"].iloc[0] == 0
    assert worker(lambda x: float(x["a"].sum()), shared) == plain["a"].sum()
    assert worker(lambda x: float(x["a"].iloc[0]), mine) == -1
    series = mori.writable(mori.share(plain["a"]))
    assert type(series) is pd.Series
    series.iloc[1] = 5
    assert series.iloc[1] == 5


def test_what_is_inside_containers_is_writable_and_one_object_stays_one(store: str) -> None:
    array = np.arange(COUNT)
    plain = {
        "a": array,
        "again": [array, (array[:5].copy(), "text")],
        "many": [np.full(100, i) for i in range(200)],
    }
    mine = mori.writable(mori.share(plain))
    assert type(mine) is dict
    assert type(mine["many"]) is list
    assert mine["a"] is mine["again"][0]
    for one in (mine["a"], mine["again"][1][0], mine["many"][7]):
        assert type(one) is np.ndarray
        one[0] = 99
        assert one[0] == 99
    assert mori.writable(mori.share(plain)["many"])[7][0] == 7


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of scikit-learn: probability=True
def test_an_estimator_that_writes_to_its_arrays_works(store: str) -> None:
    svm = pytest.importorskip("sklearn.svm")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), np.arange(200) % 2
    fitted = svm.SVC(probability=True).fit(x, y)
    mine = mori.writable(mori.share(fitted))
    assert type(mine) is svm.SVC
    np.testing.assert_allclose(mine.predict_proba(x), fitted.predict_proba(x))
    mine.support_vectors_[0] = 0
    assert not np.array_equal(mine.support_vectors_, fitted.support_vectors_)


def test_what_is_not_shared_or_was_written_to_is_copied(store: str) -> None:
    shared = mori.share(np.arange(COUNT))
    shared[0] = 7
    mine = mori.writable(shared)
    mine[1] = 8
    assert mine[:2].tolist() == [7, 8]
    assert shared[:2].tolist() == [7, 1]
    assert mori.writable(5) == 5
    assert mori.writable([1, "a"]) == [1, "a"]


def test_it_keeps_the_region_and_lets_it_go(store: str) -> None:
    mine = mori.writable(mori.share(np.arange(COUNT)))
    gc.collect()
    assert int(mine.sum()) == sum(range(COUNT))
    del mine
