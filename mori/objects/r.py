"""What users hold of R's regions: arrays, lists, dicts, lazy strings; frames and series are with pandas.

What an element is follows from R's type, its attributes, and whether values are missing: docs/r.md has the
table. An array lies over R's pages, but for logicals, which are numbers of four bytes in R. The codecs here
are chosen by `codec_of`, and have no ids: nothing in mori's own format is R's.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori._imports import load
from mori.codecs.containers import SequenceCodec
from mori.codecs.packed import Column
from mori.errors import MoriError
from mori.format import origins, r_values
from mori.format.codec import BuiltinCodec, Codec
from mori.format.layout import Id
from mori.format.node import Node
from mori.format.r import CHARACTER, INTEGER, ITEMSIZES, LIST, LOGICAL, OTHER, RNode
from mori.memory.mapping import Mapping
from mori.objects.array_codec import SharedArrayCodec, SharedObjectsCodec
from mori.objects.containers.identity import Identity
from mori.objects.containers.mapping import SharedDict
from mori.objects.containers.sequences import SharedList
from mori.store.base import align
from mori.wire import reference, transport

__all__ = ["NA", "RCodec", "RObject", "Strings", "codec_of", "dim_of", "numbers_of"]

NA: Final = -(2**31)
"""R's missing integer or logical."""

_DTYPES: Final = {
    number: np.dtype(code) for number, code in {10: "i4", 13: "i4", 14: "f8", 15: "c16", 24: "u1"}.items()
}
_ENTRY: Final = struct.Struct("=qii")
_BLOCK: Final = 1024  # strings that are decoded together
_REMEMBERED: Final = 1 << 10  # nodes of a mapping whose codecs are
_SERIES: Final = frozenset({"Date", "POSIXct", "difftime", "integer64"})

_codecs: Final[weakref.WeakKeyDictionary[Mapping, dict[tuple[int, str], Codec]]] = weakref.WeakKeyDictionary()
"""The codecs of nodes, by their offsets and roles: to see whether a value is missing takes a pass."""


def numbers_of(node: RNode) -> npt.NDArray[Any]:
    """Return the elements of a vector as they lie in the region."""
    dtype = _DTYPES[node.type]
    return np.ndarray(node.length, dtype, node.buffers()[0])


def dim_of(node: RNode) -> tuple[int, ...] | None:
    """Return the lengths of a matrix or array; None for a vector."""
    found = node.attributes.get("dim")
    if found is None:
        return None
    dim = tuple(int(length) for length in found)
    product = 1
    for length in dim:
        product *= length
    if product != node.length or min(dim, default=-1) < 0:
        raise node.decode_error(f"a dim of {dim} for {node.length} elements")
    return dim


def codec_of(node: RNode) -> Codec:
    """Return the codec of a node."""
    known = _codecs.setdefault(node.mapping, {})
    key = node.offset, node.role
    found = known.get(key)
    if found is None:
        if len(known) >= _REMEMBERED:
            known.clear()
        try:
            found = known[key] = _ROLES.get(node.role) or _codec_of(node)
        except (MoriError, ImportError):
            raise
        except Exception as error:
            raise node.decode_error(error) from error
    return found


def _codec_of(node: RNode) -> Codec:
    if node.type == OTHER:
        return _OPAQUE
    try:
        attributes, classes = node.attributes, node.classes
    except r_values.OpaqueError:
        return _OPAQUE
    if node.type == LIST:
        frame: Codec | None = _of_pandas("frame_codec", node) if "data.frame" in classes else None
        if frame is not None:
            return frame
        return _DICT if _has_keys(node.names) else _LIST
    is_array = attributes.get("dim") is not None
    is_series = not _SERIES.isdisjoint(classes) or (node.type == INTEGER and "factor" in classes)
    if is_series or (not is_array and attributes.get("names") is not None):
        return _of_pandas("series_codec", node)  # type: ignore[no-any-return]
    if node.type == CHARACTER:
        return _STRING_ARRAY if is_array else _STRINGS
    if node.type in (INTEGER, LOGICAL) and (numbers_of(node) == NA).any():
        return _MASKED if is_array else _of_pandas("series_codec", node)
    return _BOOLS if node.type == LOGICAL else _ARRAY


def _of_pandas(function: str, node: RNode) -> Any:
    try:
        module = load("mori.objects.pandas.r")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this region of R's holds what only {error.name} can show: install mori[pandas]", name=error.name
        ) from error
    return getattr(module, function)(node)


def _has_keys(names: list[str | None] | None) -> bool:
    return names is not None and None not in names and len(set(names)) == len(names)


class RCodec(Codec):
    """What the codecs of R's nodes have in common: whatever they raise is damage."""

    def make(self, node: Any) -> Any:
        """Return the object of a node."""
        raise NotImplementedError

    def read(self, node: Any) -> Any:
        try:
            return self.make(node)
        except (MoriError, ImportError, MemoryError):
            raise
        except Exception as error:
            raise node.decode_error(error) from error

    def part(self, node: Any, number: int) -> Node:
        """Return an element of a list, counted from 0."""
        if node.type != LIST:
            raise TypeError("what it leads into is not a list")
        if not 0 <= number < node.length:
            raise IndexError(f"out of bounds: there are {node.length} elements, and R counts them from 1")
        return node.child(number)  # type: ignore[no-any-return]

    def inside(self, obj: Any, number: int) -> Any:
        raise TypeError("what it leads into is not a list")


class _Array(RCodec, SharedArrayCodec):
    """Numbers and raw bytes without missing values: arrays over R's pages, matrices in Fortran order."""

    is_array = True

    def make(self, node: RNode) -> npt.NDArray[Any]:
        array = numbers_of(node)
        dim = None if node.role else dim_of(node)
        return array if dim is None else array.reshape(dim, order="F")


