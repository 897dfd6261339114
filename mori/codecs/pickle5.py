"""Anything else that pickles: its pickle in one buffer, its out-of-band buffers in those behind.

Imports codec and layout; cloudpickle where plain pickle cannot. The only place where mori unpickles
what a region holds; the stream is checked against its checksum first.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mori import codec
from mori.codec import Buffers, Encoded, Pickled
from mori.layout import Codec as Id

__all__ = ["PickleCodec", "dumps", "is_intact"]

_META: Final = struct.Struct("<I")


def dumps(obj: object) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Pickle an object with its buffers out of band; by cloudpickle where plain pickle would not serve."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        data = pickle.dumps(obj, 5, buffer_callback=buffers.append)
        if b"__main__" not in data:  # another process has another __main__
            return data, buffers
    except Exception as error:
        fault: Exception | None = error
    else:
        fault = None
    try:
        import cloudpickle
    except ImportError:
        if fault is not None:
            raise fault from None
        return data, buffers
    buffers = []
    return cloudpickle.dumps(obj, 5, buffer_callback=buffers.append), buffers


def is_intact(meta: bytes, buffers: Buffers) -> bool:
    """Say whether the pickle is the one that was written."""
    return bool(buffers) and meta == _META.pack(zlib.crc32(buffers[0]))


class PickleCodec:
    """An object by protocol 5."""

    id = Id.PICKLE

    def encode(self, obj: Any) -> Encoded:
        data, buffers = dumps(obj.value if isinstance(obj, Pickled) else obj)
        arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
        return Encoded(_META.pack(zlib.crc32(data)), [np.frombuffer(data, np.uint8), *arrays])

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        stream, *rest = buffers
        return pickle.loads(stream, buffers=rest)

    def step(self, obj: Any, index: int) -> str:
        raise AssertionError("a pickled object has no parts")


codec.register(PickleCodec(), Pickled)
