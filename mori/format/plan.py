"""The plan: an object measured into a tree, before a byte is written; what is met again is an alias.

Imports codec, layout, progress and errors. Pure: it refers to the object's own buffers and copies none. It
walks with a stack of its own, so the depth of an object is bounded by memory alone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, Final, NamedTuple, cast

from mori import _progress
from mori.errors import NotShareableError
from mori.format import codec, layout
from mori.format.codec import Buffer, Codec
from mori.format.layout import Codec as Id

__all__ = ["AliasNode", "PlanNode", "Prepare", "buffer_nbytes", "measure"]


_VALUES: Final = (tuple, frozenset)  # the empty ones: nothing tells two of them apart


class PlanNode:
    """One node to be written: its bytes, its buffers and where everything stands, from its own start."""

    __slots__ = ("alignment", "back", "buffers", "children", "codec", "extent", "flags", "meta", "table")

    def __init__(self, number: int, meta: bytes, buffers: Sequence[Buffer]) -> None:
        self.codec = number
        self.flags = 0
        self.meta = meta
        self.buffers = buffers
        # Most of a million nodes have neither, and an empty list is as large as a record's bytes.
        self.children = cast(list[PlanNode], ())
        self.table: Sequence[tuple[int, int]] = ()
        self.extent = 0
        self.back = 0
        self.alignment = layout.ALIGNMENT if buffers else layout.SMALL_ALIGNMENT

    def close(self) -> None:
        """Place the buffers and the children, all of which are closed."""
        cursor = layout.head_nbytes(len(self.meta), len(self.buffers))
        cursor += layout.CHILD.size * len(self.children)
        table = []
        for buffer in self.buffers:
            cursor = layout.align(cursor)
            nbytes = buffer_nbytes(buffer)
            table.append((cursor, nbytes))
            cursor += nbytes
        self.table = tuple(table)
        for child in self.children:
            self.alignment = max(self.alignment, child.alignment)
            cursor = layout.align(cursor, child.alignment)
            child.back = cursor
            cursor += child.extent
        self.extent = layout.align(cursor, layout.SMALL_ALIGNMENT)


class AliasNode(PlanNode):
    """A further reference to a node; the writer, which knows where both stand, fills in the distance."""

    __slots__ = ("target",)

    def __init__(self, target: PlanNode) -> None:
        super().__init__(Id.ALIAS, bytes(layout.CHILD.size), ())
        self.target = target
        target.flags |= layout.ALIASED
        self.close()


def buffer_nbytes(buffer: Buffer) -> int:
    """Return the bytes of a buffer or of its pieces together."""
    return sum(piece.nbytes for piece in buffer) if isinstance(buffer, Sequence) else buffer.nbytes


class _Level:
    """An object on the way down, and how many of its children have been met."""

    __slots__ = ("children", "codec", "is_key", "met", "node", "nodes", "number", "obj", "reach")

    def __init__(
        self, obj: Any, by: Codec, node: PlanNode, children: Sequence[Any], number: int, is_key: bool
    ) -> None:
        self.obj = obj
        self.codec = by
        self.node = node
        self.nodes: list[PlanNode] = []  # of its children
        self.children = children
        self.met = 0
        self.number = number  # in the order in which nodes are written
        self.reach = number  # the first node that this one, or a node inside it, refers to
        self.is_key = is_key


class _Met(NamedTuple):
    """An object that was met; it is kept, since the id of one that is gone is soon another's."""

    obj: object
    node: PlanNode
    number: int


Prepare = Callable[[Any, str], Any]
"""Takes a frame or series and the path to it, and returns what is to be written in its place."""

_ROUNDS: Final = 2  # a codec that makes its children anew each time would give new ids for ever


def measure(obj: object, prepare: Prepare | None = None) -> PlanNode:
    """Return the plan of an object.

    Raises
    ------
    NotShareableError
        For a part that cannot be pickled, or that contains itself; it names the path to it.

    Notes
    -----
    A cycle through an instance of a dataclass (a tree whose nodes know their parents) is pickle's to
    keep: then the instances of that class go by pickle.
    """
    pickled: set[type] = set()
    apart: dict[int, Any] = {}
    rounds = 0
    while True:
        measure = _Measure(pickled, apart if rounds < _ROUNDS else _Everything(), prepare)
        try:
            root = measure.run(obj)
        except _CycleError as cycle:
            pickled.add(cycle.cls)
            continue
        if not measure.met_inside:
            return root
        apart |= measure.met_inside
        rounds += 1


class _Everything:
    """The ids of all objects."""

    def __contains__(self, key: object) -> bool:
        return True


class _CycleError(Exception):
    """Objects that contain each other, one of which is of a class that pickle can take over."""

    def __init__(self, cls: type) -> None:
        super().__init__(cls)
        self.cls = cls


def _is_whole(level: _Level, node: PlanNode) -> bool:
    """Say whether a node is more to the user than what a frame is made of.

    A column is named after the frame that its memory lies in, so two frames have their own blocks;
    an index may be one and the same.
    """
    by = codec.known(node.codec)
    return not level.codec.owns_parts or (by is not None and by.is_independent)


