"""Exceptions: where they are raised, it is not known who gets them; that is decided when they are sent.

Dask pickles an exception at once, for the scheduler to keep and to hand to who asks for the task's result.
Invariant: the regions that a pickle refers to are held until it was sent; from then on a scheduler of this
domain holds them, and everybody else has been given the bytes.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

from distributed import core
from distributed.comm import tcp
from distributed.protocol import pickle

from mori import adapters
from mori.adapters import Lease, used
from mori_dask import config

__all__ = ["Raised", "register", "with_bytes", "without_cycle"]


class Raised(bytes):
    """The pickled form of an exception that contains references."""

    regions: list[bytes]
    """References to each region."""
    leases: list[Lease]

    def sent(self) -> None:
        """Drop the leases: the receiver has the regions, or will have them within the grace."""
        for lease in self.leases:
            lease.needs_grace = True
        self.leases = []


def without_cycle(outcome: Any) -> Any:
    """Return what a task has come to; if it has failed, without what only a garbage collection ends.

    Dask keeps the exception in variables of frames that its traceback leads to, and with them the task's
    arguments. It has been pickled by now; all that is asked for is its class.
    """
    if isinstance(outcome, dict) and "actual_exception" in outcome:
        cls: Any = type(outcome["actual_exception"])
        with contextlib.suppress(Exception):  # a class of the user's
            outcome["actual_exception"] = cls.__new__(cls)
    return outcome


def with_bytes(pickled: bytes) -> bytes:
    """Return what a pickled exception is without references."""
    exception = pickle.loads(pickled)
    with adapters.use_transport("value"):
        made: bytes = pickle.dumps(exception)
    return made


class _Noted(adapters.LeasingTransport):
    """The transport of an exception: it keeps leases, and references to the regions as wholes."""

    def __init__(self) -> None:
        super().__init__()
        self.regions: dict[bytes, bytes] = {}

    def reduce(self, payload: bytes) -> tuple[Any, ...] | None:
        region_id, whole = adapters.reference_to_region(payload)
        self.regions[region_id] = whole
        return super().reduce(payload)


def register() -> None:
    """Patch Dask's pickling of exceptions to use references, in each module that has imported it.

    Patch the errors of broken connections, too, so that they let go of what was being sent.
    """
    if not getattr(tcp.convert_stream_closed_error, "_mori", False):
        tcp.convert_stream_closed_error = _forgetting(tcp.convert_stream_closed_error)
    plain = core.error_message
    if getattr(plain, "_mori", False):
        return
    referring = _referring(plain)
    for name, module in list(sys.modules.items()):
        if name.startswith("distributed.") and vars(module).get("error_message") is plain:
            module.error_message = referring  # type: ignore[attr-defined]


def _referring(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def error_message(*args: Any, **kwargs: Any) -> Any:
        if not used.ever or not config.enabled():
            return plain(*args, **kwargs)
        noted = _Noted()
        with adapters.use_transport(noted):
            message = plain(*args, **kwargs)
        if noted.regions:
            raised = Raised(message["exception"].data)
            raised.regions, raised.leases = list(noted.regions.values()), list(noted.leases.values())
            message["exception"].data = raised
        return message

    error_message._mori = True  # type: ignore[attr-defined]
    return error_message


def _forgetting(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what raises Dask's error for that of a connection that broke, as when a worker is killed.

    Where it broke as something was sent, frames of the first error's traceback have the message and the
    connection; the stream has the error, and the connection's finalizer the stream. So none of them ever
    ends, nor a region in the message (distributed's issue 7639).
    """

    @functools.wraps(plain)
    def convert_stream_closed_error(obj: Any, exc: Any) -> Any:
        if (error := getattr(exc, "real_error", None)) is not None:
            error.__traceback__ = None
        return plain(obj, exc)

    convert_stream_closed_error._mori = True  # type: ignore[attr-defined]
    return convert_stream_closed_error
