"""Lazy containers over nodes: opened in constant time, an element decoded when it is asked for.

Imports reference, reader and array. Never subclasses of the builtins, which C code and engines would
walk or take for empty. A structural change turns this view, and no other, into a private container
whose untouched elements are still shared.
"""

from __future__ import annotations

import itertools
import operator
import weakref
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    MutableMapping,
    MutableSequence,
    Sequence,
    ValuesView,
)
from typing import Any, Final, Generic, TypeVar, cast

from mori import codec, reference
from mori.array import SharedArray
from mori.layout import Codec as Id
from mori.reader import Node, open_node, opener

__all__ = ["SharedDict", "SharedList", "SharedTuple", "View"]

_SHOWN: Final = 6

Own = TypeVar("Own", bound=Any)


class View(Generic[Own]):
    """What the lazy containers have in common: the node, or the private container it turned into."""

    __slots__ = ("__weakref__", "_above", "_frames", "_node", "_opened", "_own")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._own: Own | None = None
        self._above: tuple[View[Any], Any] | None = None
        # Handed-out parts, so that the same part is the same object, and a write to it is not lost.
        self._opened: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._frames: dict[int, Any] = {}

    def _items(self) -> Node:
        """Return the node whose children are the elements."""
        return self._node

    def _open(self, index: int) -> Any:
        part = self._opened.get(index)
        if part is None:
            part = self._frames.get(index)
        if part is None:
            part = open_node(self._items().child(index))
            if isinstance(part, SharedArray | View):
                part._above = (self, index)
                self._opened[index] = part
            elif hasattr(part, "_mori_is_intact"):
                # pandas writes to a frame without telling anyone: keep it, and look when pickling.
                self._frames[index] = part
        return part

    def _adopt(self, index: Any, part: object) -> None:
        """Take note that a part has become private: from now on this container is private, too."""
        raise NotImplementedError

    def _private(self) -> Own:
        """Turn into a private container, for a change of structure."""
        if self._own is None:
            self._own = self._copy()
            self._opened.clear()
            self._frames.clear()
            if self._above is not None:
                above, index = self._above
                self._above = None
                above._adopt(index, self)
        return self._own

    def _copy(self) -> Own:
        raise NotImplementedError

    def _plain(self) -> Any:
        """Return a builtin container of the elements as they are."""
        return self._copy() if self._own is None else self._own

    def __len__(self) -> int:
        return len(self._items() if self._own is None else self._own)

    def __reduce_ex__(self, protocol: Any) -> Any:
        changed = self._own is not None or not all(frame._mori_is_intact() for frame in self._frames.values())
        if changed:
            return _rebuild, (self._plain(),)
        mapping = self._node.mapping
        if reference.is_wanted(mapping):
            return reference.by_reference(mapping, self._node.offset)
        return reference.by_value(self._node, protocol)

    def __copy__(self) -> Any:
        return self._copy() if self._own is None else type(self._own)(self._own)


def _rebuild(plain: Any) -> Any:
    return plain


class _Elements(View[list[Any]], Sequence[Any]):
    """Lists and tuples."""

    __slots__ = ()
    _kind: type
    _outside: str

    def _index(self, index: Any) -> int:
        number = cast(int, index.__index__())
        length = len(self)
        if not -length <= number < length:
            raise IndexError(self._outside)
        return number + length if number < 0 else number

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = [self[number] for number in range(*index.indices(len(self)))]
            return self._kind(part)
        if not hasattr(index, "__index__"):
            kind = self._kind.__name__
            raise TypeError(f"{kind} indices must be integers or slices, not {type(index).__name__}")
        number = self._index(index)
        return self._open(number) if self._own is None else self._own[number]

    def __iter__(self) -> Iterator[Any]:
        if self._own is not None:
            return iter(self._own)
        return map(self._open, range(len(self)))

    def _copy(self) -> list[Any]:
        return [self._open(index) for index in range(len(self))]

    def _adopt(self, index: Any, part: object) -> None:
        if self._own is None:
            self._private()[index] = part

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        theirs = cast(Sequence[Any], other)
        return len(self) == len(theirs) and all(a is b or a == b for a, b in zip(self, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _compared(self, other: object, compare: Callable[[Any, Any], bool]) -> Any:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        return compare(self._kind(self), self._kind(cast(Sequence[Any], other)))

    def __lt__(self, other: object) -> Any:
        return self._compared(other, operator.lt)

    def __le__(self, other: object) -> Any:
        return self._compared(other, operator.le)

    def __gt__(self, other: object) -> Any:
        return self._compared(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        return self._compared(other, operator.ge)

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, self._kind | type(self)):
            return NotImplemented
        return self._kind(itertools.chain(iter(self), cast(Sequence[Any], other)))

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, self._kind):
            return NotImplemented
        return self._kind(itertools.chain(cast(Sequence[Any], other), iter(self)))

    def __mul__(self, times: int) -> Any:
        return self._kind(self) * times

    __rmul__ = __mul__

    def __repr__(self) -> str:
        shown = [repr(element) for element in itertools.islice(self, _SHOWN)]
        rest = f", ... {len(self):,} in all" if len(self) > _SHOWN else ""
        return f"<{type(self).__name__} [{', '.join(shown)}{rest}]>"


class SharedList(_Elements, MutableSequence[Any]):
    """A list in shared memory.

    Opening it costs the same whatever its length. It reads and compares like a list; a change of
    structure (`append`, ``x[0] = 1``) acts on this object alone, which then pickles as a plain list
    whose untouched elements are still references.
    """

    __slots__ = ()
    _kind = list
    _outside = "list index out of range"

    def __setitem__(self, index: Any, value: Any) -> None:
        self._private()[index] = value

    def __delitem__(self, index: Any) -> None:
        del self._private()[index]

    def insert(self, index: int, value: Any) -> None:
        """Insert before an index; this list alone changes."""
        self._private().insert(index, value)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort this list alone."""
        self._private().sort(key=key, reverse=reverse)

    def copy(self) -> list[Any]:
        """Return a plain list of the same elements."""
        return list(self)


class SharedTuple(_Elements):
    """A tuple in shared memory; see `SharedList`."""

    __slots__ = ()
    _kind = tuple
    _outside = "tuple index out of range"

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self))

    def _plain(self) -> tuple[Any, ...]:
        return tuple(super()._plain())


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
        shown = [f"{key!r}: {self[key]!r}" for key in itertools.islice(self, _SHOWN)]
        rest = f", ... {len(self):,} in all" if len(self) > _SHOWN else ""
        return f"<SharedDict {{{', '.join(shown)}{rest}}}>"


def _key(key: Any) -> Any:
    """Return a key as it was: a tuple of tuples comes back as views, which hash alike but are not it."""
    return tuple(map(_key, key)) if isinstance(key, SharedTuple) else key


for _id, _view in ((Id.LIST, SharedList), (Id.TUPLE, SharedTuple), (Id.DICT, SharedDict)):
    opener(_id)(cast(Any, _view))
    _codec = codec.for_id(_id)
    assert _codec is not None
    codec.register(_codec, _view)
