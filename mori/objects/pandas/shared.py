"""Frames and series over a region, in pandas' own classes or the user's, and the way back to private ones.

A frame pickles as a reference for as long as it is what was opened, and so does each of its columns. Its
class is not mori's, as libraries ask for that by its name: a reducer of the class looks at each frame.

Notes
-----
Writes are local: pandas' copy-on-write copies the touched column, and no other. An untouched frame pickles as
a reference, a written one as a frame whose untouched columns are references.
"""

from __future__ import annotations

import copy
import copyreg
import pickle
import weakref
from collections.abc import Callable
from typing import Any, Final

import pandas as pd

from mori.codecs.pandas.frames import FrameCodec, SeriesCodec
from mori.codecs.pandas.subclasses import SubclassCodec, metadata_of
from mori.format.atoms import types_of
from mori.format.codec import Codec, register
from mori.format.node import Node
from mori.format.refcounts import ATOMS
from mori.objects.pandas.arrow import is_same_column, plain_column
from mori.objects.pandas.managers import CAN_PROTECT, is_over, plain_manager, protected, unprotected
from mori.objects.pandas.templates import State, Template, template_of
from mori.wire import reference, transport
from mori.wire.compare import is_written_alike
from mori.wire.lost import Lost

__all__ = ["SharedFrameCodec", "SharedSeriesCodec", "materialize_pandas", "origin_of", "plain_over"]


def _labels(axis: Any) -> tuple[Any, ...]:
    """Return what can be changed of an index in place."""
    return (*axis.names, getattr(axis, "freq", None))


def _state_of(obj: Any) -> State:
    labels = list(map(_labels, obj._mgr.axes))
    attrs = copy.deepcopy(obj.attrs) if obj.attrs else {}
    return State(labels, attrs, obj.flags.allows_duplicate_labels, metadata_of(obj))


class _Origin:
    """The node of a frame or series, and what that looked like when it was opened."""

    __slots__ = ("_axes", "_holds_mutable", "_is_sought", "_values", "node", "state", "template")

    def __init__(self, node: Node, obj: Any, state: State, template: Template | None = None) -> None:
        self.node: Node = node
        self.state: State = state
        self.template: Template | None = template
        self._values = [block.values for block in obj._mgr.blocks]
        self._axes = list(obj._mgr.axes)  # pandas changes its own in place
        self._holds_mutable: bool | None = None
        self._is_sought = False  # a template, for its columns

    def has_column(self, place: int, column: Any) -> bool:
        """Return whether a series is a column of the frame as that was opened, with its index and name."""
        (block,), (index,) = column._mgr.blocks, column._mgr.axes
        if not index.is_(self._axes[1]) or _labels(index) != self.state.labels[1]:
            return False
        if place >= len(self._axes[0]):  # the frame has got more
            return False
        if column.attrs or not column.flags.allows_duplicate_labels:
            return False
        if self.template is None and not self._is_sought:  # of a frame inside a container
            self._is_sought = True
            self.template = template_of(self.node, self.node.open(), self.state)
        if self.template is None:
            return False
        own = self.template.open()._ixs(place, axis=1)
        values, theirs = own._mgr.blocks[0].values, block.values
        return (
            _are_same({"name": column.name}, {"name": own.name})
            and type(column.name) is type(own.name)
            and values.dtype == theirs.dtype
            and (is_over(values, theirs) or is_same_column(values, theirs))
        )

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
            and (not self._may_hide_writes() or is_written_alike(self.node, obj))
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
        _give_origin(made, _Origin(found.node, made, found.state, found))
        return made

    node.mapping.remember(node.offset, reopen)


def _are_same(now: dict[str, Any], then: dict[str, Any]) -> bool:
    try:
        return now.keys() == then.keys() and all(
            now[key] is then[key] or now[key] == then[key] for key in now
        )
    except (TypeError, ValueError):  # arrays and NA, whose equality has no truth
        return False


def origin_of(obj: object) -> _Origin | None:
    """Return the origin of a frame or series that still is what was opened; None for any other object."""
    origin = vars(obj).get("_mori") if isinstance(obj, pd.DataFrame | pd.Series) else None
    return origin if origin is not None and origin.is_intact(obj) else None


