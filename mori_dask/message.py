"""The message that is being made: who gets it, and who keeps what is in it.

Dask has one function that makes the frames of each message, and it alone knows who gets them; what is pickled
inside asks here. Nested objects need no care: the transport is a context variable. One message of
thousands has a shared object in it: nothing is looked up before something asks, and nothing at all is done in
a process that has none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import distributed.protocol

from mori import adapters
from mori.adapters import Region, Transport, TransportLike, transport_var, used
from mori_dask import far
from mori_dask.handshake import receiver_here, relays

__all__ = ["Message", "current", "deciding", "register"]


class Message(Transport):
    """The transport of a message; what it depends on is found out when something in the message asks.

    relayed : by a scheduler of this domain: references, or values; None if it is not passed on
    opened : by its receiver, or by whom that passes it to: it is of this domain
    is_held : what is in it, by its sender, until it is received or not wanted any more
    made : header and frames of what is made anew for it
    regions : references to each region of the part that is being made, by their ids, where they are noted
    """

    __slots__ = ("_context", "_msg", "is_held", "made", "opened", "regions", "relayed")
    relayed: str | None
    opened: bool
    is_held: bool
    made: dict[int, tuple[Any, Any]]
    regions: dict[bytes, bytes] | None

    def __init__(self, msg: Any, context: Any) -> None:
        self._msg = msg
        self._context = context

    def __getattr__(self, name: str) -> Any:
        """Find out everything when the first of it is asked for: of most messages, nothing is."""
        if name not in self.__slots__:
            raise AttributeError(f"a message has no {name!r}")
        here = receiver_here(self._context)
        self.relayed = None if here is None else relays(here)
        self.opened = here is not None
        self.is_held = _is_held_by_sender(self._msg)
        self.made = {}
        self.regions = None
        return getattr(self, name)

    def __call__(self) -> TransportLike:
        """Return this message as the transport if the receiver can open regions, else send by value."""
        if self.opened:
            return self
        return far.transport("worker", self._context) if _has_tasks(self._msg) else "value"

    def accepts(self, mapping: Region) -> bool:
        """Accept every region; start a grace unless the sender keeps it alive."""
        if not self.is_held and mapping.lease is not None:
            mapping.lease.needs_grace = True
        return True

    def reduce(self, payload: bytes) -> tuple[Any, ...] | None:
        """Return what a reference is without an adapter, and note its region where that is wanted."""
        if self.regions is not None:
            region_id, whole = adapters.reference_to_region(payload)
            self.regions[region_id] = whole
        return super().reduce(payload)


def _is_held_by_sender(msg: Any) -> bool:
    """Return whether the sender keeps what is in a message, until it is received or not wanted any more.

    A worker that is asked for keys keeps them until the other has said OK. A scheduler keeps a task's
    arguments until the task is forgotten.
    """
    return msg.keys() == {"status", "data"} if isinstance(msg, dict) else _has_tasks(msg)


def _has_tasks(msg: Any) -> bool:
    return isinstance(msg, list) and any(isinstance(one, dict) and "run_spec" in one for one in msg)


def current() -> Message | None:
    """Return the message that is being made, if it is the transport of what is pickled now."""
    found = transport_var.get(None)
    return found if isinstance(found, Message) else None


def register() -> None:
    """Patch `protocol.dumps` so that each message picks its transport."""
    if not getattr(distributed.protocol.dumps, "_mori", False):
        distributed.protocol.dumps = deciding(distributed.protocol.dumps)


def deciding(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Dask's function that makes the frames of each message."""

    # Its parameters by their names, and what a later version adds: half of the time of `*args, **kwargs`.
    @functools.wraps(plain)
    def dumps(
        msg: Any,
        serializers: Any = None,
        on_error: Any = "message",
        context: Any = None,
        frame_split_size: Any = None,
        **more: Any,
    ) -> Any:
        known = functools.partial(plain, **more) if more else plain
        if not used.ever:
            return known(msg, serializers, on_error, context, frame_split_size)
        token = transport_var.set(Message(msg, context))
        try:
            return known(msg, serializers, on_error, context, frame_split_size)
        finally:
            transport_var.reset(token)

    dumps._mori = True  # type: ignore[attr-defined]
    return dumps
