"""One opening of a shared object: what is one object in it is one object when it is opened.

Each `map_shared`, and each reference that is read, begins an opening of its own, as unpickling would: a write
to what one of them has returned is not seen in the others.
"""

from __future__ import annotations

import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

from mori.codecs.ndarray import NdarrayCodec
from mori.codecs.streams import Number, ObjectStream, PartNumberError, Reader, redump
from mori.errors import MoriError
from mori.format import layout
from mori.format.node import Node, node_at, open_node, senseless
from mori.memory.mapping import Mapping, writable_mapping
from mori.wire.compare import is_unchanged

__all__ = ["Identity", "References", "damage_of", "is_same", "load"]


class Identity:
    """Identity map of the containers under one root: the parts that have several parents."""

    __slots__ = ("__weakref__", "_checking", "_common", "_nodes", "_pages", "_parts", "_strong")

    def __init__(self) -> None:
        self._parts: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._strong: dict[int, Any] = {}  # what takes no weak reference
        self._nodes: dict[int, Node] = {}
        self._common: _Common | None = None
        self._pages: Mapping | None = None
        self._checking: set[tuple[int, str]] = set()  # which threads check what

    def part(self, node: Node) -> Any:
        """Return the object of a node."""
        if not node.record.flags & layout.ALIASED:
            return self.open(node)
        part = self._parts.get(node.offset)
        if part is None:
            part = self._strong.get(node.offset)
        if part is None:
            part = self.open(node)
            self._nodes[node.offset] = node
            try:
                part = self._parts.setdefault(node.offset, part)
            except TypeError:
                part = self._strong.setdefault(node.offset, part)
        return part

    def open(self, node: Node) -> Any:
        """Open a node."""
        return node.codec.open_in(node, self)

    def writable(self, node: Node) -> Any:
        """Return the array of a node, over pages that are copied when they are written to.

        For instances of classes, whose methods take their arrays for their own. All of an opening lie in one
        mapping. An array with several parents is shared by them, and read-only, as any other part.
        """
        mapping = node.mapping
        if (
            not isinstance(node.codec, NdarrayCodec)
            or node.record.flags & layout.ALIASED
            or not mapping.shared
        ):
            return self.part(node)
        if self._pages is None:
            try:
                self._pages = writable_mapping(mapping)
                self._pages.original = mapping
            except OSError:  # where pages that could be written to count as used
                return self.part(node)
        return open_node(node_at(self._pages, node.offset))

    def common(self, node: Node) -> _Common:
        """Return what several streams refer to, the last child of their nodes; it is read once."""
        if self._common is None:
            self._common = _Common(node.child(len(node) - 1), self)
        return self._common

    @property
    def common_numbers(self) -> dict[int, int]:
        """The numbers of what several streams refer to, by its ids: each of them holds it, and it is kept."""
        return {} if self._common is None else self._common.numbers

    def is_common_changed(self) -> bool:
        """Return whether anything was written to that several streams refer to."""
        return self._common is not None and self._is_found(self._is_common_changed)

    def _is_common_changed(self) -> bool:
        return self._common is not None and not self._common.is_intact()

    def is_changed(self) -> bool:
        """Return whether anything was written to that has several nodes above it."""
        return self._is_found(self._is_part_changed)

    def _is_part_changed(self) -> bool:
        parts = [*self._parts.items(), *self._strong.items()]
        return any(not is_unchanged(self._nodes[offset], part) for offset, part in parts)

    def _is_found(self, check: Callable[[], bool]) -> bool:
        """Return the result of `check`; False inside it, where a container that it examines asks for the
        others: the first caller goes on to all of them.
        """
        checking = threading.get_ident(), check.__name__
        if checking in self._checking:
            return False
        self._checking.add(checking)
        try:
            return check()
        finally:
            self._checking.discard(checking)


