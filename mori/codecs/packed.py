"""Lists and tuples of one kind of value in one node: int, float, bool, bytes; None where one is missing.

What it decodes to is a `Column`, which reads an element, or a block of them, when it is asked to; nothing is
scanned when it is opened. Exact types only: ``[True, 1]`` has no column.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from mori import _progress
from mori.format.atoms import kinds_of, pieces_of
from mori.format.codec import CHANGED, Buffer, Buffers, BuiltinCodec, Encoded, Late
from mori.format.layout import Codec as Id
from mori.format.layout import from_json, to_json
from mori.format.survey import LONG

__all__ = [
    "Column",
    "Numbers",
    "PackedCodec",
    "Pieces",
    "column_meta",
    "cut",
    "laid_out",
    "numbers",
    "opened",
    "pack",
    "validity_of",
]

BLOCK: Final = 4096
"""Elements that are decoded at once, at most."""
_BLOCK_NBYTES: Final = 1 << 20  # of text or bytes; more only where a single element is longer
_WRITTEN: Final = 1 << 14  # elements that are joined at once when writing
_OFFSETS: Final = struct.Struct("<qq")
_KINDS: Final = {"list": list, "tuple": tuple}


class Column:
    """The elements of a packed node, decoded on demand.

    Whatever its methods raise on damaged bytes is a ValueError.
    """

    array: npt.NDArray[Any] | None = None
    """The elements where they lie, read-only, if they are numbers none of which is missing."""

    def __init__(self, head: Sequence[Any], validity: npt.NDArray[np.uint8]) -> None:
        kind, length, missing = head
        if kind not in ("list", "tuple"):
            raise ValueError(f"a column that is a {str(kind)[:40]}")
        if type(length) is not int or type(missing) is not int or not 0 <= missing <= length:
            raise ValueError(f"{str(missing)[:40]} of {str(length)[:40]} elements missing")
        if validity.nbytes != ((length + 7) // 8 if missing else 0):
            raise ValueError(f"{validity.nbytes} bytes of validity for {length} elements")
        self.kind = _KINDS[str(kind)]
        self._length = length
        self._validity = validity if missing else None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        if self._validity is not None and not self._validity[index >> 3] >> (index & 7) & 1:
            return None
        return self._value(index)

    def block(self, start: int, stop: int) -> list[Any]:
        """Return elements from `start` on: at least one and as many as are well decoded at once."""
        values = self._values(start, min(stop, start + BLOCK, self._length))
        if self._validity is not None:
            first = start & ~7
            bits = self._validity[first >> 3 : (start + len(values) + 7) >> 3]
            valid = np.unpackbits(bits, bitorder="little")[start - first :][: len(values)]
            for place in np.flatnonzero(valid == 0).tolist():
                values[place] = None
        return values

    def _value(self, index: int) -> Any:
        raise NotImplementedError

    def _values(self, start: int, stop: int) -> list[Any]:
        raise NotImplementedError


class _Numbers(Column):
    """Fixed-width elements: int64, float64, bool."""

    def __init__(self, head: Sequence[Any], code: str, validity: Any, values: npt.NDArray[np.uint8]) -> None:
        super().__init__(head, validity)
        dtype = np.dtype(code)
        if values.nbytes != dtype.itemsize * len(self):
            raise ValueError(f"{values.nbytes} bytes for {len(self)} elements of {dtype}")
        self._numbers: npt.NDArray[Any] = np.ndarray((len(self),), dtype, values)
        self.array = self._numbers if self._validity is None else None

    def _value(self, index: int) -> Any:
        return self._numbers.item(index)  # without numpy's scalar on the way

    def _values(self, start: int, stop: int) -> list[Any]:
        return cast(list[Any], self._numbers[start:stop].tolist())


class Pieces(Column):
    """Elements of any width, one behind the other, and the offsets between them, as Arrow has them."""

    def __init__(self, head: Sequence[Any], buffers: Buffers) -> None:
        validity, offsets, data = buffers
        super().__init__(head, validity)
        if offsets.nbytes != 8 * (len(self) + 1):
            raise ValueError(f"{offsets.nbytes} bytes of offsets for {len(self)} elements")
        self._trusted = buffers.trusted
        self._ends = np.ndarray((len(self) + 1,), "<i8", offsets)
        self._raw_ends = offsets.data
        self._data = data
        self._raw = data.data

    def _value(self, index: int) -> Any:
        start, end = _OFFSETS.unpack_from(self._raw_ends, 8 * index)
        if not 0 <= start <= end <= self._data.nbytes:
            raise ValueError(f"element {index} from byte {start} to {end} of {self._data.nbytes}")
        return self._decode(self._raw[start:end])

    def _values(self, start: int, stop: int) -> list[Any]:
        ends = self._ends[start : stop + 1]
        first, last = int(ends[0]), int(ends[-1])
        if not 0 <= first <= last <= self._data.nbytes:
            raise ValueError(f"elements {start} to {stop} from byte {first} to {last} of {self._data.nbytes}")
        if not self._trusted and (ends[1:] < ends[:-1]).any():
            raise ValueError(f"offsets of elements {start} to {stop} that go back")
        if last - first > _BLOCK_NBYTES:
            count = int(np.searchsorted(ends, first + _BLOCK_NBYTES, side="right"))
            ends = ends[: max(count, 2)]
        return self._cut(self._data[first : int(ends[-1])], ends - first)

    def _decode(self, piece: memoryview) -> Any:
        raise NotImplementedError

    def _cut(self, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> list[Any]:
        return [self._decode(memoryview(piece)) for piece in cut(data.tobytes(), ends.tolist())]


class _Bytes(Pieces):
    def _decode(self, piece: memoryview) -> bytes:
        return bytes(piece)

    def _cut(self, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> list[Any]:
        return cut(data.tobytes(), ends.tolist())


class _Integers(Pieces):
    """Integers of any size, as SCALAR has them: two's complement, as many bytes as each needs."""

    def _decode(self, piece: memoryview) -> int:
        return int.from_bytes(piece, "little", signed=True)


