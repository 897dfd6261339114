"""What the user holds of pyarrow: its own objects, which multiprocessing and engines send as references.

pyarrow's classes cannot be told how to pickle, so picklers are told: that of multiprocessing, and all others
while an engine's adapter has said where a dump goes. These objects cannot be changed once they are made: one
that was opened is what its node says.
"""

from __future__ import annotations

import copyreg
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pyarrow as pa

from mori.codecs.arrow import ARRAYS, ArrayCodec, ChunkedCodec, TableCodec
from mori.format import origins
from mori.format.codec import RebuiltCodec, register
from mori.format.layout import Codec as Id
from mori.format.node import Node
from mori.wire import reference, transport

__all__ = ["reduce", "reference_for_engine"]


def reduce(obj: Any) -> Any:
    """Return what ``__reduce_ex__`` returns for a pyarrow object: a reference for one that was opened.

    What was derived from a shared object (a slice, a column) goes as pyarrow pickles it.
    """
    return _reference(obj) or obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)


def reference_for_engine(obj: Any) -> Any:
    """Return what ``__reduce_ex__`` returns for a reference, None where the object has to go its own way.

    For adapters, whose engines have serializers of their own for pyarrow's classes. A reference is for what
    was opened, in a dump of which an adapter has said that it goes to where the region can be opened.
    """
    return _reference(obj) if transport.is_set() else None


def _reference(obj: Any) -> Any:
    node = origins.node_of(obj)
    if node is None or not transport.is_wanted(node.mapping):
        return None
    return reference.by_reference(node.mapping, node.offset)


def _reduce_for_engine(obj: Any) -> Any:
    return reference_for_engine(obj) or obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)


class _Opened(RebuiltCodec):
    """How Arrow's objects are opened: picklers are told of their classes."""

    def open(self, node: Node) -> Any:
        obj = super().open(node)
        ForkingPickler.register(type(obj), reduce)
        copyreg.dispatch_table.setdefault(type(obj), _reduce_for_engine)
        return obj


class _ArrayCodec(_Opened, ArrayCodec):
    """Arrays."""


class _ChunkedCodec(_Opened, ChunkedCodec):
    """Chunked arrays."""


class _TableCodec(_Opened, TableCodec):
    """Tables and record batches."""


register(_ArrayCodec(), *ARRAYS)
register(_ChunkedCodec(), pa.ChunkedArray)
register(_TableCodec(Id.ARROW_TABLE, pa.Table, pa.ChunkedArray), pa.Table)
register(_TableCodec(Id.ARROW_RECORD_BATCH, pa.RecordBatch, pa.Array), pa.RecordBatch)
