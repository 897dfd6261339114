"""`SharedArray`: an ndarray over a region.

Its memory is read-only; a write to an array that stands on its own makes that array private in place, a write
to a mere view of one raises.
"""

from __future__ import annotations

import copy
import functools
import json
import pickle
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from mori.codecs.arrays import ArraysCodec
from mori.codecs.ndarray import NdarrayCodec, ObjectsCodec, dtype_to_plain, is_plain
from mori.errors import ReadOnlyViewError
from mori.format.atoms import NUMPY, VALUES
from mori.format.codec import Strides
from mori.format.node import Node, decode, node_of_memory
from mori.memory.mapping import Mapping, address_of, held_by
from mori.objects.array_memory import FIELDS_ARE_KNOWN, follow, give_memory, give_pages
from mori.objects.array_writes import READING, written
from mori.wire import reference, transport
from mori.wire.compare import unwritten

__all__ = [
    "SharedArray",
    "as_class",
    "base_class",
    "is_same_view",
    "make_writeable",
    "node_of",
    "place_in",
    "private_array",
    "remember_whole",
    "shared_of",
]

_SAVERS: Final = frozenset({np.save, np.savez, np.savez_compressed})
_IN_PLACE_ATTRIBUTES: Final = frozenset({"flat", "imag", "real"})
_get: Final = np.ndarray.__getitem__
_SHAPING_ATTRIBUTES: Final = frozenset({"dtype", "shape", "strides"})


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

    An array of objects, or of variable-width strings, is built anew in private memory when it is opened. It
    pickles as a reference while it is not written to and its elements cannot change.

    The array keeps its region alive, in any thread and in forked children.
    """

    __array_priority__: ClassVar[float] = -100.0

    _ordinary: ClassVar[type[npt.NDArray[Any]]] = np.ndarray  # what derived arrays are
    _is_standalone: bool = False  # no view of an array that the user holds: it may become private
    _is_reshaped: bool = False  # its shape, strides or dtype were assigned to
    _is_over_region: bool = True  # not one that was written to, nor one of objects
    _before: object = None  # the memory that it was over before it became private
    _origin: Node | None = None  # the node of an array of objects, which is not over the region's memory
    _iterated: Sequence[weakref.ref[npt.NDArray[Any]]] = ()  # views that have to show a write, too
    _home: tuple[Callable[[], Any], int] | None = None  # the column that returned it, and its place there
    _constant: bool | None = None  # whether its objects cannot change, once somebody has asked

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(base_class(array)).view(self._ordinary)
        if held_by(plain) is not None:  # some views come this way, too
            return plain.view(type(self))
        return plain[()] if return_scalar else plain

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not kwargs and method == "__call__":
            return ufunc(*map(base_class, inputs))
        outs = kwargs.get("out", ())
        for out in outs:
            make_writeable(out)
        if method == "at":
            make_writeable(inputs[0])
        plain = tuple(map(base_class, outs))
        if outs:
            kwargs["out"] = plain
        if "where" in kwargs:
            kwargs["where"] = base_class(kwargs["where"])
        result = getattr(ufunc, method)(*map(base_class, inputs), **kwargs)

        def given(one: Any) -> Any:  # an operand of another library may have answered with anything
            return next((out for out, view in zip(outs, plain, strict=True) if view is one), one)

        return tuple(map(given, result)) if type(result) is tuple else given(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in READING and not kwargs and len(args) <= 2 and _QUICK.issuperset(map(type, args)):
            return func(*map(_base_classes, args))
        if func in _SAVERS:  # which pickle arrays of objects
            with transport.use_transport("value"):
                return func(*map(base_class, args), **{name: base_class(one) for name, one in kwargs.items()})
        outs = list(written(func, args, kwargs))
        for out in outs:
            make_writeable(out)
        if kwargs.get("overwrite_input"):  # a leave to write, and no wish
            kwargs = {**kwargs, "overwrite_input": False}
        result = super().__array_function__(func, types, args, kwargs)
        return result if any(result is out for out in outs) else _settled(result)

    def __getitem__(self, key: Any) -> Any:
        result = _get(self, key)
        if type(result) is not SharedArray:
            return result
        base = result.base
        is_view = base is self or base is self.base  # an array over a region has one
        return result if is_view and self._is_over_region else _settled(result)

    def _get_as_class(self, key: Any) -> Any:
        """Return what numpy's own subclass returns; SharedArray's way is shorter."""
        return _settled(super().__getitem__(key))

    def __iter__(self) -> Any:
        """Return the elements one by one, as they are when each is asked for."""
        if not self.ndim or self._ordinary is not np.ndarray:
            return super().__iter__()
        if self.ndim > 1 or self.dtype.names is not None:
            return map(self.__getitem__, range(len(self)))
        if self.flags.writeable or not FIELDS_ARE_KNOWN:
            return map(functools.partial(_get, self), range(len(self)))
        view = self.view(np.ndarray)  # numpy's own iterator is six times as fast
        others = [ref for ref in self._iterated if ref() is not None]
        self.__dict__["_iterated"] = [*others, weakref.ref(view)]
        return iter(view)

    def __setitem__(self, key: Any, value: Any) -> None:
        make_writeable(self)
        super().__setitem__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _IN_PLACE_ATTRIBUTES:
            make_writeable(self)
        super().__setattr__(name, value)
        if name in _SHAPING_ATTRIBUTES:
            self._is_reshaped = True
            _tell_home(self)

    @property
    def flat(self) -> Any:
        """The elements one by one; writing to them makes a whole array private."""
        flat = np.ndarray.flat.__get__(self)
        return flat if self.flags.writeable else _Flat(self, flat)

    @flat.setter
    def flat(self, value: Any) -> None:
        np.ndarray.flat.__set__(self, value)  # type: ignore[attr-defined]

    def setflags(self, write: Any = None, align: Any = None, uic: Any = None) -> None:
        """Set array flags; ``write=True`` makes the array private first."""
        if write:
            make_writeable(self)
        super().setflags(write=write, align=align, uic=uic)

    def resize(self, *shape: Any, refcheck: bool = True) -> None:
        """Change shape and size in place; a shared array becomes private."""
        if not self.flags.writeable:
            make_writeable(self)  # nothing can refer to memory that is as new as this
        elif refcheck and sys.getrefcount(self) > _REFERENCES:
            raise ValueError(
                "cannot resize an array that references or is referenced by another array in this way.\n"
                "Use the np.resize function or refcheck=False"
            )
        if self.base is None and not weakref.getweakrefcount(self):
            super().resize(*shape, refcheck=False)
            return
        # `__setstate__` keeps the bytes of a larger array as they are; numpy resizes only what it owns, and
        # nothing that has weak references: containers know by those what they have returned.
        resized: Any = self.view(np.ndarray).copy(order="K")
        resized.resize(*shape, refcheck=False)
        fortran = resized.flags.f_contiguous and not resized.flags.c_contiguous
        give_memory(self, self.dtype, fortran, resized.tobytes("F" if fortran else "C"), resized.shape)

    def __deepcopy__(self, memo: Any) -> npt.NDArray[Any]:  # type: ignore[override]
        return copy.deepcopy(base_class(self), memo)

    def __copy__(self) -> npt.NDArray[Any]:  # type: ignore[override]
        return copy.copy(base_class(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.flags.writeable:
            there = unwritten(self)
            return (base_class(self) if there is None else _alike(self, there)).__reduce_ex__(protocol)
        if (known := _known_whole(self)) is not None and transport.is_wanted(known[0]):
            return reference.by_reference(*known)
        node = node_of(self)
        if node is None:
            return base_class(self).__reduce_ex__(protocol)
        mapping = node.mapping
        if isinstance(node.codec, ObjectsCodec):
            if not self._is_constant():
                return base_class(self).__reduce_ex__(protocol)
            if transport.is_wanted(mapping):
                return reference.by_reference(mapping, node.offset)
            return reference.by_value(node, protocol)
        is_element = isinstance(node.codec, ArraysCodec)
        if not is_element and not isinstance(node.codec, NdarrayCodec):
            return base_class(self).__reduce_ex__(protocol)
        whole = decode(node).data if is_element else decode(node)
        same = _is_same_dtype(self.dtype, whole.dtype)
        if not is_element and same and is_same_view(self, whole) and type(whole) is self._ordinary:
            if transport.is_wanted(mapping):
                remember_whole(node, self)
                return reference.by_reference(mapping, node.offset)
            return reference.by_value(node, protocol)
        if not transport.is_wanted(mapping) or not (same or is_plain(self.dtype)):
            return base_class(self).__reduce_ex__(protocol)
        if self._ordinary is not np.ndarray:
            return as_class, (type(self), self.view(SharedArray))
        form = "" if same else dtype_to_plain(self.dtype)
        form = form if isinstance(form, str) else json.dumps(form, separators=(",", ":"))
        view = Strides(address_of(self) - address_of(whole), form, self.shape, self.strides)
        return reference.by_reference(mapping, node.offset, view)

    def _mori_is_intact(self) -> bool:
        """Return whether nothing was written to it."""
        return not self._is_reshaped and (not self.flags.writeable or unwritten(self) is not None)

    def _is_constant(self) -> bool:
        """Return whether no element of an array of objects can change without a write to the array."""
        if self._constant is None:
            self._constant = all(map(_cannot_change, _objects(base_class(self))))
        return self._constant


def _operation(name: str, *, is_unary: bool = False) -> Callable[..., Any]:
    """Return an operator on plain views: it may say NotImplemented, and Python asks the other operand."""
    plain = getattr(np.ndarray, name)

    def one(self: SharedArray) -> Any:
        ordinary = self._ordinary
        by = plain if ordinary is np.ndarray else getattr(ordinary, name)
        return by(self.view(ordinary))

    def two(self: SharedArray, other: Any) -> Any:
        ordinary = self._ordinary
        by = plain if ordinary is np.ndarray else getattr(ordinary, name)
        return by(self.view(ordinary), base_class(other))

    return one if is_unary else two


# numpy would come to the same by `__array_ufunc__`, after it has looked for it in both operands.
_ARITHMETIC: Final = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "divmod",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
]
_COMPARISONS: Final = ["lt", "le", "eq", "ne", "gt", "ge"]
for _name in (*_ARITHMETIC, *(f"r{_name}" for _name in _ARITHMETIC), *_COMPARISONS):
    setattr(SharedArray, f"__{_name}__", _operation(f"__{_name}__"))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(SharedArray, f"__{_name}__", _operation(f"__{_name}__", is_unary=True))


class _Flat:
    """The iterator over the elements of a read-only shared array, which makes it private when written to."""

    __slots__ = ("_array", "_iterator")

    def __init__(self, array: SharedArray, iterator: Any) -> None:
        self._array = array
        self._iterator = iterator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def __len__(self) -> int:
        return len(self._iterator)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = np.asarray(self._iterator.__array__())  # over the region where that is contiguous
        if not self._array.flags.c_contiguous:
            array.flags.writeable = False  # a write to what numpy copied would be lost
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError("the elements have to be copied to be of another dtype")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __getitem__(self, key: Any) -> Any:
        return _settled(self._iterator[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        make_writeable(self._array)
        self._array.flat[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._iterator[key]  # numpy's own error


def _compared(name: str) -> Callable[[_Flat, Any], Any]:
    return lambda self, other: getattr(self._iterator, name)(other)


for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(_Flat, _name, _compared(_name))


def as_class(cls: type[SharedArray], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view(cls if isinstance(array, SharedArray) else cls._ordinary)
    if isinstance(view, SharedArray):
        view._is_standalone = True
    return view


def is_same_view(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Return whether two arrays are the same elements of the same memory."""
    return address_of(one) == address_of(other) and one.shape == other.shape and one.strides == other.strides


