"""What the user holds of pyarrow: its own objects, which multiprocessing and engines send as references.

Imports reference, rebuilt and the Arrow codecs; it is imported when the first of their nodes is opened.
pyarrow's classes cannot be told how to pickle, so picklers are told: that of multiprocessing, and all others
while an engine's adapter has said where a dump goes. These objects cannot be changed once they are made:
one that was opened is what its node says.
"""

from __future__ import annotations

import copyreg
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mori.format import codec
from mori.format.layout import Codec as Id
from mori.format.node import Node, decode, opener
from mori.objects import origins
from mori.wire import reference

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
    return _reference(obj) if reference.is_said() else None


def _reference(obj: Any) -> Any:
    node = origins.node_of(obj)
    if node is None or not reference.is_wanted(node.mapping):
        return None
    return reference.by_reference(node.mapping, node.offset)


def _reduce_for_engine(obj: Any) -> Any:
    return reference_for_engine(obj) or obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)


def _open(node: Node) -> Any:
    obj = decode(node)
    ForkingPickler.register(type(obj), reduce)
    copyreg.dispatch_table.setdefault(type(obj), _reduce_for_engine)
    return origins.remember(obj, node)


for _number in (Id.ARROW_ARRAY, Id.ARROW_CHUNKED_ARRAY, Id.ARROW_RECORD_BATCH, Id.ARROW_TABLE):
    codec.for_id(_number)
    opener(_number)(_open)
