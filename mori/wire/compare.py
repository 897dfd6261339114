"""Comparison of an object with the node that it was opened from: whether it has been changed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mori.codecs.streams import reloaded
from mori.format.codec import Joined
from mori.format.node import Node
from mori.format.plan import PlanNode, buffer_nbytes, measure
from mori.memory.mapping import address_of, held_by
from mori.wire.transport import use_transport

__all__ = ["is_by_reference", "is_unchanged", "is_written_alike"]

_FEW: Final = 8  # times the bytes of an object without its data, at least, are those of its region


def is_unchanged(node: Node, obj: Any) -> bool:
    """Return whether an object still is what the node says that it was opened from."""
    known = node.codec.is_intact(node, obj)
    return is_written_alike(node, obj) if known is None else known


def is_written_alike(node: Node, obj: Any) -> bool:
    """Return whether an object would be written as it stands in the region, or as one that is read from it
    anew.
    """
    try:
        with use_transport("value"):  # a region refers to no other
            plan = measure(obj)
            if _is_same(plan, node):
                return True
            other = node.open()
            if _is_same(plan, measure(other)):
                return True
            # Both have been pickled now, which may itself have changed them: xarray's datasets, of which an
            # attribute was asked for, have a dict where they had None.
            return _is_same(measure(reloaded(obj)), measure(reloaded(other)))
    except Exception:  # what is in it now does not pickle, or another thread writes to it at this moment
        return False


def is_by_reference(node: Node, obj: Any) -> bool:
    """Return whether an object that was opened from a node is pickled without its data.

    As a reference while it is unchanged. One that has cached something, or has another attribute, is pickled
    with references to the arrays in it, if its data are these.
    """
    if is_unchanged(node, obj):
        return True
    try:
        with use_transport("value"):
            return _own_nbytes(measure(obj)) <= node.extent // _FEW
    except Exception:
        return False


def _own_nbytes(plan: PlanNode) -> int:
    """Return the bytes of a plan that lie in no region."""
    nbytes, plans = 0, [plan]
    for one in plans:
        for buffer in one.buffers:
            if not isinstance(buffer, np.ndarray) or held_by(buffer) is None:
                nbytes += buffer_nbytes(buffer)
        plans += one.children
    return nbytes


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
    ours, theirs = (
        [*buffer] if isinstance(buffer, Sequence | Joined) else [buffer] for buffer in (one, other)
    )
    if len(ours) == len(theirs) == 1 and ours[0].nbytes == theirs[0].nbytes:
        first, second = map(address_of, (ours[0], theirs[0]))
        if first == second and all(one.flags.forc for one in (ours[0], theirs[0])):  # no bytes between
            return True
    return _bytes(ours) == _bytes(theirs)


def _bytes(pieces: Sequence[Any]) -> bytes:
    return b"".join(piece.tobytes("A") for piece in pieces)
