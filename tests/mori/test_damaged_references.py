"""Damaged references and files: an error, or what was meant; never a hang or a crash."""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.format import writer
from mori.format.plan import measure
from mori.memory import lease
from mori.memory import mapping as mappings
from mori.objects.array import SharedArray
from mori.store import base
from mori.wire import reference
from mori.wire.lost import Lost
from mori.wire.transport import use_transport
from tests import stored
from tests.mori.damage import is_printable
from tests.mori.pandas_versions import NAN_STRINGS

_hundreds = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A files store in a directory of its own."""
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    monkeypatch.setenv("MORI_GRACE", "0")
    home = stored.home(tmp_path)
    home.mkdir(0o700)
    yield home
    for path in home.iterdir():  # what the test put there is no region of mori's, and nobody's to remove
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _payload(obj: Any) -> bytes:
    with use_transport("reference"):
        reduce = copyreg.dispatch_table.get(type(obj), lambda x: x.__reduce_ex__(5))
        function, (payload,) = reduce(obj)
    assert function is reference.load
    return bytes(payload)


@pytest.fixture(params=["memfd", "files"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        where = "memfd" if request.param == "memfd" else f"files:{tmp_path}"
        patch.setenv("MORI_STORE", where)
        patch.setenv("MORI_GRACE", "0")
        array = mori.share(np.arange(1000.0).reshape(20, 50))
        frame = mori.share(pd.DataFrame({"i": np.arange(9), "s": pd.array(list("abcdefghi"), NAN_STRINGS)}))
        nest = mori.share({"a": [*range(1000)], "b": (1, 2)})
        yield {
            "array": array,
            "slice": array[3:7, ::-2],
            "transposed": array.T,
            "retyped": array.view("<i8")[2:],
            "frame": frame,
            "strings": frame["s"].array[2:5],
            "nest": nest,
            "inner": nest["a"],
        }
        del array, frame, nest
        lease.expire_graces()


_byte_bounds: Any = getattr(np.lib, "array_utils", np).byte_bounds  # moved there by numpy 2


def stays_inside(got: Any) -> None:
    """Read what a reference gave; an array may not reach beyond its region."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(got, SharedArray) and got.dtype.hasobject:  # rebuilt, in memory of its own
            got.tolist()
        elif isinstance(got, SharedArray):
            mapping = mappings.held_by(got)
            assert mapping is not None
            low, high = _byte_bounds(got)
            assert mapping.address <= low <= high <= mapping.address + mapping.nbytes
            if got.size < 1 << 16 and is_printable(got):  # a stride of 0 may repeat an element at will
                got.tolist()
        else:
            repr(got)


@_hundreds
@given(st.data())
def test_a_damaged_reference_is_refused_or_stays_inside_its_region(
    shared: dict[str, Any], data: st.DataObject
) -> None:
    payload = bytearray(_payload(shared[data.draw(st.sampled_from(sorted(shared)))]))
    for _ in range(data.draw(st.integers(1, 3))):
        # Behind the id, mostly: another id is another region.
        place = data.draw(
            st.one_of(st.just(0), st.integers(17, len(payload) - 1), st.integers(29, len(payload) - 1))
        )
        payload[place] = data.draw(st.one_of(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), st.integers(0, 255)))
    size = data.draw(st.one_of(st.just(len(payload)), st.integers(0, len(payload))))
    with contextlib.suppress(mori.MoriError):
        stays_inside(reference.load(bytes(payload[:size])))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2**32 + 1,), (2**32,)),
        ((2,), (2**62,)),
        ((2,), (-(2**62),)),
        ((-1,), (8,)),
        ((2**40,), (8,)),
        ((1001,), (8,)),
    ],
)
def test_a_view_that_leaves_its_node_is_refused(
    shared: dict[str, Any], shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    whole = _payload(shared["array"])
    tail = struct.pack("<qB", 0, 1) + b"q" + struct.pack("<2q", *shape, *strides)
    with pytest.raises(mori.CorruptRegionError, match="leaves it"):
        reference.load(bytes([whole[0] | 0x10]) + whole[1:] + tail)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(200), b"\xff" * 41, None, 7, "text"])
