"""What the lazy containers have in common: a node, or the private container it turned into.

Imports reference, reader, array and the instances. Never subclasses of the builtins, which C code and
engines would walk or take for empty. A structural change turns this view, and no other, into a private
container whose untouched elements are still shared.
"""

from __future__ import annotations

import weakref
from typing import Any, Final, Generic, TypeVar

from mori import reference
from mori.array import SharedArray
from mori.reader import Node, open_node
from mori.views.classes import INSTANCES, Instance, rebuild

__all__ = ["SHOWN", "View", "shown"]

SHOWN: Final = 6
"""Elements that a repr shows."""

_LONGEST: Final = 80  # characters or bytes of a value that a repr shows
_WIDEST: Final = 1 << 9  # bits of an int


def shown(value: object) -> str:
    """Return the repr of an element, bounded."""
    if isinstance(value, str | bytes) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]!r}..."
    if type(value) is int and value.bit_length() > _WIDEST:
        return f"<int of {value.bit_length():,} bits>"
    return repr(value)


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
            if type(part) is Instance:
                return part.obj
        if part is None:
            node = self._items().child(index)
            if node.record.codec in INSTANCES:
                return self._frames.setdefault(index, rebuild(node)).obj
            part = open_node(node)
            if isinstance(part, SharedArray | View):
                part._above = (self, index)
                self._opened[index] = part
            elif hasattr(part, "_mori_is_intact"):
                # pandas writes to a frame without telling anyone, as the user to an instance: keep it,
                # and look when pickling.
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

    def _is_intact(self) -> bool:
        """Say whether nothing in here was written to."""
        return self._own is None and all(kept._mori_is_intact() for kept in self._frames.values())

    def _copy(self) -> Own:
        raise NotImplementedError

    def _plain(self) -> Any:
        """Return a builtin container of the elements as they are."""
        return self._copy() if self._own is None else self._own

    def __len__(self) -> int:
        return len(self._items() if self._own is None else self._own)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self._is_intact():
            return _rebuild, (self._plain(),)
        mapping = self._node.mapping
        if reference.is_wanted(mapping):
            return reference.by_reference(mapping, self._node.offset)
        return reference.by_value(self._node, protocol)

    def __copy__(self) -> Any:
        return self._copy() if self._own is None else type(self._own)(self._own)


def _rebuild(plain: Any) -> Any:
    return plain
