"""What the lazy containers have in common: a node, or the private container it turned into.

Never subclasses of the builtins, which C code and engines would walk or take for empty. A structural change
turns this view, and no other, into a private container whose untouched elements are still shared.

The keys of a dict, and the elements of a set, are a list, and mostly have an index.

Comparison, plain tuples and the bound of a repr walk over nested views with a stack of their own: a view is
Python, so a walk that calls itself would meet the recursion limit at half the depth at which the builtins do.
"""

from __future__ import annotations

import functools
import html
import itertools
import struct
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from mori.codecs.arrays import ArraysCodec
from mori.codecs.key_index import Index
from mori.errors import readable_size
from mori.format import layout
from mori.format.node import Node
from mori.objects.containers.identity import Identity
from mori.objects.containers.tracker import lock
from mori.store.base import format_name
from mori.wire import reference, transport

if TYPE_CHECKING:
    from mori.objects.containers.sequences import SharedList

__all__ = [
    "SHOWN",
    "View",
    "bounded",
    "damaged",
    "equal",
    "index_of",
    "keys_of",
    "plain_tuple",
    "reduced",
    "shown",
    "where",
]

SHOWN: Final = 6
"""Elements that a repr shows."""

_LONGEST: Final = 80  # characters or bytes of a value that a repr shows
_WIDEST: Final = 1 << 9  # bits of an int
_MOST: Final = 300  # characters of an element
_FORMS: Final[dict[type, str]] = {
    list: "[%s]",
    tuple: "(%s)",
    set: "{%s}",
    frozenset: "frozenset({%s})",
    dict: "{%s}",
}


def shown(value: Any) -> str:
    """Return the repr of an element, on one line of a bounded length."""
    if isinstance(value, str | bytes) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]!r}..."
    if type(value) is int and value.bit_length() > _WIDEST:
        return f"<int of {value.bit_length():,} bits>"
    text = _of_builtin(value) if type(value) in _FORMS and len(value) else repr(value)
    if len(text) <= _MOST and "\n" not in text:
        return text
    shape = getattr(value, "shape", None)
    if type(shape) is tuple:  # an array or a frame, of which this says more than a corner
        return f"<{type(value).__name__} of shape {shape}>"
    return f"{text[:_MOST].partition(chr(10))[0]}..."


def _of_builtin(value: Any) -> str:
    """Return the repr of a builtin container, whose elements have not been bounded."""
    if _showing.depth >= _DEPTH:
        return f"<{type(value).__name__} of {len(value):,}>"
    _showing.depth += 1
    try:
        first = itertools.islice(value, SHOWN)
        parts = [f"{shown(one)}: {shown(value[one])}" if type(value) is dict else shown(one) for one in first]
    finally:
        _showing.depth -= 1
    if len(value) > SHOWN:
        parts.append("...")
    return _FORMS[type(value)] % (", ".join(parts) + "," * (type(value) is tuple and len(value) == 1))


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

    def _repr_html_(self) -> str:
        """Return what notebooks show: the first elements, how many there are, and where they lie."""
        first: Iterable[Any] = itertools.islice(cast(Iterable[Any], self), SHOWN)
        pairs = ((key, cast(Any, self)[key]) for key in first) if self._kind is dict else enumerate(first)
        rows = "".join(
            f"<tr><th>{html.escape(shown(key))}</th><td>{html.escape(shown(value))}</td></tr>"
            for key, value in pairs
        )
        place = where(self._node, self._mori_is_intact())
        return f"<table>{rows}</table><p>{type(self).__name__} of {len(self):,}, {place}</p>"


def where(node: Node, intact: bool) -> str:
    """Return where an object lies, for people."""
    if not intact:
        return "changed in this process, and no longer a reference"
    if not node.mapping.shared:
        return f"{readable_size(node.extent)} that came by value"
    return f"{readable_size(node.extent)} in {format_name(node.mapping.name)}"


def reduced(kind: type, obj: Any) -> Any:
    """Return what pickle makes a builtin of some kind of: one that may contain itself is filled later."""
    if kind is list:
        return list, (), None, iter(obj)
    if kind is dict:
        return dict, (), None, None, iter(obj.items())
    return kind, (list(obj),)


_DEPTH: Final = 4  # levels that a repr shows
_KINDS: Final = (list, tuple, dict)
_NOTHING: Final = object()


def _kind(x: object) -> type | None:
    """Return the builtin that a container stands for; None for anything else."""
    if isinstance(x, View):
        kind = getattr(type(x), "_kind", None)
        return kind if kind in _KINDS else None
    return next((kind for kind in _KINDS if isinstance(x, kind)), None)


def equal(one: Any, other: Any) -> bool:
    """Return whether two containers of one kind, views or builtins, have equal elements, in order."""
    levels: list[Iterator[tuple[Any, Any]]] = [iter(((one, other),))]
    while levels:
        pair = next(levels[-1], None)
        if pair is None:
            levels.pop()
            continue
        ours, theirs = pair
        if ours is theirs:
            continue
        kind = _kind(ours)
        if isinstance(ours, View):
            is_walked = kind is not None and not ours._is_flat()
        else:
            is_walked = kind is not None and isinstance(theirs, View)
        if not is_walked or (their_kind := _kind(theirs)) is None:
            if not (ours == theirs):  # noqa: SIM201 (a class may have an __ne__ of its own)
                return False
        elif kind is not their_kind or len(ours) != len(theirs):
            return False
        else:
            levels.append(_values(ours, theirs) if kind is dict else zip(ours, theirs, strict=True))
    return True


def _values(ours: Any, theirs: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in ours.items():
        if key not in theirs:
            yield _NOTHING, None
            return
        yield value, theirs[key]


def plain_tuple(x: Iterable[Any]) -> tuple[Any, ...]:
    """Return a tuple of a view's elements, with tuples for the views of tuples in it."""
    levels: list[tuple[Iterator[Any], list[Any]]] = [(iter(x), [])]
    while True:
        left, made = levels[-1]
        for part in left:
            if isinstance(part, View) and _kind(part) is tuple:
                levels.append((iter(cast(Iterable[Any], part)), []))
                break
            made.append(part)
        else:
            levels.pop()
            if not levels:
                return tuple(made)
            levels[-1][1].append(tuple(made))


class _Showing(threading.local):
    depth = 0


_showing = _Showing()


def bounded(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Make a repr end at a depth: a view below says no more than what it is."""

    @functools.wraps(show)
    def shown(self: Any) -> str:
        if _showing.depth >= _DEPTH:
            return f"<{type(self).__name__} of {len(self):,}>"
        _showing.depth += 1
        try:
            return show(self)
        finally:
            _showing.depth -= 1

    return shown


def keys_of(node: Node, identity: Identity) -> SharedList[Any]:
    """Return the list of a node's keys."""
    child = node.child(0)
    keys = identity.open(child)
    if not (isinstance(keys, View) and keys._kind is list) or isinstance(child.codec, ArraysCodec):
        raise child.decode_error("it is no list of keys")
    return cast("SharedList[Any]", keys)


def index_of(node: Node, keys: SharedList[Any], nothing: Collection[Any]) -> Index | None:
    """Return the index of a node's keys, None if it has none that this Python can use."""
    if not node.meta:
        return None
    try:
        return Index(node.meta, node.buffers(), len(keys), keys._elements().peek, nothing)
    except LookupError:
        return None
    except (ValueError, struct.error) as error:
        raise damaged(node, error) from error


def damaged(node: Node, error: Exception) -> Exception:
    """Return what to raise for an index that makes no sense."""
    return node.decode_error(f"its index makes no sense ({error})")
