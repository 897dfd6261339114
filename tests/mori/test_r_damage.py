"""Damaged regions of R's: an error that names the region, or a value, and never a crash.

tests/fuzz.py reads many more of them (`python -m tests.fuzz 1000000 --kinds r`).
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mori
from mori.format import r_values
from mori.format.node import open_node, root_of
from mori.memory.mapping import Mapping
from mori.store.base import Header
from mori.wire.transport import use_transport
from tests.mori.test_corruption import attempt
from tests.r_placed import NAMES, data_of, placed

_FEW = (0, 1, 2, 24, 64, 255, 2**31 - 1, -1, -(2**31), 2**62, -(2**63))


def open_r(data: bytes) -> Any:
    """Open the bytes of a region in R's layout, which lie in no store."""
    copy = np.frombuffer(bytearray(data), np.uint8)
    mapping = Mapping(Header(bytes(16), len(data), 0, 1, 1, 0), copy.ctypes.data, None, copy)
    return open_node(root_of(mapping))


def regions() -> list[bytes]:
    """Return the bytes of regions in R's layout: those that R wrote, and some that mori does."""
    from tests.mori.test_r_writing import _ALIKE, written

    return [data_of(name) for name in NAMES] + [written(value, pairs=True) for value in _ALIKE.values()]


def damage_r(data: bytes, choose: Callable[[int], int]) -> bytearray:
    """Return a region with one to three other bytes or numbers, or cut off."""
    damaged = bytearray(data)
    for _ in range(1 + choose(3)):
        how, width = choose(6), (4, 8)[choose(2)]
        if how < 2:
            damaged[choose(len(damaged))] = choose(256)
        elif how == 2:
            damaged[choose(len(damaged))] ^= 1 << choose(8)
        else:
            # The fields of headers, directories and serializations lie on any byte.
            place = choose(len(damaged) - width + 1)
            place -= place % 4 if how < 5 else 0
            old = int.from_bytes(damaged[place : place + width], "little", signed=True)
            few = (*_FEW, old + 1, old - 1, old + 64, old * 2, len(data), len(data) - 24)
            number = few[choose(len(few))] & ((1 << 8 * width) - 1)
            damaged[place : place + width] = number.to_bytes(width, "little")
    if choose(20) == 0:
        del damaged[24 + choose(len(damaged) - 23) :]
    return damaged


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_an_error_or_another_value(name: str) -> None:
    data = data_of(name)
    for number in range(200):
        attempt(damage_r(data, random.Random(number).randrange), opened=open_r)


@pytest.mark.parametrize("name", NAMES)
def test_a_region_that_was_cut_off_is_an_error(name: str) -> None:
    data = data_of(name)
    for length in range(0, len(data), 7):
        # What is missing may be the padding behind the last element.
        with placed(data[:length]) as where, contextlib.suppress(mori.CorruptRegionError):
            mori.materialize(mori.map_shared(where))


def _vector(number: int, length: int, attributes: int, rest: bytes) -> bytes:
    return struct.pack("=Iiqq40x", 0x4D4F5248, number, length, attributes) + rest


# On the first seven of these R's own reader ends the process, or reads what is not the region's.
_DAMAGED = {
    "a length beyond the end": _vector(14, 10**6, 0, bytes(16)),
    "a negative length": _vector(13, -1, 0, bytes(16)),
    "a length whose bytes overflow": _vector(14, 2**61 + 1, 0, bytes(16)),
    "attributes beyond the end": _vector(14, 2, 10**6, bytes(16)),
    "a type of no elements": _vector(5, 2, 0, bytes(16)),
    "strings beyond the end": struct.pack("=Iiqq", 0x4D4F5253, 0, 10**6, 64) + bytes(64),
    "a string outside of the text": struct.pack("=Iiqqqii", 0x4D4F5253, 0, 1, 64, 10**9, 5, 1) + bytes(48),
    "an unknown magic": b"ROMH" + bytes(60),
    "more elements than fit": struct.pack("=Iiqq", 0x4D4F524C, 10**6, 0, 0) + bytes(64),
    "an element outside": struct.pack("=Iiqqqqiiq", 0x4D4F524C, 1, 64, 0, 10**6, 8, 14, 0, 1) + bytes(64),
    "an element that is its list": struct.pack("=Iiqqqqiiq", 0x4D4F524C, 1, 64, 0, 0, 64, 19, 0, 1)
    + bytes(64),
    "attributes that are no serialization": _vector(14, 1, 16, bytes(24)),
}


@pytest.mark.parametrize("what", _DAMAGED)
def test_false_lengths_and_places_are_errors(what: str) -> None:
    with placed(_DAMAGED[what]) as where, pytest.raises(mori.CorruptRegionError, match=where):
        list(mori.map_shared(where))


def test_a_reference_to_no_node_is_an_error() -> None:
    with placed(data_of("list_nested")) as where:
        x = mori.map_shared(where)
        with use_transport("reference"):
            function, (payload,) = x["a"].__reduce_ex__(5)
        for offset in (1, 8, 30, 57, 130, 10**6, 2**63):
            with pytest.raises(mori.CorruptRegionError):
                function(payload[:-8] + struct.pack("<Q", offset))


def test_what_is_serialized_is_bounded_in_depth_and_memory() -> None:
    head = r_values.NULL[:-4]
    for data in (
        head + struct.pack("=ii", 19, 1) * 100_000,
        head + struct.pack("=ii", 16, 2**31 - 1),
        head + struct.pack("=iiii", 14, -1, 1, 0),
        head + struct.pack("=i", 1) * 100_000,
        head + struct.pack("=ii", 255, 7),
    ):
        with pytest.raises(ValueError, match="serialization"):
            r_values.read(data)
