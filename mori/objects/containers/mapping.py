"""Dicts, opened in constant time, their keys looked up in the region where they have an index."""

from __future__ import annotations

import itertools
from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from mori.codecs.containers import DictCodec
from mori.codecs.key_index import Index
from mori.format.codec import register
from mori.format.node import Node
from mori.objects.containers.identity import Identity
from mori.objects.containers.sources import Source, source_of
from mori.objects.containers.view import SHOWN, View, bounded, damaged, equal, index_of, keys_of, shown

if TYPE_CHECKING:
    from mori.objects.containers.sequences import SharedList

__all__ = ["SharedDict"]

K = TypeVar("K")
V = TypeVar("V")
Answer = TypeVar("Answer")
_NOTHING: Final[dict[Any, Any]] = {}


class SharedDict(View[dict[K, V]], MutableMapping[K, V]):
    """A dict in shared memory, in its order.

    Opening it costs the same whatever its length, and a value is decoded when it is asked for. Keys (16 of
    them or more) are looked up in shared memory where all are of types that compare by value: text, bytes,
    numbers of all kinds, None, dates and times, enums, UUIDs, POSIX paths, tuples, namedtuples, frozensets
    and frozen dataclasses of these. Other keys, and what may be equal to anything (a class with an ``__eq__``
    of its own), are looked up in a table of all keys that is built once. A key finds what it finds in a
    dict: ``d[1.0]`` and ``d[True]`` the key 1. A NaN among the keys is another NaN in every process: only
    the one that iterating gave is found.

    A change of structure acts on this object alone, which then pickles as a plain dict whose untouched
    values are still references.
    """

    __slots__ = ("_index", "_key_list", "_places")
    _kind = dict
    _index: Index | None
    _places: dict[K, int] | None

    def __init__(self, node: Node, identity: Identity) -> None:
        super().__init__(node, identity)
        self._index = self._places = None
        self._key_list: SharedList[K] | None = None

    def _elements(self) -> Source:
        source = self._source
        if source is None:
            node = self._node
            values = node.child(len(node) - 1)
            source = source_of(values, self._identity, self)
            if source.kind is not list:
                raise values.decode_error("it is no list of values")
            self._source = source
        return source  # type: ignore[no-any-return]

    def _count(self) -> int:
        """Return how many values there are in shared memory."""
        return len(self._elements())

    def _open(self, index: int) -> V:
        return self._elements().get(index)  # type: ignore[no-any-return]

    def _keys(self) -> SharedList[K]:
        """Return the keys in shared memory."""
        keys = self._key_list
        if keys is None:
            keys = keys_of(self._node, self._identity)
            if len(keys) != self._count():
                raise self._node.decode_error(f"it has {len(keys)} keys and {self._count()} values")
            self._index = index_of(self._node, keys, _NOTHING)
            self._key_list = keys
        return keys

    def _table(self) -> dict[K, int]:
        """Return the places of all keys, for keys without an index and for lookups that it cannot answer."""
        places = self._places
        if places is None:
            keys = self._keys()
            try:
                places = {key: i for i, key in enumerate(keys)}
            except TypeError as error:
                raise self._node.decode_error(f"a key cannot be hashed ({error})") from error
            if len(places) != len(keys):
                raise self._node.decode_error("its keys are not distinct")
            self._places = places
        return places

    def _mori_is_intact(self) -> bool:
        return super()._mori_is_intact() and (self._key_list is None or self._key_list._mori_is_intact())

    def _mori_is_idle(self) -> bool:
        self._places = None  # it holds the keys, as no user does
        return super()._mori_is_idle() and (self._key_list is None or self._key_list._mori_is_idle())

    def _in_order(self) -> SharedList[K] | dict[K, int]:
        """Return the keys in shared memory; without an index, those of the table, whose identity matters."""
        keys = self._keys()
        return self._table() if self._index is None else keys

    def _find(self, key: Any) -> int | None:
        """Return the place of a key, None if there is none."""
        if self._places is None:
            index = self._index
            if index is None:
                self._keys()
                index = self._index
            if index is not None:
                try:
                    return index.find(key)
                except LookupError:
                    pass
                except ValueError as error:
                    raise damaged(self._node, error) from error
        return self._table().get(key)

    def __getitem__(self, key: K) -> V:
        if self._own is not None:
            return self._own[key]
        place = self._find(key)
        if place is None:
            raise KeyError(key)
        return self._open(place)

    @overload
    def get(self, key: K, default: None = None) -> V | None: ...
    @overload
    def get(self, key: K, default: V) -> V: ...
    @overload
    def get(self, key: K, default: Answer) -> V | Answer: ...
    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, `default` if there is none."""
        if self._own is not None:
            return self._own.get(key, default)
        place = self._find(key)
        return default if place is None else self._open(place)

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None if self._own is None else key in self._own

    def __len__(self) -> int:
        return self._count() if self._own is None else len(self._own)

    def __iter__(self) -> Iterator[K]:
        return iter(self._own) if self._own is not None else self._watched(iter(self._in_order()))

    def __reversed__(self) -> Iterator[K]:
        if (own := self._own) is not None:
            return reversed(own)
        return self._watched(reversed(self._in_order()))

    def _watched(self, parts: Iterator[Answer]) -> Iterator[Answer]:
        """Yield keys, values or items as long as nothing is added or removed."""
        count = self._count()
        for part in parts:
            yield part
            if self._own is not None and len(self._own) != count:
                raise RuntimeError("dictionary changed size during iteration")

    def _each(self) -> Iterator[V]:
        """Yield the values in shared memory."""
        return itertools.chain.from_iterable(self._elements().read(0, self._count()))

    def __setitem__(self, key: K, value: V) -> None:
        self._private()[key] = value

    def __delitem__(self, key: K) -> None:
        self._known(key)
        del self._private()[key]

    def _known(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, default: V, /) -> V: ...
    @overload
    def pop(self, key: K, default: Answer, /) -> V | Answer: ...
    def pop(self, key: Any, *default: Any) -> Any:
        """Remove a key from this dict alone and return its value, `default` if there is none."""
        if len(default) == 1 and key not in self:
            return default[0]
        if not default:
            self._known(key)
        return self._private().pop(key, *default)

    def popitem(self) -> tuple[K, V]:
        """Remove the last item from this dict alone and return it; KeyError if it is empty."""
        return self._private().popitem()

    @overload
    def setdefault(self: SharedDict[K, Answer | None], key: K, default: None = None) -> Answer | None: ...
    @overload
    def setdefault(self, key: K, default: V) -> V: ...
    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, after giving it one in this dict alone if there is none."""
        return self[key] if key in self else self._private().setdefault(key, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take over the items of another mapping, or pairs; this dict alone changes."""
        if args or kwargs:
            self._private().update(*args, **kwargs)

    def clear(self) -> None:
        """Remove all items from this dict alone."""
        self._private().clear()

    def _copy(self) -> dict[K, V]:
        return dict(self.items())

    def copy(self) -> dict[K, V]:
        """Return a plain dict of the same values."""
        return dict(self.items())

    def keys(self) -> KeysView[K]:
        """Return a set-like view of the keys."""
        return _Keys(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values, each decoded when it is reached."""
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        """Return a set-like view of the items."""
        return _Items(self)

    def __eq__(self, other: object) -> bool:
        return equal(self, other) if isinstance(other, dict | SharedDict) else NotImplemented

    __hash__: None = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, dict | SharedDict):
            return NotImplemented
        return {**dict(self.items()), **dict(other.items())}

    def __ror__(self, other: Any) -> Any:
        return {**other, **dict(self.items())} if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        self._private().update(other)
        return self

    @bounded
    def __repr__(self) -> str:
        first = itertools.islice(self.items(), SHOWN)
        items = [f"{shown(key)}: {shown(value)}" for key, value in first]
        rest = f", ... {len(self):,} in all" if len(self) > SHOWN else ""
        return f"<SharedDict {{{', '.join(items)}{rest}}}>"