class _Measure:
    """The walk over an object: the levels above, and what has been met so far."""

    def __init__(self, pickled: set[type], apart: Container[int], prepare: Prepare | None) -> None:
        # What stands inside a small container and is met elsewhere, too: it has to be a node of its own.
        self.met_inside: dict[int, Any] = {}
        self._inside: dict[int, Any] = {}
        self._apart = apart
        self._small_codec: Any = codec.for_id(Id.SMALL)
        self._rows_codec: Any = codec.for_id(Id.ROWS)
        self._pickled = pickled
        self._prepare = prepare
        self._levels: list[_Level] = []
        self._above: set[int] = set()
        self._met: dict[int, _Met] = {}
        self._number = 0

    def run(self, obj: object) -> PlanNode:
        levels = self._levels
        meter = _progress.meter()
        root = self._enter(obj)
        while levels:
            if meter is not None:
                meter.did(1)
            level = levels[-1]
            if level.met == len(level.children):
                level.node.children = level.nodes
                level.node.close()
                self._above.discard(id(level.obj))
                levels.pop()
                if level.reach < level.number:
                    level.node.flags |= layout.LEANS
                    levels[-1].reach = min(levels[-1].reach, level.reach)
                continue
            child = level.children[level.met]
            level.met += 1
            level.nodes.append(self._enter(child))
        return root

    def _enter(self, obj: Any) -> PlanNode:
        by = None if type(obj) in self._pickled else codec.for_type(type(obj))
        encoded = None
        is_scalar = by is not None and by.is_value
        if not is_scalar and (alias := self._alias(obj)) is not None:
            return alias
        taken = obj
        if by is not None and by.is_prepared and self._prepare is not None:
            is_ready = self._levels and self._levels[-1].codec.is_prepared
            taken = obj if is_ready else self._prepare(obj, self._path())
        try:
            if by is not None:
                encoded = (self._small(obj) if self._levels else None) or self._rows(obj, by)
                encoded = encoded or by.encode(taken)
            is_large = is_scalar and (encoded is None or encoded.codec is not None)
            if is_large and (alias := self._alias(obj)) is not None:
                return alias
            if encoded is None or by is None:
                by = codec.for_type(codec.Pickled)
                assert by is not None
                encoded = by.encode(taken)
                assert encoded is not None
        except codec.UnpicklableError as error:
            raise NotShareableError(path=self._path() + error.way, found=str(error)) from error
        except Exception as error:
            raise NotShareableError(
                path=self._path(), found=f"it is a {type(obj).__qualname__} that does not pickle ({error})"
            ) from error
        number = by.id if encoded.codec is None else encoded.codec
        node = PlanNode(number, by.head + encoded.meta, encoded.buffers)
        if by.is_value and encoded.codec is None:
            node.close()
            return node
        self._number += 1
        is_key = self._remember(obj, node, encoded)
        if not encoded.children:
            node.close()
            return node
        if id(obj) in self._above:
            for level in reversed(self._levels):
                if level.codec.pickles_cycles:
                    raise _CycleError(type(level.obj))
                if level.obj is obj:
                    break
            raise NotShareableError(path=self._path(), found="it contains itself")
        self._above.add(id(obj))
        self._levels.append(_Level(obj, by, node, encoded.children, self._number, is_key))
        return node

    def _small(self, obj: Any) -> codec.Encoded | None:
        """Take an object apart that fits into one node of plain bytes, None for any other."""
        if id(obj) in self._inside:
            self.met_inside[id(obj)] = obj
        packed: tuple[codec.Encoded, dict[int, Any]] | None = self._small_codec.pack(obj, self._apart)
        if packed is None:
            return None
        encoded, inside = packed
        inside.pop(id(obj), None)
        self._meet_inside(inside)
        return encoded

    def _rows(self, obj: Any, by: Codec) -> codec.Encoded | None:
        """Take a list of records apart that fits into columns, None for any other."""
        if by.id not in (Id.LIST, Id.TUPLE) or len(obj) < self._rows_codec.fewest():
            return None
        records = obj if isinstance(obj, list | tuple) else [*obj]  # a view makes its records anew
        encoded: codec.Encoded | None = self._rows_codec.pack(
            records, "tuple" if by.id == Id.TUPLE else "list"
        )
        if encoded is None or self._is_key() or not (self._levels or self._apart):
            return encoded  # keys stay as they are, and where there is nothing else, nothing is met again
        inside = dict(zip(map(id, records), records, strict=True))
        if self._apart and any(key in self._apart for key in inside):
            return None
        self._meet_inside(inside)
        return encoded

    def _meet_inside(self, inside: dict[int, Any]) -> None:
        """Take note of what has no node of its own; if it is met elsewhere, too, it has to have one."""
        for others in (self._inside, self._met):
            if not others.keys().isdisjoint(inside.keys()):
                self.met_inside |= {key: part for key, part in inside.items() if key in others}
        self._inside |= inside

    def _alias(self, obj: object) -> PlanNode | None:
        """Return an alias to what was written of an object; None if it was not, or is still above."""
        met = self._met.get(id(obj))
        if met is None or id(obj) in self._above:
            return None
        level = self._levels[-1]
        if level.is_key or not _is_whole(level, met.node):
            return None
        level.reach = min(level.reach, met.number)
        return AliasNode(met.node)

    def _remember(self, obj: Any, node: PlanNode, encoded: codec.Encoded) -> bool:
        """Take note of an object that may be met again; say whether it is a key, or a part of one.

        A dict's lists of keys and of values are made anew each time. Keys stay as they are: they are
        read at once, and a tuple of aliases of aliases would be larger than the region by any factor.
        """
        if not self._levels:
            return False
        level = self._levels[-1]
        of_dict = level.codec.has_keys
        is_key = self._is_key()
        tells = encoded.children or encoded.buffers or type(obj) not in _VALUES or len(obj)
        if tells and not (of_dict or is_key) and _is_whole(level, node):
            self._met[id(obj)] = _Met(obj, node, self._number)
        return is_key

    def _is_key(self) -> bool:
        """Say whether what is met now is the keys of a dict, or a part of them."""
        if not self._levels:
            return False
        level = self._levels[-1]
        return level.is_key or (level.codec.has_keys and level.met < len(level.children))

    def _path(self) -> str:
        return "obj" + "".join(level.codec.step(level.obj, level.met - 1) for level in self._levels)