def cut(whole: Any, ends: list[int]) -> list[Any]:
    """Return the pieces of text or bytes between offsets."""
    return [whole[start:end] for start, end in itertools.pairwise(ends)]


def validity_of(obj: Sequence[Any], missing: bool) -> npt.NDArray[np.uint8]:
    """Return Arrow's bitmap of the elements that are not None; empty where none is."""
    if not missing:
        return np.empty(0, np.uint8)
    valid = np.fromiter((value is not None for value in obj), np.bool_, len(obj))
    return np.packbits(valid, bitorder="little")


Lay = Callable[[Sequence[Any]], tuple[Iterable[int], bytes]]
"""Returns the lengths of some elements in bytes, and their bytes."""


def laid_out(obj: Sequence[Any], empty: Any, missing: bool, lay: Lay) -> list[Buffer]:
    """Return the offsets of elements, None replaced by `empty`, and their bytes, made when written."""
    count = len(obj)

    def blocks() -> Iterator[tuple[Iterable[int], bytes]]:
        for start in range(0, count, _WRITTEN):
            block = obj[start : start + _WRITTEN]
            if missing:
                block = [empty if value is None else value for value in block]
            yield lay(block)

    ends = np.zeros(count + 1, "<i8")
    late = Late(lambda: (data for _, data in blocks()))
    meter = _progress.meter()
    for start, (lengths, data) in zip(range(1, count + 1, _WRITTEN), blocks(), strict=True):
        found = ends[start : start + _WRITTEN]
        found[:] = np.fromiter(lengths, "<i8", len(found))
        late.measured(data)
        if meter is not None:
            meter.did(len(found))
    np.cumsum(ends, out=ends)
    return [ends, late]


def _lay_bytes(block: Sequence[Any]) -> tuple[Iterable[int], bytes]:
    return map(len, block), b"".join(block)


