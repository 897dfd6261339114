"""`SharedMaskedArray`: a masked array whose data and mask lie in a region.

What is written to, and what is computed from one, is numpy's own class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from mori.codecs.masked import MaskedArrayCodec
from mori.errors import ReadOnlyViewError
from mori.format.codec import register
from mori.format.node import Node
from mori.memory.mapping import address_of, held_by
from mori.objects.array import SharedArray, shared_of
from mori.objects.array_memory import give_memory
from mori.objects.array_writes import add_writers, written
from mori.wire import reference, transport

__all__ = ["SharedMaskedArray", "over_node"]

_WRITERS: Final = (
    *("__setitem__", "__setmask__", "__iadd__", "__isub__", "__imul__", "__ifloordiv__", "__itruediv__"),
    *("__ipow__", "__imod__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"),
    *("__imatmul__", "fill", "itemset", "partition", "put", "resize", "setfield", "sort"),
)
_WRITTEN_ATTRIBUTES: Final = frozenset({"mask", "recordmask", "flat", "real", "imag"})


_MaskedArray: Any = np.ma.MaskedArray  # what its type hints leave out is used here


class _Origin(NamedTuple):
    """The node of a masked array, and what could be changed of that without a write to its elements."""

    node: Node
    span: Any  # no array: one over this array would be a cycle that nothing collects
    mask: Any
    fill: Any
    hard: bool
    info: Any


class SharedMaskedArray(np.ma.MaskedArray[Any, np.dtype[Any]]):
    """A masked array whose data and mask lie in shared memory, mapped by every process of the host.

    Made by `mori.share`. Slices are SharedMaskedArrays too, and their data and masks pickle as
    references; results of arithmetic are plain masked arrays.

    Notes
    -----
    The first write turns this array, and no other, into a plain `numpy.ma.MaskedArray` with data and
    mask of its own. A write through a part raises `mori.ReadOnlyViewError`, since it would be lost.
    """

    _mask: Any
    _fill_value: Any
    _hardmask: Any
    _optinfo: Any
    _mori: _Origin | None = None
    _mori_is_standalone: bool = False

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        if held_by(self) is None:
            self.__class__ = _MaskedArray

    def __array_ufunc__(self, ufunc: np.ufunc, method: Any, *inputs: Any, **kwargs: Any) -> Any:
        for out in kwargs.get("out", ()):
            _make_private(out)
        if method == "at":
            _make_private(inputs[0])
        if "where" in kwargs:
            kwargs["where"] = _plain(kwargs["where"])
        return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        for out in written(func, args, kwargs):
            _make_private(out)
        return np.ndarray.__array_function__(self, func, types, args, kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _WRITTEN_ATTRIBUTES:
            _make_private(self)
        _MaskedArray.__setattr__(self, name, value)  # which may be its class by now

    @property
    def data(self) -> Any:
        """The data without the mask, a SharedArray."""
        data = np.ndarray.view(self, np.ndarray)
        return shared_of(data) if held_by(data) is not None else data

    @property
    def mask(self) -> Any:
        """The mask, a SharedArray."""
        mask: Any = super().mask
        return mask if mask is np.ma.nomask or held_by(mask) is None else shared_of(mask)

    @mask.setter
    def mask(self, value: Any) -> None:
        _MaskedArray.mask.__set__(self, value)

    def setflags(self, write: Any = None, align: Any = None, uic: Any = None) -> None:
        """Set array flags; ``write=True`` makes the array private first."""
        if write:
            _make_private(self)
        np.ndarray.setflags(self, write=write, align=align, uic=uic)

    def unshare_mask(self) -> Any:
        """Make the mask private to this array."""
        _make_private(self)
        return self.unshare_mask()

    def dump(self, file: Any) -> None:
        """Pickle the array to a file, with its elements."""
        self._mori_materialize().dump(file)

    def dumps(self) -> Any:
        """Return the pickle of the array, with its elements."""
        return self._mori_materialize().dumps()

    def __deepcopy__(self, memo: Any = None) -> Any:
        return self._mori_materialize()

    def _mori_is_intact(self) -> bool:
        origin = self._mori
        return (
            origin is not None
            and _span(self) == origin.span
            and self._mask is origin.mask
            and (self._fill_value is origin.fill or (origin.fill is None and _is_default(self)))
            and bool(self._hardmask) == origin.hard
            and self._optinfo == origin.info
        )

    def _mori_materialize(self) -> Any:
        """Return a private copy: data, mask, fill value and all."""
        private = np.ndarray.view(self, np.ndarray).copy(order="K").view(_MaskedArray)
        private._mask = self._mask.copy(order="K") if self._mask is not np.ma.nomask else np.ma.nomask
        private._fill_value = None if self._fill_value is None else self._fill_value.copy()
        private._hardmask = self._hardmask
        private._optinfo = dict(self._optinfo)
        return private

    def __reduce_ex__(self, protocol: Any) -> Any:
        origin = self._mori
        if origin is not None and self._mori_is_intact():
            if transport.is_wanted(origin.node.mapping):
                return reference.by_reference(origin.node.mapping, origin.node.offset)
            return reference.by_value(origin.node, protocol)
        mask = self._mask
        if mask is not np.ma.nomask:
            mask = shared_of(mask) if held_by(mask) is not None else mask
        return _of_parts, (self.data, mask, self._fill_value, bool(self._hardmask), dict(self._optinfo))


def _span(array: Any) -> Any:
    return address_of(array), array.shape, array.strides, array.dtype


def _is_default(array: Any) -> bool:
    """Return whether the fill value is the one that numpy puts there when it is asked for it."""
    with np.errstate(over="ignore"):  # numpy's default does not fit into a float16
        default: Any = np.empty(0, array.dtype).view(_MaskedArray).fill_value
        values = [np.asarray(value, array.dtype).tobytes() for value in (default, array.fill_value)]
    return values[0] == values[1]


def _of_parts(data: Any, mask: Any, fill: Any, hard: bool, info: dict[Any, Any]) -> Any:
    """Return a masked array of its parts; a shared one where its data is."""
    made: Any = np.asarray(data).view(SharedMaskedArray)
    made._mask = mask if mask is np.ma.nomask else np.asarray(mask)
    made._fill_value, made._hardmask, made._optinfo = fill, hard, info
    if isinstance(made, SharedMaskedArray):
        made._mori_is_standalone = True
    return made


def _make_private(array: Any) -> None:
    """Make a shared masked array private, in place, and an instance of numpy's own class."""
    if not isinstance(array, SharedMaskedArray):
        if isinstance(array, SharedArray):
            array.setflags(write=True)
        return
    if not array._mori_is_standalone:
        raise ReadOnlyViewError
    plain = np.ndarray.view(array, np.ndarray)
    fortran = plain.flags.f_contiguous and not plain.flags.c_contiguous
    # Views taken before point into the mapping, but what numpy has them hold is this array.
    array.__dict__["_mori_before"] = _KeepAlive(held_by(plain))
    dtype, data = plain.dtype, plain.tobytes("F" if fortran else "C")
    mask = array._mask
    del plain
    give_memory(array, dtype, fortran, data)
    array._mask = mask if mask is np.ma.nomask else mask.copy(order="K")
    array._sharedmask = False
    array.__dict__.update(_mori=None, _mori_is_intact=_is_not)  # a container may still look
    array.__class__ = _MaskedArray