class _Bools(RCodec, SharedObjectsCodec):
    """Logicals: arrays of bool, which are made when they are opened."""

    def make(self, node: RNode) -> Any:
        array, dim = numbers_of(node) != 0, dim_of(node)
        return array if dim is None else array.reshape(dim, order="F")


class _StringArray(RCodec, SharedObjectsCodec):
    """Matrices and arrays of strings: arrays of str and None."""

    def make(self, node: RNode) -> Any:
        array = np.fromiter(Strings(node).all(), object, node.length)
        return array.reshape(dim_of(node) or -1, order="F")


class _Masked(RCodec):
    """Matrices of integers or logicals some of which are missing: numpy's masked arrays."""

    def make(self, node: RNode) -> Any:
        numbers, dim = numbers_of(node), dim_of(node)
        data = numbers != 0 if node.type == LOGICAL else numbers
        masked: Any = data.reshape(dim or -1, order="F").view(np.ma.MaskedArray)
        masked._mask = (numbers == NA).reshape(dim or -1, order="F")
        masked._mask.flags.writeable = masked._data.flags.writeable = False
        return masked

    def open(self, node: Node) -> Any:
        return load("mori.objects.masked").over_node(node, self.read(node))


class Strings(Column):
    """The strings of a vector, each decoded when it is asked for."""

    def __init__(self, node: RNode) -> None:
        table, (data,) = node.length * ITEMSIZES[CHARACTER], node.buffers()
        self.kind = list
        self._length = node.length
        self.table: memoryview[int] = memoryview(data)[:table]
        self.text: memoryview[int] = memoryview(data)[align(table) :]

    def __getitem__(self, index: int) -> str | None:
        if not 0 <= index < self._length:
            raise IndexError(index)
        offset, length, encoding = _ENTRY.unpack_from(self.table, _ENTRY.size * index)
        if length < 0:
            return None
        if not 0 <= offset <= len(self.text) - length:
            raise ValueError(f"string {index + 1} lies outside of the text")
        return r_values.decode_text(bytes(self.text[offset : offset + length]), encoding)

    def all(self) -> list[str | None]:
        """Return all of the strings."""
        return [self[index] for index in range(self._length)]

    def block(self, start: int, stop: int) -> list[Any]:
        return [self[index] for index in range(start, min(stop, start + _BLOCK, self._length))]


class _Names(Strings):
    """The names of a list."""

    def __init__(self, node: RNode) -> None:
        self.kind = list
        self._names: list[Any] = node.names or []
        self._length = len(self._names)

    def __getitem__(self, index: int) -> Any:
        return self._names[index]


class _Elsewhere(RCodec, BuiltinCodec):
    """What is opened as a lazy list or dict."""

    def __init__(self, cls: Any, column: Callable[[Any], Any] | None = None, role: str = "") -> None:
        self._cls, self._column, self._role = cls, column, role

    def make(self, node: RNode) -> Any:
        assert self._column is not None
        return self._column(node)

    def open(self, node: Any) -> Any:
        return self.open_in(node, Identity())

    def open_in(self, node: Any, identity: Any) -> Any:
        return self._cls(node.as_role(self._role) if self._role else node, identity)


class _List(SequenceCodec):
    """Lists: each element has a node."""

    part = RCodec.part

    def open(self, node: Node) -> SharedList[Any]:
        return SharedList(node, Identity())

    def open_in(self, node: Node, identity: Identity) -> SharedList[Any]:
        return SharedList(node, identity)


class RObject:
    """An object of R's that is no data to Python, such as a function: it says its type, and can go back to R.

    Attributes
    ----------
    type : str
        As R's ``typeof`` has it.
    """

    def __init__(self, data: Any, type_: str) -> None:
        self._data = data
        self.type = type_

    def __repr__(self) -> str:
        return f"<R {self.type} of {len(self._data):,} bytes>"

    @property
    def r_serialized(self) -> bytes:
        """R's serialization of it; empty where only the attributes of a vector are R's own."""
        return bytes(self._data)

    def __reduce__(self) -> Any:
        node = origins.node_of(self)
        if node is not None and transport.is_wanted(node.mapping):
            return reference.by_reference(node.mapping, node.offset)
        return RObject, (self.r_serialized, self.type)


class _Opaque(RCodec, BuiltinCodec):
    """Other objects of R's, and vectors with an attribute that only R can read; NULL is None."""

    def make(self, node: RNode) -> RObject | None:
        if node.type != OTHER:
            return RObject(b"", r_values.TYPES[node.type])
        (data,) = node.buffers()
        kind = r_values.serialized_type(bytes(data[:64]))
        return None if kind == "NULL" else RObject(data, kind)

    def open(self, node: Node) -> Any:
        obj = self.read(node)
        return None if obj is None else origins.remember(obj, node)

    def copy(self, obj: RObject, change: Callable[[Any], Any]) -> RObject:
        return RObject(obj.r_serialized, obj.type)


_ARRAY, _BOOLS, _STRING_ARRAY, _MASKED, _OPAQUE = _Array(), _Bools(), _StringArray(), _Masked(), _Opaque()
_LIST = _List(Id.LIST, list)
_STRINGS = _Elsewhere(SharedList, Strings)
_DICT = _Elsewhere(SharedDict, role="dict")
_ROLES: Final[dict[str, Codec]] = {
    "array": _ARRAY,
    "dict": _DICT,
    "names": _Elsewhere(SharedList, _Names),
    "values": _LIST,
}
