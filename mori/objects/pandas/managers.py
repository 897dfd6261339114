"""Managers of blocks over a region: what is written is copied first, and parts pickle as references.

Beside `mori.codecs.pandas`, the only place for pandas' internals.
"""

from __future__ import annotations

import copyreg
import types
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.arrays import DatetimeArray, TimedeltaArray

from mori.objects.array import is_same_view, shared_of

__all__ = ["CAN_PROTECT", "guarded", "protected", "unprotected"]

LEGACY: Final = int(pd.__version__.partition(".")[0]) < 3
_WRITERS: Final = (
    *("setitem", "setitem_inplace", "column_setitem", "iset", "_iset_single", "putmask", "where", "fillna"),
    *("replace", "replace_regex", "replace_list", "interpolate", "pad_or_backfill"),
)


def _copying_on_write(cls: Any) -> None:
    """Make a manager of pandas 2 write as it does under copy-on-write, whatever the option.

    Each is pandas' own function, which asks a global function of its module whether to copy first;
    here that says yes. The option itself cannot be set for one frame, or for one thread.
    """
    for name in _WRITERS:
        for base in cls.__mro__[1:]:
            plain = vars(base).get(name)
            if plain is not None and "using_copy_on_write" in plain.__code__.co_names:
                known = {**plain.__globals__, "using_copy_on_write": lambda: True}
                known["warn_copy_on_write"] = lambda: False
                made = types.FunctionType(plain.__code__, known, name, plain.__defaults__, plain.__closure__)
                made.__kwdefaults__ = plain.__kwdefaults__
                setattr(cls, name, made)
                break


try:
    from pandas._libs.internals import BlockPlacement, BlockValuesRefs
    from pandas.core.internals.blocks import new_block
    from pandas.core.internals.managers import BlockManager, SingleBlockManager
except ImportError:  # pandas has moved them; test_pandas_internals.py says so
    CAN_PROTECT = False
else:
    CAN_PROTECT = True

    class _Referred(BlockValuesRefs):  # type: ignore[misc, unused-ignore]
        """Says that something else refers to a block, so that pandas copies before it writes.

        Everything that is taken from a frame inherits it: a column that outlives its frame is
        copied on write, too. A shallow copy kept beside the frame would serve the frame alone.
        """

        def has_reference(self) -> bool:
            return True

    class _Manager(BlockManager):  # type: ignore[misc, unused-ignore]
        """The blocks of a frame over a region, which pickle as references where they still lie in it.

        pandas hands its class on to whatever it makes of a frame without copying (slices, groups of
        columns); those are plain frames otherwise, and their columns plain Series.
        """

        origin: Any = None
        """What the frame over it was opened from, for the columns that are taken from it."""

        def equals(self, other: Any) -> bool:
            # pandas takes managers of different classes for unequal.
            return bool(BlockManager(self.blocks, self.axes, verify_integrity=False).equals(other))

        def iget(self, i: int, track_ref: bool = True) -> Any:
            column = super().iget(i, track_ref)
            made = _SingleManager(column.blocks[0], column.axes[0])
            if self.origin is not None:
                made.column = self.origin, i
            return made

        def _consolidate_inplace(self) -> None:
            # It would copy the blocks that lie in the region, to put them together with written ones.
            if not any(isinstance(block.refs, _Referred) for block in self.blocks):
                super()._consolidate_inplace()

        def __reduce_ex__(self, protocol: Any) -> Any:
            blocks = [(_Carried(block.values), block.mgr_locs.indexer, block.ndim) for block in self.blocks]
            return _restore, (_Manager, blocks, _carried_axes(self.axes))

    class _SingleManager(SingleBlockManager):  # type: ignore[misc, unused-ignore]
        """The same for a Series."""

        column: Any = None
        """Of one that was taken from a frame, the origin of that and its place in it, as it was then."""

        def equals(self, other: Any) -> bool:
            (block,) = self.blocks
            return bool(SingleBlockManager(block, self.axes[0], verify_integrity=False).equals(other))

        def __reduce_ex__(self, protocol: Any) -> Any:
            (block,) = self.blocks
            return _restore, (
                _SingleManager,
                [(_Carried(block.values), block.mgr_locs.indexer, 1)],
                _carried_axes(self.axes),
            )

    if LEGACY:
        _copying_on_write(_Manager)
        _copying_on_write(_SingleManager)

    def _restore(cls: Any, blocks: Any, axes: Any) -> Any:
        made = [
            new_block(values, placement=BlockPlacement(places), ndim=ndim) for values, places, ndim in blocks
        ]
        return guarded(made[0] if cls is _SingleManager else tuple(made), axes)

    def guarded(blocks: Any, axes: Any) -> Any:
        """Return a manager of blocks that pandas copies before it writes to them."""
        for block in blocks if isinstance(blocks, tuple) else (blocks,):
            block.refs = _Referred(block)
        if isinstance(blocks, tuple):
            return _Manager(blocks, axes, verify_integrity=False)
        return _SingleManager(blocks, axes[0], verify_integrity=False)


