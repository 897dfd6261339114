"""From a frame, column or index back to its node, and its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.core.arrays.masked import BaseMaskedArray

from mori.codecs.pandas.frames import FIRST_BLOCK, FrameCodec, places_of
from mori.format.node import Node, decode, node_of_memory
from mori.memory.mapping import address_of
from mori.objects.pandas.arrow import node_of_arrow
from mori.objects.pandas.shared import column_of, origin_of
from mori.store.base import MAX_STEPS, Name

__all__ = ["lies_in_region", "name_of", "node_of", "refers_to_region"]


def _leaf(values: Any) -> Any:
    """Return the array that a block's or an index's values lie in."""
    if isinstance(values, BaseMaskedArray):
        return values._data
    if isinstance(values, pd.arrays.IntervalArray):
        return _leaf(values._left)
    if isinstance(values, pd.arrays.SparseArray):
        return values.sp_values
    return getattr(values, "_ndarray", values)  # dates, periods and categories


def _node_of_leaf(leaf: Any) -> Node | None:
    if isinstance(leaf, np.ndarray):
        return node_of_memory(leaf)
    return node_of_arrow(leaf)


def node_of(obj: Any) -> Node | None:
    """Return the node of a frame that is what was opened, or that a series or index lies in; else None."""
    if (origin := origin_of(obj)) is not None:
        return origin.node
    if isinstance(obj, pd.Series):
        return _node_of_leaf(_leaf(obj._mgr.blocks[0].values))
    if isinstance(obj, pd.MultiIndex):
        return _node_of_leaf(np.asarray(obj.codes[0])) if obj.nlevels else None
    if isinstance(obj, pd.Index) and not isinstance(obj, pd.RangeIndex):
        return _node_of_leaf(_leaf(obj._data))
    return None


def lies_in_region(frame: object) -> bool:
    """Return whether an object is a plain frame with all columns in shared memory, such as a slice."""
    if not isinstance(frame, pd.DataFrame):
        return False
    nodes = [_node_of_leaf(_leaf(block.values)) for block in frame._mgr.blocks]
    return bool(nodes) and all(node is not None and node.mapping.shared for node in nodes)


def refers_to_region(obj: Any) -> bool:
    """Return whether a pandas object is pickled as parts, one of which is a reference."""
    if isinstance(obj, pd.DataFrame | pd.Series):
        if origin_of(obj) is not None or column_of(obj) is not None:
            return False  # it is one reference
        blocks = [_node_of_leaf(_leaf(block.values)) for block in obj._mgr.blocks]
        return any(node is not None for node in blocks) or any(map(refers_to_region, obj.axes))
    if isinstance(obj, pd.MultiIndex):
        return any(map(refers_to_region, obj.levels)) or node_of(obj) is not None
    return node_of(obj) is not None


def name_of(obj: Any) -> Name | None:
    """Return the name of a whole column of a shared frame, or of anything whole of R's; else None."""
    node = node_of(obj) if isinstance(obj, pd.Series) or origin_of(obj) is not None else None
    if node is not None and node.mapping.is_r:
        if origin_of(obj) is not None:
            return node.name()
        own, all_of_it = _leaf(obj._mgr.blocks[0].values), decode(node)
        is_whole = address_of(own) == address_of(all_of_it) and own.shape == all_of_it.shape
        return node.name() if is_whole and own.strides == all_of_it.strides else None
    frame = block = node
    while frame is not None and not isinstance(frame.codec, FrameCodec):
        frame, block = frame.parent(), frame
    if node is None or frame is None or block is None:
        return None
    leaf, whole = _leaf(obj._mgr.blocks[0].values), _leaf(decode(node))
    row = 0
    if isinstance(leaf, np.ndarray):
        rows = whole if whole.ndim == 2 else whole[np.newaxis]
        start = address_of(leaf) - address_of(whole)
        row = start // (rows.strides[0] or 1)
        if row >= len(rows) or leaf.shape != rows[row].shape or start != row * rows.strides[0]:
            return None
    elif len(leaf) != len(whole):
        return None
    name = frame.name()
    if name is None or len(name.path) == MAX_STEPS:
        return None
    place = int(places_of(frame.meta, block.record.place - FIRST_BLOCK)[row])
    return name._replace(path=(*name.path, place))
