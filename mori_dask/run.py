"""`Client.run` sends references where all workers that it is for are in this domain.

Its arguments are pickled once for all workers, before any connection is chosen, so the workers are asked
first; and only if there is a reference to send.
"""

from __future__ import annotations

import functools
from typing import Any

import distributed.protocol.pickle
from distributed import Client

from mori.adapters import Transport, use_transport, used
from mori_dask import config
from mori_dask.handshake import domain, hosts_of

__all__ = ["register"]


def register() -> None:
    """Patch clients to ask the workers first, if there is a reference to send."""
    plain = Client._run
    if getattr(plain, "_mori", False):
        return

    @functools.wraps(plain)
    async def run(self: Client, function: Any, *args: Any, **kwargs: Any) -> Any:
        here = (
            used.ever
            and config.get("mori.dask.relay")  # a scheduler passes them on
            and _refers((function, args, kwargs))
            and await _are_here(self, kwargs.get("workers"))
        )
        with use_transport("reference" if here else "value"):
            return await plain(self, function, *args, **kwargs)

    run._mori = True  # type: ignore[attr-defined]
    Client._run = run


class _Seen(Transport):
    """A transport that looks for references, which are not sent."""

    def __init__(self) -> None:
        self.any = False

    def reduce(self, payload: bytes) -> tuple[Any, ...] | None:
        self.any = True
        return super().reduce(payload)


def _refers(x: Any) -> bool:
    seen = _Seen()
    with use_transport(seen):
        distributed.protocol.pickle.dumps(x, buffer_callback=lambda buffer: None)
    return seen.any


async def _are_here(client: Any, workers: Any) -> bool:
    workers = workers or list(await client.scheduler.ncores())
    try:
        return {*await hosts_of(client, workers)} == {domain()}
    except (OSError, TimeoutError):
        return False
