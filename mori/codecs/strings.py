"""Lists and tuples of str in one node, laid out as Arrow's large_string; None where one is missing.

Arrow reads the buffers in place. UTF-8 has no bytes for lone surrogates, so a list with such strings goes
into blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mori.codecs.packed import Pieces, cut, filled, laid_out
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.layout import Id, from_json

__all__ = ["Strings", "StringsCodec", "pack"]

_CONTINUES, _KIND = 0x80, 0xC0  # a byte that no character starts with, and the bits that say so


class Strings(Pieces):
    """Text, decoded an element or a block at a time."""

    def _decode(self, piece: memoryview) -> str:
        return str(piece, "utf-8")

    def _cut(self, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> list[Any]:
        text = str(data.data, "utf-8")
        if len(text) != data.nbytes:
            starts = (data & _KIND) != _CONTINUES
            if not self._trusted and not starts[ends[ends < data.nbytes]].all():
                raise ValueError("a string that starts within a character")
            before = np.zeros(data.nbytes + 1, np.int64)  # how many characters start before each byte
            np.cumsum(starts, out=before[1:])
            ends = before[ends]
        return cut(text, ends.tolist())


def _sizes(block: Sequence[str]) -> Iterable[int]:
    if all(map(str.isascii, block)):
        return map(len, block)
    text = "".join(block)
    data = text.encode()
    starts = np.flatnonzero((np.frombuffer(data, np.uint8) & _KIND) != _CONTINUES)
    lengths = np.fromiter(map(len, block), "<i8", len(block))
    ends = np.append(starts, len(data))[np.cumsum(lengths)]
    sizes: npt.NDArray[np.int64] = np.diff(ends, prepend=0)
    return sizes


def _join(block: Sequence[str]) -> bytes:
    return "".join(block).encode()


def pack(obj: Sequence[Any], missing: bool) -> Encoded | None:
    """Return a list or tuple of str, and of None if some are missing, as one node; None for surrogates."""
    try:
        column = filled(obj, missing, "")
        laid = laid_out(column.values, _sizes, _join)
    except UnicodeEncodeError:
        return None
    return Encoded(column.meta(obj), [column.validity, *laid], (), Id.STRINGS)


class StringsCodec(BuiltinCodec):
    """A list or tuple of str."""

    id = Id.STRINGS

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Strings:
        return Strings(from_json(meta), buffers)
