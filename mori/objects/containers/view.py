"""What the lazy containers have in common: a node, or the private container it turned into.

Never subclasses of the builtins, which C code and engines would walk or take for empty. A structural change
turns this view, and no other, into a private container whose untouched elements are still shared.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from mori.format import layout
from mori.format.node import Node
from mori.objects.containers.identity import Identity
from mori.objects.containers.tracker import lock
from mori.wire import reference, transport

__all__ = ["SHOWN", "View", "reduced", "shown"]

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

    __slots__ = ("__weakref__", "_identity", "_node", "_own", "_source")
    _kind: type
    _source: Any

    def __init__(self, node: Node, identity: Identity) -> None:
        self._node = node
        self._identity = identity
        self._own: Own | None = None
        self._source = None

    def _elements(self) -> Any:
        """Return where the elements come from."""
        raise NotImplementedError

    def _private(self) -> Own:
        """Turn into a private container of the same elements, and return it."""
        with lock:  # two threads would write to two copies
            own = self._own
            if own is None:
                own = self._own = self._copy()
                self._source = None
        return own

    def _mori_is_intact(self) -> bool:
        """Return whether nothing in here was written to."""
        if self._own is not None:
            return False
        if self._source is not None and self._source.is_changed():
            return False
        if self._identity.is_common_changed():
            return False
        return not (self._node.record.flags & layout.REFERS_OUTSIDE and self._identity.is_changed())

    def _mori_is_idle(self) -> bool:
        """Return whether nobody holds what was returned, and nothing was written to."""
        return self._own is None and (self._source is None or self._source.is_idle())

    def _copy(self) -> Own:
        raise NotImplementedError

    def _plain(self) -> Any:
        """Return a builtin container of the elements as they are."""
        return self._copy() if self._own is None else self._own

    def _is_flat(self) -> bool:
        """Return whether the elements are one column of values: it compares itself, and goes no deeper."""
        return False

    def __len__(self) -> int:
        return len(self._elements() if self._own is None else self._own)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self._mori_is_intact():
            return reduced(self._kind, self._plain())
        mapping = self._node.mapping
        if transport.is_wanted(mapping):
            return reference.by_reference(mapping, self._node.offset)
        return reference.by_value(self._node, protocol)

    def __copy__(self) -> Any:
        return self._copy() if self._own is None else type(self._own)(self._own)


def reduced(kind: type, obj: Any) -> Any:
    """Return what pickle makes a builtin of some kind of: one that may contain itself is filled later."""
    if kind is list:
        return list, (), None, iter(obj)
    if kind is dict:
        return dict, (), None, None, iter(obj.items())
    return kind, (list(obj),)
