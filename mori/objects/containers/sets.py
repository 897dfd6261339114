"""Sets, opened in constant time, their elements looked up in the region where they have an index.

The operators are the builtins' own, on a table that is built when one is used.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, MutableSet, Set
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

from mori.codecs.containers import SetCodec
from mori.codecs.key_index import Index
from mori.format.codec import register
from mori.format.layout import Id
from mori.format.node import Node
from mori.objects.containers.identity import Identity
from mori.objects.containers.view import SHOWN, View, bounded, damaged, index_of, keys_of, shown

if TYPE_CHECKING:
    from mori.objects.containers.sequences import SharedList

__all__ = ["SharedFrozenSet", "SharedSet"]

T = TypeVar("T")
_NOTHING: Final = frozenset[Any]()
_Method: TypeAlias = Callable[..., Any]


def _builtin(other: Any) -> Any:
    return other._table() if isinstance(other, _Elements) else other


def _binary(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: _Elements[Any], other: Any) -> Any:
        return operate(self._table(), _builtin(other))

    return method


def _reflected(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: _Elements[Any], other: Any) -> Any:
        return operate(other, self._table())

    return method


def _compared(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: _Elements[Any], other: Any) -> Any:
        if not isinstance(other, set | frozenset | _Elements):
            return NotImplemented
        return operate(self._table(), _builtin(other))

    return method


def _asked(name: str) -> Callable[..., Any]:
    def method(self: _Elements[Any], *others: Any) -> Any:
        return getattr(self._table(), name)(*map(_builtin, others))

    method.__name__, method.__doc__ = name, getattr(set, name).__doc__
    return method


class _Elements(View[set[T]], Set[T]):
    """Sets and frozensets."""

    __slots__ = ("_index", "_list", "_lookup")
    _kind: type

    def __init__(self, node: Node, identity: Identity) -> None:
        super().__init__(node, identity)
        self._list: SharedList[T] | None = None
        self._index: Index | None = None
        self._lookup: Any = None

    def _in_order(self) -> SharedList[T]:
        """Return the elements as the list that they are in shared memory."""
        elements = self._list
        if elements is None:
            elements = keys_of(self._node, self._identity)
            self._index = index_of(self._node, elements, _NOTHING)
            self._list = elements
        return elements

    def _table(self) -> Any:
        """Return the builtin set of the elements; it is this object's own, and never returned."""
        if self._own is not None:
            return self._own
        if self._lookup is None:
            self._lookup = self._set_of(self._in_order())
        return self._lookup

    def _set_of(self, elements: Iterable[Any]) -> Any:
        """Return the builtin set of this set's elements, or of copies of them."""
        try:
            made = self._kind(elements)
        except TypeError as error:
            raise self._node.decode_error(f"an element cannot be hashed ({error})") from error
        if len(made) != len(self):
            raise self._node.decode_error("its elements are not distinct")
        return made

    def _copy(self) -> Any:
        return self._kind(iter(self._table()))

    def _private(self) -> set[T]:
        own = super()._private()
        self._lookup = self._list = self._index = None
        return own

    def _mori_is_intact(self) -> bool:
        return super()._mori_is_intact() and (self._list is None or self._list._mori_is_intact())

    def _mori_is_idle(self) -> bool:
        self._lookup = None  # it holds the elements, as no user does
        return super()._mori_is_idle() and (self._list is None or self._list._mori_is_idle())

    def __len__(self) -> int:
        return len(self._in_order() if self._own is None else self._own)

    def __iter__(self) -> Iterator[T]:
        return iter(self._in_order()) if self._own is None else iter(self._own)

    def __contains__(self, value: object) -> bool:
        if self._own is None and self._lookup is None:
            self._in_order()
            if self._index is not None:
                try:
                    return self._index.find(value) is not None
                except LookupError:
                    pass
                except ValueError as error:
                    raise damaged(self._node, error) from error
        return value in self._table()

    def copy(self) -> Any:
        """Return the builtin of the same elements."""
        return self._copy()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, set | frozenset | _Elements):
            return NotImplemented
        return len(self) == len(other) and bool(self._table() == _builtin(other))

    __hash__: None = None  # type: ignore[assignment]

    __lt__: ClassVar[_Method] = _compared(operator.lt)
    __le__: ClassVar[_Method] = _compared(operator.le)
    __gt__: ClassVar[_Method] = _compared(operator.gt)
    __ge__: ClassVar[_Method] = _compared(operator.ge)
    __or__: ClassVar[_Method] = _binary(operator.or_)
    __and__: ClassVar[_Method] = _binary(operator.and_)
    __sub__: ClassVar[_Method] = _binary(operator.sub)
    __xor__: ClassVar[_Method] = _binary(operator.xor)
    __ror__: ClassVar[_Method] = _reflected(operator.or_)
    __rand__: ClassVar[_Method] = _reflected(operator.and_)
    __rsub__: ClassVar[_Method] = _reflected(operator.sub)
    __rxor__: ClassVar[_Method] = _reflected(operator.xor)
    isdisjoint: ClassVar[_Method] = _asked("isdisjoint")
    issubset: ClassVar[_Method] = _asked("issubset")
    issuperset: ClassVar[_Method] = _asked("issuperset")
    union: ClassVar[_Method] = _asked("union")
    intersection: ClassVar[_Method] = _asked("intersection")
    difference: ClassVar[_Method] = _asked("difference")
    symmetric_difference: ClassVar[_Method] = _asked("symmetric_difference")

    @bounded
    def __repr__(self) -> str:
        first = [shown(element) for element in itertools.islice(self, SHOWN)]
        rest = f", ... {len(self):,} in all" if len(self) > SHOWN else ""
        return f"<{type(self).__name__} {{{', '.join(first)}{rest}}}>"


