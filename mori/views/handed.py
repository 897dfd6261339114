"""The small builtins that an opening has handed out: a write to one is found, and is not lost.

Imports the reader and the codec of small containers. A builtin tells nobody that it was written to. So
those that can be are kept; now and then those are let go that nobody else holds and that still are what
the region says. What was changed stays.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Final

from mori.codecs import small
from mori.reader import Node, decode

__all__ = ["Handed", "is_as_written"]

_FEW: Final = 64  # that are kept before any is let go

_lock = threading.RLock()  # reentrant: what a garbage collection runs may open something, too
_probe: Final[list[Any]] = [[]]
_ALONE: Final = sys.getrefcount(_probe[0])  # of what one container holds, asked like this


class Handed:
    """Small builtins by the offset of their node."""

    __slots__ = ("_most", "_parts")

    def __init__(self) -> None:
        self._parts: dict[int, tuple[Node, list[Any]]] = {}
        self._most = _FEW

    def part(self, node: Node) -> Any:
        """Return the builtin of a node: the one that was handed out before, if it may have been changed."""
        with _lock:
            kept = self._parts.get(node.offset)
            if kept is not None:
                return kept[1][0]
            part = decode(node)
            if not small.is_fixed(part):
                if len(self._parts) >= self._most:
                    self._let_go()
                self._parts[node.offset] = node, [part]
            return part

    def _let_go(self) -> None:
        parts = self._parts
        for offset in [*parts]:
            node, box = parts[offset]
            if not _is_held(box) and is_as_written(node, box[0]):
                del parts[offset]
        self._most = max(_FEW, 2 * len(parts))  # so that each costs the same, however many are held

    def changed(self) -> list[int]:
        """Return the offsets of those that are not what the region says any more."""
        with _lock:
            self._let_go()
            return [offset for offset, (node, box) in self._parts.items() if not is_as_written(node, box[0])]


def is_as_written(node: Node, part: Any) -> bool:
    """Say whether a small builtin still is what its node says, with all types."""
    try:
        return small.encode(part) == node.meta
    except RuntimeError:  # another thread writes to it at this moment
        return False


def _is_held(box: Any) -> bool:
    """Say whether anybody but this container holds one of its elements, or what is mutable in them."""
    places = box if isinstance(box, dict) else range(len(box))
    for place in places:
        cls = type(box[place])
        if cls not in (list, dict, set, tuple):
            continue
        if cls is tuple and small.is_fixed(box[place]):
            continue
        if sys.getrefcount(box[place]) > _ALONE or (cls is not set and _is_held(box[place])):
            return True
    return False


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
