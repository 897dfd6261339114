"""None, numbers, strings and bytes: one tag and their value, in the meta; long bytes stand in a buffer.

Exact types only: True is not 1 and 1 is not 1.0. bytes that are shorter than `LONG` are scalars, and a short
bytearray goes by pickle: both come back as what they were.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori.codecs.ndarray import NdarrayCodec, dtype_from_plain, dtype_to_plain
from mori.format import codec
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.layout import Id
from mori.format.survey import LONG

__all__ = ["KINDS", "BytesCodec", "ScalarCodec"]

_IN_META: Final = 1 << 16  # bytes; the checksum of the meta is computed at every opening
_FLOAT: Final = struct.Struct("<d")
_COMPLEX: Final = struct.Struct("<dd")


class ScalarCodec(BuiltinCodec):
    """One small immutable value."""

    id = Id.SCALAR
    is_value = True

    def encode(self, obj: Any) -> Encoded | None:
        cls = type(obj)
        if obj is None:
            meta = b"n"
        elif cls is bool:
            meta = b"t" if obj else b"f"
        elif cls is int:
            meta = b"i" + obj.to_bytes(obj.bit_length() // 8 + 1, "little", signed=True)
        elif cls is float:
            meta = b"d" + _FLOAT.pack(obj)
        elif cls is complex:
            meta = b"c" + _COMPLEX.pack(obj.real, obj.imag)
        elif cls is str:
            meta = b"s" + obj.encode("utf-8", "surrogatepass")
        elif cls is bytes:
            if len(obj) >= LONG:
                return _encode_bytes(obj)
            meta = b"b" + obj
        elif cls.__module__ == "numpy" and obj.dtype.kind in "biufcmM":
            meta = b"g" + dtype_to_plain(obj.dtype).encode() + b"\0" + obj.tobytes()
        else:
            return None
        return Encoded(meta) if len(meta) <= _IN_META else None

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        tag, body = meta[:1], meta[1:]
        if tag in b"ntf":
            return {b"n": None, b"t": True, b"f": False}[tag]
        if tag == b"i":
            return int.from_bytes(body, "little", signed=True)
        if tag == b"d":
            return _FLOAT.unpack(body)[0]
        if tag == b"c":
            return complex(*_COMPLEX.unpack(body))
        if tag == b"s":
            return body.decode("utf-8", "surrogatepass")
        if tag == b"b":
            return body
        if tag == b"g":
            name, _, data = body.partition(b"\0")
            return np.frombuffer(data, dtype_from_plain(name.decode()))[0]
        raise ValueError(f"there is no scalar with the tag {tag!r}")

    def has_mapped(self, children: int, buffers: int) -> bool:
        return False


KINDS: Final = (bytes, bytearray, memoryview)
"""The types of the objects, by the byte in the meta."""


def _encode_bytes(obj: bytes | bytearray | memoryview) -> Encoded:
    """Return bytes as one buffer."""
    return Encoded(bytes([KINDS.index(type(obj))]), (np.asarray(memoryview(obj).cast("B")),), codec=Id.BYTES)


class BytesCodec(BuiltinCodec):
    """A bytearray, or a memoryview; ScalarCodec hands long bytes over."""

    id = Id.BYTES

    def encode(self, obj: bytearray | memoryview | npt.NDArray[np.uint8]) -> Encoded | None:
        if isinstance(obj, np.ndarray):  # SharedBytes
            return Encoded(bytes([KINDS.index(obj._kind)]), (obj.view(np.ndarray),))  # type: ignore[attr-defined]
        if type(obj) is bytearray:
            return _encode_bytes(obj) if len(obj) >= LONG else None
        assert type(obj) is memoryview
        if obj.ndim == 1 and obj.format in ("B", "c"):
            return _encode_bytes(obj if obj.contiguous else memoryview(obj.tobytes()))
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


codec.register(
    ScalarCodec(),
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    *(np.dtype(code).type for code in "?bBhHiIlLqQefdgFDGmM"),
)
