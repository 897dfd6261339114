"""Comparison of an object with the node that it was opened from: whether it has been changed since."""

from __future__ import annotations

import ctypes
import hashlib
import weakref
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mori.codecs.streams import reloaded
from mori.format.codec import Joined
from mori.format.node import Node
from mori.format.plan import PlanNode, buffer_nbytes, measure
from mori.memory.mapping import Mapping, address_of, byte_bounds, held_by, written_pages
from mori.wire.transport import use_transport

__all__ = ["is_by_reference", "is_unchanged", "is_written_alike", "unwritten"]

_compare: Final = ctypes.CDLL(None).memcmp
_compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_forms: Final[weakref.WeakKeyDictionary[Mapping, dict[int, set[bytes]]]] = weakref.WeakKeyDictionary()
"""By region and node: how what was opened from it is written, though other bytes stand in the region.

Of a forest, the pickle refers to the dtype of an array where that of the original had another one. To find
that both read the same takes several times as long as to write it.
"""
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
            others = _differences(plan, node)
            if others == []:
                return True
            forms = _forms.setdefault(node.mapping, {}).setdefault(node.offset, set())
            form = None if others is None else _digest(others)
            if form in forms:
                return True
            other = node.open()
            # Both are pickled once more in the end: that may itself have changed them, such as xarray's
            # datasets, of which an attribute was asked for: they have a dict where they had None.
            if _is_same(plan, measure(other)) or _is_same(measure(reloaded(obj)), measure(reloaded(other))):
                if form is not None:
                    forms.add(form)
                return True
            return False
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
            if not isinstance(buffer, np.ndarray) or not _lies_in_region(buffer):
                nbytes += buffer_nbytes(buffer)
        plans += one.children
    return nbytes


def _lies_in_region(buffer: np.ndarray[Any, Any]) -> bool:
    mapping = held_by(buffer)
    return mapping is not None and (not mapping.is_writable or unwritten(buffer) is not None)


_Taken = tuple[int, bytes, Sequence[Any], Sequence[Any]]


def _taken(x: PlanNode | Node) -> _Taken:
    if isinstance(x, PlanNode):
        return x.codec, x.meta, x.buffers, x.children
    return x.record.codec, x.meta, x.buffers(), [x.here(index) for index in range(len(x))]


def _is_same(one: PlanNode, other: PlanNode) -> bool:
    """Compare two plans."""
    return _differences(one, other) == []


def _differences(one: PlanNode, other: PlanNode | Node) -> list[bytes] | None:
    """Return what a plan has in other bytes than a tree that is planned or written, and where.

    None if they have not the same nodes.
    """
    found: list[bytes] = []
    pairs: list[tuple[PlanNode | Node, PlanNode | Node]] = [(one, other)]
    for place, (ours, theirs) in enumerate(pairs):
        number, meta, buffers, children = _taken(ours)
        their_number, their_meta, their_buffers, their_children = _taken(theirs)
        if (number, len(buffers), len(children)) != (their_number, len(their_buffers), len(their_children)):
            return None
        if not ours.is_alias and meta != their_meta:  # how far back is filled in when it is written
            found += b"%d meta" % place, meta
        for which, (buffer, their) in enumerate(zip(buffers, their_buffers, strict=True)):
            if not _is_same_buffer(buffer, their):
                found += b"%d buffer %d" % (place, which), _bytes(_pieces(buffer))
        pairs += zip(children, their_children, strict=True)
    return found


def _digest(parts: list[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _pieces(buffer: Any) -> Sequence[Any]:
    return [*buffer] if isinstance(buffer, Sequence | Joined) else [buffer]


def _is_same_buffer(one: Any, other: Any) -> bool:
    ours, theirs = _pieces(one), _pieces(other)
    if len(ours) == len(theirs) == 1 and all(array.flags.forc for array in (ours[0], theirs[0])):
        return ours[0].nbytes == theirs[0].nbytes and _is_same_memory(ours[0], theirs[0])
    return _bytes(ours) == _bytes(theirs)


def unwritten(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return the elements in a region of an array over pages of it that could have been written to.

    None if they were, or if the array does not lie in such pages.
    """
    mapping = held_by(array)
    if mapping is None or (source := mapping.original) is None or not array.size:
        return None
    low, high = byte_bounds(array)
    ours, theirs = (
        np.ndarray((high - low,), np.uint8, one.bytes(), low - mapping.address) for one in (mapping, source)
    )
    if not _is_same_memory(ours, theirs):
        return None
    start = address_of(array) - mapping.address
    return np.ndarray(array.shape, array.dtype, source.bytes(), start, array.strides)


def _is_same_memory(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Compare two arrays of as many bytes, with none between their elements, in memory."""
    ours, theirs, nbytes = address_of(one), address_of(other), one.nbytes
    if ours == theirs or not nbytes:
        return True
    runs = written_pages(ours, other)
    return all(
        not _compare(ours + low, theirs + low, high - low)
        for low, high in ([(0, nbytes)] if runs is None else runs)
    )


def _bytes(pieces: Sequence[Any]) -> bytes:
    return b"".join(piece.tobytes("A") for piece in pieces)
