"""How arrays are opened, viewed, reopened and copied: as SharedArrays, or shared versions of subclasses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori._imports import load
from mori.codecs.ndarray import CLASSES, NdarrayCodec, ObjectsCodec, name_class, view_of
from mori.format.codec import Range, Strides, register
from mori.format.node import Node
from mori.memory.mapping import Mapping, Reopener, address_of
from mori.objects.array import SharedArray, private_copy
from mori.objects.array_methods import add_methods

__all__ = ["hand_out", "subclass"]

_classes: dict[type, type[SharedArray]] = {}


def subclass(cls: type[SharedArray]) -> None:
    """Make a class known as the shared version of numpy's subclass of ndarray that it derives from."""
    name = cls._ordinary.__name__ if cls is not SharedArray else None
    _classes[cls._ordinary] = cls
    if cls is not SharedArray:
        cls.__array_priority__ = cls._ordinary.__array_priority__  # type: ignore[assignment]
    if name is not None:
        name_class(cls, name)
    register(_ARRAYS, cls)
    add_methods(cls)


def hand_out(array: npt.NDArray[Any]) -> SharedArray:
    """Return what the user holds: a view is of no class but SharedArray until `as_class` makes it so."""
    if type(array) not in _classes:
        load("mori.objects.array_subclasses")
    shared = array.view(_classes[type(array)])
    shared.__dict__["_alone"] = (
        True  # as an attribute, it would be looked at whether that writes to the array
    )
    return shared


def _reopen(shape: Any, dtype: Any, start: int, strides: Any, mapping: Mapping) -> SharedArray:
    shared: SharedArray = np.ndarray.__new__(SharedArray, shape, dtype, mapping.bytes(), start, strides)
    shared._alone = True
    return shared


class _ArrayCodec(NdarrayCodec):
    """Arrays without objects: SharedArrays over the region."""

    def open(self, node: Node) -> SharedArray:
        return hand_out(self.read(node))

    def view(self, node: Node, view: Strides | Range) -> SharedArray:
        if not isinstance(view, Strides):
            raise node.decode_error("a reference takes it for a column of Arrow")
        return self.wrap(node, view_of(node, view, self.read(node).dtype))

    def wrap(self, node: Node, array: npt.NDArray[Any]) -> SharedArray:
        return hand_out(array.view(np.ndarray))

    def reopener(self, node: Node, obj: Any) -> Reopener | None:
        if type(obj) is not SharedArray or not obj.size or obj.dtype.names is not None:
            return None  # fields can be renamed in place
        start = address_of(obj) - node.mapping.address
        return partial(_reopen, obj.shape, obj.dtype, start, obj.strides)

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return private_copy(obj) if isinstance(obj, SharedArray) else obj


class _ObjectArrayCodec(ObjectsCodec):
    """Arrays of objects: SharedArrays over private memory, which know their node."""

    def open(self, node: Node) -> SharedArray:
        array = self.read(node)
        array.flags.writeable = False
        shared = hand_out(array)
        shared._rebuilt = node
        return shared


_ARRAYS: Final = _ArrayCodec()
_OBJECTS: Final = _ObjectArrayCodec()
register(_ARRAYS, np.ndarray, np.memmap, *CLASSES.values())
register(_OBJECTS)
