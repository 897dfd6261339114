"""Lists and tuples of str in one node, laid out as Arrow's large_string; None where one is missing.

Arrow reads the buffers in place. Where a few strings are met again and again, they stand there once, and a
code for each element (Arrow's dictionary encoding). UTF-8 has no bytes for lone surrogates, so a list with
such strings goes into blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori.codecs.packed import Column, Pieces, cut, filled, laid_out
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.layout import Id, from_json, to_json

__all__ = ["Coded", "Strings", "StringsCodec", "pack"]

_CODED: Final = "coded"  # before the rest of the meta
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


class Coded(Column):
    """Text of few values, which a block of elements decodes all at once, and an element by itself."""

    def __init__(self, head: Sequence[Any], buffers: Buffers) -> None:
        kind, length, missing, count, *odd = head
        super().__init__((kind, length, missing, *odd), buffers)
        codes, offsets, data = self._buffers
        dtype = np.dtype("u1" if count <= _SHORT else "<u2")
        if codes.nbytes != dtype.itemsize * len(self) or not 0 < count <= _MOST:
            raise ValueError(f"{codes.nbytes} bytes of codes for {len(self)} elements of {count} values")
        self._codes: npt.NDArray[Any] = np.ndarray((len(self),), dtype, codes)
        few = Buffers([np.empty(0, np.uint8), offsets, data])
        few.trusted = buffers.trusted
        self._few = Strings(("list", count, 0), few)
        self._decoded: list[str] | None = None

    def _all(self) -> list[str]:
        if self._decoded is None:
            found: list[str] = []
            while len(found) < len(self._few):
                found += self._few.block(len(found), len(self._few))
            self._decoded = found
        return self._decoded

    def _value(self, index: int) -> Any:
        try:
            return self._few[int(self._codes[index])]
        except IndexError:
            raise self._unknown_code() from None

    def _values(self, start: int, stop: int) -> list[Any]:
        try:
            return [*map(self._all().__getitem__, self._codes[start:stop].tolist())]
        except IndexError:
            raise self._unknown_code() from None

    def _unknown_code(self) -> ValueError:
        return ValueError(f"a code that none of {len(self._few)} values has")


_SHORT: Final = 1 << 8  # values that a code of one byte tells apart
_MOST: Final = 1 << 12  # values that are worth their codes
_MOST_TEXT: Final = 1 << 16  # characters of them: a reader keeps them
_REPEATED: Final = 4  # times that each value is met, on average
_SAMPLED: Final = 256  # elements that tell whether it is worth counting


def _coded(values: list[str]) -> tuple[list[str], npt.NDArray[Any]] | None:
    """Return the few values that strings have, and the code of each; None where there are many."""
    sample = values[:: len(values) // _SAMPLED + 1]
    if 2 * len(set(sample)) > len(sample):
        return None
    codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
    if len(codes) > _MOST or len(codes) * _REPEATED > len(values) or sum(map(len, codes)) > _MOST_TEXT:
        return None
    dtype = "u1" if len(codes) <= _SHORT else "<u2"
    return [*codes], np.fromiter(map(codes.__getitem__, values), dtype, len(values))


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
        if (coded := _coded(column.values)) is not None:
            values, codes = coded
            meta = to_json((_CODED, *from_json(column.meta(obj)), len(values)))
            return Encoded(meta, [column.validity, codes, *laid_out(values, _sizes, _join)], (), Id.STRINGS)
        laid = laid_out(column.values, _sizes, _join)
    except UnicodeEncodeError:
        return None
    return Encoded(column.meta(obj), [column.validity, *laid], (), Id.STRINGS)


class StringsCodec(BuiltinCodec):
    """A list or tuple of str."""

    id = Id.STRINGS

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Column:
        head = from_json(meta)
        return Coded(head[1:], buffers) if head[0] == _CODED else Strings(head, buffers)
