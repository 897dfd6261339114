"""`SharedDataFrame` and `SharedSeries`, what the user holds, and the way back to private ones.

A frame pickles as a reference for as long as it is what was opened, and so does each of its columns.
"""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame, Series

from mori.codecs.pandas.frames import FrameCodec, SeriesCodec
from mori.codecs.pandas.subclasses import OWN_CLASS, SubclassCodec, metadata_of, of_class, plain_of
from mori.format.atoms import types_of
from mori.format.codec import Codec, register
from mori.format.node import Node
from mori.format.refcounts import ATOMS
from mori.objects.pandas.arrow import plain_column
from mori.objects.pandas.managers import CAN_PROTECT, plain_manager, protected, unprotected
from mori.objects.pandas.templates import State, Template, is_made_plainly, made_of, template_of
from mori.wire import reference, transport
from mori.wire.compare import is_unchanged

if TYPE_CHECKING:  # pandas comes without types of its own
    DataFrame = Series = object

__all__ = ["Shared", "SharedDataFrame", "SharedSeries", "materialize_pandas", "plain_over"]


_FRAME: Any = pd.DataFrame()
_SERIES: Any = pd.Series([], dtype=float)


def _labels(axis: Any) -> tuple[Any, ...]:
    """Return what can be changed of an index in place."""
    return (*axis.names, getattr(axis, "freq", None))


def _state_of(obj: Any) -> State:
    labels = list(map(_labels, obj._mgr.axes))
    attrs = copy.deepcopy(obj.attrs) if obj.attrs else {}
    return State(labels, attrs, obj.flags.allows_duplicate_labels, metadata_of(obj))


class _Origin:
    """The node of a frame or series, and what that looked like when it was opened."""

    __slots__ = ("_axes", "_holds_mutable", "_values", "node", "state", "template")

    def __init__(self, node: Node, obj: Any, state: State, template: Template | None = None) -> None:
        self.node, self.state, self.template = node, state, template
        self._values = [block.values for block in obj._mgr.blocks]
        self._axes = list(obj._mgr.axes)  # pandas changes its own in place
        self._holds_mutable: bool | None = None

    def is_intact(self, obj: Any) -> bool:
        blocks, axes = obj._mgr.blocks, obj._mgr.axes
        labels, attrs, flags, own = self.state
        return (
            len(blocks) == len(self._values)
            and all(block.values is values for block, values in zip(blocks, self._values, strict=True))
            and all(now is then for now, then in zip(axes, self._axes, strict=True))
            and all(_labels(now) == then for now, then in zip(axes, labels, strict=True))
            and _are_same(obj.attrs, attrs)
            and obj.flags.allows_duplicate_labels == flags
            and _are_same(metadata_of(obj), own)
            and (not self._may_hide_writes() or is_unchanged(self.node, obj))
        )

    def _may_hide_writes(self) -> bool:
        """Return whether a column has objects that can be written to: of those nothing tells."""
        if self._holds_mutable is None:
            objects = [values for values in self._values if values.dtype == object]
            kinds = {kind for values in objects for kind in types_of(values.ravel().tolist())}
            self._holds_mutable = not kinds <= ATOMS
        return self._holds_mutable


def _note_opened(node: Node, obj: Any) -> None:
    template = obj._mori.template = template_of(node, obj, obj._mori.state)
    if template is None:
        return
    known = weakref.ref(template)

    def reopen(_: Any) -> Any:
        found = known()
        if found is None:
            return None
        made = found.open()
        object.__setattr__(made, "_mori", _Origin(found.node, made, found.state, found))
        return made

    node.mapping.remember(node.offset, reopen)


def _are_same(now: dict[str, Any], then: dict[str, Any]) -> bool:
    try:
        return now.keys() == then.keys() and all(
            now[key] is then[key] or now[key] == then[key] for key in now
        )
    except (TypeError, ValueError):  # arrays and NA, whose equality has no truth
        return False


