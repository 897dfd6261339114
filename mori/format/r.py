"""R's layout: the nodes of a region that R's mori, or `mori.share` with ``layout="r"``, wrote.

A region is a vector, or a list whose directory says where each element lies. Check, slice, allocate, in that
order: nothing is believed of a header or a directory before its bounds are checked. An element ends before
the next begins, and lies inside its list, so that no bytes are two elements, and every way down ends.

A node is known by where its directory entry stands, the root by 0; the elements of a vector, as an array that
has none of R's attributes, by where they lie.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import Any, Final

from mori._imports import load
from mori.format import r_values
from mori.format.codec import Buffers, Codec
from mori.format.layout import Record
from mori.format.node import Node
from mori.memory.mapping import Bytes, Mapping
from mori.store.base import MAX_STEPS, SMALL_ALIGNMENT, Name, align

__all__ = [
    "CHARACTER",
    "DOUBLE",
    "ENTRY",
    "INTEGER",
    "ITEMSIZES",
    "LIST",
    "LIST_HEAD",
    "LIST_MAGIC",
    "LOGICAL",
    "OTHER",
    "STRINGS_HEAD",
    "STRINGS_MAGIC",
    "VECTOR_HEAD",
    "VECTOR_MAGIC",
    "RNode",
    "attributes_of",
    "node_at",
    "root_of",
]

OTHER, LOGICAL, INTEGER, DOUBLE, COMPLEX, CHARACTER, LIST, RAW = 0, 10, 13, 14, 15, 16, 19, 24
ITEMSIZES: Final = {LOGICAL: 4, INTEGER: 4, DOUBLE: 8, COMPLEX: 16, RAW: 1, CHARACTER: 16}
"""Bytes of an element, by R's type; of a string, in the table."""

VECTOR_MAGIC: Final = 0x4D4F5248
LIST_MAGIC: Final = 0x4D4F524C
STRINGS_MAGIC: Final = 0x4D4F5253
_MAGIC: Final = struct.Struct("=I")
VECTOR_HEAD: Final = struct.Struct("=Iiqq40x")  # magic, type, length, bytes of the attributes
STRINGS_HEAD: Final = struct.Struct("=Iiqq")  # magic, bytes of the attributes, length, bytes of the rest
LIST_HEAD: Final = struct.Struct("=Iiqq")  # magic, length, offset and bytes of the attributes
ENTRY: Final = struct.Struct("=qqiiq")  # offset, bytes, type, bytes of the attributes, length
_OFFSET: Final = struct.Struct("=q")
_UNKNOWN: Final = -1  # no codec of mori's format