def protected(manager: Any) -> Any:
    """Return the manager of blocks that are copied before they are written to and sent; or the same."""
    if not CAN_PROTECT:
        return manager
    blocks = manager.blocks
    return guarded(blocks[0] if isinstance(manager, SingleBlockManager) else tuple(blocks), manager.axes)


class _Carried:
    """Pickles as the values of a block, the parts of them that lie in a region by reference."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __reduce__(self) -> Any:
        values = self._values
        if isinstance(values, np.ndarray):
            shared = shared_of(values)
            return (np.asarray, (values if shared is None else shared,))
        cls = type(values)
        if cls is pd.arrays.IntervalArray:
            return _interval, (values.dtype, _Carried(values._left), _Carried(values._right))
        parts = tuple(getattr(values, name) for name in _LEAVES.get(cls, ()))
        if not parts:
            return _same, (values,)
        return _assemble, (cls, values.dtype, *map(_Carried, parts))


_LEAVES: Final[dict[type, tuple[str, ...]]] = {
    pd.Categorical: ("_ndarray",),
    DatetimeArray: ("_ndarray",),
    TimedeltaArray: ("_ndarray",),
    pd.arrays.PeriodArray: ("_ndarray",),
    pd.arrays.BooleanArray: ("_data", "_mask"),
    pd.arrays.FloatingArray: ("_data", "_mask"),
    pd.arrays.IntegerArray: ("_data", "_mask"),
}


class _CarriedIndex:
    """The same for an index, which pandas would pickle with its bytes."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __reduce__(self) -> Any:
        index = self._index
        return _index, (type(index), _Carried(index._data), index.name)


def _index(cls: Any, values: Any, name: Any) -> Any:
    return cls._simple_new(values, name=name)


def _carried_axes(axes: Any) -> list[Any]:
    kinds = (pd.Index, pd.PeriodIndex, pd.CategoricalIndex, pd.IntervalIndex)
    return [
        _CarriedIndex(axis) if type(axis) in kinds and type(axis._data) in _MADE_OF_PLAIN else axis
        for axis in axes
    ]


def is_over(one: Any, other: Any) -> bool:
    """Return whether two arrays of a dtype lie in the same memory; arrays of Arrow are not looked into."""
    if isinstance(one, np.ndarray):
        return is_same_view(one, other)
    if isinstance(one, pd.arrays.IntervalArray):
        return is_over(one._left, other._left) and is_over(one._right, other._right)
    leaves = _LEAVES.get(type(one), ())
    return bool(leaves) and all(is_over(getattr(one, name), getattr(other, name)) for name in leaves)


def _reduce_index(index: Any) -> Any:
    """Return what ``__reduce_ex__`` returns for an index alone.

    One that pandas itself has unpickled holds no SharedArray, though it lies in the region.
    """
    values = index._data
    plain = isinstance(values, np.ndarray) or type(values) in _MADE_OF_PLAIN
    carries = plain and _lies_in_region(values)
    return _CarriedIndex(index).__reduce__() if carries else index.__reduce__()


def _lies_in_region(values: Any) -> bool:
    if isinstance(values, pd.arrays.IntervalArray):
        return all(map(_lies_in_region, (values._left, values._right)))
    if isinstance(values, np.ndarray):
        return shared_of(values) is not None
    leaves = [getattr(values, name) for name in _LEAVES.get(type(values), ())]
    return bool(leaves) and all(map(_lies_in_region, leaves))


def _same(values: Any) -> Any:
    return values


_MADE_OF_PLAIN: Final = {*_LEAVES, pd.arrays.IntervalArray} - {DatetimeArray, TimedeltaArray}
for _kind in (pd.Index, pd.PeriodIndex, pd.CategoricalIndex, pd.IntervalIndex):
    copyreg.dispatch_table.setdefault(_kind, _reduce_index)


def _interval(dtype: Any, left: Any, right: Any) -> Any:
    return pd.arrays.IntervalArray._simple_new(left, right, dtype=dtype)


def _assemble(cls: Any, dtype: Any, *parts: Any) -> Any:
    """Return the extension array of a dtype and its plain arrays."""
    if len(parts) == 2:
        return cls(*parts, copy=False)
    return cls._simple_new(*parts, dtype=dtype)


def unprotected(obj: Any) -> Any:
    """Return a private frame or series with pandas' own manager and axes of its own."""
    if CAN_PROTECT:
        manager = obj._mgr
        axes = [axis.copy(deep=True) for axis in manager.axes]
        object.__setattr__(obj, "_mgr", _pandas_own(manager.blocks, axes))
    return obj


def plain_manager(manager: Any) -> Any:
    """Return pandas' own manager of the same blocks and axes; None for what is no manager of mori's."""
    if not CAN_PROTECT or not isinstance(manager, _Manager | _SingleManager):
        return None
    return _pandas_own(manager.blocks, manager.axes)


def _pandas_own(blocks: Any, axes: Any) -> Any:
    if len(axes) == 1:
        return SingleBlockManager(blocks[0], axes[0], verify_integrity=False)
    return BlockManager(blocks, axes, verify_integrity=False)
