"""A local write takes the memory of the columns that it touches; threads that write do not meet.

The memory is measured in a process of its own for each way to write: it maps a frame of ten columns, writes,
and prints what its private memory grew by.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from tests.mori.test_memory import _name, _run

pytestmark = pytest.mark.each_store

MB = 1 << 20
ROWS = 1_000_000
COLUMN = ROWS * 8
NAMES = "abcdefghij"

_WRITE = """
import contextlib, ctypes, warnings
warnings.simplefilter("ignore")  # pandas 2 warns of what pandas 3 does not
WAYS = {
    "loc": lambda x: x.loc.__setitem__((5, "c"), -1.0),
    "loc of rows": lambda x: x.loc.__setitem__((slice(5, 500_000), "c"), -1.0),
    "iloc": lambda x: x.iloc.__setitem__((5, 2), -1.0),
    "at": lambda x: x.at.__setitem__((5, "c"), -1.0),
    "iat": lambda x: x.iat.__setitem__((5, 2), -1.0),
    "[]": lambda x: x.__setitem__("c", np.full(len(x), -1.0)),
    "+=": lambda x: x.__setitem__("c", x["c"].__iadd__(1)),
    "insert": lambda x: x.insert(3, "new", np.full(len(x), -1.0)),
    "pop": lambda x: x.pop("c"),
    "drop": lambda x: x.drop(columns="c", inplace=True),
    "fillna": lambda x: x.fillna({"c": -1.0}, inplace=True),
    "sort_values": lambda x: x.sort_values("c", ascending=False, inplace=True),
}
def warm(how):
    x = mori.map_shared(sys.argv[1])
    how(x)
how = WAYS[sys.argv[3]]
warm(how)
x = mori.map_shared(sys.argv[2])
gc.collect(); gc.disable()
before = private()
how(x)
gc.collect()
with contextlib.suppress(AttributeError):  # of glibc: give back what is free
    ctypes.CDLL(None).malloc_trim(0)
grown = private() - before
names = [str(name) for name in x if mori.is_shared(x[name])]
report(grown=grown, shared="".join(names), total=float(sum(x[name].iloc[5] for name in x)))
"""

# How many columns a way to write makes private, and those that stay shared.
WAYS = {
    **dict.fromkeys(["loc", "loc of rows", "iloc", "at", "iat", "[]", "+=", "fillna"], (1, "abdefghij")),
    "insert": (1, NAMES),
    "pop": (0, "abdefghij"),
    # pandas 2 copies what it keeps.
    "drop": (0, "abdefghij") if pd.__version__ >= "3" else (9, ""),
    "sort_values": (11, ""),  # and the index
}


@pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps_rollup"), reason="/proc/self/smaps_rollup is missing on this system"
)
@pytest.mark.parametrize("how", WAYS)
def test_a_write_takes_the_memory_of_the_columns_that_it_touches(how: str) -> None:
    def made(rows: int) -> pd.DataFrame:
        values = np.arange(rows * 10.0).reshape(rows, 10)
        values[7, 2] = np.nan
        return pd.DataFrame(values.T.copy().T, columns=list(NAMES))

    small, large = mori.share(made(1000 if how != "loc of rows" else 600_000)), mori.share(made(ROWS))
    found = _run(_WRITE, _name(small), _name(large), how)
    columns, still = WAYS[how]
    assert found["shared"] == still
    assert found["grown"] <= columns * COLUMN + 2 * MB
    assert found["grown"] >= columns * COLUMN - 2 * MB
    pdt.assert_frame_equal(large, made(ROWS))


ROUNDS = 300


def test_two_threads_write_each_to_a_frame_of_its_own_over_one_region(store: str) -> None:
    plain = pd.DataFrame({"a": np.arange(1000), "b": np.arange(1000.0), "c": np.zeros(1000)})
    shared = mori.share(plain)
    name, gate = mori.shared_name(shared), threading.Barrier(2)

    def write(number: int) -> pd.DataFrame:
        frame = mori.map_shared(name)
        gate.wait()
        for i in range(ROUNDS):
            frame.loc[i, "b"] = -float(number)
            frame.iloc[i, 0] = number
            frame[f"new {i % 5}"] = number
        return frame

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        frames = list(threads.map(write, (1, 2)))
    for number, frame in enumerate(frames, 1):
        expected = plain.copy()
        expected.loc[: ROUNDS - 1, "b"] = -float(number)
        expected.loc[: ROUNDS - 1, "a"] = number
        for place in range(5):
            expected[f"new {place}"] = number
        pdt.assert_frame_equal(frame, expected)
        assert mori.is_shared(frame["c"])
    pdt.assert_frame_equal(shared, plain)
    pdt.assert_frame_equal(mori.map_shared(name), plain)


def test_two_threads_that_write_to_one_frame_leave_what_one_of_them_wrote(store: str) -> None:
    plain = pd.DataFrame({"a": np.arange(1000), "b": np.zeros(1000), "c": np.zeros(1000)})
    shared = mori.share(plain)
    name, gate = mori.shared_name(shared), threading.Barrier(2)

    def write(number: int) -> None:
        gate.wait()
        for i in range(ROUNDS):
            shared.loc[i, "b"] = float(number)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(write, (1, 2)))
    shared.loc[0, "b"] = 7.0  # the last write
    # Both may copy the column at once, and one of the copies is lost with what was written to it till then.
    assert set(shared["b"]) <= {0.0, 1.0, 2.0, 7.0}
    assert shared.loc[0, "b"] == 7.0
    assert (shared.loc[ROUNDS - 1, "b"]) in (1.0, 2.0)
    assert (shared["b"].iloc[ROUNDS:] == 0).all()
    assert mori.is_shared(shared["a"])
    pdt.assert_frame_equal(shared[["a", "c"]], plain[["a", "c"]])
    pdt.assert_frame_equal(mori.map_shared(name), plain)
