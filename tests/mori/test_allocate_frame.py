"""A frame is filled in place, in shared memory or in a file, and sealed without a copy."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

import mori
from tests.fresh import run_python

COLUMNS = {"a": "f8", "b": "i4", "t": "M8[ns]", "c": "?"}


def fill(frame: mori.AllocatedFrame) -> pd.DataFrame:
    frame["a"][:] = np.arange(1000)
    frame["b"][5:] += 7
    frame["t"][:] = np.datetime64("2020-01-01")
    frame["c"][::2] = True
    return pd.DataFrame({name: column.copy() for name, column in frame.items()})


@pytest.mark.each_store
def test_a_frame_is_filled_in_place_and_shared(store, worker):
    with mori.allocate(COLUMNS, rows=1000) as frame:
        assert [*frame] == [*COLUMNS]
        assert not frame["a"].any()
        expected = fill(frame)
        x = frame.share()
        assert frame.share() is x
    pd.testing.assert_frame_equal(mori.materialize(x), expected)
    assert mori.is_shared(x)
    assert worker(lambda x: (float(x["a"].sum()), mori.is_shared(x)), x) == (499_500.0, True)
    with pytest.raises(ValueError, match="read-only"):
        frame["a"][0] = 1


def test_a_frame_becomes_a_file(tmp_path, worker):
    path = tmp_path / "x.mori"
    mori.save([1], path)
    with mori.allocate(COLUMNS, rows=1000, path=path) as frame:
        expected = fill(frame)
        assert mori.load(path) == [1]
        x = frame.share()
    pd.testing.assert_frame_equal(mori.materialize(mori.load(path, verify=True)), expected)
    assert mori.shared_name(x) == f"file:{path}"
    assert worker(lambda x: float(x["a"].sum()), x) == 499_500.0
    assert os.listdir(tmp_path) == ["x.mori"]


def test_an_array_becomes_a_file(tmp_path):
    path = tmp_path / "x.mori"
    with mori.allocate((3, 4), "i8", path=path) as array:
        array[...] = 2
        view = array[0]
        x = array.share()
    view[0] = 9  # which is this process's alone
    assert (int(x.sum()), int(mori.load(path, verify=True).sum())) == (24, 24)


def test_a_block_that_is_left_gives_all_back(tmp_path):
    for path in (None, tmp_path / "x.mori"):
        with mori.allocate(COLUMNS, rows=1000, path=path) as frame:
            column = frame["a"]
            column[:] = 1
        assert not column.any()
        with pytest.raises(ValueError, match="was left without share"):
            frame.share()
    assert os.listdir(tmp_path) == []


def test_nothing_of_it_is_in_private_memory():
    code = """
        import mori, numpy as np
        def private():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1000
        mori.allocate({"a": "f8"}, rows=10)
        before = private()
        with mori.allocate({"a": "f8", "b": "f8"}, rows=10_000_000) as frame:
            for start in range(0, 10_000_000, 100_000):
                frame["a"][start : start + 100_000] = start
            x = frame.share()
        print(int(private() - before))
    """
    assert int(run_python(code)) < 16  # of 160


def test_what_cannot_be_allocated_says_why(tmp_path):
    with pytest.raises(TypeError, match="stream of Arrow"):
        mori.allocate({"name": "str"}, rows=3)
    with pytest.raises(TypeError, match="'o'"):
        mori.allocate({"a": "f8", "o": object}, rows=3, path=tmp_path / "x")
    with pytest.raises(ValueError, match="rows=None"):
        mori.allocate({"a": "f8"})  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError):
        mori.allocate({"a": "f8"}, rows=3, path=tmp_path / "none" / "x")
    assert os.listdir(tmp_path) == []
