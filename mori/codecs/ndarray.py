"""numpy arrays: dtype, shape, order and class in the meta, the elements in one buffer.

A dtype is plain data, so no bytes can make it anything but a dtype; one that plain data cannot tell
(metadata, a dtype of another library) is a pickled child.

Arrays of Python objects, and of numpy's variable-width strings, are built anew when they are opened. Objects
are one pickled list, so that they keep their types and the arrays among them lie in the region; arrays with
objects in their fields, and strings, are pickled whole.
"""

from __future__ import annotations

import functools
import json
import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mori.format.codec import Buffers, BuiltinCodec, Encoded, Pickled, Strides
from mori.format.layout import Id, from_json, to_json

if TYPE_CHECKING:
    from mori.format.node import Node

__all__ = [
    "CLASSES",
    "NdarrayCodec",
    "ObjectsCodec",
    "dtype_from_plain",
    "dtype_to_plain",
    "is_named",
    "is_plain",
    "is_state_of",
    "name_class",
    "view_of",
]

_NUMPY: Final = ("numpy", "numpy.rec")
_SIMPLE: Final = re.compile(
    r"[<>|=][?biufcSUVmM]\d{1,12}(\[\d{0,9}[a-zA-Zμ]{1,7}(/\d{1,9})?\])?|[<>|=]\?|[<>][qQ]|c"
)


CLASSES: Final[dict[str, type]] = {"recarray": np.recarray, "matrix": np.matrix}
"""numpy's own subclasses of ndarray that have nothing but their elements."""

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated since numpy 2.5, gone some day
    if (_chararray := getattr(np.char, "chararray", None)) is not None:
        CLASSES["chararray"] = _chararray

_names: Final[dict[type, str]] = {cls: name for name, cls in CLASSES.items()}


_NUMBERS: Final = frozenset("?bBhHiIlLefdgFDG")  # whose dtypes are their strings
_SHORT: Final = 256  # bytes of a meta that is remembered


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether plain data can tell all of a dtype, and its elements mean the same in every process."""
    if dtype.hasobject or dtype.kind == "T" or dtype.metadata or dtype.type.__module__ not in _NUMPY:
        return False
    if dtype.subdtype is not None:
        return is_plain(dtype.subdtype[0])
    if dtype.names is not None and dtype.type not in (np.void, np.record):
        return False  # a number with fields
    return all(
        (len(field) == 2 or isinstance(field[2], str)) and is_plain(field[0])
        for field in (dtype.fields or {}).values()
    )


def dtype_to_plain(dtype: np.dtype[Any]) -> Any:
    """Return a dtype as strings, numbers and lists; `dtype_from_plain` gives it back, padding included."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_to_plain(base), "shape": list(shape)}
    if dtype.names is None:
        if dtype.char in "qQ" and np.dtype(dtype.str).type is not dtype.type:
            return dtype.str[0] + dtype.char  # numpy has two types of this size
        return "c" if dtype.char == "c" else dtype.str  # S1, which takes a string for a sequence
    assert dtype.fields is not None
    fields = []
    for name in dtype.names:
        kind, offset, *title = dtype.fields[name]
        fields.append([name, dtype_to_plain(kind), offset, title[0] if title else None])
    plain = {"fields": fields, "itemsize": dtype.itemsize, "align": dtype.isalignedstruct}
    if dtype.type is np.record:
        plain["record"] = True
    return plain


