"""bytes, bytearray and memoryview: one byte that says which, and the bytes in one buffer.

bytes that are shorter than `LONG` are scalars, and a short bytearray goes by pickle: both come back as what
they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori.codecs.ndarray import NdarrayCodec
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.layout import Codec as Id
from mori.format.survey import LONG

__all__ = ["KINDS", "BytesCodec", "encode_bytes"]

KINDS: Final = (bytes, bytearray, memoryview)
"""What a node of this codec was, by the byte in its meta."""


def encode_bytes(obj: bytes | bytearray | memoryview) -> Encoded:
    """Take something apart whose elements are bytes."""
    return Encoded(bytes([KINDS.index(type(obj))]), (np.asarray(memoryview(obj).cast("B")),), codec=Id.BYTES)


class BytesCodec(BuiltinCodec):
    """A bytearray, or a memoryview; ScalarCodec hands long bytes over."""

    id = Id.BYTES

    def encode(self, obj: bytearray | memoryview | npt.NDArray[np.uint8]) -> Encoded | None:
        if isinstance(obj, np.ndarray):  # SharedBytes
            return Encoded(bytes([KINDS.index(obj._kind)]), (obj.view(np.ndarray),))  # type: ignore[attr-defined]
        if type(obj) is bytearray:
            return encode_bytes(obj) if len(obj) >= LONG else None
        assert type(obj) is memoryview
        if obj.ndim == 1 and obj.format in ("B", "c"):
            return encode_bytes(obj if obj.contiguous else memoryview(obj.tobytes()))
        array = NdarrayCodec().encode(np.asarray(obj))
        if array is None:
            raise TypeError(f"a memoryview of {obj.format!r} holds no plain elements")
        return array._replace(codec=Id.NDARRAY)  # of numbers: it comes back as an array of them

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> npt.NDArray[np.uint8]:
        (kind,) = meta
        (data,) = buffers
        if kind >= len(KINDS) or len(children):
            raise ValueError(f"bytes of the kind {kind} with {len(children)} parts")
        return data
