"""Dicts, opened in constant time, their keys decoded at the first lookup.

Imports the view, the tuples and the reader.
"""

from __future__ import annotations

import itertools
from collections.abc import ItemsView, Iterable, Iterator, KeysView, MutableMapping, ValuesView
from typing import Any

from mori import codec
from mori.layout import Codec as Id
from mori.reader import Node, open_node, opener
from mori.views.sequences import SharedTuple
from mori.views.view import SHOWN, View

__all__ = ["SharedDict"]


class SharedDict(View[dict[Any, Any]], MutableMapping[Any, Any]):
    """A dict in shared memory, in its order.

    Opening it costs the same whatever its length; its keys are decoded at the first lookup, its
    values when they are asked for. A change of structure acts on this object alone.
    """

    __slots__ = ("_places",)
    _places: dict[Any, int] | None

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._places = None

    def _items(self) -> Node:
        values = self._node.child(1)
        if values.record.codec != Id.LIST:
            raise values.decode_error("it is no list of values")
        return values

    def _index(self) -> dict[Any, int]:
        if self._places is None:
            keys = self._node.child(0)
            if keys.record.codec != Id.LIST or len(keys) != len(self._items()):
                raise keys.decode_error("it is no list of as many keys as there are values")
            opened = [_key(open_node(keys.child(i))) for i in range(len(keys))]
            try:
                places = {key: i for i, key in enumerate(opened)}
            except TypeError as error:
                raise keys.decode_error(f"a key cannot be hashed ({error})") from error
            if len(places) != len(keys):
                raise keys.decode_error("its keys are not distinct")
            self._places = places
        return self._places

    def __getitem__(self, key: Any) -> Any:
        if self._own is not None:
            return self._own[key]
        return self._open(self._index()[key])

    def __contains__(self, key: object) -> bool:
        return key in (self._index() if self._own is None else self._own)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._index() if self._own is None else self._own)

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed(self._index() if self._own is None else self._own)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._private()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._private()[key]

    def _copy(self) -> dict[Any, Any]:
        return {key: self._open(index) for key, index in self._index().items()}

    def _adopt(self, index: Any, part: object) -> None:
        if self._own is None:
            key = next(itertools.islice(self._index(), index, None))
            self._private()[key] = part

    def copy(self) -> dict[Any, Any]:
        """Return a plain dict of the same values."""
        return dict(self.items())

    def keys(self) -> KeysView[Any]:
        """Return a set-like view of the keys."""
        return KeysView(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values, each decoded when it is reached."""
        return ValuesView(self)

    def items(self) -> ItemsView[Any, Any]:
        """Return a set-like view of the items."""
        return ItemsView(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict | SharedDict):
            return NotImplemented
        return len(self) == len(other) and all(
            key in other and (value is other[key] or value == other[key]) for key, value in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> Any:
        return {**self, **other} if isinstance(other, dict | SharedDict) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return {**other, **self} if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Iterable[Any]) -> SharedDict:  # type: ignore[misc]
        self.update(other)
        return self

    def __repr__(self) -> str:
        shown = [f"{key!r}: {self[key]!r}" for key in itertools.islice(self, SHOWN)]
        rest = f", ... {len(self):,} in all" if len(self) > SHOWN else ""
        return f"<SharedDict {{{', '.join(shown)}{rest}}}>"


def _key(key: Any) -> Any:
    """Return a key as it was: a tuple of tuples comes back as views, which hash alike but are not it."""
    return tuple(map(_key, key)) if isinstance(key, SharedTuple) else key


opener(Id.DICT)(SharedDict)
_codec = codec.for_id(Id.DICT)
assert _codec is not None
codec.register(_codec, SharedDict)
