"""What the user holds of pyarrow: its own objects, which multiprocessing sends as references.

Imports reference, rebuilt and the Arrow codecs; it is imported when the first of their nodes is opened.
pyarrow's classes cannot be told how to pickle, so the pickler of multiprocessing is told. They cannot be
changed once they are made: an object that was opened is what its node says.
"""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mori import codec, rebuilt, reference
from mori.layout import Codec as Id
from mori.reader import Node, decode, opener

__all__ = ["reduce"]


def reduce(obj: Any) -> Any:
    """Return what ``__reduce_ex__`` returns for a pyarrow object: a reference for one that was opened.

    For adapters: what an engine registers for a class of pyarrow's. What was derived from a shared
    object (a slice, a column) goes as pyarrow pickles it.
    """
    node = rebuilt.node_of(obj)
    if node is not None and reference.is_wanted(node.mapping):
        return reference.by_reference(node.mapping, node.offset)
    return obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)


def _open(node: Node) -> Any:
    obj = decode(node)
    ForkingPickler.register(type(obj), reduce)
    return rebuilt.remember(obj, node)


for _number in (Id.ARROW_ARRAY, Id.ARROW_CHUNKED_ARRAY, Id.ARROW_RECORD_BATCH, Id.ARROW_TABLE):
    codec.for_id(_number)
    opener(_number)(_open)
