"""The messages of multiprocessing: what is pickled for one is held until it has arrived.

multiprocessing, concurrent.futures and joblib pickle by a class, and a function, of their own, and write to
pipes and sockets by one method. All three are told here: each message asks its receiver for a receipt of each
region that it refers to.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from mori._imports import imported
from mori.memory import receipts
from mori.memory.lease import Lease
from mori.memory.mapping import Mapping
from mori.memory.receipts import Sent
from mori.wire.reference import REGION_ID, load, with_receipt
from mori.wire.transport import Transport, transport_var

__all__ = ["Message", "cover"]

_CONNECTION: Final = "multiprocessing.connection"
# Modules, each with the dot that ends it. Whoever else pickles as they do may never send it.
_LIBRARIES: Final = ("multiprocessing.", "joblib.externals.loky.", "loky.", "torch.multiprocessing.")
_SENDERS: Final = (
    *("multiprocessing.connection.", "multiprocessing.queues.", "torch.multiprocessing.queue."),
    *("joblib.externals.loky.backend.queues.", "loky.backend.queues."),
)
_PICKLING: Final = ".reduction."


class Message(Transport):
    """The transport of a message: it keeps each region until the message has arrived."""

    __slots__ = ("_leases", "_receipts", "sent")

    def __init__(self) -> None:
        self.sent: list[Sent] | None = None  # the others are there as soon as it is: most messages have none

    def accepts(self, mapping: Mapping) -> bool:
        if self.sent is None:
            self.sent = []
            self._leases: dict[bytes, Lease | None] = {}
            self._receipts: dict[bytes, bytes] = {}  # one for each region, however many parts of it are sent
        self._leases[mapping.header.region_id] = mapping.lease
        return True

    def reduce(self, payload: bytes) -> tuple[Any, ...] | None:
        assert self.sent is not None
        region_id = payload[REGION_ID]
        receipt = self._receipts.get(region_id)
        if receipt is None:
            lease = self._leases[region_id]
            assert lease is not None
            expected = receipts.expect(lease)
            if expected is None:
                return None
            sent, receipt = expected
            self._receipts[region_id] = receipt
            self.sent.append(sent)
        return load, (with_receipt(payload, receipt),)


class _Unsent(threading.local):
    """The references of this thread's last pickle, until it is written to a pipe."""

    sent: list[Sent] | None = None


_unsent: Final = _Unsent()


def cover(dump: Callable[..., None]) -> Callable[..., None]:
    """Return a function or method that pickles a message as the given one does, and has it acknowledged."""

    @functools.wraps(dump)
    def covered(*arguments: Any, **keywords: Any) -> None:
        # Somebody has chosen its transport, or this is a part of a message.
        if transport_var.get(None) is not None:
            return dump(*arguments, **keywords)
        message = Message()
        token = transport_var.set(message)
        try:
            dump(*arguments, **keywords)
        except BaseException:
            receipts.cancel(message.sent or [])
            raise
        finally:
            transport_var.reset(token)
        _unsent.sent = None
        if message.sent:
            caller = _caller()
            for each in message.sent:
                each.is_message = caller.startswith(_LIBRARIES)
            if caller.startswith(_SENDERS):
                _patch_connections()
                _unsent.sent = message.sent
        return None

    return covered


def _caller() -> str:
    """Return the module that has a message pickled, with a dot behind it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and (name := frame.f_globals.get("__name__", "") + ".").endswith(_PICKLING):
        frame = frame.f_back
    return "" if frame is None else name


def _patch_connections() -> None:
    """Patch connections to record the pipe or socket that a message is written to."""
    # Pools and queues have kept the public methods of their connections since before mori was there, and
    # `send` looks up `_send_bytes` before it pickles. This one is looked up for each write.
    module = imported(_CONNECTION)
    cls = getattr(module, "Connection", None)
    usual = getattr(cls, "_send", None)
    if usual is None or hasattr(usual, "__wrapped__"):
        return

    @functools.wraps(usual)
    def send(self: Any, *arguments: Any) -> Any:
        if (sent := _unsent.sent) is not None:
            _unsent.sent = None
            receipts.via(sent, self.fileno())
        return usual(self, *arguments)

    setattr(cls, "_send", send)  # noqa: B010
