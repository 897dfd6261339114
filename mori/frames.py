"""What the user holds of pandas: `SharedDataFrame`, `SharedSeries`, and strings that travel.

Imports reference, reader, array and the pandas codecs; it is imported when the first frame is met.
A frame pickles as a reference for as long as it is what was opened, and so does each of its columns.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.arrays import DatetimeArray, TimedeltaArray

from mori import codec, reference, region
from mori.array import shared_of
from mori.codecs import pandas as codecs
from mori.errors import ObjectColumnWarning
from mori.identifier import MAX_STEPS, Name
from mori.layout import Codec as Id
from mori.reader import Node, decode, node_of_memory, opener, root_of

__all__ = ["SharedDataFrame", "SharedSeries", "prepare"]

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

        def equals(self, other: Any) -> bool:
            # pandas takes managers of different classes for unequal.
            return bool(BlockManager(self.blocks, self.axes, verify_integrity=False).equals(other))

        def iget(self, i: int, track_ref: bool = True) -> Any:
            column = super().iget(i, track_ref)
            return _SingleManager(column.blocks[0], column.axes[0])

        def __reduce_ex__(self, protocol: Any) -> Any:
            blocks = [(_Carried(block.values), block.mgr_locs.indexer, block.ndim) for block in self.blocks]
            return _restore, (_Manager, blocks, self.axes)

    class _SingleManager(SingleBlockManager):  # type: ignore[misc, unused-ignore]
        """The same for a Series."""

        def equals(self, other: Any) -> bool:
            (block,) = self.blocks
            return bool(SingleBlockManager(block, self.axes[0], verify_integrity=False).equals(other))

        def __reduce_ex__(self, protocol: Any) -> Any:
            (block,) = self.blocks
            return _restore, (
                _SingleManager,
                [(_Carried(block.values), block.mgr_locs.indexer, 1)],
                self.axes,
            )

    def _restore(cls: Any, blocks: Any, axes: Any) -> Any:
        made = [
            new_block(values, placement=BlockPlacement(places), ndim=ndim) for values, places, ndim in blocks
        ]
        return _guard(made[0] if cls is _SingleManager else tuple(made), axes)

    def _guard(blocks: Any, axes: Any) -> Any:
        """Return a manager of blocks that pandas copies before it writes to them."""
        for block in blocks if isinstance(blocks, tuple) else (blocks,):
            block.refs = _Referred(block)
        if isinstance(blocks, tuple):
            return _Manager(blocks, axes, verify_integrity=False)
        return _SingleManager(blocks, axes[0], verify_integrity=False)


def _protect(obj: Any) -> None:
    """Make a frame or series copy before it writes, and its parts travel."""
    if not CAN_PROTECT:
        object.__setattr__(obj, "_mori_shadow", obj.copy(deep=False))
        return
    blocks, axes = obj._mgr.blocks, obj._mgr.axes
    obj._mgr = _guard(tuple(blocks) if isinstance(obj, pd.DataFrame) else blocks[0], axes)


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
        parts = tuple(getattr(values, name) for name in _LEAVES.get(cls, ()))
        if not parts:
            return _same, (values,)
        return _assemble, (cls, values.dtype, *map(_Carried, parts))


_LEAVES: Final[dict[type, tuple[str, ...]]] = {
    pd.Categorical: ("_ndarray",),
    DatetimeArray: ("_ndarray",),
    TimedeltaArray: ("_ndarray",),
    pd.arrays.BooleanArray: ("_data", "_mask"),
    pd.arrays.FloatingArray: ("_data", "_mask"),
    pd.arrays.IntegerArray: ("_data", "_mask"),
}


def _same(values: Any) -> Any:
    return values


def _assemble(cls: Any, dtype: Any, *parts: Any) -> Any:
    """Return the extension array of a dtype and its plain arrays."""
    if len(parts) == 2:
        return cls(*parts, copy=False)
    return cls._simple_new(*parts, dtype=dtype)


def _labels(axis: Any) -> tuple[Any, ...]:
    """Return what can be changed of an index in place."""
    return (*axis.names, getattr(axis, "freq", None))


class _Origin:
    """The node of a frame or series, and what that looked like when it was opened."""

    __slots__ = ("_attrs", "_axes", "_flags", "_labels", "_name", "_values", "node")

    def __init__(self, node: Node, obj: Any) -> None:
        self.node = node
        self._values = [block.values for block in obj._mgr.blocks]
        self._axes = list(obj._mgr.axes)  # pandas changes its own in place
        self._labels = [_labels(axis) for axis in self._axes]
        self._attrs = copy.deepcopy(obj.attrs)
        self._flags = obj.flags.allows_duplicate_labels
        self._name = obj.name if isinstance(obj, pd.Series) else None

    def is_intact(self, obj: Any) -> bool:
        blocks, axes = obj._mgr.blocks, obj._mgr.axes
        return (
            len(blocks) == len(self._values)
            and all(block.values is values for block, values in zip(blocks, self._values, strict=True))
            and all(now is then for now, then in zip(axes, self._axes, strict=True))
            and all(_labels(now) == then for now, then in zip(axes, self._labels, strict=True))
            and obj.attrs == self._attrs
            and obj.flags.allows_duplicate_labels == self._flags
            and (not isinstance(obj, pd.Series) or obj.name is self._name or obj.name == self._name)
        )


class _Shared:
    """What a shared frame and a shared series have in common."""

    _mori: _Origin | None = None

    def _mori_is_intact(self) -> bool:
        return self._mori is not None and self._mori.is_intact(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        origin = self._mori
        if origin is None or not origin.is_intact(self):
            # Blocks that were not written to travel as references all the same.
            return _same, (_plain(self),)
        if reference.is_wanted(origin.node.mapping):
            return reference.by_reference(origin.node.mapping, origin.node.offset)
        return reference.by_value(origin.node, protocol)


def _plain(obj: Any) -> Any:
    cls = pd.DataFrame if isinstance(obj, pd.DataFrame) else pd.Series
    plain = cls._from_mgr(obj._mgr, obj.axes)
    if cls is pd.Series:
        plain._name = obj.name
    return plain.__finalize__(obj)


class SharedDataFrame(_Shared, pd.DataFrame):
    """A DataFrame whose columns lie in shared memory, mapped by every process of the host.

    Made by `mori.share`. What is derived from it is plain pandas; columns, slices and whatever else
    pandas does not copy still refer to the region, keep it alive, and pickle as references.

    Notes
    -----
    Writes are local: pandas' copy-on-write copies the touched column, and no other. An untouched frame
    pickles as a reference, a written one as a plain frame whose untouched columns are references.
    """


class SharedSeries(_Shared, pd.Series):
    """A Series whose values and index lie in shared memory; see `SharedDataFrame`."""


def _wrap(cls: Any, node: Node, plain: Any) -> Any:
    shared = cls._from_mgr(plain._mgr, plain.axes)
    if cls is SharedSeries:
        shared._name = plain.name
    shared.__finalize__(plain)
    _protect(shared)
    object.__setattr__(shared, "_mori", _Origin(node, shared))
    return shared


@opener(Id.DATAFRAME)
def _open_frame(node: Node) -> SharedDataFrame:
    shared: SharedDataFrame = _wrap(SharedDataFrame, node, decode(node))
    return shared


@opener(Id.SERIES)
def _open_series(node: Node) -> SharedSeries:
    shared: SharedSeries = _wrap(SharedSeries, node, decode(node))
    return shared


def _leaf(values: Any) -> Any:
    """Return the array that a block's or an index's values lie in."""
    while not isinstance(values, np.ndarray):
        for name in ("_ndarray", "_data"):  # datetimes and categories; nullable arrays
            if hasattr(values, name):
                values = getattr(values, name)
                break
        else:
            return values
    return values


def _node_of_leaf(leaf: Any) -> Node | None:
    if isinstance(leaf, np.ndarray):
        return node_of_memory(leaf)
    return leaf.node() if codecs.pa is not None and isinstance(leaf, _SharedStrings) else None


def node_of(obj: Any) -> Node | None:
    """Return the node that a plain series or index lies in, None for private ones."""
    if isinstance(obj, pd.Series):
        return _node_of_leaf(_leaf(obj._mgr.blocks[0].values))
    if isinstance(obj, pd.Index) and not isinstance(obj, pd.MultiIndex | pd.RangeIndex):
        return _node_of_leaf(_leaf(obj._data))
    return None


def name_of(obj: Any) -> Name | None:
    """Return the name of a whole column of a shared frame, None for anything else."""
    node = node_of(obj) if isinstance(obj, pd.Series) else None
    frame = block = node
    while frame is not None and frame.record.codec != Id.DATAFRAME:
        frame, block = frame.parent(), frame
    if node is None or frame is None or block is None:
        return None
    leaf, whole = _leaf(obj._mgr.blocks[0].values), _leaf(decode(node))
    row = 0
    if isinstance(leaf, np.ndarray):
        rows = whole if whole.ndim == 2 else whole[np.newaxis]
        start = leaf.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        row = start // (rows.strides[0] or 1)
        if row >= len(rows) or leaf.shape != rows[row].shape or start != row * rows.strides[0]:
            return None
    elif len(leaf) != len(whole):
        return None
    above = frame.name()
    if above is None or len(above.path) == MAX_STEPS:
        return None
    place = int(codecs.places_of(frame.meta, block.record.place - codecs.FIRST_BLOCK)[row])
    return above._replace(path=(*above.path, place))


def materialize_pandas(x: Any) -> Any:
    """Return a private deep copy of a pandas object, Arrow's buffers included."""
    if not isinstance(x, pd.DataFrame | pd.Series | pd.Index):
        return x
    with reference.travel("value"):
        private = pickle.loads(pickle.dumps(_plain(x) if isinstance(x, _Shared) else x, 5))
    # What was pickled from read-only memory is read-only: copy, and leave nothing of mori behind.
    if isinstance(x, pd.Index):
        return private.copy(deep=True)
    private = private.copy(deep=True)
    if CAN_PROTECT:
        manager = private._mgr
        axes = [axis.copy(deep=True) for axis in manager.axes]
        if isinstance(x, pd.DataFrame):
            plain = BlockManager(manager.blocks, axes, verify_integrity=False)
        else:
            plain = SingleBlockManager(manager.blocks[0], axes[0], verify_integrity=False)
        object.__setattr__(private, "_mgr", plain)
    return private