class _Part:
    """What the views of a dict have in common with the builtin's."""

    __slots__ = ()
    _mapping: SharedDict[Any, Any]

    @property
    def mapping(self) -> Mapping[Any, Any]:
        """The dict, read-only."""
        return MappingProxyType(self._mapping)


class _Keys(_Part, KeysView[Any]):
    __slots__ = ()

    def __reversed__(self) -> Iterator[Any]:
        return self._mapping.__reversed__()


class _Values(_Part, ValuesView[Any]):
    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        ours = self._mapping
        own = ours._own
        return iter(own.values()) if own is not None else ours._watched(ours._each())

    def __reversed__(self) -> Iterator[Any]:
        return (self._mapping[key] for key in reversed(self._mapping))


class _Items(_Part, ItemsView[Any, Any]):
    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        ours = self._mapping
        own = ours._own
        if own is not None:
            return iter(own.items())
        return ours._watched(zip(ours._in_order(), ours._each(), strict=True))

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return ((key, self._mapping[key]) for key in reversed(self._mapping))


class _DictCodec(DictCodec):
    """Large dicts."""

    def open(self, node: Node) -> SharedDict[Any, Any]:
        return SharedDict(node, Identity())

    def open_in(self, node: Node, identity: Identity) -> SharedDict[Any, Any]:
        return SharedDict(node, identity)


register(_DictCodec(), dict, SharedDict)
