"""`SharedBytes`: bytes over a region, for whatever takes a buffer.

An ndarray of uint8, because before Python 3.12 a class cannot export a buffer in any other way that is
read-only; but it reads and compares like bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, SupportsIndex

import numpy as np
import numpy.typing as npt

from mori.codecs.ndarray import view_of
from mori.codecs.scalars import KINDS, BytesCodec
from mori.format.codec import Range, Strides, register
from mori.format.node import Node, decode, node_of_memory
from mori.memory.mapping import address_of
from mori.objects.array import SharedArray, is_same_view
from mori.wire import reference, transport

__all__ = ["SharedBytes"]

_SHOWN: Final = 32  # bytes that a repr shows
_BLOCK: Final = 1 << 20  # bytes that are compared at once
_LIKE_BYTES: Final = (bytes, bytearray, memoryview)


class SharedBytes(SharedArray):
    """bytes, a bytearray or a memoryview in shared memory.

    Made by `mori.share` of 4096 bytes or more. Whatever takes a buffer takes it without a copy
    (``memoryview``, ``hashlib``, ``file.write``, ``socket.sendall``, ``numpy.frombuffer``); indexing
    gives ints, slices are references too, and it equals the bytes that it was. ``bytes(x)`` and
    `mori.materialize` make private ones.

    Notes
    -----
    It is no subclass of bytes: C code would look for the bytes inside the object. What was bytes or a
    memoryview cannot be assigned to and can be hashed; what was a bytearray becomes private with the
    first assignment, and keeps its length.
    """

    __array_ufunc__: None = None  # type: ignore[assignment]  # bytes cannot be added up

    _kind: type = bytes

    def __array_finalize__(self, obj: npt.NDArray[Any] | None) -> None:
        super().__array_finalize__(obj)
        self._kind = getattr(obj, "_kind", bytes)

    def __getitem__(self, index: SupportsIndex | slice) -> Any:  # type: ignore[override]
        if isinstance(index, slice):
            return np.ndarray.__getitem__(self, index)
        try:
            return int(np.ndarray.__getitem__(self, index.__index__()))
        except AttributeError:
            kind = type(index).__name__
            raise TypeError(f"byte indices must be integers or slices, not {kind}") from None
        except IndexError:
            raise IndexError("index out of range") from None

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._kind is not bytearray:
            raise TypeError(f"this SharedBytes was {self._kind.__name__}, and cannot be assigned to")
        if isinstance(value, _LIKE_BYTES):
            value = np.frombuffer(value, np.uint8)
        super().__setitem__(index, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(memoryview(self))

    def __bool__(self) -> bool:
        return len(self) > 0

    def __contains__(self, item: object) -> bool:
        if isinstance(item, (*_LIKE_BYTES, SharedBytes)):
            wanted = bytes(item)
        elif isinstance(item, SupportsIndex):
            wanted = bytes([item.__index__()])
        else:
            raise TypeError(f"a bytes-like object is required, not {type(item).__name__!r}")
        return re.search(re.escape(wanted), self._flat()) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (*_LIKE_BYTES, SharedBytes)):
            return NotImplemented
        if isinstance(other, memoryview) and (other.ndim != 1 or other.format not in ("B", "c")):
            return False
        ours, theirs = np.asarray(self), np.asarray(memoryview(other)).view(np.uint8)
        return len(ours) == len(theirs) and all(
            np.array_equal(ours[start : start + _BLOCK], theirs[start : start + _BLOCK])
            for start in range(0, len(ours), _BLOCK)
        )

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:  # type: ignore[override]
        if self._kind is bytearray:
            raise TypeError("unhashable: this SharedBytes was a bytearray")
        return hash(bytes(self))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, (*_LIKE_BYTES, SharedBytes)):
            return NotImplemented
        return self._plain() + bytes(other)

    def __radd__(self, other: Any) -> Any:
        return NotImplemented  # bytes and bytearray add any buffer

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        start = bytes(self[:_SHOWN])
        return f"<SharedBytes {start!r}{'...' if len(self) > _SHOWN else ''} {len(self):,} bytes>"

    def __copy__(self) -> Any:
        return self._plain()

    def __deepcopy__(self, memo: Any) -> Any:
        return self._plain()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text that the bytes encode."""
        return str(self._flat(), encoding, errors)

    def _flat(self) -> Any:
        """Return the bytes one behind the other, for what cannot skip any."""
        return self if self.flags.c_contiguous else bytes(self)

    def _plain(self) -> Any:
        """Return private bytes; a bytearray where it was one."""
        return bytearray(self) if self._kind is bytearray else bytes(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        node = node_of_memory(self)
        if node is None or node.codec is not _codec:
            return type(self._plain()), (bytes(self),)
        mapping, whole = node.mapping, decode(node)
        if is_same_view(self, whole):
            if transport.is_wanted(mapping):
                return reference.by_reference(mapping, node.offset)
            return reference.by_value(node, protocol)
        if not transport.is_wanted(mapping):
            return type(self._plain()), (bytes(self),)
        start = address_of(self) - address_of(whole)
        view = Strides(start, "", self.shape, self.strides)
        return reference.by_reference(mapping, node.offset, view)


def _hand_out(node: Node, array: npt.NDArray[Any]) -> SharedBytes:
    if array.ndim != 1 or array.dtype != np.uint8:
        raise node.decode_error("a reference takes it for something else")
    shared = array.view(SharedBytes)
    shared._kind = KINDS[node.meta[0]]
    shared._is_standalone = True
    return shared


class _BytesCodec(BytesCodec):
    """bytes, bytearrays and memoryviews of bytes."""

    def open(self, node: Node) -> SharedBytes:
        return _hand_out(node, self.read(node))

    def view(self, node: Node, view: Strides | Range) -> SharedBytes:
        if not isinstance(view, Strides):
            raise node.decode_error("a reference takes it for a column of Arrow")
        return _hand_out(node, view_of(node, view, self.read(node).dtype))

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return obj._plain() if isinstance(obj, SharedBytes) else obj


_codec = _BytesCodec()
register(_codec, bytearray, memoryview, SharedBytes)