class References:
    """What the streams of a node refer to by numbers: the parts of the node, and what other streams have,
    too.
    """

    __slots__ = ("_by_id", "_identity", "_node", "_parts", "_persistent", "_reader", "is_instance", "root")

    def __init__(self, node: Node, identity: Identity, reader: Reader) -> None:
        self.root: Callable[[], Any] | None = None
        self.is_instance: bool = False
        """Whether they are those of one instance of a class."""
        self._node = node
        self._identity = identity
        self._reader = reader
        self._parts: dict[int, tuple[Callable[[], Any], Node]] = {}  # that were opened, by their numbers
        self._by_id: dict[int, int] = {}
        self._persistent: set[int] = set()

    def persistent(self, reference: int) -> Any:
        """Return what a persistent id in a stream refers to."""
        if reference == -1 and self.root is not None:
            return self.root()
        number = self._reader.number(reference)
        if number is not None:
            self._persistent.add(number)
            return self.part(number)
        return self._identity.common(self._node).object(reference)

    def part(self, number: int) -> Any:
        """Return a part: the one that was opened before, while anybody holds it."""
        ref, _ = self._parts.get(number, (None, None))
        part = None if ref is None else ref()
        if part is None:
            node = self._node.child(self._reader.checked(number))
            part = self._identity.writable(node) if self.is_instance else self._identity.part(node)
            try:
                self._parts[number] = weakref.ref(part), node
            except TypeError:
                self._parts[number] = (lambda: part), node
            self._by_id[id(part)] = number
            if len(self._by_id) > 64 and len(self._by_id) > 2 * len(self._parts):
                self._by_id = {id(ref()): number for number, (ref, _) in self._parts.items()}
        return part

    def _number_of(self, obj: Any) -> int | None:
        number = self._by_id.get(id(obj))
        if number is None:
            return None
        ref, node = self._parts[number]
        return number if ref() is obj and is_unchanged(node, obj) else None

    def _mapped(self, obj: Any) -> int | None:
        number = self._number_of(obj)
        return None if number in self._persistent else number

    def _reference(self) -> Number:
        """Return a pickler's persistent id, which is asked for each object that it meets."""
        root = self.root() if self.root is not None and self._reader.has_self else None
        numbers = self._identity.common_numbers if self._reader.uses_common else {}
        parts = self._by_id

        def persistent_id(obj: Any) -> int | None:
            key = id(obj)
            if key in parts and (number := self._number_of(obj)) in self._persistent:
                return -2 - number
            if obj is root and root is not None:
                return -1
            return numbers.get(key)

        return persistent_id

    def renewed(self) -> References:
        """Return the references of an opening in which nothing was written to."""
        fresh = References(self._node, Identity(), self._reader)
        fresh.root, fresh.is_instance = self.root, self.is_instance
        return fresh

    def dump(self, elements: object) -> bytes:
        """Return the stream of elements as they are now."""
        has_references = self._persistent or self._reader.uses_common or self._reader.has_self
        reference = self._reference() if has_references else None
        return redump(elements, self._reader, self._mapped, reference)


class _Common:
    """The objects that several streams refer to, opened once."""

    def __init__(self, node: Node, identity: Identity) -> None:
        try:
            self._stream = ObjectStream(node.meta, node.buffers(), len(node))
        except Exception as error:
            raise node.decode_error(error) from error
        # The identity map holds this: it would be a cycle that keeps the region until a collection.
        self._references = References(node, weakref.proxy(identity), self._stream.reader)
        self._objects = load(node, self._stream, self._references)
        if self._stream.kind != "common" or type(self._objects) is not list:
            raise node.decode_error("it is no list of what several streams refer to")
        self.numbers: dict[int, int] = {id(obj): number for number, obj in enumerate(self._objects)}

    def object(self, number: int) -> Any:
        """Return one of them."""
        return self._objects[number]

    def is_intact(self) -> bool:
        """Return whether none of them was written to."""
        stream = self._stream
        return is_same(
            self._objects, stream.stream, self._references, lambda by: stream.load(by.persistent, by.part)
        )


def load(node: Node, stream: ObjectStream, references: References) -> Any:
    """Return what the stream of a node says."""
    try:
        return stream.load(references.persistent, references.part)
    except BaseException as error:
        if (found := damage_of(stream.reader, error)) is None:
            raise
        raise node.decode_error(found) from error


def damage_of(reader: Reader, error: BaseException) -> str | None:
    """Return what is wrong with a stream that has passed its checksum and raised this when it was read; None
    where that is for the classes that it names to say.
    """
    if isinstance(error, PartNumberError):
        return str(error)
    if isinstance(error, MoriError | ImportError):
        return None
    if type(error).__name__ != "PanicException":  # of Rust's, which is no Exception
        names_classes = reader.names_any and not reader.is_guarded
        of_a_class = names_classes and not isinstance(error, pickle.UnpicklingError)
        if of_a_class or not isinstance(error, Exception):
            return None
    return senseless(error)


def is_same(elements: Any, stream: bytes, references: References, load: Callable[[References], Any]) -> bool:
    """Return whether elements would be written as they stand in a stream, or as those that `load` reads from
    it anew.

    What has been through pickle once is sometimes pickled a little differently.
    """
    now = references.dump(elements)
    if now == stream:
        return True
    fresh = references.renewed()
    return now == fresh.dump(load(fresh))
