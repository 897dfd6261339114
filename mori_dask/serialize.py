"""What Dask serializes of mori: decided once a message, applied by the core's own pickling.

A message to a process of this domain carries references; every other (to another host, to a peer that has not
said where it is) carries bytes; see `relay` for what a scheduler passes on, and `message` for who gets it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from dask.sizeof import sizeof
from dask.tokenize import normalize_token
from distributed.protocol.numpy import serialize_numpy_ndarray
from distributed.protocol.serialize import (
    dask_deserialize,
    dask_serialize,
    families,
    register_serialization_family,
)

import mori
from mori import adapters
from mori.adapters import TransportLike, identity, is_by_value, transport_var, use_transport, used
from mori_dask import config, far, graphs
from mori_dask.handshake import far_scheduler, schedulers_are_here

__all__ = ["SIZE", "register"]

_TYPES = (
    mori.SharedBytes,
    *adapters.container_classes(),
    *adapters.array_classes(),
)
SIZE: Final = 251  # bytes that a shared object weighs for the scheduler, and hardly anything else does


def register() -> None:
    """Make Dask serialize, measure and tokenize shared objects as what they are."""
    if dask_serialize.dispatch(np.ndarray) is _serialize_array:
        return
    dumps, loads, _ = families["pickle"]
    register_serialization_family("pickle", _outside_messages(dumps), loads)
    for cls in _TYPES:
        _register_type(cls)
    dask_serialize.register(np.ndarray)(_serialize_array)
    for dispatch, ours in ((sizeof, _sizeof), (normalize_token, _token)):
        _when_imported(dispatch, "pandas", functools.partial(_register_pandas, dispatch, ours))
        _when_imported(dispatch, "pyarrow", functools.partial(_register_arrow, dispatch, ours))
    adapters.watch_classes(_prefer_references)


def _register_type(cls: type) -> None:
    # Without these, an ndarray subclass falls to Dask's own serializer of ndarrays, and is copied.
    dask_serialize.register(cls)(_leave_to_pickle)
    dask_deserialize.register(cls)(_leave_to_pickle)
    sizeof.register(cls)(_sizeof)
    normalize_token.register(cls)(_token)


def _when_imported(dispatch: Any, library: str, register: Callable[[], None]) -> None:
    """Register what is of a library when Dask first meets one of its types, after what Dask itself has."""
    first = dispatch._lazy.get(library)
    if first is None and library in sys.modules:
        register()
        return

    def both() -> None:
        dispatch._lazy.pop(library, None)  # or what is looked up here would come here again
        if first is not None:
            first()
        register()

    dispatch.register_lazy(library, both)


def _register_pandas(dispatch: Any, ours: Callable[[Any], Any]) -> None:
    import pandas as pd

    for cls in (pd.DataFrame, pd.Series, pd.Index, pd.MultiIndex):
        _prefer(dispatch, cls, ours)


def _register_arrow(dispatch: Any, ours: Callable[[Any], Any]) -> None:
    import pyarrow as pa

    for cls in (pa.Table, pa.RecordBatch, pa.ChunkedArray, pa.Array):
        _prefer(dispatch, cls, ours)


def _prefer(dispatch: Any, cls: type, ours: Callable[[Any], Any]) -> None:
    """Measure or tokenize the shared objects of another library's class; Dask does all others."""
    plain = dispatch.dispatch(cls)
    dispatch.register(cls)(lambda x: ours(x) if mori.is_shared(x) else plain(x))


def _serialize_array(array: np.ndarray[Any, Any]) -> Any:
    plain = type(array) is np.ndarray and array.flags.forc and used.ever and not is_by_value()
    if (
        plain
        and (least := config.least())
        and array.nbytes >= least
        and adapters.reduce_array(array, 5) is not None
    ):
        raise _ByPickleError("views of shared arrays are pickled")  # with a name for their buffer
    return serialize_numpy_ndarray(array)


def _prefer_references(cls: type) -> None:
    """Pickle what was opened of a class that Dask has a serializer for, which copies."""
    try:
        plain = dask_serialize.dispatch(cls)
    except TypeError:  # there is none: Dask pickles it
        return
    dask_serialize.register(cls)(functools.partial(_serialize_opened, plain))


def _serialize_opened(plain: Callable[[Any], Any], obj: Any) -> Any:
    if adapters.is_opened(obj):  # whether it was written to, the pickler looks
        raise _ByPickleError("what was opened from a region is pickled")
    return plain(obj)


def _outside_messages(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Dask's pickle family, for what is pickled before it is part of a message.

    That is a task graph on its way to the scheduler, and a key that is spilled to disk.
    """

    def dumps(x: Any, context: Any = None) -> Any:
        if not used.ever or transport_var.get(None) is not None:
            return plain(x, context=context)
        with use_transport(_transport_of_graphs() if _is_graph(x) else "value"):
            return plain(x, context=context)

    return dumps


def _transport_of_graphs() -> TransportLike:
    return graphs.transport() if schedulers_are_here() else far.transport("scheduler", far_scheduler())


def _is_graph(x: Any) -> bool:
    expression = getattr(sys.modules.get("dask._expr"), "Expr", None)
    return expression is not None and isinstance(x, expression)


class _ByPickleError(NotImplementedError, TypeError):
    """Sends Dask on to its pickle family, and a pickler that asks Dask back to the object's own way."""


def _leave_to_pickle(*args: Any, **kwargs: Any) -> Any:
    raise _ByPickleError("shared objects are pickled")


def _sizeof(x: Any) -> int:
    shared = mori.is_shared(x)
    if shared and config.get("mori.dask.sizeof") == "reference":
        return SIZE
    if isinstance(x, np.ndarray):
        return int(x.nbytes)
    if shared and (nbytes := adapters.nbytes_of(x)) is not None:
        return nbytes
    return int(sizeof(mori.materialize(x)))


def _token(x: Any) -> Any:
    """Return the same token for the same shared object, in any process, without reading it."""
    if mori.is_shared(x) and (name := identity(x)) is not None:
        return "mori", name
    private = mori.materialize(x)
    if isinstance(private, np.ma.MaskedArray):  # of which Dask has no token
        fill, hard = np.asarray(private.fill_value), private.hardmask
        return "mori", *map(normalize_token, (private.data, np.ma.getmaskarray(private), fill, hard))
    return normalize_token(private)
