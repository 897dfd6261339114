"""What was opened of other libraries' and users' classes goes to other processes as a reference.

In all pickles of multiprocessing, concurrent.futures and joblib, while nobody has written to it; pickle
itself writes it as it always does.
"""

from __future__ import annotations

import collections
import copy
import copyreg
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker
from joblib.externals.loky.backend.reduction import dumps
from sklearn.ensemble import RandomForestRegressor

import mori
from mori.format.node import Node
from tests.kinds import KINDS, is_equal, look, shared
from tests.mori.classes import Fit
from tests.regions import region_of

OPENED = [
    *("a forest", "a counter", "an ordered dict", "a deque", "an array of numbers", "an object of a class"),
    *("a polars frame", "a polars series", "a table", "an array of Arrow's", "a sparse matrix", "a dataset"),
    "a tensor",
]


@pytest.fixture(autouse=True, scope="module")
def what_stays() -> None:
    """Start loky's process and polars' threads before a test is asked what it leaves behind."""
    resource_tracker.ensure_running()
    for name in OPENED:
        if KINDS[name].is_here():
            assert is_equal(name, shared(name))


@pytest.fixture(params=OPENED)
def name(request: pytest.FixtureRequest) -> str:
    if not KINDS[request.param].is_here():
        pytest.skip(f"{KINDS[request.param].library} is missing")
    return str(request.param)


def _seen(name: str, x: Any) -> tuple[bool, str | None, bool]:
    return mori.is_shared(x), mori.shared_name(x), look(name, x)[2]


def test_it_is_a_reference_for_a_pool_and_for_joblib(name: str) -> None:
    x = shared(name)
    assert len(ForkingPickler.dumps(x)) <= 200
    assert len(dumps(x)) <= 200
    expected = (True, mori.shared_name(x), True)
    assert expected[1] is not None
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(_seen, name, x).result() == expected
    pool = get_reusable_executor(1)
    try:
        assert pool.submit(_seen, name, x).result() == expected
    finally:
        pool.shutdown(wait=True)


def test_pickle_and_copies_carry_it_whole(name: str) -> None:
    x = shared(name)
    data = pickle.dumps(x, 5)
    assert not mori.is_shared(pickle.loads(data)) or len(data) < 1000  # of references to its arrays
    assert is_equal(name, pickle.loads(data))
    assert is_equal(name, copy.deepcopy(x))


def _append(x: Any) -> None:
    x.append("new")


WRITES: dict[str, tuple[Callable[[], Any], Callable[[Any], None], Callable[[Any], Any]]] = {
    "a counter": (
        lambda: collections.Counter(map(str, range(1000))),
        lambda x: x.update(["0"]),
        lambda x: x["0"],
    ),
    "a deque": (lambda: collections.deque(map(str, range(1000))), _append, lambda x: x[-1]),
    "an array inside": (
        lambda: Fit("fit", np.arange(1000.0)),
        lambda x: x.data.__setitem__(0, 7.0),
        lambda x: x.data[0],
    ),
}


@pytest.mark.parametrize("kind", WRITES)
def test_what_was_written_to_goes_by_value_and_carries_the_write(kind: str, worker: Any) -> None:
    make, write, read = WRITES[kind]
    x = mori.share(make())
    before = read(x)
    assert mori.is_shared(x)
    assert worker(read, x) == before
    write(x)
    assert read(x) != before
    assert not mori.is_shared(x)
    assert worker(read, x) == read(x)
    assert worker(mori.is_shared, x) is False


def test_a_forest_is_opened_once_to_see_that_it_reads_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random((200, 3))
    forest = RandomForestRegressor(5, random_state=0).fit(rows, rows.sum(1))
    x = mori.share(forest)
    opened: list[int] = []
    plain = Node.open
    monkeypatch.setattr(Node, "open", lambda node: (opened.append(node.offset), plain(node))[1])
    assert len(ForkingPickler.dumps(x)) <= 200
    once = len(opened)
    assert len(ForkingPickler.dumps(x)) <= 200
    assert len(opened) == once
    x.estimators_[0].max_depth = 7
    assert not mori.is_shared(x)
    assert pickle.loads(ForkingPickler.dumps(x)).estimators_[0].max_depth == 7


def test_with_another_attribute_it_carries_that_and_references_to_its_arrays(worker: Any) -> None:
    x = mori.share(Fit("fit", np.arange(10_000.0)))
    x.name = "new"
    assert mori.is_shared(x)
    assert len(ForkingPickler.dumps(x)) < 500
    assert worker(lambda x: (x.name, x.data[9], mori.is_shared(x.data)), x) == ("new", 9.0, True)


def test_what_takes_no_weak_reference_is_not_known_as_shared() -> None:
    plain = collections.defaultdict(list, {key: [key] for key in range(1000)})
    x = mori.share(plain)
    assert x == plain
    assert not mori.is_shared(x)


def test_small_objects_and_those_with_names_come_back_as_they_are() -> None:
    small = collections.Counter("abc")
    for obj in (small, mori.share, collections.Counter, small.update):
        assert mori.share(obj) == obj
        assert not mori.is_shared(obj)
    assert mori.share(small) is small


def test_objects_of_a_class_are_written_as_before_once_one_was_opened() -> None:
    import mori.adapters  # which tells all picklers

    fits = [Fit(str(number), number) for number in range(100)]
    before = region_of(fits)
    mori.share(Fit("fit", np.arange(1000.0)))
    assert Fit in copyreg.dispatch_table
    assert region_of(fits) == before
    assert pickle.loads(pickle.dumps(fits, 5)) == fits


@pytest.mark.filterwarnings("ignore::mori.ObjectColumnWarning")
def test_arrays_of_objects_in_frames_change_nothing_for_the_class_of_arrays() -> None:
    import mori.adapters

    shared = mori.share(pd.DataFrame({"o": [["a" * 100] for _ in range(1000)]}))
    assert np.ndarray not in copyreg.dispatch_table
    assert not mori.is_shared(shared["o"].to_numpy())