def _change(name: str) -> Callable[..., Any]:
    def method(self: SharedSet[Any], *others: Any) -> Any:
        others = tuple(map(_builtin, others))
        getattr(self._kind(), name)(*others)  # what is no argument for it is none for an empty set either
        return getattr(self._private(), name)(*others)

    method.__name__, method.__doc__ = name, getattr(set, name).__doc__
    return method


def _in_place(operate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: SharedSet[Any], other: Any) -> Any:
        other = _builtin(other)
        operate(set(), other)
        operate(self._private(), other)
        return self

    return method


class SharedSet(_Elements[T], MutableSet[T]):
    """A set in shared memory.

    Opening it costs the same whatever its length; it is iterated over without being built, and elements are
    looked up like the keys of a `SharedDict`. The first comparison or operator builds a table of its elements
    in private memory. A change acts on this object alone, which then pickles as a plain set.
    """

    __slots__ = ()
    _kind = set

    add: ClassVar[_Method] = _change("add")
    discard: ClassVar[_Method] = _change("discard")
    clear: ClassVar[_Method] = _change("clear")
    update: ClassVar[_Method] = _change("update")
    difference_update: ClassVar[_Method] = _change("difference_update")
    intersection_update: ClassVar[_Method] = _change("intersection_update")
    symmetric_difference_update: ClassVar[_Method] = _change("symmetric_difference_update")
    __ior__: ClassVar[_Method] = _in_place(operator.ior)
    __iand__: ClassVar[_Method] = _in_place(operator.iand)
    __isub__: ClassVar[_Method] = _in_place(operator.isub)
    __ixor__: ClassVar[_Method] = _in_place(operator.ixor)

    def remove(self, value: T) -> None:
        """Remove an element; this set alone changes."""
        if value not in self:
            set[T]().remove(value)
        self._private().remove(value)

    def pop(self) -> T:
        """Remove some element and return it; this set alone changes."""
        if not len(self):
            set().pop()
        return self._private().pop()


class SharedFrozenSet(_Elements[T]):
    """A frozenset in shared memory, with the hash of the frozenset; see `SharedSet`."""

    __slots__ = ()
    _kind = frozenset

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._table())


class _SetCodec(SetCodec):
    """Large sets and frozensets."""

    def open(self, node: Node) -> Any:
        return self.open_in(node, Identity())

    def open_in(self, node: Node, identity: Identity) -> Any:
        return (SharedSet if self.kind is set else SharedFrozenSet)(node, identity)


register(_SetCodec(Id.SET, set), set, SharedSet)
register(_SetCodec(Id.FROZENSET, frozenset), frozenset, SharedFrozenSet)