def node_of(array: npt.NDArray[Any]) -> Node | None:
    """Return the node that an array lies in or was opened from, None for a private one."""
    origin = array._origin if isinstance(array, SharedArray) else None
    if origin is None and array.flags.writeable:
        there = unwritten(array)
        return None if there is None else node_of_memory(there)
    return node_of_memory(array) if origin is None else origin


def _alike(array: SharedArray, there: npt.NDArray[Any]) -> SharedArray:
    """Return a shared array of the same kind over other memory."""
    made = there.view(array._ordinary).view(type(array))
    made.__dict__["_is_standalone"] = array._is_standalone
    return made


def place_in(array: SharedArray, node: Node) -> tuple[int, ...] | None:
    """Return the steps from its node to an array, none where it is all of it; None for any other part."""
    if isinstance(node.codec, ArraysCodec):
        try:
            index = decode(node).find(array)
        except ValueError as error:
            raise node.decode_error(str(error)) from error
        return None if index is None else (index,)
    return () if array._origin is not None or is_same_view(array, decode(node)) else None


def remember_whole(node: Node, obj: Any) -> None:
    """Record with the mapping that an array is all of a node: it may be pickled, and opened, many times."""
    if obj._ordinary is np.ndarray and obj.size and obj.dtype.names is None:  # fields can be renamed
        start = address_of(obj) - node.mapping.address
        reopener = functools.partial(_reopen, obj.shape, obj.strides, obj.dtype, start)
        node.mapping.remember(node.offset, reopener, start)


