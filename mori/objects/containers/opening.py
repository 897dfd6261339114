"""One opening of a shared object: what it has handed out, so that one part is one object.

Imports the reader, layout and the small builtins. A part that is aliased in its region is met in
several containers; a frame is written to without telling anyone. What stands in other openings of the
region is not touched by either: each `map_shared`, and each reference that is read, begins its own.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

from mori.codecs import small
from mori.codecs.rows import Rows
from mori.format import layout
from mori.format.layout import Codec as Id
from mori.format.node import Node, open_node
from mori.objects.array import SharedArray
from mori.objects.containers.handed import Handed, Instances, Kept
from mori.objects.containers.remade import Remade, is_remade
from mori.objects.containers.rows import HandedRows

__all__ = ["Opening"]


class Opening:
    """What the containers under one root have handed out, by the offset of its node.

    Those inside an instance have an opening of their own, and hold it; it is the instance's, which the
    opening above keeps, so it knows that one by a weak reference.
    """

    __slots__ = ("__weakref__", "_changed", "_frames", "_handed", "_instances", "_kept", "_parts", "_root")

    def __init__(self, root: Opening | None = None) -> None:
        self._root = None if root is None else weakref.ref(root)
        # What is aliased, wherever it was met; kept where it takes no weak reference, as large strings.
        self._parts: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._kept: dict[int, Any] = {}
        # What was written to and may be met again; and frames, which may have been.
        self._changed: dict[int, Any] = {}
        self._frames: dict[int, Any] = {}
        self._handed = Handed()
        self._instances = Instances()

    def home(self, node: Node) -> Opening:
        """Return the opening that knows the part of a node: the one above all if the part is aliased."""
        return self.root() if node.record.flags & layout.ALIASED else self

    def root(self) -> Opening:
        """Return the opening above all; this one where that is gone."""
        return self if self._root is None else (self._root() or self)

    def part(self, node: Node) -> Any:
        """Return the part of a node: the one that was handed out before, if it is held or was written to."""
        home = self.home(node)
        if node.record.codec == Id.SMALL:
            return home._small(node)
        part = home._instances.get(node.offset)
        if not node.record.flags & layout.ALIASED:
            return home._watched(node, open_node(node)) if part is None else part
        if part is None:
            part = home._parts.get(node.offset)
        if part is None:
            part = home._kept.get(node.offset)
        if part is None:
            part = home._watched(node, open_node(node))
            try:
                part = home._parts.setdefault(node.offset, part)
            except TypeError:
                return home._kept.setdefault(node.offset, part)
        if home is not self:
            self.found(node.offset, part)  # here it is known still when the one above is gone
        return part

    def rows(self, node: Node, rows: Rows) -> HandedRows:
        """Return the records of a node that were handed out, and hands out others."""
        return self.home(node)._handed.table(node, rows)

    def found(self, offset: int, part: Any) -> None:
        """Know an aliased part while it is held, if it takes a weak reference."""
        with contextlib.suppress(TypeError):
            self._parts[offset] = part

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
        if type(part) is SharedArray:  # it tells of a write itself
            return part
        if hasattr(part, "_mori_is_intact"):
            # pandas writes to a frame without telling anyone: keep it, and look when pickling.
            return self._frames.setdefault(node.offset, part)
        if is_remade(node, part):
            return self._instances.keep(node.offset, Remade(node, part))
        return part

    def field(self, node: Node) -> Any:
        """Return the part of a node that becomes a field of an instance, which has this opening."""
        if not node.record.flags & layout.ALIASED:
            part = open_node(node)
        else:
            part = self.part(node)
            if hasattr(type(part), "_aliased") and part._aliased is None:
                part._aliased = weakref.ref(self.root()), node.offset
        if hasattr(type(part), "_opening") and part._own is None and part._opening is None:
            part._opening = self
        return part

    def instance(self, node: Node) -> Any:
        """Return the instance of a node that is kept, or was found; None if none is."""
        home = self.home(node)
        kept = home._instances.get(node.offset)
        return home._parts.get(node.offset) if kept is None else kept

    def keep(self, node: Node, instance: Kept) -> Any:
        """Keep an instance, which may be written to without telling anyone, and return it."""
        return self.home(node)._instances.keep(node.offset, instance)

    def changed(self, offset: int, part: Any) -> None:
        """Keep a part that has become private and is aliased: what meets it later has to find it."""
        self._changed[offset] = part

    def touches(self, node: Node) -> bool:
        """Say whether anything inside a node, or that it has an alias to, was written to."""
        root = self.root()
        if root._is_empty() and self._is_empty():
            return False
        # Thousands may be held: only those are looked at that lie where the node leads.
        within = _Spans(node)
        pending = [root] if root is self else [root, self]
        while pending:
            opening = pending.pop()
            if any(offset in within for offset in [*opening._changed]) or opening._handed.is_changed(within):
                return True
            frames = [*opening._frames.items()]
            if any(offset in within and not frame._mori_is_intact() for offset, frame in frames):
                return True
            for offset, instance in opening._instances.all():
                if offset in within:
                    if not instance.is_intact():
                        return True
                    if instance.below is not None:
                        pending.append(instance.below)
        return False

    def _is_empty(self) -> bool:
        return not (self._changed or self._frames or len(self._handed) or len(self._instances))

    def is_idle(self) -> bool:
        """Say whether nothing that was handed out is held, or was written to."""
        self._handed.let_go()
        self._instances.let_go()
        return self._is_empty()


class _Spans:
    """The bytes of a node, and of those that it, or one inside it, has an alias to."""

    def __init__(self, node: Node) -> None:
        self._own = range(node.offset, node.offset + node.extent)
        self._others: list[range] = []
        pending, seen = [node], set()
        while pending:
            node = pending.pop()
            if node.offset in seen:
                continue
            seen.add(node.offset)
            if node.record.flags & layout.LEANS:
                for index in range(len(node)):
                    child = node.here(index)
                    if child.record.codec == Id.ALIAS:
                        target = child.target()
                        pending.append(target)
                        if target.offset not in self:
                            self._others.append(range(target.offset, target.offset + target.extent))
                    elif child.record.flags & layout.LEANS:
                        pending.append(child)

    def __contains__(self, offset: object) -> bool:
        return offset in self._own or any(offset in span for span in self._others)
