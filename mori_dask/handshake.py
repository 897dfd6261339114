"""Each end of a connection tells the other its domain, its version, and whether it only passes messages on.

An address says nothing: containers and namespaces share one, and one machine has many. What an end has not
said it gets by value.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any, Final

from distributed import Client
from distributed.comm.core import Comm

import mori
from mori.adapters import domain
from mori_dask import config

__all__ = [
    "announce",
    "domain",
    "far_scheduler",
    "hosts_of",
    "receiver_here",
    "relays",
    "said",
    "scheduler_keeps",
    "schedulers_are_here",
    "tell",
]

_KEY: Final = "mori"
_REACH: Final = 5.0  # seconds to connect to a worker


def said(*, relay: bool = False) -> dict[str, Any]:
    """Return what this process says of itself when it is connected.

    With `relay`, that it passes messages on unopened, and whether it is to be given references to pass on.
    """
    passes_on = _passes_on() if relay else False
    return {"domain": domain(), "relay": passes_on, "version": mori.__version__}


def _passes_on() -> str:
    return "reference" if config.get("mori.dask.relay") else "value"


def relays(other: dict[str, Any]) -> str | None:
    """Return what the receiver of a message passes on, "reference" or "value"; None if it opens it all."""
    passes_on = other.get("relay")
    if passes_on is False:
        return None
    return _passes_on() if passes_on == "reference" else "value"


def tell(comm: Comm, other: Any) -> None:
    """Record what the other end of a connection says of itself, where it says so after the handshake."""
    if isinstance(other, dict):
        comm.remote_info[_KEY] = other


def announce() -> None:
    """Patch the handshake so that every new connection tells this process's domain."""
    plain = Comm.handshake_info
    if getattr(plain, "_mori", False):
        return

    @functools.wraps(plain)
    def handshake_info(self: Comm) -> dict[str, Any]:
        if not config.enabled():
            return dict(plain(self))
        # A scheduler does not deserialize: it passes frames on, to whom, the sender cannot know.
        return {**plain(self), _KEY: said(relay=not self.deserialize)}

    handshake_info._mori = True  # type: ignore[attr-defined]
    Comm.handshake_info = handshake_info


def _domain_of(comm: Comm) -> str | None:
    """Return the domain of the other end of a connection, None if it has not said it."""
    other = comm.remote_info.get(_KEY)
    found = other.get("domain") if isinstance(other, dict) else None
    return found if isinstance(found, str) else None


def receiver_here(context: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the receiver of a message has said, if it is in this domain.

    See `relays` for what a scheduler does with it.
    """
    other = ((context or {}).get("recipient") or {}).get(_KEY)
    if not isinstance(other, dict) or not config.enabled() or other.get("domain") != domain():
        return None
    return other


async def hosts_of(client: Any, workers: Iterable[str]) -> dict[Any, list[str]]:
    """Return workers by their domain, as they say themselves; one that does not is a host of its own.

    Raises OSError or TimeoutError if one cannot be reached.
    """
    workers = list(workers)

    async def ask(worker: str) -> Any:
        comm = await client.rpc.connect(worker, timeout=_REACH)
        client.rpc.reuse(worker, comm)
        return _domain_of(comm) or (worker,)

    hosts: dict[Any, list[str]] = {}
    for worker, where in zip(workers, await asyncio.gather(*map(ask, workers)), strict=True):
        hosts.setdefault(where, []).append(worker)
    return hosts


def schedulers_are_here() -> bool:
    """Return whether every scheduler that this process is a client of is in this domain.

    A task graph is pickled before it is sent, without a word on the receiver; the scheduler opens
    it, and hands it on by reference or by value as fits each worker.
    """
    if not config.enabled():
        return False
    here = domain()
    clients = [client for client in Client._instances if client.status == "running"]
    return bool(clients) and all(_scheduler_domain(client) == here for client in clients)


def scheduler_keeps(client: Any) -> bool:
    """Return whether the scheduler of a client opens regions of this process, and is given references."""
    comm = _comm_of(client)
    other = comm.remote_info.get(_KEY) if comm is not None and config.enabled() else None
    if not isinstance(other, dict) or other.get("domain") != domain():
        return False
    return relays(other) == "reference"


def far_scheduler() -> dict[str, Any]:
    """Return what a scheduler that is not in this domain has said, as the context of a message has it."""
    for client in Client._instances:
        comm = _comm_of(client)
        if client.status == "running" and comm is not None and _domain_of(comm) != domain():
            return {"recipient": {"address": comm.peer_address, **comm.remote_info}}
    return {}


def _comm_of(client: Any) -> Comm | None:
    stream = client.scheduler_comm
    return stream.comm if stream is not None else None


def _scheduler_domain(client: Any) -> str | None:
    comm = _comm_of(client)
    return _domain_of(comm) if comm is not None else None
