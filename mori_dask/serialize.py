"""What Dask serializes of mori: decided once a message, applied by the core's own pickling.

Imports distributed and mori. A message to a process of this domain that opens it itself carries
references; every other (a relaying scheduler, another host, a spill file, a peer that has not said
where it is) carries bytes. Nested objects need no care: the way to travel is a context variable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import distributed.protocol
from dask.sizeof import sizeof
from dask.tokenize import normalize_token
from distributed.protocol.serialize import (
    dask_deserialize,
    dask_serialize,
    families,
    register_serialization_family,
)

import mori
from mori.reference import identity, travel
from mori_dask.handshake import schedulers_are_here, takes_references

__all__ = ["register"]

_TYPES = (
    *(mori.SharedArray, mori.SharedBytes, mori.SharedList, mori.SharedTuple, mori.SharedDict),
    *(mori.SharedSet, mori.SharedFrozenSet),
)
_SIZE = 256  # bytes that a reference weighs for the scheduler: its data weigh on no worker

_in_message: ContextVar[bool] = ContextVar("mori_dask_in_message", default=False)


def register() -> None:
    """Make Dask serialize, measure and tokenize shared objects as what they are."""
    if getattr(distributed.protocol.dumps, "_mori", False):
        return
    distributed.protocol.dumps = _by_recipient(distributed.protocol.dumps)
    dumps, loads, _ = families["pickle"]
    register_serialization_family("pickle", _outside_messages(dumps), loads)
    for cls in _TYPES:
        _register_type(cls)
    for dispatch in (sizeof, normalize_token):
        dispatch.register_lazy("mori", _register_frames)


def _register_type(cls: type) -> None:
    # Without these, an ndarray subclass falls to Dask's own serializer of ndarrays, and is copied.
    dask_serialize.register(cls)(_leave_to_pickle)
    dask_deserialize.register(cls)(_leave_to_pickle)
    sizeof.register(cls)(_sizeof)
    normalize_token.register(cls)(_token)


def _register_frames() -> None:
    from mori.frames import SharedDataFrame, SharedSeries

    for cls in (SharedDataFrame, SharedSeries):
        sizeof.register(cls)(_sizeof)
        normalize_token.register(cls)(_token)


def _by_recipient(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the function that makes the frames of each message: it alone knows who gets them.

    Here goes on what mori_dask has to do when a message is made: counting, and buffers that are
    recognised by their address.
    """

    @functools.wraps(plain)
    def dumps(msg: Any, *args: Any, context: Any = None, **kwargs: Any) -> Any:
        token = _in_message.set(True)
        try:
            with travel("reference" if takes_references(context) else "value"):
                return plain(msg, *args, context=context, **kwargs)
        finally:
            _in_message.reset(token)

    dumps._mori = True  # type: ignore[attr-defined]
    return dumps


def _outside_messages(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Dask's pickle family, for what is pickled before it is part of a message.

    That is a task graph on its way to the scheduler, and a key that is spilled to disk.
    """

    def dumps(x: Any, context: Any = None) -> Any:
        if _in_message.get():
            return plain(x, context=context)
        with travel("reference" if _is_graph(x) and schedulers_are_here() else "value"):
            return plain(x, context=context)

    return dumps


def _is_graph(x: Any) -> bool:
    from dask._expr import Expr

    return isinstance(x, Expr)


class _ByPickleError(NotImplementedError, TypeError):
    """Sends Dask on to its pickle family, and a pickler that asks Dask back to the object's own way."""


def _leave_to_pickle(*args: Any, **kwargs: Any) -> Any:
    raise _ByPickleError("shared objects are pickled")


def _sizeof(x: Any) -> int:
    return _SIZE if mori.is_shared(x) else sizeof(mori.materialize(x))


def _token(x: Any) -> Any:
    """Return the same token for the same shared object, in any process, without reading it."""
    with travel("reference"):
        if mori.is_shared(x) and (name := identity(x)) is not None:
            return "mori", name
    return normalize_token(mori.materialize(x))
