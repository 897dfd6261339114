"""Lists and tuples of many arrays of one dtype in one node: their elements one behind the other.

Where the arrays differ in length, offsets say where each begins; where they differ in more than their first
dimension, each has its shape beside it. An array is returned as a view, without a copy and without a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori import _progress
from mori.codecs.ndarray import NdarrayCodec, dtype_from_plain, dtype_to_plain, is_named, is_plain
from mori.format import codec
from mori.format.codec import Buffer, Buffers, BuiltinCodec, Encoded, Joined
from mori.format.layout import Id, from_json, to_json
from mori.format.refcounts import held_twice
from mori.format.survey import Survey
from mori.memory.mapping import address_of

__all__ = ["Arrays", "ArraysCodec", "pack"]

_Array = npt.NDArray[Any]

_LARGE: Final = 1 << 16
"""Bytes of an array, on average, from which on each is a node: writing then takes longer than all else."""

_DIMENSIONS: Final = 16  # at most
_JOINED: Final = frozenset("?bBhHiIlLefdFD")  # what numpy joins as it stands, padding and all
_KINDS: Final = {"list": list, "tuple": tuple}
_get: Final = np.ndarray.__getitem__  # of a subclass, too: without its own method


def _joined(dtype: np.dtype[Any]) -> Callable[[Sequence[_Array]], _Array]:
    """Return what joins the elements of arrays of a dtype."""
    raw = None if dtype.char in _JOINED and dtype.isnative else np.dtype((np.void, dtype.itemsize))

    def join(arrays: Sequence[_Array]) -> _Array:
        if raw is not None:
            arrays = [array.view(raw) for array in arrays]
        joined: _Array = arrays[0].reshape(-1) if len(arrays) == 1 else np.concatenate(arrays, axis=None)
        return joined.view(np.uint8)

    return join


def pack(obj: Sequence[Any], kinds: Collection[type], survey: Survey, holders: int) -> Encoded | None:
    """Return arrays as one node; None for what is not of one dtype, or has to be in nodes of its own.

    `holders` is how many containers refer to each of them.
    """
    if not kinds or not all(map(_is_written_plain, kinds)):
        return None
    arrays: list[_Array] = [*obj]
    held = held_twice(arrays, holders)
    if kinds != {np.ndarray}:
        arrays = [np.ndarray.view(one, np.ndarray) for one in obj]
    dtypes = {id(dtype): dtype for dtype in map(attrgetter("dtype"), arrays)}
    if not all(map(is_plain, dtypes.values())):
        return None
    is_one_dtype = len({to_json(dtype_to_plain(dtype)) for dtype in dtypes.values()}) == 1
    layouts: set[tuple[tuple[int, ...], tuple[int, ...]]] = set(map(attrgetter("shape", "strides"), arrays))
    itemsize = arrays[0].itemsize
    if not is_one_dtype or not itemsize or any(_is_fortran(*layout, itemsize) for layout in layouts):
        return None
    shapes = {shape for shape, _ in layouts}
    dimensions, *others = {len(shape) for shape in shapes}
    if others or dimensions > _DIMENSIONS:
        return None
    shape = [lengths.pop() if len(lengths) == 1 else None for lengths in map(set, zip(*shapes, strict=True))]
    ends = np.zeros(len(arrays) + 1, "<i8")
    np.cumsum(np.fromiter(map(attrgetter("size"), arrays), "<i8", len(arrays)), out=ends[1:])
    if not 0 < int(ends[-1]) * itemsize < _LARGE * len(arrays) or not survey.take_arrays(held):
        return None
    buffers: list[Buffer] = [Joined(arrays, ends, _joined(arrays[0].dtype), itemsize)]
    if None in shape:
        rows = _rows(shape)
        buffers.append(ends if rows == 1 else ends // rows)
        if None in shape[1:]:
            buffers.append(np.array([array.shape for array in arrays], "<i8"))
    if (meter := _progress.meter()) is not None:
        meter.did(len(arrays))
    kind = "tuple" if isinstance(obj, tuple) else "list"
    meta = to_json((kind, dtype_to_plain(arrays[0].dtype), len(arrays), shape))
    return Encoded(meta, buffers, (), Id.ARRAYS)


def _is_written_plain(cls: type) -> bool:
    return isinstance(codec.for_type(cls), NdarrayCodec) and not is_named(cls)


def _is_fortran(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Return whether an array is of Fortran's order alone, which a single one keeps."""
    if len(shape) < 2 or 0 in shape:
        return False
    return _follow(shape, strides, itemsize) and not _follow(shape[::-1], strides[::-1], itemsize)


