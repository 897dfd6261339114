"""The header of a region: what a store and a mapping know of one. docs/format.md has the same table.

Pure: packs and unpacks, holds no memory. Everything is little-endian.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final, NamedTuple

__all__ = [
    "ALIGNMENT",
    "ENCODED",
    "HEADER",
    "HEADER_FIELDS",
    "MAGIC",
    "SMALL_ALIGNMENT",
    "VERSION",
    "Header",
    "align",
    "pack_header",
    "unpack_header",
]

MAGIC: Final = b"mori\r\n\x1a\n"
VERSION: Final = 1
ALIGNMENT: Final = 64
SMALL_ALIGNMENT: Final = 8

ENCODED: Final = 1
"""Flag of a header: who made the region has encoded its bytes; without it they are a copy of others' bytes.

It says something in a sealed memfd alone, whose header mori writes anew for each region. A header that came
with its bytes, in a buffer or a file, cannot vouch for them.
"""

# field, struct code: offsets follow from the codes (no padding under "<")
HEADER_FIELDS: Final = (
    ("magic", "8s"),
    ("crc32", "I"),
    ("version", "H"),
    ("flags", "H"),
    ("region_id", "16s"),
    ("nbytes", "Q"),
    ("root", "Q"),
    ("pid", "I"),
    ("number", "I"),
    ("segment_nbytes", "Q"),
)
HEADER: Final = struct.Struct("<" + "".join(code for _, code in HEADER_FIELDS))
_CRC: Final = struct.Struct("<I")
_CHECKED: Final = len(MAGIC) + _CRC.size  # where begins what the checksum covers
_LEAST: Final = HEADER.size + 48  # and the record of the root


class Header(NamedTuple):
    """What a region says of itself."""

    region_id: bytes
    nbytes: int
    root: int
    pid: int
    number: int
    segment_nbytes: int
    flags: int = 0


def align(offset: int, alignment: int = ALIGNMENT) -> int:
    """Return the next multiple of a power of two."""
    return (offset + alignment - 1) & -alignment


def pack_header(header: Header) -> bytes:
    """Return the first 64 bytes of a region."""
    *fields, flags = header
    covered = HEADER.pack(MAGIC, 0, VERSION, flags, *fields)[_CHECKED:]
    return MAGIC + _CRC.pack(zlib.crc32(covered)) + covered


def unpack_header(data: Any) -> Header | str:
    """Read a header; a sentence that says what is wrong where it is none."""
    if len(data) < HEADER.size:
        return f"{len(data)} bytes are too few for a header of {HEADER.size}"
    raw = bytes(data[: HEADER.size])
    magic, crc, version, flags, *fields = HEADER.unpack(raw)
    if magic != MAGIC:
        return f"it starts with {magic!r} instead of {MAGIC!r}"
    if version != VERSION:
        return f"it has format version {version}, this mori reads version {VERSION}"
    if crc != zlib.crc32(raw[_CHECKED:]):
        return "the checksum of its header does not match"
    if flags & ~ENCODED:
        return f"its header has flags {flags:#x}, of a later mori"
    header: Header = tuple.__new__(Header, (*fields, flags))  # as all that is made for each region and node
    if header.nbytes < _LEAST or not HEADER.size <= header.root < header.nbytes:
        return f"its root at {header.root} lies outside its {header.nbytes} bytes"
    if header.root % ALIGNMENT:
        return f"its root at {header.root} is not aligned"
    return header
