"""Objects of other classes, rebuilt from a part of a region: who holds one, and whether it was written to.

Imports the plan, the reader and the instances' note of who holds what. Such an object tells nobody of a
write. It is intact if it would be written as it stands in the region, or as one that is rebuilt anew
would be: what has been through pickle once is sometimes pickled a little differently.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
import sys
import types
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mori.format.codec import Late
from mori.format.layout import Codec as Id
from mori.format.node import Node, open_node
from mori.format.plan import PlanNode, measure
from mori.objects.containers.atoms import is_atom
from mori.objects.containers.handed import dict_of, has_held_dict

__all__ = ["Remade", "is_reached", "is_remade", "is_unchanged"]

_LOOKED_AT: Final = 10_000  # objects inside one; what has more counts as held
_CONSTANTS: Final = (
    *(type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.ModuleType),
    np.dtype,
)
_probe: Final[list[Any]] = [[]]


def is_remade(node: Node, part: Any) -> bool:
    """Say whether the part of a node is an object that can be written to without telling anyone."""
    if hasattr(part, "_mori_is_intact") or is_atom(part) or isinstance(part, _CONSTANTS):
        return False
    return node.codec.hides_writes


def is_unchanged(node: Node, obj: Any) -> bool:
    """Say whether an object still is what its node says."""
    try:
        if not node.codec.has_mapped(len(node), node.record.buffers):
            with contextlib.suppress(Exception):  # as for a class that only cloudpickle takes
                now = pickle.dumps(obj, 5)
                return now == node.buffers()[0].tobytes() or now == pickle.dumps(open_node(node), 5)
        plan = measure(obj)
        return _is_same(plan, node) or _is_same(plan, measure(open_node(node)))
    except Exception:  # what is in it now does not pickle, or another thread writes to it at this moment
        return False


_Taken = tuple[int, bytes, Sequence[Any], Sequence[Any]]


def _taken(x: PlanNode | Node) -> _Taken:
    if isinstance(x, PlanNode):
        return x.codec, x.meta, x.buffers, x.children
    return x.record.codec, x.meta, x.buffers(), [x.here(index) for index in range(len(x))]


def _is_same(one: PlanNode | Node, other: PlanNode | Node) -> bool:
    """Compare two trees, each planned or written."""
    pairs = [(one, other)]
    for ours, theirs in pairs:
        number, meta, buffers, children = _taken(ours)
        their_number, their_meta, their_buffers, their_children = _taken(theirs)
        if (number, len(buffers), len(children)) != (their_number, len(their_buffers), len(their_children)):
            return False
        if number != Id.ALIAS and meta != their_meta:  # how far back is filled in when it is written
            return False
        if not all(map(_is_same_buffer, buffers, their_buffers)):
            return False
        pairs += zip(children, their_children, strict=True)
    return True


def _is_same_buffer(one: Any, other: Any) -> bool:
    ours, theirs = ([*buffer] if isinstance(buffer, Sequence | Late) else [buffer] for buffer in (one, other))
    if len(ours) == len(theirs) == 1 and ours[0].nbytes == theirs[0].nbytes:
        first, second = (piece.__array_interface__["data"][0] for piece in (ours[0], theirs[0]))
        if first == second:
            return True
    return _bytes(ours) == _bytes(theirs)


def _bytes(pieces: Sequence[Any]) -> bytes:
    return b"".join(piece.tobytes("A") for piece in pieces)


class Remade:
    """An object that was handed out, and its node."""

    __slots__ = ("_box", "_node")

    below = None
    """It has no containers inside it that are views of the same opening."""

    def __init__(self, node: Node, obj: Any) -> None:
        self._box = [obj]
        self._node = node

    @property
    def obj(self) -> Any:
        """The object."""
        return self._box[0]

    @property
    def nbytes(self) -> int:
        """What it takes, about."""
        return self._node.extent

    def is_intact(self) -> bool:
        """Say whether it was not written to."""
        return is_unchanged(self._node, self._box[0])

    def is_held(self) -> bool:
        """Say whether anybody else holds it, or anything in it that can be written to."""
        return is_reached(self._box)


def _count(order: list[Any], index: int) -> int:
    return sys.getrefcount(order[index])


_ALONE: Final = _count(_probe, 0)  # of what two hold: `_probe` and nobody else


def is_reached(box: Sequence[Any], others: int = 0) -> bool:
    """Say whether more than `others` besides `box` hold its element, or anybody what can be written in it.

    Counts, as a garbage collection does, who refers to each object from inside, and compares.
    """
    order: list[Any] = [box[0]]
    inside = Counter({id(order[0]): 1 + others})
    index = 0
    while index < len(order):
        if len(order) > _LOOKED_AT:
            return True
        if not type(order[index]).__module__.startswith("mori."):  # they refer to the region, as others do
            for below in gc.get_referents(order[index]):
                if isinstance(below, _CONSTANTS) or is_atom(below):
                    continue
                if id(below) not in inside:
                    order.append(below)
                inside[id(below)] += 1
            below = None
        index += 1
    if any(_count(order, index) > inside[id(order[index])] + _ALONE for index in range(len(order))):
        return True
    return any(id(dict_of(one)) not in inside and has_held_dict(one) for one in order)
