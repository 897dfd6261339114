"""The plan: an object measured into a tree, before a byte is written; what is met again is an alias.

Pure: it refers to the object's own buffers and copies none. It walks with a stack of its own, so the depth of
nodes is bounded by memory alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

import numpy as np

from mori import _progress
from mori.errors import NotShareableError
from mori.format import codec, layout
from mori.format.codec import Buffer, Codec
from mori.format.layout import Id
from mori.format.plain import STREAMS, first_name
from mori.format.survey import Survey
from mori.store.base import ALIGNMENT, SMALL_ALIGNMENT

__all__ = ["AliasNode", "PlanNode", "buffer_nbytes", "measure"]


_VALUES: Final = (tuple, frozenset)  # the empty ones: nothing tells two of them apart


_NONE: Final = cast("list[PlanNode]", ())


class PlanNode:
    """One node to be written: its bytes, its buffers and where everything stands, from its own start."""

    __slots__ = ("alignment", "back", "buffers", "children", "codec", "extent", "flags", "meta", "table")
    is_alias = False
    target: PlanNode | None = None
    """The node that an alias refers to."""

    def __init__(self, number: int, meta: bytes, buffers: Sequence[Buffer]) -> None:
        self.codec: int = number
        self.flags: int = 0
        self.meta: bytes = meta
        self.buffers: Sequence[Buffer] = buffers
        # Most of a million nodes have neither, and an empty list is as large as a record's bytes.
        self.children: list[PlanNode] = _NONE
        self.table: Sequence[tuple[int, int]] = ()
        self.extent: int = 0
        self.back: int = 0
        self.alignment = ALIGNMENT if buffers else SMALL_ALIGNMENT

    def close(self) -> None:
        """Place the buffers and the children, all of which are closed."""
        cursor = layout.head_nbytes(len(self.meta), len(self.buffers))
        cursor += layout.CHILD.size * len(self.children)
        table = []
        for buffer in self.buffers:
            cursor += -cursor % ALIGNMENT
            nbytes = buffer.nbytes if isinstance(buffer, np.ndarray) else buffer_nbytes(buffer)
            table.append((cursor, nbytes))
            cursor += nbytes
        self.table = tuple(table)
        for child in self.children:
            self.alignment = max(self.alignment, child.alignment)
            cursor += -cursor % child.alignment
            child.back = cursor
            cursor += child.extent
        self.extent = cursor + -cursor % SMALL_ALIGNMENT


class AliasNode(PlanNode):
    """A further reference to a node; the writer, which knows where both stand, fills in the distance."""

    __slots__ = ("target",)
    is_alias = True

    def __init__(self, target: PlanNode) -> None:
        super().__init__(Id.ALIAS, bytes(layout.CHILD.size), ())
        self.target: PlanNode = target
        target.flags |= layout.ALIASED
        self.close()


def buffer_nbytes(buffer: Buffer) -> int:
    """Return the bytes of a buffer or of its pieces together."""
    return sum(piece.nbytes for piece in buffer) if isinstance(buffer, Sequence) else buffer.nbytes


class _Level:
    """An object on the way down, and how many of its children have been met."""

    __slots__ = ("children", "codec", "done", "node", "nodes", "number", "obj", "reach")

    def __init__(self, obj: Any, by: Codec, node: PlanNode, children: Sequence[Any], number: int) -> None:
        self.obj = obj
        self.codec = by
        self.node = node
        self.nodes: list[PlanNode] = []  # of its children
        self.children = children
        self.done = 0
        self.number = number  # in the order in which nodes are written
        self.reach = number  # the first node that this one, or a node inside it, refers to


class _Planned(NamedTuple):
    """An object that was met; it is kept, since the id of one that is gone is soon another's."""

    obj: object
    node: PlanNode
    number: int


Prepare = Callable[[Any, str], Any]
"""Takes a frame or series and the path to it, and returns what is to be written in its place."""

_ROUNDS: Final = 3


def measure(
    obj: object, prepare: Prepare | None = None, note_pickle: Callable[[str], None] | None = None
) -> PlanNode:
    """Return the plan of an object.

    `note_pickle` is called with the path to the first pickle that names more than plain data.

    Raises
    ------
    NotShareableError
        For a part that cannot be pickled, or that contains itself; it names the path to it.

    Notes
    -----
    What stands in several streams is known only when all of them have been written: then they are written
    anew. An object that makes its parts anew whenever it is pickled would have others each time, hence the
    bound.
    """
    apart, nodes = dict[int, Any](), dict[int, Any]()
    for _ in range(_ROUNDS):
        survey = Survey(apart, nodes)
        walk = _Measure(survey, prepare, note_pickle)
        root = walk.run(obj)
        if both := (survey.seen.keys() & walk.planned.keys()) - apart.keys():
            survey.repeated |= {key: survey.seen[key] for key in both}
        if not (survey.repeated or survey.found_in_stream):
            break
        nodes |= survey.found_in_stream
        apart = {key: one for key, one in (apart | survey.repeated).items() if key not in nodes}
    return root


