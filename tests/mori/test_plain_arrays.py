"""Plain arrays over a region travel as references through multiprocessing, loky and joblib."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker

import mori
from tests.worker import settings

ROWS = 200_000  # joblib writes what has more than a megabyte to a file


@pytest.fixture(scope="module", autouse=True)
def tracker_of_loky() -> None:
    resource_tracker.ensure_running()


@pytest.fixture
def loky() -> Iterator[None]:
    yield
    get_reusable_executor().shutdown(wait=True)


def strided(array: Any) -> Any:
    return np.lib.stride_tricks.as_strided(array, (ROWS - 4, 5), (8, 8), writeable=False)


def interfaced(array: Any) -> Any:
    """Return an array over the same memory whose bases do not lead to the region."""

    class Memory:
        __array_interface__ = np.asarray(array).__array_interface__

    kept.append(array)
    return np.asarray(Memory())


kept: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    kept.clear()


def plain_arrays(shared: Any) -> list[Any]:
    array, frame = shared
    return [
        np.asarray(array),
        np.asarray(array)[10:20],
        np.asarray(array)[::-2],
        np.asarray(array).reshape(-1, 4).T,
        np.asarray(array).view("u1"),
        np.frombuffer(array),
        strided(np.asarray(array)),
        interfaced(array),
        interfaced(array)[5:],
        frame["f"].to_numpy(),
        frame["f"].to_numpy()[7:],
    ]


def make() -> Any:
    return mori.share(
        [np.arange(float(ROWS)), pd.DataFrame({"f": np.arange(ROWS) / 2, "i": np.arange(ROWS)})]
    )


def look(array: Any) -> tuple[bool, Any, int]:
    return mori.is_shared(array), np.asarray(array).ravel()[:3].tolist(), len(pickle.dumps(array))


def assert_references(looks: list[Any], arrays: list[Any]) -> None:
    for (is_shared, first, nbytes), array in zip(looks, arrays, strict=True):
        assert is_shared
        assert first == array.ravel()[:3].tolist()
        assert nbytes <= 160


def set_up(values: dict[str, str]) -> None:
    import os

    os.environ.update(values)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_carries_them_as_references_both_ways(store, method):
    arrays = plain_arrays(make())
    assert all(type(array) is np.ndarray for array in arrays)
    with multiprocessing.get_context(method).Pool(1, initializer=set_up, initargs=(settings(),)) as pool:
        assert_references(pool.map(look, arrays), arrays)
        assert mori.is_shared(pool.apply(np.asarray, (mori.share(np.arange(9)),)))
        pool.close()
        pool.join()


def class_of(x):
    return type(x)


def test_joblib_carries_them_as_references_and_writes_neither_them_nor_shared_arrays_to_files(
    store, loky, tmp_path
):
    shared = make()
    arrays = [*plain_arrays(shared), shared[0], shared[0][3:]]
    for options in ({}, {"max_nbytes": None}, {"max_nbytes": 1}):
        run = joblib.Parallel(n_jobs=2, temp_folder=str(tmp_path), **options)
        assert_references(run(joblib.delayed(look)(array) for array in arrays), arrays)
    private = np.arange(float(ROWS))
    run = joblib.Parallel(n_jobs=2, temp_folder=str(tmp_path))
    assert run([joblib.delayed(class_of)(private)]) == [np.memmap]  # as ever


def test_loky_alone_carries_them_as_references(store, loky):
    arrays = plain_arrays(make())
    executor = get_reusable_executor(max_workers=1)
    assert_references([executor.submit(look, array).result() for array in arrays], arrays)
    assert executor.submit(type, np.arange(ROWS)).result() is np.ndarray


def test_what_arrives_can_be_written_to_and_the_write_stays_there(store):
    shared = mori.share(np.arange(5))
    arrived = pickle.loads(ForkingPickler.dumps(np.asarray(shared)))
    arrived[0] = 9
    assert arrived.tolist() == [9, 1, 2, 3, 4]
    assert shared.tolist() == [0, 1, 2, 3, 4]


PRIVATE = {
    "numbers": lambda: np.arange(10.0),
    "slice": lambda: np.arange(100)[5:50:3],
    "F": lambda: np.ones((3, 4), order="F"),
    "objects": lambda: np.array([1, "a", None], object),
    "structured": lambda: np.zeros(3, "i4,f8"),
    "empty": lambda: np.zeros((0, 3)),
    "of bytes": lambda: np.frombuffer(b"12345678"),
    "of a bytearray": lambda: np.frombuffer(bytearray(b"12345678")),
    "strides": lambda: np.lib.stride_tricks.as_strided(np.arange(9), (3, 3), (8, 8)),
    "empty one of a region": lambda: np.asarray(mori.share(np.arange(9)))[:0],
    "list of arrays": lambda: [np.arange(3), np.arange(3.0)],
}


@pytest.mark.parametrize("name", PRIVATE)
def test_private_arrays_pickle_to_the_very_bytes_that_they_pickled_to_before(name):
    mori.share(np.arange(3))
    array = PRIVATE[name]()
    assert bytes(ForkingPickler.dumps(array)) == pickle.dumps(array)


def test_a_view_that_reaches_over_two_arrays_of_a_region_goes_by_value():
    shared = mori.share([np.arange(8.0), np.arange(8.0) + 8])
    first = shared[0]
    gap = shared[1].__array_interface__["data"][0] - first.__array_interface__["data"][0]
    over_both = np.lib.stride_tricks.as_strided(np.asarray(first), (2, 8), (gap, 8), writeable=False)
    arrived = pickle.loads(ForkingPickler.dumps(over_both))
    assert type(arrived) is np.ndarray
    assert arrived.tolist() == [[*range(8)], [*range(8, 16)]]


def test_by_value_carries_the_elements():
    array = np.asarray(mori.share(np.arange(1000)))
    with mori.by_value():
        data = bytes(ForkingPickler.dumps(array))
    assert data == pickle.dumps(array)
    assert len(data) > 8000


def test_the_picklers_of_others_and_of_processes_that_share_nothing_are_left_alone():
    code = """
import sys, mori, numpy as np
assert "multiprocessing" not in sys.modules
import multiprocessing.reduction as reduction
assert np.ndarray not in reduction.ForkingPickler._extra_reducers
shared = mori.share(np.arange(3))
assert np.ndarray in reduction.ForkingPickler._extra_reducers
import pickle, copyreg
assert np.ndarray not in copyreg.dispatch_table
assert type(pickle.loads(pickle.dumps(np.asarray(shared)))) is np.ndarray
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
