"""Bytes become checked nodes, and nodes objects.

Check, slice, allocate, decode, in that order: nothing is believed of a record before its checksum and its
bounds are, so damaged bytes give a CorruptRegionError and no more memory is asked for than the region has.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from mori._imports import load
from mori.errors import CorruptRegionError, MoriError, PickleNotAllowedError
from mori.format import codec, layout
from mori.format.codec import Buffers, Codec
from mori.format.layout import Id
from mori.format.plain import OtherNameError
from mori.memory.mapping import Bytes, Mapping, address_of, held_by
from mori.store.base import ALIGNMENT, HEADER, MAX_STEPS, SMALL_ALIGNMENT, Name, format_name

__all__ = ["Node", "decode", "node_at", "node_of_memory", "open_node", "root_of", "senseless"]

_ALIAS: Final = Id.ALIAS  # a node that stands for another: the tree's own, whatever its codec
_FLAGS: Final = layout.ALIASED | layout.REFERS_OUTSIDE
_MOST_TARGETS: Final = 1 << 12  # of aliases, that a mapping remembers


class Node:
    """One checked node of a mapped region."""

    __slots__ = ("_data", "_head", "_view", "extent", "mapping", "offset", "record")

    def __init__(self, mapping: Mapping, data: Bytes, view: memoryview, offset: int, end: int) -> None:
        self.mapping: Mapping = mapping
        self._data = data
        self._view = view
        self.offset: int = offset
        if offset % SMALL_ALIGNMENT or not HEADER.size <= offset <= end - layout.NODE.size:
            raise self._corrupt("it lies outside its parent")
        record: layout.Record = tuple.__new__(layout.Record, layout.NODE.unpack_from(view, offset))
        self.record: layout.Record = record
        head = self._head = layout.head_nbytes(record.meta_nbytes, record.buffers)
        self.extent: int = record.extent
        if not head + layout.CHILD.size * record.children <= self.extent <= end - offset:
            raise self._corrupt("its parts do not fit into it")
        if zlib.crc32(view[offset + layout.CHECKED : offset + head]) != record.crc32:
            raise self._corrupt("the checksum of its record does not match")
        if record.flags & ~_FLAGS:
            raise self._corrupt(f"it has flags {record.flags:#x}, of a later mori")

    def __len__(self) -> int:
        return self.record.children

    @property
    def is_alias(self) -> bool:
        """Whether it stands for another node."""
        return self.record.codec == _ALIAS

    @property
    def meta(self) -> bytes:
        """The codec's own bytes."""
        start = self.offset + layout.NODE.size
        return bytes(self._view[start : start + self.record.meta_nbytes])

    def buffers(self) -> Buffers:
        """Return the node's buffers as read-only arrays over the region."""
        found = Buffers()
        found.trusted = self.mapping.trusted
        found.allows_pickles = self.mapping.allows_pickles
        start = self.offset + self._head - self.record.buffers * layout.BUFFER.size
        first = self._head + layout.CHILD.size * self.record.children
        for number in range(self.record.buffers):
            offset, nbytes = layout.BUFFER.unpack_from(self._view, start + number * layout.BUFFER.size)
            if offset % ALIGNMENT or not first <= offset <= offset + nbytes <= self.extent:
                raise self._corrupt(f"its buffer {number} does not fit into it")
            found.append(self._data[self.offset + offset : self.offset + offset + nbytes])
        return found

    def child(self, index: int) -> Node:
        """Return one child, found without reading the others; for an alias, the node that it refers to."""
        node = self.here(index)
        return node.target() if node.record.codec == _ALIAS else node

    def target(self) -> Node:
        """Return the node that an alias refers to."""
        record = self.record
        if record.meta_nbytes != layout.CHILD.size or record.buffers or record.children:
            raise self._corrupt("it is no alias")
        (back,) = layout.CHILD.unpack(self.meta)
        offset = self.offset - back
        if not self.mapping.header.root < offset < self.offset:
            raise self._corrupt("it is an alias to what lies outside of the region")
        known = self.mapping.targets
        if offset in known:
            node = Node(self.mapping, self._data, self._view, offset, self.mapping.nbytes)
        else:
            node = self.at(offset)
            if len(known) >= _MOST_TARGETS:
                known.clear()
            known.add(offset)
        if node.extent > back or node.record.codec == _ALIAS or not node.record.flags & layout.ALIASED:
            raise self._corrupt("it is an alias to a node that has none, or has not ended before it")
        return node

    def here(self, index: int) -> Node:
        """Return one child as it stands, an alias included."""
        back = self._back_of(index)
        node = Node(self.mapping, self._data, self._view, self.offset + back, self.offset + self.extent)
        if node.record.back != back or node.record.place != index:
            raise self._corrupt(f"its child {index} is another's")
        return node

    def _back_of(self, index: int) -> int:
        """Return how far from this node's start a child's is, as its table has it."""
        if not 0 <= index < self.record.children:
            raise self._corrupt(f"it has no child {index}")
        table = self.offset + self._head
        back: int = layout.CHILD.unpack_from(self._view, table + index * layout.CHILD.size)[0]
        if back < self._head + layout.CHILD.size * self.record.children or back >= self.extent:
            raise self._corrupt(f"its child {index} lies outside of it")
        return back

    def at(self, offset: int) -> Node:
        """Return the node at an offset of the region, for an alias."""
        return _in_tree(Node(self.mapping, self._data, self._view, offset, self.mapping.nbytes))

    def under(self, offset: int) -> Node:
        """Return the lowest node that encloses an offset of the region."""
        node = self
        while count := node.record.children:
            start = node.offset + node._head
            table = np.frombuffer(node._view[start : start + count * layout.CHILD.size], "<u8")
            place = int(np.searchsorted(table, offset - node.offset, side="right")) - 1
            if place < 0:
                break
            child = node.here(place)
            if offset >= child.offset + child.extent:
                break
            node = child
        return node

    def parent(self) -> Node | None:
        """Return the node above; None for the root."""
        if self.offset == self.mapping.header.root:
            return None
        back = self.record.back
        if not back:
            raise self._corrupt("it stands in no tree")
        parent = Node(self.mapping, self._data, self._view, self.offset - back, self.mapping.nbytes)
        if parent._back_of(self.record.place) != back or back + self.extent > parent.extent:
            raise self._corrupt("its parent does not know it")
        return parent

    def name(self, inside: tuple[int, ...] = ()) -> Name | None:
        """Return the name of the node, or of a part `inside` that has no node of its own.

        None for more than 64 steps, or for what is no part of its own.
        """
        path: list[int] = [*reversed(inside)]  # from the end
        node: Node = self
        while (parent := node.parent()) is not None:
            try:
                steps = parent.codec.steps_to(parent, node)
            except ValueError as error:  # what was not read yet may be damaged
                raise parent.decode_error(str(error)) from error
            if steps is None or not (steps or path):  # a dict's list of values is no part of it
                return None
            path += steps
            node = parent
            if len(path) > MAX_STEPS:
                return None
        return self.mapping.name._replace(path=tuple(reversed(path)))

    @property
    def codec(self) -> Codec:
        """The codec that wrote it; CorruptRegionError where there is no such codec."""
        by = codec.registered(self.record.codec) or codec.for_id(self.record.codec)
        if by is None:
            raise self._corrupt(f"there is no codec with the id {self.record.codec}")
        return by

    def decode(self) -> Any:
        """Return what its codec makes of it; CorruptRegionError where its content makes no sense."""
        return self.codec.read(self)

    def open(self) -> Any:
        """Return the object that a user holds of it."""
        return (codec.registered(self.record.codec) or self.codec).open(self)

    def open_first(self) -> Any:
        """Return the object that a user holds of it, and have the mapping remember how to open it again."""
        by = codec.registered(self.record.codec) or self.codec
        obj = by.open(self)
        by.note_opened(self, obj)
        return obj

    def children(self) -> Sequence[Any]:
        """Return its children, each opened when it is asked for."""
        return _Children(self) if self.record.children else ()

    def decode_error(self, found: str | BaseException) -> MoriError:
        """Return the error for a node whose content makes no sense: what was found, or what that raised."""
        if isinstance(found, OtherNameError):
            return self.refused(found.name)
        return self._corrupt(found if isinstance(found, str) else senseless(found))

    def refused(self, name: str, path: str | None = None) -> PickleNotAllowedError:
        """Return the error for a node with a pickle that names more than plain data."""
        return PickleNotAllowedError(
            name=format_name(self.mapping.name), path=path or self._shown(), cls=name
        )

    def _shown(self) -> str:
        """Return how errors call this part, by its numbers."""
        try:
            name = self.name()
        except Exception:  # what stands above it may be damaged, or refused itself
            name = None
        return f"part {[*name.path]}" if name is not None and name.path else "the object"

    def _corrupt(self, found: str) -> CorruptRegionError:
        return CorruptRegionError(
            name=format_name(self.mapping.name), found=f"in the node at byte {self.offset}, {found}"
        )


