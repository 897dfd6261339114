"""The message that is being made: who gets it, and who keeps what is in it.

Imports handshake, distributed and mori. Dask has one function that makes the frames of each message, and it
alone knows who gets them; what is pickled inside asks here. Nested objects need no care: the way to travel is
a context variable. One message of thousands has a shared object in it: nothing is looked up before something
asks, and nothing at all is done in a process that has none.
"""

from __future__ import annotations

import functools
from typing import Any

import distributed.protocol

from mori import reference
from mori.reference import Way, way
from mori.region import Mapping, used
from mori_dask.handshake import receiver_here, relays

__all__ = ["Message", "current", "register"]


class Message:
    """What is known of a message, found out when something in it asks for its way.

    relayed : by a scheduler of this domain: references, or values; None if it is not passed on
    opened : by its receiver, or by whom that passes it to: it is of this domain
    made : header and frames of what is made anew for it
    """

    __slots__ = ("_args", "_kwargs", "made", "opened", "relayed")
    relayed: str | None
    opened: bool
    made: dict[int, tuple[Any, Any]]

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = args
        self._kwargs = kwargs

    def __getattr__(self, name: str) -> Any:
        here = receiver_here(self._kwargs.get("context"))
        self.relayed = None if here is None else relays(here)
        self.opened = here is not None
        self.made = {}
        return getattr(self, name)

    def __call__(self) -> Way:
        """Return the way of what is in it, which is this one where references can be opened."""
        return self if self.opened else "value"

    def takes(self, mapping: Mapping) -> bool:
        """Take any; it has a grace if nobody keeps what is in the message."""
        if not self.is_kept() and mapping.hold is not None:
            mapping.hold.pickled = True
        return True

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        """Return what a reference is without an adapter."""
        return reference.load, (payload,)

    def is_kept(self) -> bool:
        """Say whether the sender keeps what is in it, until it is received or not wanted any more.

        A worker that is asked for keys keeps them until the other has said OK. A scheduler keeps a task's
        arguments until the task is forgotten.
        """
        msg = self._args[0]
        if isinstance(msg, dict):
            return msg.keys() == {"status", "data"}
        return isinstance(msg, list) and any(isinstance(one, dict) and "run_spec" in one for one in msg)


def current() -> Message | None:
    """Return the message that is being made, if what is pickled now travels by its way."""
    found = way.get(None)
    return found if isinstance(found, Message) else None


def register() -> None:
    """Have each message decide how what is in it travels."""
    plain = distributed.protocol.dumps
    if getattr(plain, "_mori", False):
        return

    @functools.wraps(plain)
    def dumps(*args: Any, **kwargs: Any) -> Any:
        if not used.ever:
            return plain(*args, **kwargs)
        token = way.set(Message(args, kwargs))
        try:
            return plain(*args, **kwargs)
        finally:
            way.reset(token)

    dumps._mori = True  # type: ignore[attr-defined]
    distributed.protocol.dumps = dumps
