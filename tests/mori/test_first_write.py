"""The first write to a large array costs the pages that it touches, and is a write like any other."""

from __future__ import annotations

import gc
import pickle
import sys
import weakref
from typing import Any

import numpy as np
import pytest

import mori
from mori.objects import array_memory
from tests.worker import Worker

COUNT = 8_000_000


def _anonymous_kb() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous"))


def test_numpys_structure_is_as_expected() -> None:
    assert array_memory.FIELDS_ARE_KNOWN


@pytest.mark.each_store
@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/smaps_rollup is missing on this system")
def test_it_copies_a_page_and_nobody_else_sees_it(store: str, worker: Worker) -> None:
    plain = np.arange(float(COUNT))
    shared, small = mori.share(plain), mori.share(np.zeros(100_000))
    small[0] = 1
    name = mori.shared_name(shared)
    before, row = shared[10:20], shared.reshape(1000, -1)[0]
    used = _anonymous_kb()
    shared[12] = -1
    assert _anonymous_kb() - used < 500  # of 64,000
    assert shared.flags.writeable
    assert shared[12] == -1
    assert before[2] == row[12] == 12
    assert not mori.is_shared(shared)
    other = mori.map_shared(name)
    assert np.array_equal(other, plain)
    assert worker(lambda name: float(mori.map_shared(name)[12]), name) == 12
    assert worker(lambda x: (type(x).__name__, float(x[12]), float(x[13])), shared) == ("ndarray", -1, 13)
    back = pickle.loads(pickle.dumps(shared))
    assert type(back) is np.ndarray
    assert back[12] == -1
    del back, other, before, row
    shared += 1
    assert shared[12] == 0
    assert shared[-1] == COUNT


@pytest.mark.parametrize("order", ["C", "F"])
def test_shape_order_dtype_and_offset_stay(order: str) -> None:
    plain = np.asarray(np.arange(600_000, dtype=">i4").reshape(1000, 600), order=order)
    shared = mori.share({"before": np.ones(3000), "x": plain})["x"]
    shared[3, 4] = -7
    expected = plain.copy(order="K")
    expected[3, 4] = -7
    assert np.array_equal(shared, expected)
    assert shared.dtype == plain.dtype
    assert shared.strides == plain.strides
    shared.sort(axis=0)
    expected.sort(axis=0)
    assert np.array_equal(shared, expected)


def test_afterwards_the_array_is_resized_sorted_and_viewed_as_any_other() -> None:
    shared = mori.share(np.arange(100_000))
    shared[0] = 5
    view = shared[:3]
    assert type(view) is np.ndarray
    view[1] = 6
    assert shared[:3].tolist() == [5, 6, 2]
    del view
    shared.resize(200_000)
    assert shared[:3].tolist() == [5, 6, 2]
    assert not shared[100_000:].any()


def test_the_region_is_let_go_with_the_array(wait: Any) -> None:
    shared = mori.share(np.arange(100_000))
    name = mori.shared_name(shared)
    shared[0] = 5
    del shared
    gc.collect()
    wait(lambda: name not in [entry.name for entry in mori.regions()])


def test_many_arrays_are_written_to(store: str) -> None:
    shared = mori.share([np.full(40_000, i) for i in range(50)])
    arrays = list(shared)
    for i, array in enumerate(arrays):
        array[1] = -i
    assert [int(array[1]) for array in arrays] == [-i for i in range(50)]
    assert [int(array[0]) for array in arrays] == list(range(50))
    assert [int(array[1]) for array in shared] == [-i for i in range(50)]


def test_where_nothing_more_can_be_mapped_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> Any:
        raise OSError(12, "no memory")

    for name, value in (("writable", refuse), ("FIELDS_ARE_KNOWN", False)):
        shared = mori.share(np.arange(100_000))
        monkeypatch.setattr(array_memory, name, value)
        shared[0] = 5
        assert shared[:2].tolist() == [5, 1]
        assert isinstance(shared.base, bytes)  # not pages
        monkeypatch.undo()


@pytest.mark.parametrize("length", [300, 300_000])
@pytest.mark.parametrize("step", [1, 3, -1])
def test_a_loop_over_an_array_sees_what_is_written_in_it(length: int, step: int) -> None:
    plain, shared = np.arange(length), mori.share(np.arange(length))
    if step != 1:
        plain, shared = plain[::step], pickle.loads(pickle.dumps(shared[::step]))
    seen = [[], []]
    for array, found in ((plain, seen[0]), (shared, seen[1])):
        for place, value in enumerate(array):
            if place == 5:
                array[7] = -1
            found.append(value)
    assert seen[0] == seen[1]
    assert seen[1][7] == -1
    assert type(seen[1][0]) is np.int64


def test_loops_over_an_array_keep_its_memory_and_leak_none_of_it() -> None:
    shared = mori.share(np.arange(300_000.0))
    loops = [iter(shared) for _ in range(3)]
    assert [next(loop) for loop in loops] == [0.0] * 3
    shared[1] = 7
    gone = weakref.ref(shared)
    del shared
    assert [next(loop) for loop in loops] == [7.0] * 3
    assert sum(loops[0]) == 299_999 * 150_000.0 - 1
    del loops
    assert gone() is None
