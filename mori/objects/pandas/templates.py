"""Frames and series that are opened once more, while one that was opened before is there.

Each opening has blocks, axes and arrays of extensions of its own, over the same memory: what changes in place
in the one is not seen in the other.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mori.format.node import Node
from mori.objects.pandas.managers import CAN_PROTECT, guarded

__all__ = ["State", "Template", "is_made_plainly", "made_of", "template_of"]


class State(NamedTuple):
    """The attributes of a frame or series beside its blocks and axes, as they were when it was opened."""

    labels: list[tuple[Any, ...]]
    attrs: dict[Any, Any]
    flags: bool
    own: dict[str, Any]  # the name of a series, and what its class adds


class Template:
    """A frame or series as its node has it; those that were opened from it keep it."""

    __slots__ = ("__weakref__", "_axes", "_blocks", "_cls", "node", "state")

    def __init__(self, node: Node, obj: Any, state: State) -> None:
        self.node: Node = node
        self.state: State = state
        self._cls = type(obj)
        self._blocks = list(map(_same, obj._mgr.blocks))
        self._axes = [axis.view() for axis in obj._mgr.axes]

    def open(self) -> Any:
        """Return one more frame or series, equal to the first."""
        blocks = tuple(map(_same, self._blocks))
        axes = [axis.view() for axis in self._axes]
        is_frame = issubclass(self._cls, pd.DataFrame)
        manager = guarded(blocks if is_frame else blocks[0], axes)
        attrs = self.state.attrs
        return made_of(self._cls, manager, self.state, copy.deepcopy(attrs) if attrs else attrs)


def is_made_plainly(cls: Any) -> bool:
    """Return whether `made_of` makes all of a class: not so where a user's class unpickles in its own way."""
    return cls.__setstate__ is pd.DataFrame.__setstate__


def made_of(cls: Any, manager: Any, state: State, attrs: dict[Any, Any]) -> Any:
    """Return the frame or series of a class over a manager."""
    made = cls._from_mgr(manager, manager.axes)
    for name, value in state.own.items():
        object.__setattr__(made, name, value)
    if attrs:
        made.attrs = attrs
    if not state.flags:
        made.flags.allows_duplicate_labels = False
    return made


def template_of(node: Node, obj: Any, state: State) -> Template | None:
    """Return what a frame or series, which was just opened, is opened from again.

    None where that could be seen: objects, of which there would be one for both, arrays and indexes of which
    nobody knows what can be changed in them, and classes that unpickle in their own way.
    """
    known = CAN_PROTECT and is_made_plainly(type(obj))
    known = known and all(_is_known(block.values) for block in obj._mgr.blocks)
    return Template(node, obj, state) if known and all(map(_is_constant, obj._mgr.axes)) else None


def _same(block: Any) -> Any:
    """Return a block of the same values."""
    values = block.values
    if not isinstance(values, np.ndarray):
        values = values.view()  # what holds Arrow's memory changes in place
    return block.make_block_same_class(values, placement=block.mgr_locs)


def _is_known(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return not values.dtype.hasobject
    return type(values).__module__.partition(".")[0] in ("pandas", "mori")


def _is_constant(axis: Any) -> bool:
    if isinstance(axis, pd.RangeIndex):  # whose data would be made now
        return True
    if isinstance(axis, pd.MultiIndex):
        return all(map(_is_constant, axis.levels))
    if axis.dtype == object:
        return bool(axis.inferred_type == "string")
    return getattr(axis._data, "_freq", None) is None and _is_known(axis._data)
