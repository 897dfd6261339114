"""What a client has sent in task graphs: its regions are leased until the futures of the graph are gone.

The scheduler keeps a graph's arguments from when it has opened the graph until its futures are gone; before
that, the client does. So they need no grace, unless the client lets go before it has heard of any of the
graph's tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from distributed import Client

from mori.adapters import LeasingTransport, TransportLike

__all__ = ["register", "transport"]

_HEARD: Final = ("finished", "error", "lost")  # what a future is told by the scheduler alone


class _Sent(LeasingTransport):
    """The transport of a graph, which keeps the leases of the regions in it."""

    def __init__(self) -> None:
        super().__init__()
        self.received = False

    def __del__(self) -> None:
        if not self.received:  # it may be on its way: a grace follows
            for lease in self.leases.values():
                lease.needs_grace = True


_graph: ContextVar[_Sent | None] = ContextVar("mori_dask_graph", default=None)


def transport() -> TransportLike:
    """Return the transport of the graph that is being sent."""
    return _graph.get() or "reference"


def register() -> None:
    """Patch clients to keep leases of what they send."""
    if getattr(Client._graph_to_futures, "_mori", False):
        return
    Client._mori_sent = None  # in a client that has sent references: by key, the graphs that it belongs to
    Client._graph_to_futures = _holding(Client._graph_to_futures)
    Client._release_key = _releasing(Client._release_key)
    for name in ("_handle_restart", "_reconnect"):  # which drop all futures at once
        setattr(Client, name, _forgetting(getattr(Client, name)))


def _holding(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def graph_to_futures(self: Client, expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        sent = _Sent()
        known = {key for key in keys if (state := self.futures.get(key)) and state.status != "pending"}
        token = _graph.set(sent)
        try:
            futures = plain(self, expr, keys, *args, **kwargs)
        finally:
            _graph.reset(token)
        if sent.leases:
            graphs = vars(self).setdefault("_mori_sent", {})
            for key in futures:
                graphs.setdefault(key, []).append((sent, key not in known))
        return futures

    graph_to_futures._mori = True  # type: ignore[attr-defined]
    return graph_to_futures


def _releasing(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def release_key(self: Client, key: Any) -> Any:
        if graphs := self._mori_sent:
            state = self.futures.get(key)
            for sent, is_new in graphs.pop(key, ()):
                if is_new and state is not None and state.status in _HEARD:
                    sent.received = True
        return plain(self, key)

    return release_key


def _forgetting(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def forget(self: Client, *args: Any, **kwargs: Any) -> Any:
        vars(self).pop("_mori_sent", None)
        return plain(self, *args, **kwargs)

    return forget