def _follow(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    for length, step in zip(shape, strides, strict=True):
        if length != 1 and step != itemsize:
            return False
        itemsize *= length
    return True


def _rows(shape: Sequence[int | None]) -> int:
    """Return how many elements an offset counts: those of a row, where only the first dimension varies."""
    return 1 if None in shape[1:] else math.prod(shape[1:])  # type: ignore[arg-type]


class Arrays:
    """The arrays of a node, views of its buffer.

    `cls` is their class. They are checked one by one when they are asked for.

    Raises
    ------
    ValueError
        When it is made, if the buffers have not the lengths that belong to the meta; from a method, if an
        array lies outside of the data.
    """

    def __init__(self, meta: bytes, buffers: Buffers, cls: type[_Array] = np.ndarray) -> None:
        kind, form, length, shape = from_json(meta)
        data, *rest = buffers
        dtype = dtype_from_plain(form)
        if kind not in ("list", "tuple") or type(length) is not int or length < 1:
            raise ValueError(f"{str(length)[:40]} arrays of a {str(kind)[:40]}")
        lengths = [one for one in shape if one is not None]
        if type(shape) is not list or any(type(one) is not int or one < 0 for one in lengths):
            raise ValueError(f"{str(shape)[:40]} is no shape")
        if not dtype.itemsize or not data.nbytes or data.nbytes % dtype.itemsize:
            raise ValueError(f"{data.nbytes} bytes for elements of {dtype}")
        self.kind: type[Any] = _KINDS[kind]
        self.length: int = length
        self.shape: list[int | None] = shape
        self.data: _Array = np.ndarray((data.nbytes // dtype.itemsize,), dtype, data)
        self.stack: _Array | None = None
        """All arrays as one, if they are of one shape."""
        self._trusted = buffers.trusted
        self._shapes: _Array | None = None
        if None not in shape:
            if length * math.prod(shape) != self.data.size or rest:
                raise ValueError(f"{length} arrays of {shape} do not have {data.nbytes} bytes")
            self.stack = self.data.reshape(length, *shape)
            self._base = self.stack.view(cls)
            return
        offsets, *shapes = rest
        if offsets.nbytes != 8 * (length + 1) or len(shapes) != (None in shape[1:]):
            raise ValueError(f"{offsets.nbytes} bytes of offsets for {length} arrays of {shape}")
        self._offsets: _Array = np.ndarray((length + 1,), "<i8", offsets)
        self._rows = _rows(shape)
        if shapes:
            if shapes[0].nbytes != 8 * length * len(shape):
                raise ValueError(f"{shapes[0].nbytes} bytes of shapes for {length} arrays of {shape}")
            self._shapes = np.ndarray((length, len(shape)), "<i8", shapes[0])
            self._base = self.data.view(cls)
        else:
            if not self._rows or self.data.size % self._rows:
                raise ValueError(f"arrays of {shape} in {data.nbytes} bytes")
            self._base = self.data.reshape(-1, *shape[1:]).view(cls)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> _Array:
        if self.stack is not None:
            return _get(self._base, index if self.shape else (index, ...))
        start, end = self._span(index)
        array = _get(self._base, slice(start, end))
        return array if self._shapes is None else _shaped(array, self._shapes[index].tolist())

    def _span(self, index: int) -> tuple[int, int]:
        """Return where an array begins and ends, in rows; one that is empty lies in the data, too."""
        start, end = self._offsets.item(index), self._offsets.item(index + 1)
        if not 0 <= start <= end <= len(self._base):
            raise ValueError(f"array {index} from {start} to {end} of {len(self._base)}")
        return (start, end) if start < end else (0, 0)

    def block(self, start: int, stop: int) -> list[_Array]:
        """Return the arrays between two places."""
        places = range(start, stop)
        if self.stack is not None:
            keys: Any = places if self.shape else zip(places, repeat(...))
            return [*map(_get, repeat(self._base), keys)]
        ends = self._offsets[start : stop + 1]
        if not self._trusted or bool((ends[1:] == ends[:-1]).any()):
            keys = [slice(*self._span(place)) for place in places]
        else:
            keys = map(slice, ends[:-1].tolist(), ends[1:].tolist())
        arrays = [*map(_get, repeat(self._base), keys)]
        return arrays if self._shapes is None else [*map(_shaped, arrays, self._shapes[start:stop].tolist())]

    def find(self, array: _Array) -> int | None:
        """Return which of the arrays an array over the data is; None if it is none, or empty."""
        place, rest = divmod(address_of(array) - address_of(self.data), self.data.itemsize)
        if rest or not array.size:
            return None
        if self.stack is not None:
            index = place // (self.data.size // self.length)
        else:
            index = int(np.searchsorted(self._offsets, place // self._rows, "right")) - 1
        if not 0 <= index < self.length:
            return None
        found = self[index]
        is_there = address_of(found) == address_of(array) and found.dtype == array.dtype
        return index if is_there and (found.shape, found.strides) == (array.shape, array.strides) else None


def _shaped(array: _Array, shape: list[int]) -> _Array:
    if min(shape) < 0 or math.prod(shape) != array.size:
        raise ValueError(f"{array.size} elements of an array of {shape}")
    return array.reshape(shape)


class ArraysCodec(BuiltinCodec):
    """A list or tuple of arrays."""

    id = Id.ARRAYS

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Arrays:
        return Arrays(meta, buffers)