def _reopen(shape: Any, strides: Any, dtype: Any, start: int, mapping: Mapping) -> SharedArray:
    shared: SharedArray = np.ndarray.__new__(SharedArray, shape, dtype, mapping.bytes(), start, strides)
    shared.__dict__["_is_standalone"] = True
    return shared


def _known_whole(array: SharedArray) -> tuple[Mapping, int] | None:
    """Return mapping and offset of the node that an array is known to be all of."""
    if array._ordinary is not np.ndarray or (mapping := held_by(array)) is None:
        return None
    offset = mapping.offsets.get(address_of(array) - mapping.address)
    reopener: Any = None if offset is None else mapping.reopeners.get(offset)
    if offset is None or reopener is None:
        return None
    shape, strides, dtype, _ = reopener.args
    if dtype is not array.dtype or (shape, strides) != (array.shape, array.strides):
        return None  # of equal dtypes one may have metadata
    return mapping, offset


def private_array(array: SharedArray) -> npt.NDArray[Any]:
    """Return a private deep copy of numpy's own class, in the same order; what is private is not copied."""
    plain = base_class(array)
    mapping = held_by(array)
    if mapping is not None and mapping.is_writable and mapping.original is None:
        return plain  # type: ignore[no-any-return]
    made: npt.NDArray[Any] = copy.deepcopy(plain) if plain.dtype.hasobject else plain.copy(order="K")
    return made


