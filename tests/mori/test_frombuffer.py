"""`frombuffer`: a region in any buffer is opened where it lies, and junk is refused."""

from __future__ import annotations

import gc
import mmap
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from mori.memory import mapping as mappings
from tests import stored
from tests.mori.pandas_versions import NAN_STRINGS


def _region(obj: Any) -> bytes:
    """Return the region of an object, as the docstring says that one gets it."""
    buffers: list[pickle.PickleBuffer] = []
    shared = mori.share(obj)
    with mori.by_value():
        pickle.dumps(shared, 5, buffer_callback=buffers.append)
    (buffer,) = buffers
    return bytes(buffer)


def _tree() -> dict[str, Any]:
    return {
        "x": np.arange(1000.0),
        "f": pd.DataFrame({"s": pd.array(["a", None], NAN_STRINGS)}),
        "n": [1, "two"],
    }


def test_a_region_is_opened_where_it_lies() -> None:
    data = np.frombuffer(_region(_tree()), np.uint8).copy()
    opened = mori.frombuffer(data)
    array = opened["x"]
    start, address = data.ctypes.data, array.__array_interface__["data"][0]
    assert start < address < start + data.nbytes
    assert not mori.is_shared(opened)
    assert mori.shared_name(array) is None
    assert array.tolist() == [*range(1000)]
    pdt.assert_frame_equal(pd.DataFrame(opened["f"]), _tree()["f"])
    assert opened["n"] == [1, "two"]
    with pytest.raises((ValueError, mori.ReadOnlyViewError)):
        array[5:][0] = 1
    del data, opened
    gc.collect()
    assert array.sum() == 499500  # the buffer is kept
    again = pickle.loads(pickle.dumps(array))
    assert again.tolist() == [*range(1000)]
    assert mappings.live() == []


@pytest.mark.parametrize("shift", range(9))
def test_a_buffer_need_not_be_aligned_and_may_go_on(shift: int) -> None:
    data = bytes(shift) + _region(_tree()) + b"more"
    assert mori.frombuffer(memoryview(data)[shift:])["x"].sum() == 499500


def test_files_are_opened_through_mmap(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(_region(_tree()))
    with open(tmp_path / "r", "rb") as file:
        opened = mori.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    assert opened["x"].sum() == 499500


def test_a_file_of_the_store_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path / 'store'}")
    shared = mori.share(_tree())
    (path,) = stored.home().iterdir()
    assert mori.frombuffer(path.read_bytes())["n"] == shared["n"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, "<u4")])
def test_whatever_exports_a_buffer_will_do(kind: Any) -> None:
    data = _region(np.arange(10))
    assert mori.frombuffer(kind(data + bytes(-len(data) % 4))).tolist() == [*range(10)]


@pytest.mark.parametrize(
    "junk",
    [
        *(b"", b"x", bytes(64), bytes(10_000), b"mori\r\n\x1a\n" + bytes(1000)),
        memoryview(bytes(1000))[::2],
        _region(np.arange(1000))[:-1],
        _region(np.arange(1000))[1:],
        _region(np.arange(1000))[:70],
    ],
    ids=lambda junk: f"{len(junk)}",
)
def test_junk_is_refused(junk: Any) -> None:
    with pytest.raises(mori.CorruptRegionError):
        mori.frombuffer(junk)


@pytest.mark.parametrize("other", [None, "text", 5, [1, 2]])
def test_what_is_no_buffer_is_a_type_error(other: Any) -> None:
    with pytest.raises(TypeError):
        mori.frombuffer(other)