def prepare(obj: Any, strings: str | None) -> Any:
    """Return a frame or series as it is to be shared, and warn of columns of objects.

    Parameters
    ----------
    obj : DataFrame or Series
        What the user wants shared.
    strings : {None, "arrow"}
        ``"arrow"`` converts columns of dtype object that hold nothing but strings and missing
        values to Arrow-backed ``str``.
    """
    is_frame = isinstance(obj, pd.DataFrame)
    places = _object_columns(obj)
    if strings == "arrow":
        made = {i: column for i in places if (column := _to_arrow(_column(obj, i))) is not None}
        if made and is_frame:
            frame = pd.concat([made.get(i, obj.iloc[:, i]) for i in range(obj.shape[1])], axis=1)
            frame.columns = obj.columns
            obj = frame.__finalize__(obj)
        elif made:
            obj = made[0]
        places = [i for i in places if i not in made]
    columns = [_column(obj, i) for i in places]
    if columns:
        names = ", ".join(repr(column.name) for column in columns[:5])
        more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
        warnings.warn(
            f"object columns {names}{more} are not lazy: every process that opens this frame rebuilds "
            'them in private memory. Share with strings="arrow" to keep strings in shared memory, or '
            "give the columns a dtype of their own first",
            ObjectColumnWarning,
            stacklevel=3,
        )
    return obj


