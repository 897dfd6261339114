"""The byte format, version 1: structs, constants, and the checks of their fields.

Pure: packs and unpacks, holds no memory. docs/format.md has the same tables; a test compares them. Everything
is little-endian. A region is a header and one tree of nodes; a node is position independent, so the bytes of
any part, behind a header, are a region again. The meta of most nodes is plain data as compact JSON.
"""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Sequence
from itertools import starmap
from typing import Any, Final, NamedTuple

from mori.store.base import SMALL_ALIGNMENT

__all__ = [
    "ALIASED",
    "BUFFER",
    "CHECKED",
    "CHILD",
    "NODE",
    "NODE_FIELDS",
    "REFERS_OUTSIDE",
    "Id",
    "Record",
    "from_json",
    "head_nbytes",
    "pack_head",
    "to_json",
]

ALIASED: Final = 1  # flag: aliases refer to this node
REFERS_OUTSIDE: Final = 2  # flag: the subtree contains an alias whose target lies outside of it

# field, struct code: offsets follow from the codes (no padding under "<")
NODE_FIELDS: Final = (
    ("crc32", "I"),
    ("codec", "H"),
    ("flags", "H"),
    ("meta_nbytes", "I"),
    ("buffers", "I"),
    ("children", "Q"),
    ("extent", "Q"),
    ("back", "Q"),
    ("place", "Q"),
)
NODE: Final = struct.Struct("<" + "".join(code for _, code in NODE_FIELDS))
BUFFER: Final = struct.Struct("<QQ")
CHILD: Final = struct.Struct("<Q")
_AFTER_CRC: Final = struct.Struct("<HHIIQQQQ")
_CRC: Final = struct.Struct("<I")
CHECKED: Final = _CRC.size
"""Where in a node begins what its checksum covers, up to the end of its buffer table."""


class Id:
    """Ids of the codecs that come with mori. An id is the format: it is never given twice."""

    NAMED: Final = 0  # a third party's codec; its name stands before its meta
    SCALAR: Final = 1
    NDARRAY: Final = 2
    LIST: Final = 3
    TUPLE: Final = 4
    DICT: Final = 5
    PICKLE: Final = 6
    STRINGS: Final = 7  # packed strings, Arrow's large_string
    PACKED: Final = 8  # packed lists of int, float, bool, bytes
    ALIAS: Final = 9  # a further reference to one object
    BLOCKS: Final = 10  # the elements of a list or tuple, pickled in blocks
    SET: Final = 11
    FROZENSET: Final = 12
    ARRAYS: Final = 14  # a list or tuple of arrays of one dtype
    BYTES: Final = 15
    DATAFRAME: Final = 16
    SERIES: Final = 17
    INDEX: Final = 18
    RANGE_INDEX: Final = 19
    MULTI_INDEX: Final = 20
    CATEGORICAL: Final = 21
    DATETIME_ARRAY: Final = 22
    TIMEDELTA_ARRAY: Final = 23
    MASKED_ARRAY: Final = 24
    STRING_ARRAY: Final = 25
    OBJECT_ARRAY: Final = 26
    PERIOD_ARRAY: Final = 27
    INTERVAL_ARRAY: Final = 28
    SPARSE_ARRAY: Final = 29
    ARROW_COLUMN: Final = 30
    PANDAS_SUBCLASS: Final = 31
    NUMPY_MASKED: Final = 32
    ARROW_ARRAY: Final = 36
    ARROW_CHUNKED_ARRAY: Final = 37
    ARROW_RECORD_BATCH: Final = 38
    ARROW_TABLE: Final = 39
    POLARS_FRAME: Final = 40
    POLARS_SERIES: Final = 41
    SPARSE_COMPRESSED: Final = 44
    SPARSE_COORDINATES: Final = 45
    SPARSE_DIAGONALS: Final = 46
    TORCH_TENSOR: Final = 52


class Record(NamedTuple):
    """The fixed part of a node."""

    crc32: int
    codec: int
    flags: int
    meta_nbytes: int
    buffers: int
    children: int
    extent: int
    back: int
    place: int


def head_nbytes(meta_nbytes: int, buffers: int) -> int:
    """Return the size of record, meta and buffer table."""
    return NODE.size + (meta_nbytes + SMALL_ALIGNMENT - 1 & -SMALL_ALIGNMENT) + buffers * BUFFER.size


def pack_head(
    codec: int,
    meta: bytes,
    buffers: Sequence[tuple[int, int]],
    children: int,
    extent: int,
    back: int,
    place: int,
    flags: int = 0,
) -> bytes:
    """Return record, meta and buffer table of a node, checksummed."""
    parts = [
        _AFTER_CRC.pack(codec, flags, len(meta), len(buffers), children, extent, back, place),
        meta,
        bytes(-len(meta) % SMALL_ALIGNMENT),
    ]
    parts += starmap(BUFFER.pack, buffers)
    body = b"".join(parts)
    return _CRC.pack(zlib.crc32(body)) + body


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder each time
_SHORT: Final = 256  # bytes


def to_json(plain: object) -> bytes:
    """Return plain data as bytes."""
    return _encode(plain).encode()


def from_json(meta: bytes) -> Any:
    """Read what `to_json` wrote; nobody may change it: short ones, which columns repeat, are remembered."""
    return (_read if len(meta) <= _SHORT else json.loads)(meta)


_read = functools.lru_cache(maxsize=1024)(json.loads)