class RNode(Node):
    """A vector or list of R's.

    Attributes
    ----------
    type, length : int
        R's type number, and how many elements there are.
    start, end : int
        Where its bytes begin in the region and end, without the attributes of a vector.
    role : str
        What it stands for: itself, or ``"array"``, its elements alone; ``"dict"``, a list with names, whose
        children are ``"names"`` and ``"values"``.
    """

    __slots__ = (
        "_attributes",
        "_attributes_at",
        "_codec",
        "end",
        "length",
        "path",
        "role",
        "start",
        "type",
        "up",
    )

    def __init__(
        self,
        mapping: Mapping,
        data: Bytes,
        view: memoryview,
        offset: int,
        up: RNode | None,
        path: tuple[int, ...],
    ) -> None:
        self.mapping: Mapping = mapping
        self.offset: int = offset
        self.up: RNode | None = up
        self.path: tuple[int, ...] = path
        self._data, self._view, self._head = data, view, 0
        self.role: str = ""
        self._attributes: dict[str, Any] | None = None
        self._codec: Codec | None = None

    def _place(self, number: int, length: int, start: int, end: int, attributes: tuple[int, int]) -> RNode:
        """Say what it is, and check that it fits into its bytes."""
        self.type: int = number
        self.length: int = length
        self.start: int = start
        self.end: int = end
        self._attributes_at = attributes
        self.extent: int = attributes[0] + attributes[1] - start if number != LIST else end - start
        if start % SMALL_ALIGNMENT:
            raise self._corrupt(f"its bytes begin at {start}, which is no multiple of {SMALL_ALIGNMENT}")
        if number == LIST:
            self._check_list()
        elif number != OTHER:
            if number not in ITEMSIZES:
                raise self._corrupt(f"it is of the type {number}, which R's mori does not write")
            if not 0 <= length <= (end - start) // ITEMSIZES[number]:
                raise self._corrupt(f"{length} elements do not fit into {end - start} bytes")
            if number == CHARACTER and start + align(16 * length) > end:
                raise self._corrupt(f"the text of {length} strings begins behind it")
        children, buffers = (self.length, 0) if number == LIST else (0, 1)
        place = self.path[-1] - 1 if self.path else 0
        self.record: Record = Record(0, _UNKNOWN, 0, 0, buffers, children, self.extent, 0, place)
        return self

    def _check_list(self) -> None:
        size = self.end - self.start
        if size < LIST_HEAD.size:
            raise self._corrupt(f"{size} bytes are too few for a list")
        magic, length, offset, nbytes = LIST_HEAD.unpack_from(self._view, self.start)
        if magic != LIST_MAGIC:
            raise self._corrupt("it is no list, and should be one")
        if not 0 <= length <= (size - LIST_HEAD.size) // ENTRY.size:
            raise self._corrupt(f"a directory of {length} elements does not fit into {size} bytes")
        if not (0 <= offset <= size and 0 <= nbytes <= size - offset):
            raise self._corrupt("its attributes lie outside of it")
        self.length = length
        self._attributes_at = self.start + offset, nbytes

    # As other nodes

    def child(self, index: int) -> RNode:
        if self.role == "dict":
            return self.as_role(("names", "values")[index])
        if not 0 <= index < self.length or self.type != LIST:
            raise self._corrupt(f"it has no element {index + 1}")
        entry = self.start + LIST_HEAD.size + ENTRY.size * index
        offset, nbytes, number, attributes, length = ENTRY.unpack_from(self._view, entry)
        first = LIST_HEAD.size + ENTRY.size * self.length
        size = self.end - self.start
        most = self._offset(index + 1) if index + 1 < self.length else size
        child = RNode(self.mapping, self._data, self._view, entry, self, (*self.path, index + 1))
        if not first <= offset <= most <= size or not 0 <= nbytes <= most - offset:
            raise child._corrupt("it lies outside of its list, or over the next element")
        start, end = self.start + offset, self.start + offset + nbytes
        if number in (LIST, OTHER):
            return child._place(number, length, start, end, (end, 0))
        if not 0 <= attributes <= nbytes:
            raise child._corrupt("its attributes are larger than it is")
        return child._place(number, length, start, end - attributes, (end - attributes, attributes))

    here: Any = child

    def _offset(self, index: int) -> int:
        """Return where in this list an element begins, as the directory says."""
        entry = self.start + LIST_HEAD.size + ENTRY.size * index
        return _OFFSET.unpack_from(self._view, entry)[0]  # type: ignore[no-any-return]

    def under(self, offset: int) -> RNode:
        node: RNode = self
        while node.type == LIST and node.length:
            relative = offset - node.start
            index = bisect_right(range(node.length), relative, key=node._offset) - 1
            if index < 0:
                break
            child = node.child(index)
            if offset >= child.end:
                break
            node = child
        is_array = node.type not in ITEMSIZES or getattr(node.codec, "is_array", False)
        return node if is_array else node.as_role("array")

    def buffers(self) -> Buffers:
        return Buffers([self._data[self.start : self.end]] if self.type != LIST else [])

    @property
    def meta(self) -> bytes:
        return b""

    @property
    def codec(self) -> Codec:
        if self._codec is None:
            self._codec = load("mori.objects.r").codec_of(self)
        return self._codec

    def parent(self) -> RNode | None:
        return self.up

    def name(self, inside: tuple[int, ...] = ()) -> Name | None:
        """Return the name as R gives it: steps count from 1."""
        return self.mapping.name._replace(path=self.path) if len(self.path) <= MAX_STEPS else None

    # R's own

    def as_role(self, role: str) -> RNode:
        """Return the same node in another role."""
        made = RNode(self.mapping, self._data, self._view, self.offset, self.up, self.path)
        made._place(self.type, self.length, self.start, self.end, self._attributes_at)
        made._attributes, made.role = self._attributes, role
        if role == "array":
            made.offset = self.start
        elif role == "dict":
            made.record = made.record._replace(children=2)
        return made

    @property
    def attributes(self) -> dict[str, Any]:
        """R's attributes, as `r_values.read` gives them.

        Raises
        ------
        CorruptRegionError
            If they are none.
        OpaqueError
            If only R can read them.
        """
        if self._attributes is None:
            start, nbytes = self._attributes_at
            found: Any = {}
            if nbytes:
                try:
                    found = r_values.read(bytes(self._view[start : start + nbytes]))
                except r_values.OpaqueError:
                    raise
                except Exception as error:
                    raise self.decode_error(error) from error
            if not isinstance(found, dict):
                raise self._corrupt("its attributes have no names")
            self._attributes = found
        return self._attributes

    @property
    def classes(self) -> Any:
        """R's class attribute, a list; empty without one."""
        found = self.attributes.get("class")
        return found if isinstance(found, list) else []

    @property
    def description(self) -> str:
        """R's type and class of it, for those who look into a region."""
        if self.type == OTHER:
            return f"R {r_values.serialized_type(bytes(self._view[self.start : self.end][:64]))}"
        classes = ", ".join(map(str, self.classes))
        return f"R {r_values.TYPES[self.type]}" + f" ({classes})" * bool(classes)

    @property
    def names(self) -> list[str | None] | None:
        """R's names, one for each element; None without any."""
        found = self.attributes.get("names")
        if found is None:
            return None
        if not isinstance(found, list | r_values.Texts) or len(found) != self.length:
            raise self._corrupt("its names are not one for each element")
        return list(found)