def _column(obj: Any, place: int) -> Any:
    return obj.iloc[:, place] if isinstance(obj, pd.DataFrame) else obj


def _object_columns(obj: Any) -> list[int]:
    if isinstance(obj, pd.DataFrame):
        return [
            int(i)
            for i in np.flatnonzero([isinstance(dtype, np.dtype) and dtype.hasobject for dtype in obj.dtypes])
        ]
    return [0] if isinstance(obj.dtype, np.dtype) and obj.dtype.hasobject else []


def _to_arrow(column: Any) -> Any:
    if pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty"):
        return None
    return column.astype(pd.StringDtype("pyarrow", na_value=np.nan))


if codecs.pa is not None:

    class _SharedStrings(codecs.ArrowStringArray):
        """Arrow-backed strings over a region; slices of them pickle as references."""

        def __reduce_ex__(self, protocol: Any) -> Any:
            node = self.node()
            if node is not None and reference.is_wanted(node.mapping):
                (chunk,) = _chunks(self)
                return reference.by_reference(node.mapping, node.offset, (chunk.offset, len(chunk)))
            plain = codecs.ArrowStringArray(self.__arrow_array__(), dtype=self.dtype)
            return _same, (plain,)

        def node(self) -> Node | None:
            """Return the node that these strings lie in; None for derived ones."""
            chunks = _chunks(self)
            if len(chunks) != 1 or (offsets := chunks[0].buffers()[1]) is None:
                return None
            mapping = region.at(offsets.address, offsets.size)
            if mapping is None:
                return None
            node = root_of(mapping).under(offsets.address - mapping.address)
            return node if node.record.codec == Id.STRING_ARRAY else None

    def _chunks(strings: Any) -> Sequence[Any]:
        array = strings.__arrow_array__()
        return array.chunks if isinstance(array, codecs.pa.ChunkedArray) else [array]

    @opener(Id.STRING_ARRAY)
    def _open_strings(node: Node) -> Any:
        strings = decode(node)
        return _SharedStrings(strings.__arrow_array__(), dtype=strings.dtype)

    _strings = codec.for_id(Id.STRING_ARRAY)
    assert _strings is not None
    codec.register(_strings, _SharedStrings)

for _id, _cls in ((Id.DATAFRAME, SharedDataFrame), (Id.SERIES, SharedSeries)):
    _codec = codec.for_id(_id)
    assert _codec is not None
    codec.register(_codec, _cls)
