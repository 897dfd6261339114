"""Damage to the bytes of a region, drawn by hypothesis or by a random number generator.

`mutate` changes what a reader believes and leaves the checksums wrong; `forge` knows the format, and
makes them right again, but those of pickles. Neither touches the elements of arrays, which `scatter` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import mori
from mori.format import layout
from mori.format.layout import Id
from mori.store import base

__all__ = ["Choose", "checksummed", "forge", "is_printable", "mutate", "nodes", "scatter"]

Choose = Callable[[int], int]  # n -> one of 0 … n-1

_INTERESTING = (
    0,
    1,
    7,
    8,
    48,
    63,
    64,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    (1 << 63) - 1,
    (1 << 64) - 1,
)


def nodes(data: bytes | bytearray) -> Iterator[tuple[int, layout.Record]]:
    """Yield offset and record of every node that can still be walked to."""
    (root,) = struct.unpack_from("<Q", data, 40)
    pending, seen = [root], set()
    while pending:
        start = pending.pop()
        if start in seen or start + layout.NODE.size > len(data):
            continue
        seen.add(start)
        record = layout.Record(*layout.NODE.unpack_from(data, start))
        yield start, record
        table = start + layout.head_nbytes(record.meta_nbytes, record.buffers)
        count = record.children if table + 8 * record.children <= len(data) else 0
        pending += [start + back for (back,) in struct.iter_unpack("<Q", data[table : table + 8 * count])]


def _spots(data: bytes) -> list[tuple[int, int]]:
    """Return start and size of every field, meta and table entry."""
    spots, at = [], 0
    for _, code in base.HEADER_FIELDS:
        spots.append((at, struct.calcsize(code)))
        at += struct.calcsize(code)
    for start, record in nodes(data):
        at = start
        for _, code in layout.NODE_FIELDS:
            spots.append((at, struct.calcsize(code)))
            at += struct.calcsize(code)
        spots += [(at, record.meta_nbytes)] * 8 if record.meta_nbytes else []
        at += base.align(record.meta_nbytes, 8)
        spots += [(at + 8 * i, 8) for i in range(2 * record.buffers + record.children)]
    return spots


def mutate(data: bytes, choose: Choose) -> bytearray:
    """Return a damaged region: one to three fields, bytes, digits or letters are other ones."""
    damaged = bytearray(data)
    spots = _spots(data)
    for _ in range(1 + choose(3)):
        start, size = spots[choose(len(spots))]
        here = start + choose(size)
        how = choose(6)
        if how == 0:
            damaged[here] ^= 1 << choose(8)
        elif how == 1:
            damaged[here] = choose(256)
        elif how == 2:
            damaged[here] = b'0123456789<>|=?biufcSUVmMsnDYCF[]{}-,:"e.'[choose(40)]
        elif how == 3:
            damaged[start : start + size] = damaged[(there := choose(len(data) - size)) : there + size]
        elif size <= 8:
            old = int.from_bytes(damaged[start : start + size], "little")
            near = [
                *_INTERESTING,
                len(data),
                *(old + by for by in (-64, -8, -1, 1, 8, 64)),
                old * 2,
                old // 2,
            ]
            if size == 2:
                near = list(range(64))
            new = near[choose(len(near))] % (1 << 8 * size)
            damaged[start : start + size] = new.to_bytes(size, "little")
        else:
            other, length = spots[choose(len(spots))]
            piece = data[other : other + min(size, length)]
            damaged[start : start + len(piece)] = piece
    if choose(20) == 0:
        del damaged[choose(len(damaged)) :]
    return damaged


def forge(data: bytes, choose: Choose) -> bytearray:
    """Return a region whose checksums are right and whose content is not: damage that knows the format."""
    forged = bytearray(data)
    targets = [*nodes(data)]
    for _ in range(1 + choose(2)):
        start, record = targets[choose(len(targets))]
        meta, table = start + layout.NODE.size, start + layout.head_nbytes(record.meta_nbytes, record.buffers)
        how = choose(4)
        if how == 0:  # another codec
            struct.pack_into("<H", forged, start + 4, choose(64))
        elif how == 1 and record.children:  # another child
            place, (other, _) = choose(record.children), targets[choose(len(targets))]
            if other > start:
                struct.pack_into("<Q", forged, table + 8 * place, other - start)
                struct.pack_into("<QQ", forged, other + 32, other - start, place)
        elif how == 2 and record.meta_nbytes:  # another value in the meta
            with contextlib.suppress(ValueError):
                plain = _changed(json.loads(forged[meta : meta + record.meta_nbytes]), choose)
                text = json.dumps(plain, separators=(",", ":")).encode().ljust(record.meta_nbytes)
                if len(text) <= base.align(record.meta_nbytes, 8):
                    forged[meta : meta + len(text)] = text
                    struct.pack_into("<I", forged, start + 8, len(text))
        else:
            return checksummed(mutate(bytes(forged), choose))
    return checksummed(forged)


def scatter(data: bytes, choose: Choose) -> bytearray:
    """Return a region one to three of whose elements, which no checksum covers, are other ones."""
    damaged = bytearray(data)
    pieces = []
    for start, record in nodes(data):
        if record.codec == Id.PICKLE:  # its stream has a checksum, the rest is for the classes to check
            continue
        table = start + layout.head_nbytes(record.meta_nbytes, 0)
        entries = struct.iter_unpack("<QQ", data[table : table + layout.BUFFER.size * record.buffers])
        pieces += [(start + offset, nbytes) for offset, nbytes in entries if nbytes]
    for _ in range(1 + choose(3) if pieces else 0):
        start, nbytes = pieces[choose(len(pieces))]
        size = min(nbytes, (1, 1, 2, 4, 4, 8, 8)[choose(7)])
        here = start + size * choose(nbytes // size)
        old = int.from_bytes(damaged[here : here + size], "little")
        near = (*_INTERESTING, nbytes, *(old + by for by in (-8, -1, 1, 8)), old ^ 1 << choose(8 * size))
        new = near[choose(len(near))] if choose(8) else choose(1 << 8 * size)
        damaged[here : here + size] = (new % (1 << 8 * size)).to_bytes(size, "little")
    return damaged


_VALUES = (
    "<i8",
    ">i4",
    "<f2",
    "<U2",
    "|S8",
    "|V8",
    "<M8[D]",
    "<m8[s]",
    "<M8[ns]",
    "<M8",
    "<f8",
    "<f16",
    "|b1",
    "F",
)
_NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    8,
    1 << 20,
    1 << 31,
    1 << 40,
    1 << 63,
    1.5,
    None,
    True,
    "",
    "Index",
    "zone:..",
    "D",
    [],
    [0],
)


def _changed(plain: Any, choose: Choose) -> Any:
    """Return plain data with one leaf changed."""
    if isinstance(plain, list) and plain and choose(8):
        place = choose(len(plain))
        return [*plain[:place], _changed(plain[place], choose), *plain[place + 1 :]]
    if isinstance(plain, dict) and plain and choose(8):
        key = list(plain)[choose(len(plain))]
        return {**plain, key: _changed(plain[key], choose)}
    if isinstance(plain, str) and choose(4):
        return _VALUES[choose(len(_VALUES))]
    return _NUMBERS[choose(len(_NUMBERS))]


def checksummed(data: bytearray) -> bytearray:
    """Make every checksum of record and header right again; those of pickles stay."""
    if len(data) < base.HEADER.size:
        return data
    for start, record in list(nodes(data)):
        end = start + layout.head_nbytes(record.meta_nbytes, record.buffers)
        if end <= len(data):
            struct.pack_into("<I", data, start, zlib.crc32(data[start + 4 : end]))
    struct.pack_into("<I", data, 8, zlib.crc32(data[12 : base.HEADER.size]))
    return data


def is_printable(obj: Any) -> bool:
    """Say whether what is given can be printed: dates have a unit, text is text, and no field is missing.

    Whoever made them, it raises for others; they are rightly read all the same.
    """
    if isinstance(obj, mori.SharedDict | dict):
        return all(map(is_printable, (*obj, *obj.values())))
    if dataclasses.is_dataclass(obj):
        names = [field.name for field in dataclasses.fields(obj)]
        return all(hasattr(obj, name) and is_printable(getattr(obj, name)) for name in names)
    if isinstance(obj, mori.SharedList | mori.SharedTuple | mori.SharedSet | list | tuple | set | frozenset):
        return all(map(is_printable, obj))
    if not isinstance(obj, np.ndarray | np.generic):
        return True
    array = np.asarray(obj)
    if array.dtype.names is not None:
        return all(is_printable(array[name]) for name in array.dtype.names)
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        return bool(np.frombuffer(array.tobytes(), array.dtype.str[0] + "u4").max() <= sys.maxunicode)
    return array.dtype.str[1:] != "M8"
