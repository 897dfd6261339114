"""Lists and tuples of one kind of value in one node: numbers, bytes, dates, times and numpy's scalars.

None where one is missing. A few elements of other kinds stand beside the column, with their places.

What it decodes to is a `Column`, which reads an element, or a block of them, when it is asked to; nothing is
scanned when it is opened. Types are exact: ``[True, 1]`` has two kinds, and no column.
"""

from __future__ import annotations

import datetime as dt
import io
import itertools
import operator
import pickle
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from mori import _progress
from mori.codecs.ndarray import dtype_from_plain, dtype_to_plain
from mori.format.atoms import pieces_of, types_of
from mori.format.codec import CHANGED, Buffer, Buffers, BuiltinCodec, Encoded, Joined
from mori.format.layout import Id, from_json, to_json

__all__ = [
    "Column",
    "Numbers",
    "PackedCodec",
    "Pieces",
    "cut",
    "filled",
    "laid_out",
    "numbers",
    "opened",
    "pack",
    "with_odd",
    "without_odd",
]

BLOCK: Final = 4096
"""Elements that are decoded at once, at most."""
_BLOCK_NBYTES: Final = 1 << 20  # of text or bytes; more only where a single element is longer
_MEASURED: Final = 1 << 14  # elements at once
_MAPPED: Final = 1 << 16
"""Bytes from which on bytes are mapped, not copied, also in a column."""
_OFFSETS: Final = struct.Struct("<qq")
_KINDS: Final = {"list": list, "tuple": tuple}


