"""bytes, bytearray and memoryview: mapped, and taken by whatever takes a buffer, as if they were bytes."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import pickle
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mori
from mori.memory import mapping as mappings

DATA = bytes(range(256)) * 40
KINDS = [bytes, bytearray, memoryview]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["root", "list", "dict"])
def test_they_come_back_equal_and_mapped(store: str, kind: Any, where: str) -> None:
    obj = kind(DATA)
    shared = {
        "root": lambda: mori.share(obj),
        "list": lambda: mori.share([1, obj])[1],
        "dict": lambda: mori.share({"k": obj})["k"],
    }[where]()
    assert type(shared) is mori.SharedBytes
    assert not isinstance(shared, bytes)
    assert mori.is_shared(shared)
    assert mori.shared_name(shared) is not None
    assert shared == obj
    assert obj == shared or kind is memoryview  # a memoryview asks nobody
    assert bytes(shared) == DATA
    private = mori.materialize(shared)
    assert type(private) is (bytes if kind is memoryview else kind)
    assert private == obj


@pytest.mark.parametrize(
    "take",
    [
        lambda x: memoryview(x)[5:9].tobytes(),
        lambda x: hashlib.sha256(x).digest(),
        zlib.crc32,
        bytes,
        bytearray,
        lambda x: np.frombuffer(x, "<u4").tolist(),
        lambda x: struct.unpack_from("<4H", x, 6),
        lambda x: b"".join([b"a", x, b"b"]),
        lambda x: b"start" + x,
        lambda x: x + b"end",
        lambda x: x + x,
        lambda x: io.BytesIO(x).read(10),
        lambda x: pa.py_buffer(x).to_pybytes(),
        lambda x: int.from_bytes(x, "big"),
        lambda x: str(x[65:70], "ascii"),
        list,
        lambda x: (x[0], x[-1], type(x[3]), x[np.int64(7)]),
        lambda x: (bytes(x[2:6]), bytes(x[::-2]), len(x[5:]), bytes(x[9:3])),
        lambda x: (b"\x01\x02" in x, b"\x02\x01" in x, 255 in x),
        lambda x: (x == DATA, x != DATA, x == b"", x == DATA[:-1] + b"?", x == 5, x == list(DATA)),
        lambda x: (bool(x), bool(x[:0]), hash(x) == hash(DATA), len(x)),
        lambda x: {x: 1}[DATA],
        lambda x: (x[5:8] in x, x[::2] == DATA[::2], x[::2] == memoryview(DATA)[::2], b"\4\6" in x[::2]),
        lambda x: x[::-1][:9].decode("latin1"),
        lambda x: x[65:70].decode(),
    ],
)
def test_it_is_used_as_bytes_are(take: Any) -> None:
    assert take(mori.share(DATA)) == take(DATA)


def test_it_goes_through_files_and_sockets(tmp_path: Path) -> None:
    shared = mori.share(DATA)
    (tmp_path / "f").write_bytes(shared)
    assert (tmp_path / "f").read_bytes() == DATA
    with open(tmp_path / "g", "wb") as file:
        assert file.write(shared) == len(DATA)
    assert (tmp_path / "g").read_bytes() == DATA
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(shared)
        got = b""
        while len(got) < len(DATA):
            got += theirs.recv(1 << 16)
    assert got == DATA


@pytest.mark.parametrize(
    "fault", [lambda x: x["a"], lambda x: x[1 << 20], lambda x: x[0.5], lambda x: "a" in x]
)
def test_its_errors_are_those_of_bytes(fault: Any) -> None:
    with pytest.raises((TypeError, IndexError)) as theirs:
        fault(DATA)
    with pytest.raises(theirs.type):
        fault(mori.share(DATA))


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_what_was_bytes_cannot_be_written(kind: Any) -> None:
    shared = mori.share(kind(DATA))
    with pytest.raises(TypeError, match="cannot be assigned"):
        shared[0] = 1
    with pytest.raises(TypeError):
        memoryview(shared)[0] = 1
    assert memoryview(shared).readonly
    with pytest.raises(TypeError):
        shared + 1
    assert hash(shared) == hash(DATA)


def test_a_write_to_what_was_a_bytearray_is_local(store: str, worker: Any) -> None:
    shared = mori.share([bytearray(DATA), 1])
    part = shared[0]
    name = mori.shared_name(part)
    view = part[:3]
    part[0] = 9
    part[1:3] = b"\x07\x08"
    assert bytes(part[:4]) == b"\x09\x07\x08\x03"
    assert bytes(view) == DATA[:3]
    assert not mori.is_shared(part)
    assert shared[0] is part
    assert mori.map_shared(name) == DATA
    arrived = worker(lambda x: x, part)
    assert type(arrived) is bytearray
    assert arrived == b"\x09\x07\x08" + DATA[3:]
    with pytest.raises(TypeError):
        hash(mori.share(bytearray(DATA)))


@pytest.mark.parametrize("kind", KINDS)
def test_it_and_its_slices_travel_as_references(store: str, worker: Any, kind: Any) -> None:
    shared = mori.share(kind(DATA))
    assert len(pickle.dumps(shared, 5)) <= 100
    for part in (shared, shared[100:200], shared[::-3]):
        assert len(pickle.dumps(part, 5)) <= 160
        assert worker(lambda x: (mori.is_shared(x), type(x).__name__, bytes(x)), part) == (
            True,
            "SharedBytes",
            bytes(part),
        )


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_by_value_carries_the_bytes(store: str, kind: Any, protocol: int) -> None:
    shared = mori.share(kind(DATA))
    with mori.by_value():
        data = pickle.dumps([shared, shared[5:10]], protocol)
    del shared
    gc.collect()
    whole, part = pickle.loads(data)
    assert whole == DATA
    assert not mori.is_shared(whole)
    assert part == DATA[5:10]
    private = mori.materialize(whole)
    assert type(private) is (bytes if kind is memoryview else kind)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_short_ones_stay_what_they_are(store: str, kind: Any) -> None:
    obj = kind(b"short")
    assert mori.share(obj) is obj
    inside = mori.share([obj])[0]
    assert type(inside) is kind
    assert inside == obj
    assert type(mori.share([kind(4095)])[0]) is kind
    assert type(mori.share([kind(4096)])[0]) is mori.SharedBytes


def test_a_memoryview_of_numbers_comes_back_as_an_array_of_them(store: str) -> None:
    array = np.arange(12.0).reshape(3, 4)
    shared = mori.share({"m": memoryview(array), "s": memoryview(DATA)[::2]})
    assert type(shared["m"]) is mori.SharedArray
    np.testing.assert_array_equal(shared["m"], array)
    assert shared["s"] == DATA[::2]


def test_shared_bytes_are_shared_again_inside_another_object(store: str) -> None:
    shared = mori.share(bytearray(DATA))
    assert mori.share(shared) is shared
    tree = mori.share({"x": shared, "y": shared[1:5]})
    del shared
    gc.collect()
    assert (tree["x"], tree["y"]) == (DATA, DATA[1:5])
    assert type(mori.materialize(tree)["x"]) is bytearray
    assert len(mappings.live()) == 1


def test_copies_are_private_and_exact() -> None:
    for kind in (bytes, bytearray):
        shared = mori.share(kind(DATA))
        for other in (copy.copy(shared), copy.deepcopy(shared)):
            assert type(other) is kind
            assert other == DATA


def test_it_says_what_it_is() -> None:
    assert repr(mori.share(b"abc" * 2000)).startswith("<SharedBytes b'abcabc")
    assert "6,000 bytes" in str(mori.share(b"abc" * 2000))


def test_opening_a_part_reads_none_of_it(store: str) -> None:
    shared = mori.share(bytes(64 << 20))
    before = _private()
    assert hashlib.sha256(shared[: 1 << 20]).digest() == hashlib.sha256(bytes(1 << 20)).digest()
    assert len(shared[5:]) == len(shared) - 5
    assert shared[-1] == 0
    assert _private() - before < 4 << 20


def _private() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def test_without_python_holding_it_the_region_stays_for_a_memoryview(store: str) -> None:
    view = memoryview(mori.share(DATA))
    gc.collect()
    assert view == DATA
    assert len(mappings.live()) == 1