def attributes_of(node: RNode) -> dict[str, Any]:
    """Return R's attributes for a user, who may change them; none where only R can read them."""
    try:
        found = node.attributes
    except r_values.OpaqueError:
        return {}
    return {name: [*value] if isinstance(value, r_values.Texts) else value for name, value in found.items()}


def root_of(mapping: Mapping) -> RNode:
    """Return the root of a region."""
    data = mapping.bytes()
    view, nbytes = memoryview(data), mapping.nbytes
    root = RNode(mapping, data, view, 0, None, ())
    (magic,) = _MAGIC.unpack_from(view)
    if magic == LIST_MAGIC:
        return root._place(LIST, 0, 0, nbytes, (nbytes, 0))
    if magic == VECTOR_MAGIC:
        if nbytes < VECTOR_HEAD.size:
            raise root._corrupt(f"{nbytes} bytes are too few for a vector")
        _, number, length, attributes = VECTOR_HEAD.unpack_from(view)
        start, item = VECTOR_HEAD.size, ITEMSIZES.get(number, 0)
        if not item or number == CHARACTER:
            raise root._corrupt(f"it is of the type {number}, which R's mori does not write")
        size = item * length
    elif magic == STRINGS_MAGIC:
        _, attributes, length, size = STRINGS_HEAD.unpack_from(view)
        number, start = CHARACTER, STRINGS_HEAD.size
    else:
        raise root._corrupt(f"it begins with {bytes(view[:4])!r}, as none of R's does")
    if length < 0 or attributes < 0 or not 0 <= size <= nbytes - start - attributes:
        raise root._corrupt(f"{length} elements and their attributes do not fit into {nbytes} bytes")
    return root._place(number, length, start, start + size, (start + size, attributes))


def node_at(mapping: Mapping, offset: int) -> RNode:
    """Return the node that a reference names, by where its entry stands or its elements lie."""
    node = root_of(mapping)
    while True:
        if offset == node.offset:
            return node
        if offset == node.start and node.type in ITEMSIZES:
            return node.as_role("array")
        if node.type != LIST or not node.length:
            raise node._corrupt(f"a reference asks for the node at byte {offset}, where none is")
        index, rest = divmod(offset - node.start - LIST_HEAD.size, ENTRY.size)
        if not 0 <= index < node.length:
            index = bisect_right(range(node.length), offset - node.start, key=node._offset) - 1
        elif rest:
            raise node._corrupt(f"a reference asks for the node at byte {offset}, where none is")
        node = node.child(index)
