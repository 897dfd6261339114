"""`allocate`: what is written to it is shared without a copy, and a write after that harms nobody."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import numpy as np
import pytest

import mori
from mori import store as stores
from mori.memory import mapping as mappings

pytestmark = pytest.mark.each_store


def _mine() -> list[str]:
    """Return what lies in the store of this process, unfinished regions included."""
    names = [entry.name for entry in stores.current().entries()]
    return [name for name in names if name.startswith(f"/mori_{os.getpid():x}_")]


def _inode(address: int) -> int:
    """Return the inode of the file that an address is mapped from."""
    with open("/proc/self/maps", encoding="ascii") as lines:
        for line in lines:
            span, _, _, _, inode, *_ = line.split()
            first, last = (int(end, 16) for end in span.split("-"))
            if first <= address < last:
                return int(inode)
    raise AssertionError(f"{address:x} is not mapped")


def _address(array: Any) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize(
    ("shape", "dtype", "order"),
    [
        (1000, "f8", "C"),
        ((30, 40), "i4", "F"),
        ((), "c16", "C"),
        ((0, 3), "f4", "C"),
        ((2, 3, 4), [("a", "i2"), ("b", "S3", 2)], "C"),
        ((5,), "M8[s]", "C"),
        (np.int64(7), "U5", "C"),
        ((2,), ("f8", (3,)), "C"),
        ([4, 4], bool, "C"),
    ],
    ids=str,
)
def test_what_is_written_is_what_is_shared(
    store: str, worker: Any, shape: Any, dtype: Any, order: str
) -> None:
    expected = np.zeros(shape, dtype, order)  # type: ignore[call-overload]
    with mori.allocate(shape, dtype, order=order) as a:
        assert (a.shape, a.dtype) == (expected.shape, expected.dtype)
        assert a.strides == expected.strides or not a.size
        assert a.tobytes() == expected.tobytes()
        pattern = np.random.default_rng(1).integers(0, 100, expected.nbytes, np.uint8).tobytes()
        expected = np.frombuffer(pattern, expected.dtype).reshape(expected.shape, order=order)  # type: ignore[call-overload]
        a[...] = expected
        x = a.share()
    assert type(x) is mori.SharedArray
    assert mori.is_shared(x)
    assert mori.share(x) is x
    assert a.share() is x
    assert (x.dtype, x.shape) == (expected.dtype, expected.shape)
    assert x.strides == expected.strides or not x.size
    assert x.tobytes() == expected.tobytes()
    assert worker(lambda x: (mori.is_shared(x), x.tobytes()), x) == (True, expected.tobytes())


def test_nothing_is_copied(store: str) -> None:
    with mori.allocate(1 << 20, "u1") as a:
        a[...] = 7
        inode = _inode(_address(a))
        x = a.share()
    assert _inode(_address(x)) == inode
    assert _inode(_address(a)) == inode


def test_a_write_after_share_is_an_error_or_stays_here(store: str, worker: Any) -> None:
    with mori.allocate((100, 100), "i8") as a:
        row, column, plain = a[5], a[:, 3], a.view(np.ndarray)
        a[...] = 1
        x = a.share()
        with pytest.raises(ValueError, match="read-only"):
            a[0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        a += 1
    row[...] = 2
    column[...] = 3
    plain[50] = 4
    assert (row[0], column[0], plain[50, 0]) == (2, 3, 4)
    assert (x == 1).all()
    assert worker(lambda x: bool((x == 1).all()), x)
    assert mori.materialize(x).sum() == 10_000
    view = memoryview(plain)
    del a, plain, row, column
    gc.collect()
    assert view[5, 0] == 2


def test_leaving_the_block_without_share_gives_the_memory_back(store: str) -> None:
    before = _in_use()
    with mori.allocate(1 << 22, "u1") as a:
        a[...] = 1
        view = a[10:20]
        assert _in_use() - before >= 1 << 22
    assert _in_use() - before < 1 << 20
    assert a.shape == (0,)
    assert view.tolist() == [0] * 10
    view[0] = 1
    with pytest.raises(ValueError, match="given back"):
        a.share()
    assert _mine() == []


def _in_use() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024


def test_an_exception_gives_it_back_too(store: str) -> None:
    with pytest.raises(ZeroDivisionError), mori.allocate(1000) as a:  # noqa: PT012
        a[...] = 1
        raise ZeroDivisionError
    assert a.size == 0
    assert mappings.live() == []


def test_one_that_is_dropped_is_freed(store: str) -> None:
    a = mori.allocate(1000)
    part = a[3:5]
    a[4] = 5
    del a
    gc.collect()
    assert part.tolist() == [0, 5]
    with pytest.raises(AttributeError):
        part.share()


def test_nobody_can_open_it_before_it_is_shared(store: str, worker: Any) -> None:
    last = int(mori.shared_name(mori.share(np.zeros(3))).rpartition("_")[2], 16)  # type: ignore[union-attr]
    a = mori.allocate(1000)
    name = f"/mori_{os.getpid():x}_{last + 1:x}"

    def is_there(name: str) -> bool:
        try:
            return mori.map_shared(name) is not None
        except mori.RegionNotFoundError:
            return False

    assert not worker(is_there, name)
    x = a.share()
    assert mori.shared_name(x) == name
    assert worker(is_there, name)


def test_what_cannot_be_allocated_is_said(store: str) -> None:
    for dtype in (
        object,
        [("a", object)],
        *([np.dtypes.StringDType()] if hasattr(np.dtypes, "StringDType") else []),
    ):
        with pytest.raises(TypeError, match="no plain bytes"):
            mori.allocate(3, dtype)
    for shape in (-1, (3, -2)):
        with pytest.raises(ValueError, match="negative"):
            mori.allocate(shape)
    with pytest.raises(ValueError, match="order"):
        mori.allocate(3, order="K")
    with pytest.raises((TypeError, ValueError)):
        mori.allocate((1,) * 99)
    with pytest.raises(TypeError):
        mori.allocate(2.5)  # type: ignore[arg-type]
    for shape in (1 << 50, (1 << 40, 1 << 40), (1 << 62,)):
        with pytest.raises(mori.StoreFullError) as caught:
            mori.allocate(shape)
        assert caught.value.asked > 1 << 50
    assert _mine() == []


def test_results_and_pickles_are_plain_arrays() -> None:
    with mori.allocate(100) as a:
        assert type(a + 1) is np.ndarray
        assert type(a[3:]) is np.ndarray
        assert a.sum() == 0
        np.add(a, 2, out=a)
        assert type(a) is mori.AllocatedArray
        arrived = pickle.loads(pickle.dumps(a))
        assert type(arrived) is np.ndarray
        assert arrived.tolist() == [2.0] * 100


def test_children_may_fill_it(store: str) -> None:
    with mori.allocate(1000, "i8") as a:
        if (child := os.fork()) == 0:
            a[:500] = 7
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        a[500:] = 8
        inode = _inode(_address(a))
        x = a.share()
        assert (x.tolist(), _inode(_address(x))) == ([7] * 500 + [8] * 500, inode)


def test_a_child_that_could_still_write_costs_a_copy_and_cannot_write(store: str) -> None:
    with mori.allocate(1000, "i8") as a:
        a[...] = 5
        ours, theirs = os.pipe()
        if (child := os.fork()) == 0:
            os.close(theirs)
            os.read(ours, 1)
            a[...] = 6
            os._exit(0)
        x = a.share()
        os.close(theirs)
        os.close(ours)
        assert os.waitpid(child, 0)[1] == 0
    # Nothing seals a file.
    assert x.tolist() == [5 if stores.current().kind == stores.MEMFD else 6] * 1000