class Shared:
    """What shared frames and series have in common, those of a user's classes among them."""

    _mori: _Origin | None = None

    def _mori_is_intact(self) -> bool:
        return self._mori is not None and self._mori.is_intact(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        origin = self._mori
        if origin is None or not origin.is_intact(self):
            # Blocks that were not written to go as references all the same.
            return _unchanged, (_plain(self),)
        if transport.is_wanted(origin.node.mapping):
            return reference.by_reference(origin.node.mapping, origin.node.offset)
        return reference.by_value(origin.node, protocol)


def _unchanged(obj: Any) -> Any:
    return obj


def _plain(obj: Any) -> Any:
    """Return a frame or series of the class that was shared, over the same blocks."""
    own = getattr(type(obj), OWN_CLASS, None)
    plain = plain_of(obj)
    return plain if own is None else of_class(own, plain, metadata_of(obj))


class SharedDataFrame(Shared, DataFrame):
    """A DataFrame whose columns lie in shared memory, mapped by every process of the host.

    Made by `mori.share`. What is derived from it is plain pandas; columns, slices and whatever else
    pandas does not copy still refer to the region, keep it alive, and pickle as references.

    Notes
    -----
    Writes are local: pandas' copy-on-write copies the touched column, and no other. An untouched frame
    pickles as a reference, a written one as a plain frame whose untouched columns are references.
    """

    # What is derived is plain pandas, made as pandas makes it of its own class: without a second constructor.

    def _constructor_from_mgr(self, mgr: Any, axes: Any) -> pd.DataFrame:
        return _FRAME._constructor_from_mgr(mgr, axes)

    def _constructor_sliced_from_mgr(self, mgr: Any, axes: Any) -> pd.Series[Any]:
        return _FRAME._constructor_sliced_from_mgr(mgr, axes)


class SharedSeries(Shared, Series):
    """A Series whose values and index lie in shared memory; see `SharedDataFrame`."""

    def _constructor_from_mgr(self, mgr: Any, axes: Any) -> pd.Series[Any]:
        return _SERIES._constructor_from_mgr(mgr, axes)

    def _constructor_expanddim_from_mgr(self, mgr: Any, axes: Any) -> pd.DataFrame:
        return _SERIES._constructor_expanddim_from_mgr(mgr, axes)


def _wrap(cls: Any, node: Node, plain: Any) -> Any:
    state, manager = _state_of(plain), protected(plain._mgr)
    if is_made_plainly(cls):
        shared = made_of(cls, manager, state, plain.attrs)
    else:
        shared = of_class(cls, plain, state.own)
        shared._mgr = manager
    if not CAN_PROTECT:  # a shallow copy beside it, so that pandas copies before it writes
        object.__setattr__(shared, "_mori_shadow", shared.copy(deep=False))
    object.__setattr__(shared, "_mori", _Origin(node, shared, state))
    return shared


_shared_classes: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()


def _shared_class(cls: type) -> type:
    """Return the class of what is shared of a user's class."""
    shared = _shared_classes.get(cls)
    if shared is None:
        names = {OWN_CLASS: cls, "__module__": cls.__module__, "__doc__": cls.__doc__}
        made = type(f"Shared{cls.__name__}", (Shared, cls), names)
        shared = _shared_classes.setdefault(cls, made)  # of two threads, the first one's
    return shared


def plain_over(x: Any) -> Any:
    """Return pandas' own object over the memory of a shared frame or series, of its manager, or of a column.

    None for any other object. What it is made of may be mori's.
    """
    if isinstance(x, Shared):
        return _plain(x)
    manager = plain_manager(x)
    return plain_column(x) if manager is None else manager


def materialize_pandas(x: Any) -> Any:
    """Return a private deep copy of a pandas object, Arrow's buffers included."""
    if not isinstance(x, pd.DataFrame | pd.Series | pd.Index):
        return x
    with transport.use_transport("value"):
        private = pickle.loads(pickle.dumps(_plain(x) if isinstance(x, Shared) else x, 5))
    # What was pickled from read-only memory is read-only: copy, and leave nothing of mori behind.
    if isinstance(x, pd.Index):
        return private.copy(deep=True)
    return unprotected(private.copy(deep=True))


class _Frames(Codec):
    """How frames and series are opened, reopened and copied."""

    def note_opened(self, node: Node, obj: Any) -> None:
        _note_opened(node, obj)

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        origin = obj._mori if isinstance(obj, Shared) else None
        if origin is not None and origin.node.mapping.is_writable:
            return self.read(origin.node)
        return materialize_pandas(obj)


class _FrameCodec(_Frames, FrameCodec):
    """DataFrames."""

    def open(self, node: Node) -> SharedDataFrame:
        shared: SharedDataFrame = _wrap(SharedDataFrame, node, self.read(node))
        return shared

    def part(self, node: Node, number: int) -> None:
        """Return None: a column may be a row of a block."""

    def inside(self, obj: Any, number: int) -> Any:
        if number >= obj.shape[1]:
            raise IndexError(f"the frame has {obj.shape[1]} columns")
        return obj.iloc[:, number]


class _SeriesCodec(_Frames, SeriesCodec):
    """Series."""

    def open(self, node: Node) -> SharedSeries:
        shared: SharedSeries = _wrap(SharedSeries, node, self.read(node))
        return shared


class _SubclassCodec(_Frames, SubclassCodec):
    """Frames and series of a user's class, which are opened anew each time."""

    def open(self, node: Node) -> Any:
        plain = self.read(node)
        return _wrap(_shared_class(type(plain)), node, plain)

    def note_opened(self, node: Node, obj: Any) -> None:
        """Remember nothing."""


register(_FrameCodec(), pd.DataFrame, SharedDataFrame)
register(_SeriesCodec(), pd.Series, SharedSeries)
register(_SubclassCodec(), derived_from=(pd.DataFrame, pd.Series))
