"""The small builtins and instances that an opening has handed out: a write to one is found, and not lost.

Imports the reader and the codec of small containers. Neither tells anybody that it was written to. So
those that can be are kept; now and then those are let go that nobody else holds and that still are what
the region says. What was changed stays.
"""

from __future__ import annotations

import sys
from collections.abc import Container
from typing import Any, Final, Protocol

from mori.codecs import small
from mori.codecs.rows import Rows
from mori.format.node import Node, decode
from mori.objects.containers.lock import lock
from mori.objects.containers.rows import HandedRows

__all__ = ["Handed", "Instances", "Kept", "dict_of", "has_held_dict", "holders", "is_as_written", "is_held"]

_FEW: Final = 64  # that are kept before any is let go
_LIGHT: Final = 16 << 20  # bytes, as many

_probe: Final[list[Any]] = [[]]
_ALONE: Final = sys.getrefcount(_probe[0])  # of what one container holds, asked like this
_NONE: Final = _ALONE - 1


class Handed:
    """Small builtins by the offset of their node."""

    __slots__ = ("_most", "_parts", "_tables")

    def __init__(self) -> None:
        self._parts: dict[int, tuple[Node, list[Any]]] = {}
        self._most = _FEW
        self._tables: dict[int, HandedRows] = {}

    def table(self, node: Node, rows: Rows) -> HandedRows:
        """Return the records of a node."""
        found = self._tables.get(node.offset)
        return self._tables.setdefault(node.offset, HandedRows(rows)) if found is None else found

    def part(self, node: Node) -> Any:
        """Return the builtin of a node: the one that was handed out before, if it may have been changed."""
        with lock:
            kept = self._parts.get(node.offset)
            if kept is not None:
                return kept[1][0]
            part = decode(node)
            if not small.is_fixed(part):
                if len(self._parts) >= self._most:
                    self._let_go_parts()
                self._parts[node.offset] = node, [part]
            return part

    def __len__(self) -> int:
        return len(self._parts) + sum(table.kept() for table in [*self._tables.values()])

    def let_go(self) -> None:
        """Forget those that nobody else holds, and that were not written to."""
        self._let_go_parts()
        for table in [*self._tables.values()]:
            table.let_go()

    def _let_go_parts(self) -> None:
        with lock:
            parts = self._parts
            for offset in [*parts]:
                node, box = parts[offset]
                if not is_held(box) and is_as_written(node, box[0]):
                    del parts[offset]
            self._most = max(_FEW, 2 * len(parts))  # so that each costs the same, however many are held

    def is_changed(self, within: Container[int]) -> bool:
        """Say whether any of those whose offsets lie within some is not what the region says any more."""
        with lock:
            found = [kept for offset, kept in self._parts.items() if offset in within]
            if any(not is_as_written(node, box[0]) for node, box in found):
                return True
            tables = [*self._tables.items()]
        return any(table.is_changed() for offset, table in tables if offset in within)


class Kept(Protocol):
    """An instance that was handed out, and what it was then."""

    below: Any
    """The opening of the containers inside it; None if there can be none."""

    @property
    def nbytes(self) -> int:
        """What it takes of private memory, about; 0 where its parts are in the region."""

    @property
    def obj(self) -> Any:
        """The instance."""

    def is_intact(self) -> bool:
        """Say whether it was not written to; what lies in a container in it, the opening below knows."""

    def is_held(self) -> bool:
        """Say whether anybody else holds it, or anything in it."""


class Instances:
    """Instances by the offset of their node."""

    __slots__ = ("_heaviest", "_most", "_nbytes", "_parts")

    def __init__(self) -> None:
        self._parts: dict[int, Kept] = {}
        self._most = _FEW
        self._nbytes = 0
        self._heaviest = _LIGHT

    def __len__(self) -> int:
        return len(self._parts)

    def all(self) -> list[tuple[int, Kept]]:
        """Return all that are kept, with the offsets of their nodes."""
        return [*self._parts.items()]

    def get(self, offset: int) -> Any:
        """Return an instance; None if it is not kept."""
        if offset not in self._parts:
            return None
        with lock:
            kept = self._parts.get(offset)
            return None if kept is None else kept.obj

    def keep(self, offset: int, kept: Kept) -> Any:
        """Keep an instance and return it; the one that another thread has made meanwhile."""
        with lock:
            if len(self._parts) >= self._most or self._nbytes + kept.nbytes > self._heaviest:
                self.let_go()
            found = self._parts.setdefault(offset, kept)
            self._nbytes += kept.nbytes if found is kept else 0
            return found.obj

    def let_go(self) -> None:
        """Forget those that nobody else holds, and that were not written to."""
        with lock:
            parts = self._parts
            for offset in [*parts]:
                kept = parts[offset]
                below = kept.below
                if not kept.is_held() and kept.is_intact() and (below is None or below.is_idle()):
                    del parts[offset]
            self._nbytes = sum(kept.nbytes for kept in parts.values())
            # So that each costs the same, however many are held.
            self._most, self._heaviest = max(_FEW, 2 * len(parts)), max(_LIGHT, 2 * self._nbytes)


def is_as_written(node: Node, part: Any) -> bool:
    """Say whether a small builtin still is what its node says, with all types."""
    try:
        return small.encode(part) == node.meta
    except RuntimeError:  # another thread writes to it at this moment
        return False


def is_held(box: Any, count: int = 1) -> bool:
    """Say whether more than `count` hold an element of a container, or others what is mutable in one."""
    places = box if isinstance(box, dict) else range(len(box))
    for place in places:
        cls = type(box[place])
        if cls not in (list, dict, set, tuple):
            continue
        if cls is tuple and small.is_fixed(box[place]):
            continue
        if sys.getrefcount(box[place]) > _NONE + count or (cls is not set and is_held(box[place])):
            return True
    return False


def has_held_dict(obj: Any) -> bool:
    """Say whether anybody holds the ``__dict__`` of an instance, by which it can be written to.

    From Python 3.13 on it is no referent of the instance, as the garbage collector sees it.
    """
    return _count_of_dict(obj) > _DICT_ALONE


def _count_of_dict(obj: Any) -> int:
    own = dict_of(obj)
    return sys.getrefcount(own) if type(own) is dict else 0


def dict_of(obj: Any) -> Any:
    """Return the ``__dict__`` of an instance, None if it has none, whatever its class's ``__getattr__``."""
    try:
        return object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return None


class _Probe:
    pass


_DICT_ALONE: Final = _count_of_dict(_Probe())


def holders(box: Any, place: Any) -> int:
    """Return how many hold an element of a container, this one included."""
    return sys.getrefcount(box[place]) - _NONE
