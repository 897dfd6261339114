"""The methods of shared arrays that numpy's own do not do: they return plain arrays, or write to this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori.memory.mapping import held_by
from mori.objects.array import SharedArray, base_class, make_writeable
from mori.objects.array_writes import written

__all__ = ["add_methods"]

_PLAIN: Final = (  # methods of which numpy would make results of this class, though they are no views
    *("argpartition", "argsort", "astype", "byteswap", "choose", "clip", "compress", "conj", "conjugate"),
    *("copy", "cumprod", "cumsum", "dot", "flatten", "mean", "repeat", "round", "searchsorted", "std"),
    *("take", "trace", "var", "argmax", "argmin", "nonzero", "all", "any", "max", "min", "prod", "sum"),
    *("ptp", "dump", "dumps"),  # what is dumped goes to a file, and may outlive the region
)
_IN_PLACE: Final = ("fill", "itemset", "partition", "put", "setfield", "sort")


def add_methods(cls: type[SharedArray]) -> None:
    """Give a class the methods of numpy's class that it stands for."""
    for one in _PLAIN:
        if hasattr(cls._ordinary, one):
            setattr(cls, one, _plain_method(cls._ordinary, one))
    for one in _IN_PLACE:
        if hasattr(cls._ordinary, one):
            setattr(cls, one, _in_place_method(cls._ordinary, one))
    if cls is SharedArray:
        for one in ("argmax", "argmin"):
            setattr(cls, one, _reading(one))


def _plain_method(ordinary: Any, name: str) -> Callable[..., Any]:
    plain = getattr(ordinary, name)

    def method(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
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


def _in_place_method(ordinary: Any, name: str) -> Callable[..., Any]:
    plain = getattr(ordinary, name)

    def method(self: SharedArray, *args: Any, **kwargs: Any) -> Any:
        make_writeable(self)
        return plain(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method


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
        for out in written(name, args, kwargs):
            make_writeable(out)
        return plain(np.asarray(_Memory(self)), *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method