def _lay_integers(block: Sequence[Any]) -> tuple[Iterable[int], bytes]:
    return _lay_bytes([v.to_bytes(v.bit_length() // 8 + 1, "little", signed=True) for v in block])


_TAGS: Final = {bool: "?", int: "q", float: "d", bytes: "b"}
_NUMBERS: Final = {"?": "?", "q": "<i8", "d": "<f8"}
_PIECES: Final = {"b": (_Bytes, b"", _lay_bytes), "i": (_Integers, 0, _lay_integers)}


def pack(obj: Sequence[Any], cls: type, missing: bool) -> Encoded | None:
    """Return elements of one class, and None if some are `missing`, as one node; None for other classes."""
    if cls not in _TAGS or (cls is bytes and any(value and len(value) >= LONG for value in obj)):
        return None  # long bytes are mapped, not copied
    tag = _TAGS[cls]
    buffers: list[Buffer] = [validity_of(obj, missing)]
    if tag in _NUMBERS:
        values = [cls() if value is None else value for value in obj] if missing else obj
        try:
            buffers.append(np.fromiter(values, _NUMBERS[tag], len(values)))
        except OverflowError:
            tag = "i"
    if tag in _PIECES:
        _, empty, lay = _PIECES[tag]
        buffers += laid_out(obj, empty, missing, lay)
    return Encoded(column_meta(obj, missing, tag), buffers, (), Id.PACKED)


def column_meta(obj: Sequence[Any], missing: bool, *tag: str) -> bytes:
    """Return the meta of a column: what it is, of what, how long, and how many are missing."""
    kind = "tuple" if isinstance(obj, tuple) else "list"
    return to_json((kind, *tag, len(obj), obj.count(None) if missing else 0))


def opened(tag: str, head: Sequence[Any], buffers: Buffers) -> Column:
    """Return the column of some buffers; `head` says what it is, how long, and how many are missing."""
    if tag in _PIECES:
        return _PIECES[tag][0](head, buffers)
    validity, values = buffers
    return _Numbers(head, _NUMBERS[tag], validity, values)


class Numbers(NamedTuple):
    """A list of numbers as it is written, which was never there as a list; what is late of it as arrays."""

    column: Encoded
    arrays: Iterator[npt.NDArray[Any]]


def numbers(values: Collection[Any], *, is_late: bool = False) -> Numbers | None:
    """Return a column, made without a list; None if the values are no numbers of one kind, or too large.

    `is_late` says that it is made when it is written.

    Raises
    ------
    RuntimeError
        If what the values are in is changed meanwhile.
    """
    cls = type(next(iter(values), None))
    tag = _TAGS.get(cls, "")
    if tag not in _NUMBERS:
        return None
    dtype = _NUMBERS[tag]
    late = Late(lambda: (np.fromiter(piece, dtype, len(piece)) for piece in pieces_of(values)))
    array = np.empty(0 if is_late else len(values), dtype)
    end = 0
    for piece in pieces_of(values):
        if kinds_of(piece) != {cls}:
            return None
        start, end = end, end + len(piece)
        try:
            block = np.fromiter(piece, dtype, len(piece))
        except OverflowError:
            return None
        if is_late:
            late.measured(block)
        else:
            array[start:end] = block
    if end != len(values):
        raise RuntimeError(CHANGED)
    meta = to_json(("list", tag, end, 0))
    column = Encoded(meta, [validity_of((), False), late if is_late else array], (), Id.PACKED)
    return Numbers(column, (block.view(dtype) for block in late))


class PackedCodec(BuiltinCodec):
    """A list or tuple of int, float, bool or bytes."""

    id = Id.PACKED

    def encode(self, obj: Numbers) -> Encoded | None:
        return obj.column  # lists are packed by the codecs of lists and tuples

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Column:
        kind, tag, *numbers = from_json(meta)
        return opened(tag, (kind, *numbers), buffers)
