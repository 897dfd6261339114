"""What the lazy containers have in common: a node, or the private container it turned into.

Imports reference, reader, array and the instances. Never subclasses of the builtins, which C code and
engines would walk or take for empty. A structural change turns this view, and no other, into a private
container whose untouched elements are still shared.
"""

from __future__ import annotations

import weakref
from typing import Any, Final, Generic, TypeVar

from mori.format import layout
from mori.format.node import Node
from mori.objects.array import SharedArray
from mori.objects.containers.classes import INSTANCES, instance
from mori.objects.containers.opening import Opening
from mori.wire import reference, transport

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
    if type(value) is dict:  # a record, whose values have not been bounded
        return "{" + ", ".join(f"{shown(key)}: {shown(each)}" for key, each in value.items()) + "}"
    return repr(value)


Own = TypeVar("Own", bound=Any)


class View(Generic[Own]):
    """What the lazy containers have in common: the node, or the private container it turned into."""

    __slots__ = ("__weakref__", "_above", "_aliased", "_node", "_opened", "_opening", "_own")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._own: Own | None = None
        self._opening: Opening | None = None
        self._above: list[View[Any]] | None = None  # the containers that handed it out
        # The opening, and the offset under which aliases refer to it there.
        self._aliased: tuple[weakref.ref[Opening], int] | None = None
        # Handed-out parts, so that the same part is the same object, and a write to it is not lost.
        self._opened: weakref.WeakValueDictionary[int, Any] | None = None

    def _items(self) -> Node:
        """Return the node whose children are the elements."""
        return self._node

    def _open(self, index: int) -> Any:
        part = None if self._opened is None else self._opened.get(index)
        if part is not None:
            return part
        opening = self._opening
        if opening is None:
            opening = self._opening = Opening()
        node = self._items().child(index)
        if node.record.codec in INSTANCES:
            return instance(node, opening)
        part = opening.part(node)
        if isinstance(part, (SharedArray, View)):
            self._hand_out(part, node, opening)
        elif not hasattr(part, "_mori_is_intact"):
            return part
        if self._opened is None:
            self._opened = weakref.WeakValueDictionary()
        self._opened[index] = part
        return part

    def _hand_out(self, part: SharedArray | View[Any], node: Node, opening: Opening) -> None:
        """Have a part know whom to tell when it becomes private."""
        if isinstance(part, View):
            if part._own is not None:
                return
            if part._opening is None:
                part._opening = self._opening
        elif part.flags.writeable:
            return
        if part._above is None:
            part._above = []
        if not part._above or part._above[-1] is not self:
            part._above.append(self)
        if node.record.flags & layout.ALIASED:
            part._aliased = weakref.ref(opening.root()), node.offset

    def _private(self) -> Own:
        """Turn into a private container, and all that are above into such as hold this one."""
        chain: list[View[Any]] = [self]  # held to the end: those above find it by a weak reference
        for view in chain:
            if view._own is None:
                chain += view._turn()
        own = self._own
        assert own is not None
        return own

    def _turn(self) -> list[View[Any]]:
        """Turn into a private container, alone; return those above."""
        own, above = self._copy(), self._above or []
        for part in (self._opened or {}).values():
            # Those above will know all that the parts could tell; to keep them would be a cycle.
            if isinstance(part, SharedArray | View) and part._above is not None:
                part._above = [other for other in part._above if other is not self]
        self._own, self._above, self._opening, self._opened = own, None, None, None
        if self._aliased is not None:
            ref, offset = self._aliased
            self._aliased = None
            if (opening := ref()) is not None:
                opening.changed(offset, self)
        return above

    def _is_intact(self) -> bool:
        """Say whether nothing in here was written to; what pandas did not tell is found now."""
        if self._own is None and self._opening is not None and self._opening.touches(self._node):
            self._private()
        return self._own is None

    def _copy(self) -> Own:
        raise NotImplementedError

    def _plain(self) -> Any:
        """Return a builtin container of the elements as they are."""
        return self._copy() if self._own is None else self._own

    def _is_flat(self) -> bool:
        """Say whether its elements are one column of values: it compares itself, and goes no deeper."""
        return False

    def __len__(self) -> int:
        return len(self._items() if self._own is None else self._own)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self._is_intact():
            return _rebuild, (self._plain(),)
        mapping = self._node.mapping
        if transport.is_wanted(mapping):
            return reference.by_reference(mapping, self._node.offset)
        return reference.by_value(self._node, protocol)

    def __copy__(self) -> Any:
        return self._copy() if self._own is None else type(self._own)(self._own)


def _rebuild(plain: Any) -> Any:
    return plain