def test_what_is_no_reference_is_refused(payload: Any) -> None:
    with pytest.raises(mori.MoriError):
        reference.load(payload)


def test_a_node_inside_an_arrays_elements_is_none(shared: dict[str, Any]) -> None:
    inner = mori.share(np.arange(3))
    mapping = mappings.held_by(inner)
    assert mapping is not None
    outer = mori.share(np.array(mapping.bytes()))  # the bytes of a region, a root node among them
    whole = _payload(outer)
    start = mappings.held_by(outer).nbytes - outer.nbytes  # type: ignore[union-attr]
    with pytest.raises(mori.CorruptRegionError):
        reference.load(whole[:-8] + struct.pack("<Q", start + 64))


@pytest.mark.parametrize("buffer", [b"", b"x" * 500, None, memoryview(bytes(100))[::2]])
def test_what_came_by_value_and_is_no_region_is_refused(buffer: Any) -> None:
    with pytest.raises((mori.CorruptRegionError, TypeError, BufferError)):
        reference.receive(buffer)


def test_a_lost_object_survives_pickle() -> None:
    lost = Lost(mori.CorruptRegionError(name="x", found="y"))
    with pytest.raises(mori.CorruptRegionError):
        pickle.loads(pickle.dumps(lost))[0]


# files


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(nbytes: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, nbytes)


def _write(offset: int, data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    return damage


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        pytest.param(_cut(0), mori.CorruptRegionError, id="emptied"),
        pytest.param(_cut(63), mori.CorruptRegionError, id="cut in the header"),
        pytest.param(_cut(4000), mori.CorruptRegionError, id="cut in the data"),
        pytest.param(_cut(1 << 20), mori.CorruptRegionError, id="grown"),
        pytest.param(_write(8, b"\x02"), mori.CorruptRegionError, id="of another version"),
        pytest.param(_write(32, b"\xff" * 8), mori.CorruptRegionError, id="of another length"),
        pytest.param(_write(70, b"\xff"), mori.CorruptRegionError, id="with another record"),
        pytest.param(lambda path: path.chmod(0o644), mori.UnsafeRegionError, id="readable by others"),
        pytest.param(_replace_by_link, mori.UnsafeRegionError, id="a symlink"),
        pytest.param(_replace_by_fifo, mori.UnsafeRegionError, id="a FIFO"),
        pytest.param(_replace_by_directory, mori.UnsafeRegionError, id="a directory"),
    ],
)
def test_a_damaged_file_is_refused(
    files: Path, damage: Callable[[Path], None], error: type[Exception]
) -> None:
    path = _plant(files)
    damage(path)
    with pytest.raises(error):
        mori.map_shared("/mori_7_1")
    assert (7, 1) not in [mapping.name[:2] for mapping in mappings.live()]


def test_a_reference_to_a_damaged_file_is_refused(files: Path) -> None:
    payload = struct.pack("<B16sIIIIQ", 1, bytes(range(16)), 7, 1, 0, 0, 64)
    _plant(files)
    assert int(reference.load(payload)[999]) == 999
    _cut(100)(_plant(files))
    with pytest.raises(mori.CorruptRegionError):
        reference.load(payload)
    _replace_by_fifo(_plant(files))
    with pytest.raises(mori.UnsafeRegionError):
        reference.load(payload)


def test_a_region_under_anothers_name_is_refused(files: Path) -> None:
    _plant(files, pid=8)
    with pytest.raises(mori.CorruptRegionError, match="says that it is /mori_8_1"):
        mori.map_shared("/mori_7_1")


def test_one_file_that_says_it_is_a_segment_is_refused(files: Path) -> None:
    _plant(files, segment_nbytes=4096)
    with pytest.raises(mori.CorruptRegionError, match="segments of 4096 bytes, it has one file"):
        mori.map_shared("/mori_7_1")


def _plant(files: Path, **fields: int) -> Path:
    """Write the file of a region that no process holds."""
    plan = measure(np.arange(1000))
    header = base.Header(bytes(range(16)), writer.region_nbytes(plan), writer.ROOT, 7, 1, 0)
    path = files / "mori_7_1"
    path.write_bytes(writer.to_bytes(plan, header._replace(**fields)))
    path.chmod(0o600)
    return path
