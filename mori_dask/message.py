"""The message that is being made: who gets it, and who keeps what is in it.

Imports handshake, distributed and mori. Dask has one function that makes the frames of each message, and it
alone knows who gets them; what is pickled inside finds out here. Nested objects need no care: the way to
travel is a context variable. It is a message of thousands that has a shared object in it, so that nothing is
looked up before something asks, and nothing at all is done in a process that has none.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import Any, Final

import distributed.protocol

from mori import reference
from mori.reference import Way
from mori.region import Mapping, used
from mori_dask.handshake import receiver_here, relays

__all__ = ["Message", "current", "register"]


class _Kept:
    """The way of references to what the sender keeps until the receiver has it: they need no grace."""

    def takes(self, mapping: Mapping) -> bool:
        return True

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        return reference.load, (payload,)


class Message:
    """What is known of the message that is being made, found out when something in it asks.

    relayed : by a scheduler of this domain: references, or values; None if it is not passed on
    opened : by its receiver, or by whom that passes it to: it is of this domain
    made : header and frames of what is made anew for it
    """

    __slots__ = ("_context", "_msg", "made", "opened", "relayed")
    relayed: str | None
    opened: bool
    made: dict[int, tuple[Any, Any]]

    def __init__(self, msg: Any, context: Any) -> None:
        self._msg, self._context = msg, context

    def __getattr__(self, name: str) -> Any:
        here = receiver_here(self._context)
        self.relayed = None if here is None else relays(here)
        self.opened = here is not None
        self.made = {}
        return getattr(self, name)

    def way(self) -> Way:
        """Return the way of what is in it."""
        if not self.opened:
            return "value"
        return _Kept() if self.is_kept() else "reference"

    def is_kept(self) -> bool:
        """Say whether the sender keeps what is in it, until it is received or not wanted any more.

        A worker that is asked for keys keeps them until the other has said OK. A scheduler keeps a task's
        arguments until the task is forgotten.
        """
        msg = self._msg
        if isinstance(msg, dict):
            return msg.keys() == {"status", "data"}
        return isinstance(msg, list) and any(isinstance(one, dict) and "run_spec" in one for one in msg)


current: Final[ContextVar[Message | None]] = ContextVar("mori_dask_message", default=None)


def register() -> None:
    """Have each message decide how what is in it travels."""
    plain = distributed.protocol.dumps
    if getattr(plain, "_mori", False):
        return

    @functools.wraps(plain)
    def dumps(msg: Any, *args: Any, context: Any = None, **kwargs: Any) -> Any:
        if not used.ever:
            return plain(msg, *args, context=context, **kwargs)
        message = Message(msg, context)
        token, before = current.set(message), reference.way.set(message.way)
        try:
            return plain(msg, *args, context=context, **kwargs)
        finally:
            reference.way.reset(before)
            current.reset(token)

    dumps._mori = True  # type: ignore[attr-defined]
    distributed.protocol.dumps = dumps
