"""The header of a region: what a store and a mapping know of one. docs/format.md has the same table.

Pure: packs and unpacks, holds no memory. Everything is little-endian.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final, NamedTuple

__all__ = [
    "ALIGNMENT",
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

# field, struct code: offsets follow from the codes (no padding under "<")
HEADER_FIELDS: Final = (
    ("magic", "8s"),
    ("version", "H"),
    ("header_nbytes", "H"),
    ("crc32", "I"),
    ("region_id", "16s"),
    ("nbytes", "Q"),
    ("root", "Q"),
    ("pid", "I"),
    ("number", "I"),
    ("segment_nbytes", "Q"),
)
HEADER: Final = struct.Struct("<" + "".join(code for _, code in HEADER_FIELDS))
_HEADER_CRC: Final = struct.Struct("<I")
_LEAST: Final = HEADER.size + 48  # and the record of the root


class Header(NamedTuple):
    """What a region says of itself."""

    region_id: bytes
    nbytes: int
    root: int
    pid: int
    number: int
    segment_nbytes: int


def align(offset: int, alignment: int = ALIGNMENT) -> int:
    """Return the next multiple of a power of two."""
    return (offset + alignment - 1) & -alignment


def pack_header(header: Header) -> bytes:
    """Return the first 64 bytes of a region."""
    body = HEADER.pack(MAGIC, VERSION, HEADER.size, 0, *header)
    crc = zlib.crc32(body[16:])
    return body[:12] + _HEADER_CRC.pack(crc) + body[16:]


def unpack_header(data: Any) -> Header | str:
    """Read a header; a sentence that says what is wrong where it is none."""
    if len(data) < HEADER.size:
        return f"{len(data)} bytes are too few for a header of {HEADER.size}"
    raw = bytes(data[: HEADER.size])
    magic, version, size, crc, *fields = HEADER.unpack(raw)
    if magic != MAGIC:
        return f"it starts with {magic!r} instead of {MAGIC!r}"
    if version != VERSION or size != HEADER.size:
        return f"it has format version {version}, this mori reads version {VERSION}"
    if crc != zlib.crc32(raw[16:]):
        return "the checksum of its header does not match"
    header: Header = tuple.__new__(Header, fields)  # as all that is made for each region and node
    if header.nbytes < _LEAST or not HEADER.size <= header.root < header.nbytes:
        return f"its root at {header.root} lies outside its {header.nbytes} bytes"
    if header.root % ALIGNMENT:
        return f"its root at {header.root} is not aligned"
    return header