def shared_of(array: npt.NDArray[Any]) -> SharedArray | None:
    """Return a plain array over a region as a SharedArray, None for private memory."""
    return None if held_by(array) is None else array.view(SharedArray)


def base_class(value: Any) -> Any:
    """Return a shared array in numpy's own class, over the same memory; anything else as it is."""
    return value.view(value._ordinary) if isinstance(value, SharedArray) else value


_QUICK: Final = frozenset(
    {SharedArray, np.ndarray, list, tuple, int, float, bool, str, type(None), np.int64, np.float64}
)
"""Types of arguments of which numpy asks no other shared array than what `_base_classes` finds in them."""


def _base_classes(value: Any) -> Any:
    """Return a shared array, or a list or tuple of such, in numpy's own class; anything else as it is."""
    return type(value)(map(base_class, value)) if type(value) in (list, tuple) else base_class(value)


def _settled(result: Any) -> Any:
    """Return what numpy made of a shared array: views stay shared, everything else is plain."""
    if isinstance(result, SharedArray):
        return result if held_by(result) is not None or result._before is not None else base_class(result)
    if type(result) in (list, tuple) and any(isinstance(one, SharedArray) for one in result):
        return type(result)(map(_settled, result))
    if isinstance(result, tuple) and any(isinstance(one, SharedArray) for one in result):
        return type(result)(*map(_settled, result))  # what np.linalg returns has names
    return result


