"""The plan: an object measured into a tree, before a byte is written.

Imports codec, layout and errors. Pure: it refers to the object's own buffers and copies none. It
walks with a stack of its own, so the depth of an object is bounded by memory alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mori import codec, layout
from mori.codec import Buffer, Codec
from mori.errors import NotShareableError
from mori.layout import Codec as Id

__all__ = ["PlanNode", "buffer_nbytes", "measure"]


class PlanNode:
    """One node to be written: its bytes, its buffers and where everything stands, from its own start."""

    __slots__ = ("alignment", "back", "buffers", "children", "codec", "extent", "meta", "table")

    def __init__(self, number: int, meta: bytes, buffers: Sequence[Buffer]) -> None:
        self.codec = number
        self.meta = meta
        self.buffers = buffers
        self.children: list[PlanNode] = []
        self.table: list[tuple[int, int]] = []
        self.extent = 0
        self.back = 0
        self.alignment = layout.ALIGNMENT if buffers else layout.SMALL_ALIGNMENT

    def close(self) -> None:
        """Place the buffers and the children, all of which are closed."""
        cursor = layout.head_nbytes(len(self.meta), len(self.buffers))
        cursor += layout.CHILD.size * len(self.children)
        for buffer in self.buffers:
            cursor = layout.align(cursor)
            nbytes = buffer_nbytes(buffer)
            self.table.append((cursor, nbytes))
            cursor += nbytes
        for child in self.children:
            self.alignment = max(self.alignment, child.alignment)
            cursor = layout.align(cursor, child.alignment)
            child.back = cursor
            cursor += child.extent
        self.extent = layout.align(cursor, layout.SMALL_ALIGNMENT)


def buffer_nbytes(buffer: Buffer) -> int:
    """Return the bytes of a buffer or of its pieces together."""
    return sum(piece.nbytes for piece in buffer) if isinstance(buffer, Sequence) else buffer.nbytes


class _Level:
    """An object on the way down, and how many of its children have been met."""

    __slots__ = ("children", "codec", "met", "node", "obj")

    def __init__(self, obj: Any, by: Codec, node: PlanNode, children: Sequence[Any]) -> None:
        self.obj = obj
        self.codec = by
        self.node = node
        self.children = children
        self.met = 0


def measure(obj: object) -> PlanNode:
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
    while True:
        try:
            return _measure(obj, pickled)
        except _CycleError as cycle:
            pickled.add(cycle.cls)


class _CycleError(Exception):
    """Objects that contain each other, one of which is of a class that pickle can take over."""

    def __init__(self, cls: type) -> None:
        super().__init__(cls)
        self.cls = cls


def _measure(obj: object, pickled: set[type]) -> PlanNode:
    levels: list[_Level] = []
    above: set[int] = set()
    root = _enter(obj, levels, above, pickled)
    while levels:
        level = levels[-1]
        if level.met == len(level.children):
            level.node.close()
            above.discard(id(level.obj))
            levels.pop()
            continue
        child = level.children[level.met]
        level.met += 1
        level.node.children.append(_enter(child, levels, above, pickled))
    return root


def _enter(obj: Any, levels: list[_Level], above: set[int], pickled: set[type]) -> PlanNode:
    by = None if type(obj) in pickled else codec.for_type(type(obj))
    encoded = None
    try:
        if by is not None:
            encoded = by.encode(obj)
        if encoded is None or by is None:
            by = codec.for_type(codec.Pickled)
            assert by is not None
            encoded = by.encode(obj)
            assert encoded is not None
    except codec.UnpicklableError as error:
        raise NotShareableError(path=_path(levels) + error.way, found=str(error)) from error
    except Exception as error:
        raise NotShareableError(
            path=_path(levels), found=f"it is a {type(obj).__qualname__} that does not pickle ({error})"
        ) from error
    node = PlanNode(by.id if encoded.codec is None else encoded.codec, encoded.meta, encoded.buffers)
    if not encoded.children:
        node.close()
        return node
    if id(obj) in above:
        for level in reversed(levels):
            if level.codec.id == Id.DATACLASS:
                raise _CycleError(type(level.obj))
            if level.obj is obj:
                break
        raise NotShareableError(path=_path(levels), found="it contains itself")
    above.add(id(obj))
    levels.append(_Level(obj, by, node, encoded.children))
    return node


def _path(levels: list[_Level]) -> str:
    return "obj" + "".join(level.codec.step(level.obj, level.met - 1) for level in levels)