def senseless(error: BaseException) -> str:
    """Return what is wrong with content that raised an error when it was read."""
    return f"its content makes no sense ({type(error).__name__}: {error})"


class _Children(Sequence[Any]):
    """A node's children, each opened when it is asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __len__(self) -> int:
        return len(self._node)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        count = self._node.record.children
        if not -count <= index < count:
            raise IndexError(index)
        return self._node.child(index + count if index < 0 else index).open()


decode: Final[Callable[[Node], Any]] = Node.decode
open_node: Final[Callable[[Node], Any]] = Node.open


def node_of_memory(array: npt.NDArray[Any]) -> Node | None:
    """Return the node whose buffer an array's memory lies in, None for private memory."""
    mapping = held_by(array)
    if mapping is None:
        return None
    start = address_of(array) - mapping.address
    node = root_of(mapping).under(start)
    return node if node.record.buffers else None


def root_of(mapping: Mapping) -> Node:
    """Return the root node of a region."""
    if mapping.is_r:
        return load("mori.format.r").root_of(mapping)  # type: ignore[no-any-return]
    data = np.asarray(mapping)
    return Node(mapping, data, memoryview(data), mapping.header.root, mapping.nbytes)


def node_at(mapping: Mapping, offset: int) -> Node:
    """Return the node at an offset of a region, for a reference."""
    if mapping.is_r:
        return load("mori.format.r").node_at(mapping, offset)  # type: ignore[no-any-return]
    data = mapping.bytes()
    node = Node(mapping, data, memoryview(data), offset, mapping.nbytes)
    return node if offset == mapping.header.root else _in_tree(node)


def _in_tree(node: Node) -> Node:
    """Return a node that its parents, up to the root, know: an array may hold what looks like one."""
    ancestor: Node | None = node
    while ancestor is not None:
        ancestor = ancestor.parent()
    return node