def _is_same_dtype(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    if one is other:
        return True
    if one != other:
        return False
    if is_plain(one) and is_plain(other):
        return bool(dtype_to_plain(one) == dtype_to_plain(other))
    return pickle.dumps(one) == pickle.dumps(other)


def make_writeable(array: Any) -> None:
    """Give a shared array private memory, in place: pages that are copied when written to, or a copy."""
    if not isinstance(array, SharedArray) or array.flags.writeable:
        return
    mapping = held_by(array)
    if mapping is None and array._origin is None:
        return  # read-only for another reason; numpy will say so
    if not array._is_standalone:
        raise ReadOnlyViewError
    before = mapping if mapping is not None else array.base
    # Views taken before point into this memory, but what numpy has them hold is this array.
    if mapping is not None and array._origin is None and give_pages(array, mapping):
        array._before, array._is_over_region = before, False
        _tell_others(array)
        return
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    plain: Any = array.view(array._ordinary)
    data: Any = plain.tobytes("F" if fortran else "C")
    if array._origin is not None:
        plain = plain.view(np.ndarray).ravel("F" if fortran else "C")
        data = list(plain) if plain.dtype.kind == "O" else plain.tolist()
    del plain
    array._before, array._is_over_region = before, False
    give_memory(array, array.dtype, fortran, data)
    array._origin = None
    _tell_others(array)


def _tell_others(array: SharedArray) -> None:
    """Tell the loops over an array, and the column that returned it, of its new memory."""
    for ref in array.__dict__.pop("_iterated", ()):
        if (view := ref()) is not None:
            follow(view, array)
    _tell_home(array)


def _tell_home(array: SharedArray) -> None:
    """Tell the column that returned an array to keep it: it differs from the region now."""
    if array._home is not None and (home := array._home[0]()) is not None:
        home.keep(array._home[1], array)


def _objects(array: npt.NDArray[Any]) -> Any:
    """Yield the objects in an array, those in its fields included."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            if array.dtype[name].hasobject:
                yield from _objects(np.asarray(array[name]))
    elif array.dtype.kind == "O":
        yield from array.flat


_CONSTANT: Final = frozenset((*VALUES, *NUMPY, slice))
_CONSTANT_ELSEWHERE: Final = frozenset(  # named, not imported
    (
        *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "decimal.Decimal"),
        *("fractions.Fraction", "uuid.UUID", "pandas._libs.missing.NAType"),
        *("pandas.Timestamp", "pandas.Timedelta", "pandas.api.typing.NaTType", "pandas.api.typing.NAType"),
        *("pandas._libs.tslibs.nattype.NaTType", "pandas._libs.tslibs.timestamps.Timestamp"),
        "pandas._libs.tslibs.timedeltas.Timedelta",
    )
)


def _cannot_change(obj: object) -> bool:
    cls = type(obj)
    if cls in _CONSTANT:
        return True
    if cls is tuple or cls is frozenset:
        return all(map(_cannot_change, obj))  # type: ignore[call-overload]
    if isinstance(obj, np.ndarray):  # its elements may lie in the region
        is_of_values = cls is np.ndarray and not obj.dtype.hasobject
        return is_of_values and not obj.flags.writeable and held_by(obj) is not None
    return f"{cls.__module__}.{cls.__qualname__}" in _CONSTANT_ELSEWHERE


def _count_references() -> int:
    """Return what getrefcount says in `resize` of an array that one variable refers to."""

    class Counting(SharedArray):
        def resize(self, *shape: Any, refcheck: bool = True) -> None:
            counts.append(sys.getrefcount(self))

    counts: list[int] = []
    array = np.zeros(1).view(Counting)
    array.resize(1)
    return counts[0]


_REFERENCES: Final = _count_references()
