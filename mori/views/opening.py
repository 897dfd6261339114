"""One opening of a shared object: what it has handed out, so that one part is one object.

Imports the reader, layout and the small builtins. A part that is aliased in its region is met in
several containers; a frame is written to without telling anyone. What stands in other openings of the
region is not touched by either: each `map_shared`, and each reference that is read, begins its own.
"""

from __future__ import annotations

import weakref
from typing import Any

from mori import layout
from mori.codecs import small
from mori.layout import Codec as Id
from mori.reader import Node, open_node
from mori.views.handed import Handed

__all__ = ["Opening"]


class Opening:
    """What the containers under one root have handed out, by the offset of its node."""

    __slots__ = ("__weakref__", "_changed", "_frames", "_handed", "_kept", "_parts")

    def __init__(self) -> None:
        # What is aliased, wherever it was met; kept where it takes no weak reference, as large strings.
        self._parts: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._kept: dict[int, Any] = {}
        # What was written to and may be met again; and frames and instances, which may have been.
        self._changed: dict[int, Any] = {}
        self._frames: dict[int, Any] = {}
        self._handed = Handed()

    def part(self, node: Node) -> Any:
        """Return the part of a node: the one that was handed out before, if it is held or was written to."""
        if node.record.codec == Id.SMALL:
            return self._small(node)
        if not node.record.flags & layout.ALIASED:
            return self._watched(node, open_node(node))
        part = self._parts.get(node.offset)
        if part is None:
            part = self._kept.get(node.offset)
        if part is None:
            part = self._watched(node, open_node(node))
            try:
                part = self._parts.setdefault(node.offset, part)
            except TypeError:
                part = self._kept.setdefault(node.offset, part)
        return part

    def _small(self, node: Node) -> Any:
        if not node.record.flags & layout.ALIASED:
            return self._handed.part(node)
        part = self._kept.get(node.offset)
        if part is None:
            part = self._handed.part(node)
            if small.is_fixed(part):  # or else it is kept while anyone holds it
                part = self._kept.setdefault(node.offset, part)
        return part

    def _watched(self, node: Node, part: Any) -> Any:
        if hasattr(part, "_mori_is_intact"):
            # pandas writes to a frame without telling anyone: keep it, and look when pickling.
            return self._frames.setdefault(node.offset, part)
        return part

    def field(self, node: Node) -> Any:
        """Return the part of a node that becomes a field of an instance.

        The instance is kept here, so what it refers to may not keep this opening: that were a cycle.
        """
        part = self.part(node)
        me = weakref.ref(self)
        if hasattr(type(part), "_opening") and part._own is None and part._opening is None:
            part._opening = me
        if node.record.flags & layout.ALIASED and hasattr(type(part), "_aliased"):
            part._aliased = me, node.offset
        return part

    def kept(self, offset: int) -> Any:
        """Return what `keep` has taken under an offset, None for nothing."""
        return self._frames.get(offset)

    def keep(self, offset: int, part: Any) -> None:
        """Keep what may be written to without telling anyone, and can say whether it was."""
        self._frames[offset] = part

    def changed(self, offset: int, part: Any) -> None:
        """Keep a part that has become private and is aliased: what meets it later has to find it."""
        self._changed[offset] = part

    def touches(self, node: Node) -> bool:
        """Say whether anything inside a node, or that it has an alias to, was written to."""
        touched = {*self._changed, *self._handed.changed()}
        touched.update(offset for offset, frame in self._frames.items() if not frame._mori_is_intact())
        return bool(touched) and _reaches(node, touched)


def _reaches(node: Node, touched: set[int]) -> bool:
    pending, seen = [node], set()
    while pending:
        node = pending.pop()
        if node.offset in seen:
            continue
        seen.add(node.offset)
        end = node.offset + node.extent
        if any(node.offset <= offset < end for offset in touched):
            return True
        if node.record.flags & layout.LEANS:
            for index in range(len(node)):
                child = node.here(index)
                if child.record.codec == Id.ALIAS:
                    pending.append(child.target())
                elif child.record.flags & layout.LEANS:
                    pending.append(child)
    return False