def _reducer(usual: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Return a reducer that refers to the region of a frame or series, and does as before with any other."""

    def reduce(obj: Any) -> Any:
        origin = origin_of(obj)
        if origin is None:
            if (column := column_of(obj)) is not None and transport.is_wanted(column[0].mapping):
                return _column, (_Reference(column[0]), column[1])
            # What was not written to goes as references all the same. All later protocols reduce it alike.
            return obj.__reduce_ex__(2) if usual is None else usual(obj)
        if transport.is_wanted(origin.node.mapping):
            return reference.by_reference(origin.node.mapping, origin.node.offset)
        return _unchanged, (_ByValue(origin.node),)

    return reduce


def column_of(obj: Any) -> tuple[Node, int] | None:
    """Return the node of the frame that a series is a whole column of, and its place; None for any other."""
    if type(obj) is not pd.Series or (taken := getattr(obj._mgr, "column", None)) is None:
        return None
    origin, place = taken
    return (origin.node, place) if origin.has_column(place, obj) else None


def _column(frame: Any, place: int) -> Any:
    return frame if isinstance(frame, Lost) else frame.iloc[:, place]


class _Reference:
    """Pickles as a reference to a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __reduce__(self) -> Any:
        return reference.by_reference(self._node.mapping, self._node.offset)


class _ByValue:
    """Pickles as the bytes of a node: reducers are not told the protocol, and an object is."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reference.by_value(self._node, protocol)


_reduced: Final[weakref.WeakSet[type]] = weakref.WeakSet()


def _register_reducer(cls: type) -> None:
    """Make every pickler look whether a frame of a class, pandas' own or a user's, lies in a region."""
    if cls not in _reduced:
        _reduced.add(cls)
        copyreg.pickle(cls, _reducer(copyreg.dispatch_table.get(cls)))


def _unchanged(obj: Any) -> Any:
    return obj


def _wrap(node: Node, obj: Any) -> Any:
    """Return a frame or series that was read from a node, with what it needs to be known and written to."""
    state = _state_of(obj)
    object.__setattr__(obj, "_mgr", protected(obj._mgr))
    if not CAN_PROTECT:  # a shallow copy beside it, so that pandas copies before it writes
        object.__setattr__(obj, "_mori_shadow", obj.copy(deep=False))
    _give_origin(obj, _Origin(node, obj, state))
    _register_reducer(type(obj))
    return obj


def _give_origin(obj: Any, origin: _Origin) -> None:
    object.__setattr__(obj, "_mori", origin)
    if type(obj) is pd.DataFrame and CAN_PROTECT:
        obj._mgr.origin = origin


def plain_over(x: Any) -> Any:
    """Return pandas' own object over the memory of a shared frame's manager, or of a column.

    None for any other object. What it is made of may be mori's.
    """
    manager = plain_manager(x)
    return plain_column(x) if manager is None else manager


def materialize_pandas(x: Any) -> Any:
    """Return a private deep copy of a pandas object, Arrow's buffers included."""
    if not isinstance(x, pd.DataFrame | pd.Series | pd.Index):
        return x
    # What was pickled from read-only memory is read-only: copy, and leave nothing of mori behind.
    with transport.use_transport("value"):
        if isinstance(x, pd.Index):
            return pickle.loads(pickle.dumps(x, 5)).copy(deep=True)
        make, arguments, state = x.__reduce_ex__(2)[:3]  # the reducer would send the region
        private = make(*arguments)
        private.__setstate__(pickle.loads(pickle.dumps(state, 5)))
    return unprotected(private.copy(deep=True))


class _Frames(Codec):
    """How frames and series are opened, reopened and copied."""

    def open(self, node: Node) -> Any:
        return _wrap(node, self.read(node))

    def note_opened(self, node: Node, obj: Any) -> None:
        _note_opened(node, obj)

    def is_intact(self, node: Node, obj: Any) -> bool:
        return origin_of(obj) is not None

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        origin = vars(obj).get("_mori")
        if origin is not None and origin.node.mapping.is_writable:
            return origin.node.codec.read(origin.node)
        return materialize_pandas(obj)


class SharedFrameCodec(_Frames, FrameCodec):
    """DataFrames."""

    def part(self, node: Node, number: int) -> None:
        """Return None: a column may be a row of a block."""

    def inside(self, obj: Any, number: int) -> Any:
        if number >= obj.shape[1]:
            raise IndexError(f"the frame has {obj.shape[1]} columns")
        return obj.iloc[:, number]


class SharedSeriesCodec(_Frames, SeriesCodec):
    """Series."""


class _SubclassCodec(_Frames, SubclassCodec):
    """Frames and series of a user's class, which are opened anew each time."""

    def note_opened(self, node: Node, obj: Any) -> None:
        """Remember nothing."""


_register_reducer(pd.Series)
register(SharedFrameCodec(), pd.DataFrame)
register(SharedSeriesCodec(), pd.Series)
register(_SubclassCodec(), derived_from=(pd.DataFrame, pd.Series))
