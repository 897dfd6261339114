"""`SharedDataFrame` and `SharedSeries`, what the user holds, and the way back to private ones.

Imports managers, reference, reader and the codecs. A frame pickles as a reference for as long as it is
what was opened, and so does each of its columns.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pandas as pd

from mori import codec, reference
from mori.frames.managers import protect, unprotected
from mori.layout import Codec as Id
from mori.reader import Node, decode, opener

__all__ = ["SharedDataFrame", "SharedSeries", "materialize_pandas"]


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
            return _unchanged, (_plain(self),)
        if reference.is_wanted(origin.node.mapping):
            return reference.by_reference(origin.node.mapping, origin.node.offset)
        return reference.by_value(origin.node, protocol)


def _unchanged(obj: Any) -> Any:
    return obj


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
    protect(shared)
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


def materialize_pandas(x: Any) -> Any:
    """Return a private deep copy of a pandas object, Arrow's buffers included."""
    if not isinstance(x, pd.DataFrame | pd.Series | pd.Index):
        return x
    with reference.travel("value"):
        private = pickle.loads(pickle.dumps(_plain(x) if isinstance(x, _Shared) else x, 5))
    # What was pickled from read-only memory is read-only: copy, and leave nothing of mori behind.
    if isinstance(x, pd.Index):
        return private.copy(deep=True)
    return unprotected(private.copy(deep=True))


for _id, _cls in ((Id.DATAFRAME, SharedDataFrame), (Id.SERIES, SharedSeries)):
    _codec = codec.for_id(_id)
    assert _codec is not None
    codec.register(_codec, _cls)