def dtype_from_plain(plain: Any) -> np.dtype[Any]:
    """Return the dtype that plain data describe; ValueError for anything that is none."""
    if isinstance(plain, str):
        if not _SIMPLE.fullmatch(plain):
            raise ValueError(f"{plain[:40]!r} is no dtype")
        dtype = np.dtype(plain)
    elif "base" in plain:
        dtype = np.dtype((dtype_from_plain(plain["base"]), tuple(plain["shape"])))
    else:
        fields = plain["fields"]
        if type(plain["align"]) is not bool or type(plain["itemsize"]) is not int:
            raise ValueError("a structure that is none")
        dtype = np.dtype(
            {
                "names": [field[0] for field in fields],
                "formats": [dtype_from_plain(field[1]) for field in fields],
                "offsets": [field[2] for field in fields],
                "titles": [field[3] for field in fields],
                "itemsize": plain["itemsize"],
            },
            align=plain["align"],
        )
        if plain.get("record"):
            dtype = np.dtype((np.record, dtype))
    if not is_plain(dtype):
        raise ValueError(f"{dtype} has no plain elements")
    return dtype


def is_state_of(dtype: np.dtype[Any], state: Any) -> bool:
    """Return whether numpy itself would pickle such a state of a dtype."""
    _, order, elements, names, fields, nbytes, _, flags, *metadata = state
    if elements is not None:
        made = np.dtype(elements)
    elif names is not None:
        formats, offsets = zip(*(fields[name] for name in names), strict=True)
        plain: Any = {"names": [*names], "formats": formats, "offsets": offsets, "itemsize": nbytes}
        made = np.dtype(plain, align=bool(flags & _ALIGNED))
    elif metadata:
        ((_, (unit, count, _, _)),) = metadata
        made = np.dtype(
            f"{dtype.kind}8[{int(count)}{unit.decode()}]" if unit != b"generic" else dtype.kind + "8"
        )
    else:
        made = dtype if order == "|" else dtype.newbyteorder(order)
    return bool(made.__reduce__()[2] == state)


_ALIGNED: Final = 128  # flag of a dtype in a pickle


class NdarrayCodec(BuiltinCodec):
    """An array of any dtype without objects, and numpy's own subclasses of it."""

    id = Id.NDARRAY

    def encode(self, obj: npt.NDArray[Any]) -> Encoded | None:
        dtype = obj.dtype
        if dtype.hasobject or dtype.kind == "T":
            return _encode_objects(obj)
        array = obj.view(np.ndarray)
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        children: tuple[object, ...] = ()
        if dtype.isbuiltin == 1 and dtype.char in _NUMBERS and dtype.metadata is None:
            form: Any = dtype.str
        elif is_plain(dtype):
            form = dtype_to_plain(dtype)
        elif dtype.isbuiltin == 0 and dtype.names is None and dtype.type.__module__ not in _NUMPY:
            return None  # of another library, and not such that its elements are bytes for certain
        else:
            form, children = {"child": dtype.itemsize}, (Pickled(dtype),)
        name = _names.get(type(obj))
        plain = (form, array.shape, order) if name is None else (form, array.shape, order, name)
        return Encoded((_json if type(form) is str else to_json)(plain), (array,), children)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> npt.NDArray[Any]:
        form, shape, order, rest = (_read if len(meta) <= _SHORT else _read.__wrapped__)(meta)
        if isinstance(form, np.dtype) and form.names is not None:  # its fields can be renamed in place
            form = _read.__wrapped__(meta)[0]
        (buffer,) = buffers
        dtype = form if isinstance(form, np.dtype) else _dtype_of_child(form, children)
        if math.prod(shape) * dtype.itemsize != buffer.nbytes:
            raise ValueError(f"an array of {shape} {dtype} does not have {buffer.nbytes} bytes")
        array = np.ndarray(shape, dtype, buffer, order="F" if order == "F" else "C")
        return array.view(_class_of(rest, array)) if rest else array

    def step(self, obj: Any, index: int) -> str:
        return "" if obj.dtype.hasobject else ".dtype"


_json: Final = functools.lru_cache(maxsize=1024)(to_json)


@functools.lru_cache(maxsize=1024)
def _read(meta: bytes) -> tuple[Any, tuple[int, ...], Any, list[Any]]:
    """Return the dtype, or what is said of the child that is one, the shape, the order and the class."""
    form, shape, order, *rest = json.loads(meta)
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise ValueError(f"{shape} is no shape")
    return form if "child" in form else dtype_from_plain(form), tuple(shape), order, rest


