"""Arrays of Python objects and of numpy's variable-width strings: rebuilt when they are opened.

Objects are one pickled list, so that they keep their types and the arrays among them lie in the region;
arrays with objects in their fields, and strings, are pickled whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mori.codecs.meta import from_json, to_json
from mori.format.codec import Buffers, BuiltinCodec, Encoded, Pickled
from mori.format.layout import Codec as Id

__all__ = ["ObjectsCodec", "encode_objects"]


def encode_objects(obj: npt.NDArray[Any]) -> Encoded:
    """Take an array apart whose elements are no plain bytes; it keeps its class."""
    meta: list[Any] = [obj.dtype.kind, obj.shape]
    content: object = obj
    if type(obj) in _BARE and obj.dtype.kind == "O" and not obj.dtype.metadata:
        order = _order_of(obj)
        meta.append(order)
        content = list(obj.view(np.ndarray).ravel(order))
    return Encoded(to_json(meta), (), (Pickled(content),), codec=Id.OBJECT_ARRAY)


def _order_of(array: npt.NDArray[Any]) -> Literal["C", "F"]:
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def _filled(objects: Any, shape: list[int], order: str) -> npt.NDArray[Any]:
    if type(objects) is not list or math.prod(shape) != len(objects):
        raise ValueError(f"{type(objects).__name__} for {shape} objects")
    flat = np.fromiter(objects, object, len(objects))
    return flat.reshape(shape, order="F" if order == "F" else "C")


class ObjectsCodec(BuiltinCodec):
    """An array whose elements are objects, or hold some."""

    id = Id.OBJECT_ARRAY

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> npt.NDArray[Any]:
        kind, shape, *order = from_json(meta)
        (content,) = children
        array = _filled(content, shape, *order) if order else content
        if not isinstance(array, np.ndarray) or [array.dtype.kind, list(array.shape)] != [kind, shape]:
            raise ValueError(f"{type(array).__name__} for an array of {shape}")
        return array


_BARE: Final = {np.ndarray}  # the classes that have nothing but their elements
