"""Whether an object that was rebuilt from a node still is what the node says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mori.format.codec import Late
from mori.format.node import Node
from mori.format.plan import PlanNode, measure
from mori.memory.mapping import address_of

__all__ = ["is_unchanged"]


def is_unchanged(node: Node, obj: Any) -> bool:
    """Return whether an object would be written as it stands in the region, or as one that is read from it
    anew.
    """
    if not node.codec.hides_writes:
        return True
    try:
        plan = measure(obj)
        return _is_same(plan, node) or _is_same(plan, measure(node.open()))
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
        if not ours.is_alias and meta != their_meta:  # how far back is filled in when it is written
            return False
        if not all(map(_is_same_buffer, buffers, their_buffers)):
            return False
        pairs += zip(children, their_children, strict=True)
    return True


def _is_same_buffer(one: Any, other: Any) -> bool:
    ours, theirs = ([*buffer] if isinstance(buffer, Sequence | Late) else [buffer] for buffer in (one, other))
    if len(ours) == len(theirs) == 1 and ours[0].nbytes == theirs[0].nbytes:
        first, second = map(address_of, (ours[0], theirs[0]))
        if first == second and all(one.flags.forc for one in (ours[0], theirs[0])):  # no bytes between
            return True
    return _bytes(ours) == _bytes(theirs)


def _bytes(pieces: Sequence[Any]) -> bytes:
    return b"".join(piece.tobytes("A") for piece in pieces)
