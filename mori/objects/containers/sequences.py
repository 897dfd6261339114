"""Lists and tuples, opened in constant time, an element decoded when it is asked for.

A wrong use is tried on a builtin, so that its error is Python's own, whatever its version.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from typing import Any, Self, SupportsIndex, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from mori.codecs.arrays import ArraysCodec
from mori.codecs.containers import Elements, SequenceCodec, Values
from mori.codecs.ndarray import view_of
from mori.codecs.packed import Numbers, PackedCodec
from mori.codecs.streams import BlocksCodec
from mori.codecs.strings import StringsCodec
from mori.format.codec import BuiltinCodec, Range, Strides, register
from mori.format.layout import Id
from mori.format.node import Node
from mori.objects.array import SharedArray
from mori.objects.array_codec import hand_out
from mori.objects.containers.identity import Identity
from mori.objects.containers.sources import Source, source_of
from mori.objects.containers.view import SHOWN, View, bounded, equal, plain_tuple, shown

__all__ = ["SharedList", "SharedTuple"]

T = TypeVar("T")
_CHUNK = 1024  # elements that are compared at once


class _Elements(View[list[T]], Sequence[T]):
    """Lists and tuples: a column of values, blocks of small objects, or a node each."""

    __slots__ = ()
    _kind: type

    def _elements(self) -> Source:
        source = self._source
        if source is None:
            source = self._source = source_of(self._node, self._identity, self)
        return source  # type: ignore[no-any-return]

    def _between(self, start: int, stop: int) -> Iterator[Any]:
        if self._own is not None:
            return iter(self._own[start:stop])
        return itertools.chain.from_iterable(self._elements().read(start, stop))

    def _place(self, index: Any) -> int:
        """Return a place from 0 on; raise the builtin's own error for a bad index."""
        try:
            number = operator.index(index)
        except TypeError:
            return cast(int, self._kind()[index])
        length = len(self)
        if not -length <= number < length:
            self._kind()[0]
        return number + length if number < 0 else number

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        if self._own is None and type(index) is int:
            source = self._elements()
            length = len(source)
            if 0 <= index < length:
                return source.get(index)
            if -length <= index < 0:
                return source.get(index + length)
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._kind(self._between(start, stop))
            return self._kind([self[number] for number in range(start, stop, step)])
        place = self._place(index)
        return self._elements().get(place) if self._own is None else self._own[place]

    def __iter__(self) -> Iterator[T]:
        return iter(self._own) if self._own is not None else self._between(0, len(self))

    def __reversed__(self) -> Iterator[T]:
        if self._own is not None:
            return iter(reversed(self._own))
        starts = reversed(range(0, len(self), _CHUNK))
        return itertools.chain.from_iterable(
            reversed([*self._between(start, min(start + _CHUNK, len(self)))]) for start in starts
        )

    def __contains__(self, value: object) -> bool:
        return value in cast(Iterator[object], iter(self))

    def index(self, value: Any, start: Any = 0, stop: Any = sys.maxsize) -> int:
        """Return the first place of a value; ValueError if it is not there."""
        with contextlib.suppress(ValueError):  # which has list's own errors for a bad start
            self._kind().index(value, start, stop)
        start, stop, _ = slice(start, stop).indices(len(self))
        for chunk in _chunks(self._between(start, stop)):
            if value in chunk:
                return cast(int, start + chunk.index(value))
            start += len(chunk)
        return cast(int, self._kind().index(value))  # raises: a kept error would be a cycle with this frame

    def count(self, value: Any) -> int:
        """Return how often a value is there."""
        return sum(chunk.count(value) for chunk in _chunks(self))

    def _copy(self) -> list[T]:
        return [*self._between(0, len(self))]

    @property
    def __array__(self) -> Callable[..., Any]:
        """Return numbers where they lie, and other elements as numpy makes an array of a list."""
        array = self._elements().array if self._own is None else None
        if array is None:
            raise AttributeError("__array__")

        def convert(dtype: Any = None, copy: bool | None = None) -> Any:
            if dtype is None or np.dtype(dtype) == array.dtype:
                return array.copy() if copy else array
            if copy is False:
                raise ValueError(f"elements of {array.dtype} are no {np.dtype(dtype)} without a copy")
            return array.astype(dtype)

        return convert

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        if not self._is_flat():
            return equal(self, other)
        if len(self) != len(cast(Sequence[Any], other)):
            return False
        return all(map(operator.eq, _chunks(self), _chunks(cast(Sequence[Any], other))))

    def _is_flat(self) -> bool:
        return self._own is None and self._elements().is_column

    __hash__: None = None  # type: ignore[assignment]

    def _compared(self, other: Any, compare: Callable[[Any, Any], bool]) -> Any:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        chunks = itertools.zip_longest(_chunks(self), _chunks(cast(Sequence[Any], other)), fillvalue=())
        for ours, theirs in chunks:
            if ours != theirs:
                return compare(list(ours), list(theirs))
        return compare(0, 0)

    def __lt__(self, other: object) -> Any:
        return self._compared(other, operator.lt)

    def __le__(self, other: object) -> Any:
        return self._compared(other, operator.le)

    def __gt__(self, other: object) -> Any:
        return self._compared(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        return self._compared(other, operator.ge)

    def __add__(self, other: Any) -> Any:
        return self._kind(self) + _builtin(other)

    def __radd__(self, other: Any) -> Any:
        return other + self._kind(self)

    def __mul__(self, times: int) -> Any:
        return self._kind(self) * times

    def __rmul__(self, times: int) -> Any:
        return times * self._kind(self)

    @bounded
    def __repr__(self) -> str:
        first = [shown(element) for element in itertools.islice(self, SHOWN)]
        rest = f", ... {len(self):,} in all" if len(self) > SHOWN else ""
        return f"<{type(self).__name__} [{', '.join(first)}{rest}]>"


def _builtin(other: Any) -> Any:
    return other._kind(other) if isinstance(other, _Elements) else other


def _chunks(elements: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(elements)
    while chunk := [*itertools.islice(iterator, _CHUNK)]:
        yield chunk


class SharedList(_Elements[T], MutableSequence[T]):
    """A list in shared memory.

    Opening it costs the same whatever its length. It reads and compares like a list; a change of
    structure (`append`, ``x[0] = 1``) acts on this object alone, which then pickles as a plain list
    whose untouched elements are still references.

    Notes
    -----
    A list of nothing but str, int, float, bool or bytes, missing values (None) among them or not, lies
    packed: iterating decodes it block by block, and ``numpy.asarray`` of numbers is a read-only array over
    the region, without a copy; so it is of arrays of one dtype and shape, which lie one behind the other.
    An iterator goes on over the elements that the list had when it was made.
    """

    __slots__ = ()
    _kind = list

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            self._needs(index, operator.setitem, value)
        self._private()[index] = value

    def __delitem__(self, index: Any) -> None:
        if not isinstance(index, slice):
            self._needs(index, operator.delitem)
        del self._private()[index]

    def _needs(self, index: Any, change: Callable[..., Any], *value: Any) -> None:
        """Raise what the builtin raises for a wrong index, before anything becomes private."""
        try:
            self._place(index)
        except (IndexError, TypeError):
            change([], index, *value)
            raise

    def insert(self, index: SupportsIndex, value: T) -> None:
        """Insert before an index; this list alone changes."""
        list[T]().insert(index, value)
        self._private().insert(index, value)

    def append(self, value: T) -> None:
        """Append an element; this list alone changes."""
        self._private().append(value)

    def extend(self, values: Iterable[T]) -> None:
        """Append elements; this list alone changes."""
        values = list(values)
        self._private().extend(values)

    def __iadd__(self, values: Iterable[T]) -> Self:  # type: ignore[misc]
        self.extend(values)
        return self

    def __imul__(self, times: int) -> Self:
        [] * times
        own = self._private()
        own *= times
        return self

    def pop(self, index: SupportsIndex = -1) -> T:
        """Remove an element and return it; this list alone changes."""
        try:
            self._place(index)
        except (IndexError, TypeError):
            ([None] if len(self) else []).pop(index)
            raise
        return self._private().pop(index)

    def remove(self, value: Any) -> None:
        """Remove the first of a value; this list alone changes."""
        if value not in self:
            [].remove(value)
        self._private().remove(value)

    def reverse(self) -> None:
        """Turn this list alone round."""
        self._private().reverse()

    def clear(self) -> None:
        """Empty this list alone."""
        self._private().clear()

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort this list alone."""
        self._private().sort(key=key, reverse=reverse)

    def copy(self) -> list[T]:
        """Return a plain list of the same elements."""
        return list(self)


class SharedTuple(_Elements[T]):
    """A tuple in shared memory; see `SharedList`."""

    __slots__ = ()
    _kind = tuple

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(plain_tuple(self))

    def _plain(self) -> tuple[T, ...]:
        return tuple(super()._plain())

    def __copy__(self) -> tuple[T, ...]:
        return self._plain()


class _SequenceCodec(SequenceCodec):
    """Lists and tuples that have a node for each element."""

    def open(self, node: Node) -> Any:
        return self.open_in(node, Identity())

    def open_in(self, node: Node, identity: Identity) -> Any:
        return (SharedList if self.kind is list else SharedTuple)(node, identity)


class _Elsewhere(BuiltinCodec):
    """How lists and tuples are opened whose elements lie in columns or blocks."""

    def open(self, node: Node) -> Any:
        return self.open_in(node, Identity())

    def open_in(self, node: Node, identity: Identity) -> Any:
        view = SharedList[Any](node, identity)
        if view._elements().kind is list:
            return view
        return SharedTuple(node, identity)

    def part(self, node: Node, number: int) -> None:
        """Return None: their elements have no nodes of their own."""


class _StringsCodec(_Elsewhere, StringsCodec):
    """Columns of strings."""


class _PackedCodec(_Elsewhere, PackedCodec):
    """Columns of numbers or bytes."""


class _ArraysCodec(_Elsewhere, ArraysCodec):
    """Columns of arrays, which references show as views of the column."""

    def view(self, node: Node, view: Strides | Range) -> SharedArray:
        if not isinstance(view, Strides):
            raise node.decode_error("a reference takes it for a column of Arrow")
        return self.wrap(node, view_of(node, view, self.read(node).data.dtype))

    def wrap(self, node: Node, array: npt.NDArray[Any]) -> SharedArray:
        return hand_out(array.view(np.ndarray))


class _BlocksCodec(_Elsewhere, BlocksCodec):
    """Blocks of small objects."""


register(_SequenceCodec(Id.LIST, list), list, Values, Elements, SharedList)
register(_SequenceCodec(Id.TUPLE, tuple), tuple, SharedTuple)
register(_StringsCodec())
register(_PackedCodec(), Numbers)
register(_ArraysCodec())
register(_BlocksCodec())
