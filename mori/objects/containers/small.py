"""Small containers: subclasses of the builtins that contain their elements, so C code and libraries read them
right; and how any object that is one stream is opened, since they are such objects.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, Final

from mori.codecs.streams import LEAST, ObjectStream, StreamCodec
from mori.format import codec, layout, origins
from mori.format.node import Node
from mori.format.survey import Common
from mori.objects.containers.identity import Identity, References, is_same, load
from mori.objects.containers.view import reduced
from mori.wire import reference, transport

__all__ = ["Small", "SmallDict", "SmallFrozenSet", "SmallList", "SmallSet", "SmallTuple"]

_origins: Final[dict[int, tuple[weakref.ref[Any], _Origin]]] = {}


class _Origin:
    """Where a small container came from."""

    __slots__ = ("identity", "node", "references", "stream")

    def __init__(self, node: Node, identity: Identity, stream: ObjectStream, references: References) -> None:
        self.node = node
        self.identity = identity
        self.stream = stream
        self.references = references

    def is_intact(self, content: Any) -> bool:
        """Return whether the content would be written as it stands in the region."""
        if self.identity.is_common_changed():
            return False
        if self.node.record.flags & layout.REFERS_OUTSIDE and self.identity.is_changed():
            return False
        try:
            stream = self.stream
            return is_same(
                content, stream.stream, self.references, lambda by: stream.load(by.persistent, by.part)
            )
        except Exception:  # what is in it now does not pickle, or another thread writes to it at this moment
            return False


def _origin(obj: Any) -> _Origin | None:
    if isinstance(obj, SmallTuple):
        return obj._origin
    ref, origin = _origins.get(id(obj), (None, None))
    return origin if ref is not None and ref() is obj else None


def _remember(obj: Any, origin: _Origin) -> None:
    if isinstance(obj, SmallTuple):  # tuples take no weak references
        obj._origin = origin
        return
    key = id(obj)
    _origins[key] = weakref.ref(obj, partial(_origins.pop, key)), origin  # in C, which no signal interrupts


class Small:
    """What the small containers have in common.

    Each pickles as a reference while it would be written as it was opened, and as its builtin from then on.
    """

    __slots__ = ()
    _kind: type

    def _content(self) -> Any:
        return self._kind(self)

    def _mori_node(self) -> Node | None:
        origin = _origin(self)
        return None if origin is None else origin.node

    def _mori_is_intact(self) -> bool:
        """Return whether nothing in here was written to."""
        origin = _origin(self)
        return origin is not None and origin.is_intact(self._content())

    def __reduce_ex__(self, protocol: Any) -> Any:
        origin = _origin(self)
        if origin is None or not origin.is_intact(self._content()):
            return reduced(self._kind, self)
        mapping = origin.node.mapping
        if transport.is_wanted(mapping):
            return reference.by_reference(mapping, origin.node.offset)
        return reference.by_value(origin.node, protocol)

    def __copy__(self) -> Any:
        return self._kind(self)


class SmallList(Small, list[Any]):
    """A small list in shared memory: a list that contains its elements."""

    __slots__ = ("__weakref__",)
    _kind = list


class SmallDict(Small, dict[Any, Any]):
    """A small dict in shared memory: a dict that contains its items."""

    __slots__ = ("__weakref__",)
    _kind = dict


class SmallSet(Small, set[Any]):
    """A small set in shared memory: a set that contains its elements."""

    __slots__ = ()
    _kind = set


class SmallFrozenSet(Small, frozenset[Any]):
    """A small frozenset in shared memory: a frozenset that contains its elements."""

    __slots__ = ()
    _kind = frozenset


class SmallTuple(Small, tuple[Any, ...]):
    """A small tuple in shared memory: a tuple that contains its elements."""

    _kind = tuple
    _origin: _Origin | None = None


_CLASSES: Final[dict[str, Any]] = {
    "list": SmallList,
    "dict": SmallDict,
    "tuple": SmallTuple,
    "set": SmallSet,
    "frozenset": SmallFrozenSet,
}


def _open(node: Node, identity: Identity) -> Any:
    """Open the stream of a node: a small container, or an object of another class."""
    try:
        stream = ObjectStream(node.meta, node.buffers(), len(node))
    except Exception as error:
        raise node.decode_error(error) from error
    references = References(node, identity, stream.reader)
    cls = _CLASSES.get(stream.kind)
    if cls is None:
        references.is_instance = True
        obj = load(node, stream, references)
        # A small one without anything mapped may be a constant of its module, such as an enum's.
        is_made = (
            len(node) or stream.buffers or (len(stream.stream) >= LEAST and type(obj) not in origins.KNOWN)
        )
        return origins.remember(obj, node) if is_made else obj
    if cls is SmallList or cls is SmallDict:  # what is in it may refer to it
        made: Any = cls()
        references.root = weakref.ref(made)
        content = load(node, stream, references)
        _check(node, content, cls)
        (made.extend if cls is SmallList else made.update)(content)
    else:
        content = load(node, stream, references)
        _check(node, content, cls)
        made = cls(content)
    _remember(made, _Origin(node, identity, stream, references))
    return made


def _check(node: Node, content: Any, cls: Any) -> None:
    if type(content) is not cls._kind:
        raise node.decode_error(f"a {type(content).__name__} for the content of a {cls._kind.__name__}")


class _StreamCodec(StreamCodec):
    """Small containers, and objects of any class."""

    def open(self, node: Node) -> Any:
        return _open(node, Identity())

    def open_in(self, node: Node, identity: Identity) -> Any:
        return _open(node, identity)

    read = open

    def inside(self, obj: Any, number: int) -> Any:
        by = codec.for_type(type(obj))
        if not isinstance(obj, list | tuple | dict) or by is None:
            raise TypeError("what it leads into is not a container")
        return by.inside(obj, number)


codec.register(_StreamCodec(), codec.Pickled, Common)
for _builtin, _cls in ((list, SmallList), (dict, SmallDict), (tuple, SmallTuple), (set, SmallSet)):
    codec.register(codec.for_type(_builtin), _cls)  # type: ignore[arg-type]
codec.register(codec.for_type(frozenset), SmallFrozenSet)  # type: ignore[arg-type]
