"""How arrays are opened, viewed, reopened and copied: as SharedArrays, or shared versions of subclasses.

The shared versions of recarray, matrix and chararray behave as those do: what is computed from one is of
numpy's class. Their methods are numpy's, but for those that would return this class, and those that write to
the array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori.codecs.ndarray import CLASSES, NdarrayCodec, ObjectsCodec, name_class, view_of
from mori.format.codec import Range, Strides, register
from mori.format.node import Node
from mori.memory.mapping import held_by
from mori.objects.array import (
    SharedArray,
    base_class,
    make_writeable,
    private_array,
    remember_whole,
    shared_of,
)
from mori.objects.array_writes import add_writers, written

__all__ = ["SharedArrayCodec", "SharedMatrix", "SharedObjectsCodec", "SharedRecords", "hand_out"]

_PLAIN: Final = (  # methods of which numpy would make results of this class, though they are no views
    *("argpartition", "argsort", "astype", "byteswap", "choose", "clip", "compress", "conj", "conjugate"),
    *("copy", "cumprod", "cumsum", "dot", "flatten", "mean", "repeat", "round", "searchsorted", "std"),
    *("take", "trace", "var", "argmax", "argmin", "nonzero", "all", "any", "max", "min", "prod", "sum"),
    *("ptp", "dump", "dumps"),  # what is dumped goes to a file, and may outlive the region
)
_IN_PLACE: Final = ("fill", "itemset", "partition", "put", "setfield", "sort")


def _add_methods(cls: type[SharedArray]) -> None:
    """Add to a class the methods of numpy's class that it stands for."""
    for one in _PLAIN:
        if hasattr(cls._ordinary, one):
            setattr(cls, one, _plain_method(cls._ordinary, one))
    add_writers(cls, cls._ordinary, _IN_PLACE, make_writeable)
    if cls is SharedArray:
        for one in ("argmax", "argmin"):
            setattr(cls, one, _reading(one))


def _plain_method(ordinary: Any, name: str) -> Callable[..., Any]:
    plain = getattr(ordinary, name)
    is_new = name not in ("astype", "conj", "conjugate", "byteswap")  # the result, at any rate

    def method(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        if is_new and not args and not kwargs:
            return plain(self.view(ordinary))
        for out in written(name, args, kwargs):
            make_writeable(out)
        if name == "byteswap" and (kwargs.get("inplace") or (args and args[0])):
            make_writeable(self)
            return plain(self, *args, **kwargs)
        if name in ("astype", "conj", "conjugate"):  # may return the array itself
            result = plain(view := base_class(self), *args, **kwargs)
            return self if result is view else result
        return plain(base_class(self), *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


class _Memory:
    """The memory of an array, without the mark that it is read-only; for functions that only read."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
        self._array = array


def _reading(name: str) -> Callable[..., Any]:
    """Return a method that asks numpy for writable memory though it writes nothing, and so would copy."""
    plain, usual = getattr(np.ndarray, name), getattr(SharedArray, name)

    def method(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        if self.dtype.kind not in "biufcmM" or held_by(self) is None or type(self) is not SharedArray:
            return usual(self, *args, **kwargs)
        for out in written(name, args, kwargs):
            make_writeable(out)
        return plain(np.asarray(_Memory(self)), *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


_classes: dict[type, type[SharedArray]] = {}


def _register_class(cls: type[SharedArray]) -> None:
    """Register a class as the shared version of the class of numpy's that it derives from."""
    _classes[cls._ordinary] = cls
    if cls is not SharedArray:
        cls.__array_priority__ = cls._ordinary.__array_priority__  # type: ignore[assignment]
        name_class(cls, cls._ordinary.__name__)
        if "__getitem__" not in vars(cls):
            cls.__getitem__ = SharedArray._get_as_class  # type: ignore[method-assign]
    register(_ARRAYS, cls)
    _add_methods(cls)


def hand_out(array: npt.NDArray[Any]) -> SharedArray:
    """Return what the user holds: a view is of no class but SharedArray until `as_class` makes it so."""
    shared = array.view(_classes[type(array)])
    shared.__dict__["_is_standalone"] = True  # `__setattr__` would check whether that writes to the array
    return shared


class SharedArrayCodec(NdarrayCodec):
    """Arrays without objects: SharedArrays over the region."""

    def open(self, node: Node) -> SharedArray:
        return hand_out(self.read(node))

    def view(self, node: Node, view: Strides | Range) -> SharedArray:
        if not isinstance(view, Strides):
            raise node.decode_error("a reference takes it for a column of Arrow")
        return self.wrap(node, view_of(node, view, self.read(node).dtype))

    def wrap(self, node: Node, array: npt.NDArray[Any]) -> SharedArray:
        return hand_out(array.view(np.ndarray))

    note_opened: Any = staticmethod(remember_whole)

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return private_array(obj) if isinstance(obj, SharedArray) else obj


class SharedObjectsCodec(ObjectsCodec):
    """Arrays of objects: SharedArrays over private memory, which know their node."""

    def open(self, node: Node) -> SharedArray:
        array = self.read(node)
        array.flags.writeable = False
        shared = hand_out(array)
        shared._origin, shared._is_over_region = node, False
        return shared


_ARRAYS: Final = SharedArrayCodec()
_OBJECTS: Final = SharedObjectsCodec()
register(_ARRAYS, np.ndarray, np.memmap, *CLASSES.values())
register(_OBJECTS)


class SharedRecords(SharedArray, np.recarray):
    """A record array over a region: its fields are attributes, and SharedArrays."""

    _ordinary = np.recarray

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if type(found) is np.ndarray and name in (super().__getattribute__("dtype").names or ()):
            return _still_shared(found)
        return found

    def __getitem__(self, key: Any) -> Any:
        return _still_shared(self._get_as_class(key))

    def field(self, attr: Any, val: Any = None) -> Any:
        """Return a field, or set it, by its name or number."""
        return _still_shared(super().field(attr, val))


def _still_shared(found: Any) -> Any:
    """numpy hands fields out as plain arrays, wherever they lie."""
    if type(found) is np.ndarray and (shared := shared_of(found)) is not None:
        return shared
    return found


class SharedMatrix(SharedArray, np.matrix[Any, Any]):
    """A matrix over a region."""

    _ordinary = np.matrix


for _cls in (SharedArray, SharedRecords, SharedMatrix):
    _register_class(_cls)

if "chararray" in CLASSES:
    # Deprecated, and not always there: a class that no type checker knows.
    SharedCharArray: Any = type(
        "SharedCharArray", (SharedArray, CLASSES["chararray"]), {"_ordinary": CLASSES["chararray"]}
    )
    _register_class(SharedCharArray)
