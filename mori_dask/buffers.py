"""Buffers over a region, recognised by their address when Dask pickles what refers to them.

A plain array that looks into a region (`numpy.asarray(x)`, a frame made over one, a view that a library has
taken) has no way of its own to pickle; its memory leaves the pickle as an out-of-band buffer. Where
references are wanted, the pickle is put into another one, which refers to that buffer. Nothing is recognised
by the bytes of a buffer: those are the user's. Here is said, too, how what is pickled for nobody in
particular is sent: by value.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import distributed.client
import distributed.protocol.pickle
import numpy as np

from mori import MoriError, adapters
from mori.adapters import Lost, transport_var, used
from mori_dask import config

__all__ = ["register"]


def register() -> None:
    """Patch Dask's `dumps` to refer to buffers that lie in regions."""
    module = distributed.protocol.pickle
    if getattr(module.dumps, "_mori", False):
        return
    module.dumps = distributed.client.dumps = _referring(module.dumps)


def _referring(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def dumps(
        x: Any,
        *,
        buffer_callback: Callable[[Any], object] | None = None,
        protocol: int = pickle.HIGHEST_PROTOCOL,
    ) -> Any:
        if not used.ever:
            collected: list[Any] = []
            collect = None if buffer_callback is None else collected.append
            pickled = plain(x, buffer_callback=collect, protocol=protocol)
            if not used.ever:
                for buffer in collected:
                    buffer_callback(buffer)  # type: ignore[misc]
                return pickled
            # The first region was made by what was pickled: once more, as it is to be sent.
        if (
            transport_var.get(None) is None
        ):  # such as the arguments of client.run: who gets them, is not known
            token = transport_var.set("value")
            try:
                return plain(x, buffer_callback=buffer_callback, protocol=protocol)
            finally:
                transport_var.reset(token)
        if buffer_callback is None:
            return plain(x, buffer_callback=buffer_callback, protocol=protocol)
        buffers: list[Any] = []
        pickled = plain(x, buffer_callback=buffers.append, protocol=protocol)
        if buffers and (least := config.least()):
            places = [_place(buffer, least) for buffer in buffers]
            if any(places):
                found = [place or buffer for place, buffer in zip(places, buffers, strict=True)]
                whole = _Referring(pickled, found)
                return pickle.dumps(whole, pickle.HIGHEST_PROTOCOL, buffer_callback=buffer_callback)
        for buffer in buffers:
            buffer_callback(buffer)
        return pickled

    dumps._mori = True  # type: ignore[attr-defined]
    return dumps


def _place(buffer: pickle.PickleBuffer, least: int) -> tuple[bytes, int, int] | None:
    """Return what `memory_of` takes for a buffer; None if it lies in no region, or bytes are wanted."""
    try:
        data = np.frombuffer(buffer.raw(), np.uint8)
    except BufferError:  # not contiguous
        return None
    if data.nbytes < least:
        return None
    return adapters.refer_to_memory(adapters.address_of(data), data.nbytes)


class _Referring:
    """A pickle and its buffers, with a tuple in place of each that lies in a region."""

    def __init__(self, pickled: bytes, buffers: list[Any]) -> None:
        self._pickled = pickled
        self._buffers = buffers

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self._pickled, self._buffers)


def _load(pickled: bytes, buffers: list[Any]) -> Any:
    """Return the object of a pickle; a `Lost` one where a region that it refers to is gone or damaged."""
    try:
        found = [
            memoryview(adapters.memory_of(*buffer)) if isinstance(buffer, tuple) else buffer
            for buffer in buffers
        ]
    except MoriError as error:  # what raises in here costs Dask more than the task
        return Lost(error)
    return pickle.loads(pickled, buffers=found)
