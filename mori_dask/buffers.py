"""Buffers over a region, recognised by their address when Dask pickles what refers to them.

Imports distributed, mori and config. A plain array that looks into a region (`numpy.asarray(x)`, a frame made
over one, a view that a library has taken) has no way of its own to pickle; its memory leaves the pickle as an
out-of-band buffer. Where references are wanted, a name of the bytes goes in its place. Here is said, too,
how what is pickled for nobody in particular travels: by value.
"""

from __future__ import annotations

import functools
import pickle
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

import distributed.client
import distributed.protocol.pickle
import numpy as np

from mori import reference, region
from mori.errors import MoriError
from mori.reference import Lost, way
from mori.region import used
from mori_dask import config

__all__ = ["register"]

_MAGIC: Final = bytes.fromhex("8f3c1d6ae2b94705916d0cf2a7583be4")
_NAME: Final = struct.Struct("<16sQQ41s")  # magic, offset in the region, bytes, reference to the region


def register() -> None:
    """Have Dask's pickling name the buffers that lie in regions."""
    module = distributed.protocol.pickle
    if getattr(module.dumps, "_mori", False):
        return
    module.dumps = distributed.client.dumps = _naming(module.dumps)
    module.loads = distributed.client.loads = _finding(module.loads)


def _naming(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def dumps(
        x: Any,
        *,
        buffer_callback: Callable[[Any], object] | None = None,
        protocol: int = pickle.HIGHEST_PROTOCOL,
    ) -> Any:
        if not used.ever:
            handed_out: list[Any] = []
            collect = None if buffer_callback is None else handed_out.append
            pickled = plain(x, buffer_callback=collect, protocol=protocol)
            if not used.ever:
                for buffer in handed_out:
                    buffer_callback(buffer)  # type: ignore[misc]
                return pickled
            # The first region was made by what was pickled: once more, as it is to travel.
        if way.get(None) is None:  # such as the arguments of client.run: who gets them, is not known
            token = way.set("value")
            try:
                return plain(x, buffer_callback=buffer_callback, protocol=protocol)
            finally:
                way.reset(token)
        if buffer_callback is None:
            return plain(x, buffer_callback=buffer_callback, protocol=protocol)
        buffers: list[Any] = []
        pickled = plain(x, buffer_callback=buffers.append, protocol=protocol)
        least = config.least() if buffers else None
        for buffer in buffers:
            buffer_callback((_name(buffer, least) if least else None) or buffer)
        return pickled

    dumps._mori = True  # type: ignore[attr-defined]
    return dumps


def _name(buffer: pickle.PickleBuffer, least: int) -> bytes | None:
    """Return what stands for a buffer; None if it lies in no region, or its bytes are wanted."""
    try:
        data = np.frombuffer(buffer.raw(), np.uint8)
    except BufferError:  # not contiguous
        return None
    if data.nbytes < least:
        return None
    address = data.__array_interface__["data"][0]
    mapping = region.at(address, data.nbytes)
    if mapping is None or not reference.is_wanted(mapping):
        return None
    function, arguments = reference.by_reference(mapping, mapping.header.root)[:2]
    if function is not reference.load or len(arguments[0]) != 41:
        return None
    return _NAME.pack(_MAGIC, address - mapping.address, data.nbytes, arguments[0])


def _finding(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def loads(x: Any, *, buffers: Iterable[Any] = ()) -> Any:
        if not buffers:
            return plain(x, buffers=buffers)
        try:
            found = [_found(buffer) for buffer in buffers]
        except MoriError as error:  # what raises in here costs Dask more than the task
            return Lost(error, b"")
        return plain(x, buffers=found)

    return loads


def _found(buffer: Any) -> Any:
    view = memoryview(buffer)
    if view.nbytes != _NAME.size or bytes(view[:16]) != _MAGIC:
        return buffer
    _, offset, nbytes, payload = _NAME.unpack(view)
    return memoryview(reference.span(payload, offset, nbytes))