class Column:
    """The elements of a packed node, decoded on demand.

    Whatever its methods raise on damaged bytes is a ValueError.
    """

    array: npt.NDArray[Any] | None = None
    """The elements where they lie, read-only, if they are numbers none of which is missing."""

    def __init__(self, head: Sequence[Any], buffers: Buffers) -> None:
        kind, length, missing, *odd = head
        validity, *self._buffers = buffers  # the others are the subclass's
        if kind not in ("list", "tuple"):
            raise ValueError(f"a column that is a {str(kind)[:40]}")
        if type(length) is not int or type(missing) is not int or not 0 <= missing <= length:
            raise ValueError(f"{str(missing)[:40]} of {str(length)[:40]} elements missing")
        if validity.nbytes != ((length + 7) // 8 if missing else 0):
            raise ValueError(f"{validity.nbytes} bytes of validity for {length} elements")
        self.kind: type[Any] = _KINDS[str(kind)]
        self._length = length
        self._validity = validity if missing else None
        self._odd: dict[int, Any] = {}
        """Elements of other kinds, by their places."""
        if odd:
            *self._buffers, places, stream = self._buffers
            self._odd = _opened_odd(odd, length, places, stream)
            self._places = [*self._odd]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        if self._validity is not None and not self._validity[index >> 3] >> (index & 7) & 1:
            return None
        return self._odd[index] if index in self._odd else self._value(index)

    def block(self, start: int, stop: int) -> list[Any]:
        """Return elements from `start` on: at least one and as many as are well decoded at once."""
        values = self._values(start, min(stop, start + BLOCK, self._length))
        if self._validity is not None:
            first = start & ~7
            bits = self._validity[first >> 3 : (start + len(values) + 7) >> 3]
            valid = np.unpackbits(bits, bitorder="little")[start - first :][: len(values)]
            for place in np.flatnonzero(valid == 0).tolist():
                values[place] = None
        if self._odd:
            first = bisect_left(self._places, start)
            for place in self._places[first : bisect_left(self._places, start + len(values))]:
                values[place - start] = self._odd[place]
        return values

    def _value(self, index: int) -> Any:
        raise NotImplementedError

    def _values(self, start: int, stop: int) -> list[Any]:
        raise NotImplementedError


class _Values(Column):
    """Elements of one dtype: numbers, dates and times of Python's, or scalars of numpy's."""

    def __init__(self, head: Sequence[Any], tag: str, buffers: Buffers) -> None:
        super().__init__(head, buffers)
        (values,) = self._buffers
        self._is_numpy = tag[:1] == _NUMPY
        dtype = dtype_from_plain(tag[1:]) if self._is_numpy else np.dtype(_DTYPES[tag])
        if values.nbytes != dtype.itemsize * len(self) or (self._is_numpy and dtype.kind not in _SCALARS):
            raise ValueError(f"{values.nbytes} bytes for {len(self)} elements of {dtype}")
        self._array: npt.NDArray[Any] = np.ndarray((len(self),), dtype, values)
        if self._validity is None and not self._odd and (self._is_numpy or dtype.kind not in "mM"):
            self.array = self._array  # as numpy makes one of such a list

    def _value(self, index: int) -> Any:
        return self._array[index] if self._is_numpy else self._array.item(index)

    def _values(self, start: int, stop: int) -> list[Any]:
        array = self._array[start:stop]
        return [*array] if self._is_numpy else cast(list[Any], array.tolist())


class Pieces(Column):
    """Elements of any width, one behind the other, and the offsets between them, as Arrow has them."""

    def __init__(self, head: Sequence[Any], buffers: Buffers) -> None:
        super().__init__(head, buffers)
        offsets, data = self._buffers
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


class Filled(NamedTuple):
    """Elements with a value in the place of None."""

    values: list[Any]
    validity: npt.NDArray[np.uint8]
    """Arrow's bitmap of those that are not None; empty where none is."""
    missing: int

    def meta(self, obj: Sequence[Any], *tag: str) -> bytes:
        """Return the meta of a column: what it is, of what, how long, and how many are missing."""
        return to_json(("tuple" if isinstance(obj, tuple) else "list", *tag, len(self.values), self.missing))


def filled(obj: Sequence[Any], missing: bool, empty: Any = None) -> Filled:
    """Return elements with `empty`, or else one of them, in the place of each None.

    `missing` says whether there are any.
    """
    values = [*obj]
    if not missing:
        return Filled(values, np.empty(0, np.uint8), 0)
    valid = np.ones(len(values), np.bool_)
    if empty is None:
        empty = next(value for value in values if value is not None)
    count, place = values.count(None), -1
    for _ in range(count):
        place = values.index(None, place + 1)
        values[place] = empty
        valid[place] = False
    return Filled(values, np.packbits(valid, bitorder="little"), count)


Measure = Callable[[Sequence[Any]], Iterable[int]]
"""Returns how many bytes each of some elements has."""

Join = Callable[[Sequence[Any]], bytes]
"""Returns the bytes of some elements."""


def laid_out(values: list[Any], measure: Measure, join: Join) -> list[Buffer]:
    """Return the offsets of elements, in a list that nobody else has, and their bytes, made when written."""
    ends = np.zeros(len(values) + 1, "<i8")
    meter = _progress.meter()
    for start in range(0, len(values), _MEASURED):
        block = values[start : start + _MEASURED]
        ends[start + 1 : start + len(block) + 1] = np.fromiter(measure(block), "<i8", len(block))
        if meter is not None:
            meter.did(len(block))
    np.cumsum(ends, out=ends)
    return [ends, Joined(values, ends, join)]


def _lengths(block: Sequence[bytes]) -> Iterable[int]:
    return map(len, block)


def _sizes_of_integers(block: Sequence[int]) -> Iterable[int]:
    return [value.bit_length() // 8 + 1 for value in block]


def _join_integers(block: Sequence[int]) -> bytes:
    return b"".join([value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True) for value in block])


_NUMPY: Final = "g"  # before the dtype of numpy's scalars
_SCALARS: Final = "biufcmM"  # kinds of dtypes that they have
_TAGS: Final[dict[type, str]] = {
    bool: "?",
    int: "q",
    float: "d",
    complex: "c",
    bytes: "b",
    dt.date: "D",
    dt.datetime: "T",
    dt.timedelta: "t",
}
_DTYPES: Final = {
    "?": "?",
    "q": "<i8",
    "d": "<f8",
    "c": "<c16",
    "D": "<M8[D]",
    "T": "<M8[us]",
    "t": "<m8[us]",
}
_NUMBERS: Final = frozenset({bool, int, float})
_NUMBERS_AND_BYTES: Final = frozenset("?qdcb")
_PIECES: Final[dict[str, tuple[type[Pieces], Measure, Join]]] = {
    "b": (_Bytes, _lengths, b"".join),
    "i": (_Integers, _sizes_of_integers, _join_integers),
}
_EPOCH: Final = dt.datetime(1970, 1, 1)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_is_plain_time: Final = frozenset({(None, 0)}).issuperset
_zone_and_fold: Final = operator.attrgetter("tzinfo", "fold")


def _counted(values: Sequence[Any], cls: type) -> Sequence[Any] | None:
    """Return dates and times as int64 have them, which numpy takes thirty times as long for; numbers as they
    are. None for what has a time zone.
    """
    if cls is dt.date:
        first = _EPOCH.toordinal()
        return [value.toordinal() - first for value in values]
    if cls is dt.datetime:
        if not _is_plain_time(map(_zone_and_fold, values)):
            return None
        return [(value - _EPOCH) // _MICROSECOND for value in values]
    return [value // _MICROSECOND for value in values] if cls is dt.timedelta else values


def pack(obj: Sequence[Any], cls: type, missing: bool) -> Encoded | None:
    """Return elements of one class, and None if some are `missing`, as one node; None for other classes."""
    tag = _TAGS.get(cls, "")
    if not tag and not issubclass(cls, np.generic):
        return None
    column = filled(obj, missing, cls() if tag in _NUMBERS_AND_BYTES else None)
    packed: tuple[Any, ...] | None = (tag,)
    if tag == "b":
        if max(map(len, column.values), default=0) >= _MAPPED:
            return None
    else:
        packed = _packed(column.values, cls, tag)
    if packed is None:
        return None
    tag, *buffers = packed
    if tag in _PIECES:
        buffers = laid_out(column.values, *_PIECES[tag][1:])
    return Encoded(column.meta(obj, tag), [column.validity, *buffers], (), Id.PACKED)


def _packed(values: Sequence[Any], cls: type, tag: str) -> tuple[Any, ...] | None:
    """Return the tag of elements of one dtype and their array, without it where they have to be laid out."""
    if not tag:
        dtypes = set(map(operator.attrgetter("dtype"), values))
        dtype = dtypes.pop()
        if dtypes or dtype.kind not in _SCALARS or dtype.char in "gG" or dtype.type is not cls:
            return None  # the padding of long doubles has no value, and subclasses are another matter
        return _NUMPY + dtype_to_plain(dtype), np.fromiter(values, dtype, len(values))
    counts = _counted(values, cls)
    if counts is None:
        return None
    dtype = np.dtype(_DTYPES[tag])
    try:
        numbers = np.fromiter(counts, "<i8" if dtype.kind in "mM" else dtype, len(counts))
    except OverflowError:
        return ("i",) if cls is int else None
    return tag, numbers


def opened(tag: str, head: Sequence[Any], buffers: Buffers) -> Column:
    """Return the column of some buffers; `head` says what it is, how long, and how many are missing."""
    if tag in _PIECES:
        return _PIECES[tag][0](head, buffers)
    return _Values(head, tag, buffers)


_ODD: Final = frozenset({bool, int, float, str, bytes})
_FEW: Final = 64  # elements of a column, for each one of another kind
_SAMPLED: Final = 256  # elements that tell whether it is worth counting


class _Builtins(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"an element that is a {module[:40]}.{name[:40]}")


def _opened_odd(head: list[Any], length: int, places: Any, stream: Any) -> dict[int, Any]:
    """Return elements of other kinds by their places; `head` is how many there are, and their checksum."""
    count, checksum = head
    if places.nbytes != 8 * count or zlib.crc32(stream) != checksum:
        raise ValueError(f"{places.nbytes} bytes for the places of {str(count)[:40]} elements of other kinds")
    values = _Builtins(io.BytesIO(stream)).load()
    odd = dict(zip(places.view("<i8").tolist(), values, strict=True))
    if len(odd) != count or [*odd] != sorted(odd) or not all(0 <= place < length for place in odd):
        raise ValueError(f"{str(count)[:40]} elements of other kinds at places that make no sense")
    return odd


def without_odd(obj: Sequence[Any], kinds: set[type]) -> tuple[Sequence[Any], type, dict[int, Any]] | None:
    """Return a column's elements, their kind, and by their places the few of other kinds that were taken out.

    None if those are too many, or if one of the kinds is not among the plain values.
    """
    sample = [*map(type, obj[:: len(obj) // _SAMPLED + 1])]
    if not kinds <= _ODD or max(map(sample.count, kinds)) < len(sample) // 2:
        return None
    types = [*map(type, obj)]
    counts = {cls: types.count(cls) for cls in kinds}
    cls = max(counts, key=lambda one: counts[one])
    few = sum(counts.values()) - counts[cls]
    if few * _FEW > len(types):
        return None
    values, odd, some = [*obj], dict[int, Any](), obj[types.index(cls)]
    for other in kinds - {cls}:
        place = -1
        for _ in range(counts[other]):
            place = types.index(other, place + 1)
            odd[place], values[place] = values[place], some
    odd = dict(sorted(odd.items()))
    return tuple(values) if isinstance(obj, tuple) else values, cls, odd


def with_odd(column: Encoded, odd: dict[int, Any]) -> Encoded:
    """Return a column with the elements that were replaced beside it."""
    stream = pickle.dumps([*odd.values()], 5)
    meta = to_json([*from_json(column.meta), len(odd), zlib.crc32(stream)])
    places = np.fromiter(odd, "<i8", len(odd))  # in order
    return column._replace(meta=meta, buffers=[*column.buffers, places, np.frombuffer(stream, np.uint8)])


class Numbers(NamedTuple):
    """A list of numbers as it is written, which was never there as a list."""

    column: Encoded
    array: npt.NDArray[Any]

    def are(self, values: Collection[Any]) -> bool:
        """Return whether they are these values still."""
        end = 0
        try:
            for piece in pieces_of(values):
                start, end = end, end + len(piece)
                now = np.fromiter(piece, self.array.dtype, len(piece))
                if now.tobytes() != self.array[start:end].tobytes():
                    return False
        except (OverflowError, TypeError, ValueError, RuntimeError):
            return False
        return end == len(self.array)


def numbers(values: Collection[Any]) -> Numbers | None:
    """Return a column, made without a list; None if the values are no numbers of one kind, or too large.

    Raises
    ------
    RuntimeError
        If what the values are in is changed meanwhile.
    """
    cls = type(next(iter(values), None))
    if cls not in _NUMBERS:
        return None
    array = np.empty(len(values), _DTYPES[_TAGS[cls]])
    end = 0
    for piece in pieces_of(values):
        start, end = end, end + len(piece)
        try:
            array[start:end] = np.fromiter(piece, array.dtype, len(piece)) if types_of(piece) == {cls} else ()
        except (OverflowError, ValueError):
            return None
    if end != len(array):
        raise RuntimeError(CHANGED)
    meta = to_json(("list", _TAGS[cls], end, 0))
    return Numbers(Encoded(meta, [np.empty(0, np.uint8), array], (), Id.PACKED), array)


class PackedCodec(BuiltinCodec):
    """A list or tuple of int, float, bool or bytes."""

    id = Id.PACKED

    def encode(self, obj: Numbers) -> Encoded | None:
        return obj.column  # lists are packed by the codecs of lists and tuples

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Column:
        kind, tag, *numbers = from_json(meta)
        return opened(tag, (kind, *numbers), buffers)