def _is_whole(level: _Level, node: PlanNode) -> bool:
    """Return whether a node is more to the user than what a frame is made of.

    A column is named after the frame that its memory lies in, so two frames have their own blocks;
    an index may be one and the same.
    """
    by = codec.registered(node.codec)
    return not level.codec.owns_parts or (by is not None and by.is_independent)


class _Measure:
    """The walk over an object: the levels above, and what has been met so far."""

    def __init__(
        self, survey: Survey, prepare: Prepare | None, note_pickle: Callable[[str], None] | None
    ) -> None:
        self._survey = survey
        self._prepare = prepare
        self._note_pickle = note_pickle
        self._levels: list[_Level] = []
        self._ancestors: set[int] = set()
        self.planned: dict[int, _Planned] = {}
        self._number = 0

    def run(self, obj: object) -> PlanNode:
        levels = self._levels
        meter = _progress.meter()
        root = self._enter(obj)
        while levels:
            if meter is not None:
                meter.did(1)
            level = levels[-1]
            if level.done == len(level.children):
                level.node.children = level.nodes
                level.node.close()
                self._ancestors.discard(id(level.obj))
                levels.pop()
                if level.reach < level.number:
                    level.node.flags |= layout.REFERS_OUTSIDE
                    levels[-1].reach = min(levels[-1].reach, level.reach)
                continue
            child = level.children[level.done]
            level.done += 1
            level.nodes.append(self._enter(child))
        return root

    def _enter(self, obj: Any) -> PlanNode:
        by = codec.registered(type(obj)) or codec.for_type(type(obj))
        is_scalar = by is not None and by.is_value
        if not is_scalar and id(obj) in self.planned and (alias := self._alias(obj)) is not None:
            return alias
        if id(obj) in self._ancestors:
            raise NotShareableError(
                path=self._path(),
                found="it contains itself, and what is between is too large to be written in one piece",
            )
        taken = obj
        if by is not None and by.is_prepared and self._prepare is not None:
            is_ready = self._levels and self._levels[-1].codec.is_prepared
            taken = obj if is_ready else self._prepare(obj, self._path())
        try:
            encoded = None
            if isinstance(by, codec.ContainerCodec):
                self._survey.note_container(taken)
                encoded = by.encode_in(taken, self._survey, is_root=not self._levels)
            elif by is not None:
                encoded = by.encode(taken)
            is_large = is_scalar and (encoded is None or encoded.codec is not None)
            if is_large and (alias := self._alias(obj)) is not None:
                return alias
            if encoded is None or by is None:
                by = codec.for_type(codec.Pickled)
                assert isinstance(by, codec.ContainerCodec)
                encoded = by.encode_in(taken, self._survey, is_root=not self._levels)
        except codec.UnpicklableError as error:
            raise NotShareableError(path=self._path() + error.path, found=str(error)) from error
        except Exception as error:
            raise NotShareableError(
                path=self._path(), found=f"it is a {type(obj).__qualname__} that does not pickle ({error})"
            ) from error
        number = by.id if encoded.codec is None else encoded.codec
        if self._note_pickle is not None and number in STREAMS and first_name(number, encoded.meta):
            self._note_pickle(self._path())
            self._note_pickle = None
        node = PlanNode(number, by.head + encoded.meta, encoded.buffers)
        if by.is_value and encoded.codec is None:
            node.close()
            return node
        self._number += 1
        if self._levels:
            self._remember(obj, node, encoded)
        if not encoded.children:
            node.close()
            return node
        self._ancestors.add(id(obj))
        self._levels.append(_Level(obj, by, node, encoded.children, self._number))
        return node

    def _alias(self, obj: object) -> PlanNode | None:
        """Return an alias to what was written of an object; None if it was not, or is still above."""
        planned = self.planned.get(id(obj))
        if planned is None or id(obj) in self._ancestors:
            return None
        level = self._levels[-1]
        if not _is_whole(level, planned.node):
            return None
        level.reach = min(level.reach, planned.number)
        return AliasNode(planned.node)

    def _remember(self, obj: Any, node: PlanNode, encoded: codec.Encoded) -> None:
        """Record an object that may occur again."""
        level = self._levels[-1]
        tells = encoded.children or encoded.buffers or type(obj) not in _VALUES or len(obj)
        by = level.codec
        makes_parts = by.makes_parts and level.node.codec == by.id  # not where it is small, in one stream
        if tells and not makes_parts and _is_whole(level, node):
            self.planned[id(obj)] = _Planned(obj, node, self._number)

    def _path(self) -> str:
        return "obj" + "".join(map(_step, self._levels))


def _step(level: _Level) -> str:
    """Return how a user writes the way from a level's object to the child that is looked at."""
    if isinstance(level.codec, codec.ContainerCodec):
        return level.codec.step_to(level.obj, level.done - 1, level.children[level.done - 1])
    return level.codec.step(level.obj, level.done - 1)
