"""`SharedArray`: an ndarray over a region.

Imports reference, reader, region and numpy. Its memory is read-only; a write to an array that stands
on its own makes that array private in place, a write to a mere view of one raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori import codec, reference
from mori.errors import ReadOnlyViewError
from mori.layout import Codec as Id
from mori.reader import Node, decode, node_of_memory, opener
from mori.region import held_by

__all__ = ["SharedArray", "is_same_view", "shared_of"]

_FRESH: Final = (
    *("argpartition", "argsort", "astype", "byteswap", "choose", "clip", "compress", "conj", "conjugate"),
    *("copy", "cumprod", "cumsum", "flatten", "repeat", "round", "searchsorted", "take"),
)
_IN_PLACE: Final = ["fill", "itemset", "partition", "put", "resize", "setfield", "sort"]
_WRITERS: Final = frozenset({np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask})


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, SharedArray) else value


class SharedArray(np.ndarray[Any, np.dtype[Any]]):
    """A numpy array whose elements lie in shared memory, mapped by every process of the host.

    Made by `mori.share`. It is an ndarray in every respect; slices, transposes and reshapes are
    SharedArrays too and pickle as references, results of arithmetic and of fancy indexing are plain
    arrays.

    Notes
    -----
    The first write (``x[0] = 1``, ``x += 1``, ``x.sort()``, ``out=x``) gives this array memory of its
    own; other processes, and views taken before, keep the shared elements. A write through a view
    (``x[3][0] = 1``) raises `mori.ReadOnlyViewError`, since it would be lost.

    The array keeps its region alive, in any thread and in forked children.
    """

    __array_priority__ = -100.0

    _alone: bool  # stands for itself, not for a part of an array that the user holds: may become private
    _above: list[Any] | None  # the containers that handed it out
    _aliased: tuple[Any, int] | None = None  # the opening, and the offset under which aliases refer to it
    _before: object = None  # the mapping that it was over before it became private

    def __array_finalize__(self, obj: npt.NDArray[Any] | None) -> None:
        self._alone = False
        self._above = None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = _plain(array)
        return plain[()] if return_scalar else plain

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        outs = kwargs.get("out", ())
        for out in outs:
            _make_writeable(out)
        if method == "at":
            _make_writeable(inputs[0])
        if outs:
            kwargs["out"] = tuple(map(_plain, outs))
        if "where" in kwargs:
            kwargs["where"] = _plain(kwargs["where"])
        result = getattr(ufunc, method)(*map(_plain, inputs), **kwargs)
        if not outs:
            return result
        return outs[0] if len(outs) == 1 else outs

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in _WRITERS and args:
            _make_writeable(args[0])
        _make_writeable(kwargs.get("out"))
        result = super().__array_function__(func, types, args, kwargs)
        if isinstance(result, SharedArray) and held_by(result) is None and result is not kwargs.get("out"):
            return _plain(result)
        return result

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        return _plain(item) if type(item) is SharedArray and held_by(item) is None else item

    def __setitem__(self, key: Any, value: Any) -> None:
        _make_writeable(self)
        super().__setitem__(key, value)

    def setflags(self, write: Any = None, align: Any = None, uic: Any = None) -> None:
        """Set array flags; ``write=True`` makes the array private first."""
        if write:
            _make_writeable(self)
        super().setflags(write=write, align=align, uic=uic)

    def __deepcopy__(self, memo: Any) -> npt.NDArray[Any]:  # type: ignore[override]
        return np.array(self, copy=True, subok=False)

    def __copy__(self) -> npt.NDArray[Any]:  # type: ignore[override]
        return np.array(self, copy=True, subok=False)

    def __reduce_ex__(self, protocol: Any) -> Any:
        node = node_of_memory(self)
        if node is None or node.record.codec != Id.NDARRAY:
            return self.view(np.ndarray).__reduce_ex__(protocol)
        mapping, whole = node.mapping, decode(node)
        same = self.dtype == whole.dtype
        if same and is_same_view(self, whole):
            if reference.is_wanted(mapping):
                return reference.by_reference(mapping, node.offset)
            return reference.by_value(node, protocol)
        if reference.is_wanted(mapping) and (same or (self.dtype.names is None and not self.dtype.metadata)):
            name = "" if same else self.dtype.str
            start = _address(self) - _address(whole)
            view = reference.Strides(start, name, self.shape, self.strides)
            return reference.by_reference(mapping, node.offset, view)
        return self.view(np.ndarray).__reduce_ex__(protocol)


def is_same_view(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Say whether two arrays are the same elements of the same memory."""
    return _address(one) == _address(other) and one.shape == other.shape and one.strides == other.strides


def shared_of(array: npt.NDArray[Any]) -> SharedArray | None:
    """Return a plain array over a region as a SharedArray, None for private memory."""
    return None if held_by(array) is None else array.view(SharedArray)


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _make_writeable(array: Any) -> None:
    """Give a shared array private memory, in place."""
    if not isinstance(array, SharedArray) or array.flags.writeable:
        return
    if held_by(array) is None:
        return  # read-only for another reason; numpy will say so
    if not array._alone:
        raise ReadOnlyViewError
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    above = array._above
    state: Any = (1, array.shape, array.dtype, fortran, array.tobytes("F" if fortran else "C"))
    # Views taken before point into the mapping, but what numpy has them hold is this array.
    array._before = held_by(array)
    array.__setstate__(state)
    array._above = None
    if array._aliased is not None:
        ref, offset = array._aliased
        array._aliased = None
        if (opening := ref()) is not None:
            opening.changed(offset, array)
    for container in above or ():
        container._private()


def _fresh(name: str) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        _make_writeable(kwargs.get("out"))
        if name == "byteswap" and (kwargs.get("inplace") or (args and args[0])):
            _make_writeable(self)
            return plain(self, *args, **kwargs)
        if name == "astype" and not kwargs.get("copy", True):
            return plain(self, *args, **kwargs)
        return plain(self.view(np.ndarray), *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


def _in_place(name: str) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        _make_writeable(self)
        return plain(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


for _name in _FRESH:
    setattr(SharedArray, _name, _fresh(_name))
for _name in _IN_PLACE:
    if hasattr(np.ndarray, _name):
        setattr(SharedArray, _name, _in_place(_name))


def _hand_out(node: Node, array: npt.NDArray[Any]) -> SharedArray:
    shared = array.view(SharedArray)
    shared._alone = True
    return shared


@opener(Id.NDARRAY)
def _open(node: Node) -> SharedArray:
    return _hand_out(node, decode(node))


reference.views_of(Id.NDARRAY, _hand_out)
_codec = codec.for_id(Id.NDARRAY)
assert _codec is not None
codec.register(_codec, SharedArray)


class _Memory:
    """The memory of an array, without the mark that it is read-only; for functions that only read."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
        self._kept = array


def _reading(name: str) -> Callable[..., Any]:
    """Return a method that asks numpy for writable memory though it writes nothing, and so would copy."""
    plain, usual = getattr(np.ndarray, name), getattr(SharedArray, name)

    def method(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        if self.dtype.kind not in "biufcmM" or held_by(self) is None or type(self) is not SharedArray:
            return usual(self, *args, **kwargs)
        _make_writeable(kwargs.get("out"))
        return plain(np.asarray(_Memory(self)), *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


for _name in ("argmax", "argmin"):
    setattr(SharedArray, _name, _reading(_name))