def _dtype_of_child(form: Any, children: Sequence[Any]) -> np.dtype[Any]:
    (dtype,) = children
    if not isinstance(dtype, np.dtype) or dtype.hasobject or dtype.kind == "T":
        raise ValueError(f"{type(dtype).__name__} for a dtype")
    if dtype.itemsize != form["child"]:
        raise ValueError(f"{dtype} does not have {form['child']} bytes")
    return dtype


def _class_of(rest: list[Any], array: npt.NDArray[Any]) -> type:
    (name,) = rest
    cls = CLASSES[name]
    if (name == "matrix" and array.ndim != 2) or (name == "chararray" and array.dtype.kind not in "SU"):
        raise ValueError(f"a {name} of {array.ndim} dimensions and {array.dtype}")
    return cls


def is_named(cls: type) -> bool:
    """Return whether a class is written by its name, and no plain array."""
    return cls in _names


def name_class(cls: type, name: str) -> None:
    """Write the arrays of a class as those of one of `CLASSES`."""
    _names[cls] = name


def view_of(node: Node, view: Strides, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a view of the elements of a node; of `dtype`, if the view has none of its own.

    Raises
    ------
    CorruptRegionError
        If it leaves the node's buffer, or is none.
    """
    try:
        if view.dtype:
            dtype = dtype_from_plain(json.loads(view.dtype) if view.dtype.startswith("{") else view.dtype)
        offset, _, shape, strides = view
        buffer = node.buffers()[0]
        # numpy's own check of the bounds wraps around at 2**63.
        reach = [(length - 1) * step for length, step in zip(shape, strides, strict=True)]
        first = offset + sum(step for step in reach if step < 0)
        last = offset + sum(step for step in reach if step > 0) + dtype.itemsize
        if min(shape, default=1) < 0:
            raise ValueError(f"a shape of {shape}")
        if 0 in shape:  # numpy takes no strides for what has no elements
            return np.ndarray(shape, dtype, buffer[:0])
        if 0 <= first <= last <= buffer.nbytes:
            return np.ndarray(shape, dtype, buffer, offset, strides)
        raise ValueError(f"bytes {first} to {last} of {buffer.nbytes}")
    except (ValueError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise node.decode_error(f"a reference asks for a view that leaves it ({error})") from error


def _encode_objects(obj: npt.NDArray[Any]) -> Encoded:
    """Return the parts of an array whose elements are not plain bytes; it keeps its class."""
    meta: list[Any] = [obj.dtype.kind, obj.shape]
    is_array = getattr(obj, "_ordinary", type(obj)) is np.ndarray
    content: object = obj.view(np.ndarray) if is_array else obj
    if is_array and obj.dtype.kind == "O" and not obj.dtype.metadata:
        order = _order_of(obj)
        meta.append(order)
        content = list(obj.view(np.ndarray).ravel(order))
    return Encoded(to_json(meta), (), (Pickled(content),), codec=Id.OBJECT_ARRAY)


def _order_of(array: npt.NDArray[Any]) -> Literal["C", "F"]:
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def _filled(objects: Any, shape: list[int], order: str) -> npt.NDArray[Any]:
    if type(objects) is not list or math.prod(shape) != len(objects):
        raise ValueError(f"{type(objects).__name__} for {shape} objects")
    flat = np.fromiter(objects, object, len(objects))
    return flat.reshape(shape, order="F" if order == "F" else "C")


class ObjectsCodec(BuiltinCodec):
    """An array whose elements are objects, or hold some."""

    id = Id.OBJECT_ARRAY

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> npt.NDArray[Any]:
        kind, shape, *order = from_json(meta)
        (content,) = children
        array = _filled(content, shape, *order) if order else content
        if not isinstance(array, np.ndarray) or [array.dtype.kind, list(array.shape)] != [kind, shape]:
            raise ValueError(f"{type(array).__name__} for an array of {shape}")
        return array
