"""Private copies in ordinary types: what `mori.materialize` gives.

Walks with a stack of its own, and keeps what is one object one object, as copy.deepcopy does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from types import MethodType
from typing import Any, Final, NamedTuple

from mori.format import codec, origins
from mori.format.atoms import NAMED
from mori.objects.containers import small
from mori.objects.containers.mapping import SharedDict
from mori.objects.containers.sequences import SharedList, SharedTuple
from mori.objects.containers.sets import SharedFrozenSet, SharedSet
from mori.wire import transport

__all__ = ["private_copy"]


_Copies = dict[int, tuple[object, Any]]
"""By the id of the original, which is kept: the id of one that is gone is soon another's."""


class _Level(NamedTuple):
    """A container on the way down: what is left of it, where its elements' copies go, and its own."""

    obj: object
    left: Iterator[Any]
    take: Callable[[Any], object]
    finish: Callable[[], Any]


_SETS: Final[dict[type, Any]] = {
    set: set,
    SharedSet: set,
    small.SmallSet: set,
    frozenset: frozenset,
    SharedFrozenSet: frozenset,
    small.SmallFrozenSet: frozenset,
}
_TUPLES: Final = (tuple, SharedTuple, small.SmallTuple)
_LISTS: Final = (list, SharedList, small.SmallList)
_DICTS: Final = (dict, SharedDict, small.SmallDict)
_END: Final = object()


def private_copy(x: Any) -> Any:
    """Return a private deep copy of a shared object in ordinary types.

    Builtin lists, tuples and dicts are looked through; what is not shared comes back as it is.
    """
    with transport.use_transport("value"):
        return _copy(x, {})


def _copy(x: Any, copies: _Copies) -> Any:
    result: list[Any] = []
    levels = [_Level(result, iter((x,)), result.append, lambda: None)]
    while True:
        level = levels[-1]
        obj = next(level.left, _END)
        if obj is _END:
            levels.pop()
            if not levels:
                return result[0]
            if id(level.obj) not in copies:  # a tuple; it may have been met again, and finished, inside
                copies[id(level.obj)] = level.obj, level.finish()
            levels[-1].take(copies[id(level.obj)][1])
        elif id(obj) in copies:
            level.take(copies[id(obj)][1])
        elif (below := _below(obj, copies)) is not None:
            levels.append(below)
        else:
            copy = _leaf(obj, copies)
            if copy is not obj:
                copies[id(obj)] = obj, copy
            level.take(copy)


def _below(obj: Any, copies: _Copies) -> _Level | None:
    """Return the level of a container, None for anything else."""
    kind = type(obj)
    if kind in _TUPLES:
        parts: list[Any] = []
        return _Level(obj, iter(obj), parts.append, lambda: tuple(parts))
    if kind in _SETS:
        elements: list[Any] = []
        make = obj._set_of if kind in (SharedSet, SharedFrozenSet) else _SETS[kind]
        return _Level(obj, iter(obj), elements.append, lambda: make(elements))
    # A list or a dict may contain itself: its copy is known from now on.
    if kind in _LISTS:
        elements = []
        copies[id(obj)] = obj, elements
        return _Level(obj, iter(obj), elements.append, lambda: elements)
    if kind in _DICTS:
        items: dict[Any, Any] = {}
        copies[id(obj)] = obj, items
        return _Level(obj, chain.from_iterable(obj.items()), _Items(items, obj), lambda: items)
    return None


class _Items:
    """Puts keys and values, which come in turn, into a dict."""

    __slots__ = ("_has_key", "_items", "_key", "_obj")

    def __init__(self, items: dict[Any, Any], obj: Any) -> None:
        self._items = items
        self._obj = obj
        self._key: Any = None
        self._has_key = False

    def __call__(self, part: Any) -> None:
        if self._has_key:
            try:
                self._items[self._key] = part
            except TypeError as error:
                if not isinstance(self._obj, SharedDict):
                    raise
                raise self._obj._node.decode_error(f"a key cannot be hashed ({error})") from error
        else:
            self._key = part
        self._has_key = not self._has_key


def _leaf(obj: Any, copies: _Copies) -> Any:
    if isinstance(obj, (*NAMED, MethodType)):
        return obj
    node = origins.node_of(obj)
    by = codec.for_type(type(obj)) if node is None else node.codec
    if by is None:
        by = codec.for_type(codec.Pickled)
        assert by is not None
    with transport.use_transport("value"):
        return by.copy(obj, lambda part: _copy(part, copies))