def _plain(value: Any) -> Any:
    return value.view(_MaskedArray) if isinstance(value, SharedMaskedArray) else value


def _is_not() -> bool:
    return False


class _KeepAlive:
    """Keeps alive what an array shared before; a copy of the array does not need it."""

    def __init__(self, mapping: object) -> None:
        self._mapping = mapping

    def __deepcopy__(self, memo: object) -> None:
        return None


add_writers(SharedMaskedArray, _MaskedArray, _WRITERS, _make_private)


def over_node(node: Node, masked: Any) -> Any:
    """Return what the user holds of a masked array over a region."""
    shared = masked.view(SharedMaskedArray)
    if not isinstance(shared, SharedMaskedArray):  # nothing of it lies in the region: no elements
        return masked
    shared._mask, shared._fill_value = masked._mask, masked._fill_value
    shared._hardmask, shared._optinfo = masked._hardmask, masked._optinfo
    info = dict(shared._optinfo)
    shared._mori = _Origin(
        node, _span(shared), shared._mask, shared._fill_value, bool(shared._hardmask), info
    )
    shared._mori_is_standalone = True
    return shared


class _MaskedArrayCodec(MaskedArrayCodec):
    """Masked arrays."""

    def open(self, node: Node) -> Any:
        return over_node(node, self.read(node))

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return obj._mori_materialize() if isinstance(obj, SharedMaskedArray) else obj


register(_MaskedArrayCodec(), np.ma.MaskedArray, SharedMaskedArray)
