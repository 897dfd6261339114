"""Tells the users of a cluster that has several versions of mori, as Dask does for its own.

Each worker and client says its version where it says its domain. Dask's own check of versions takes a process
that has not imported mori for one that differs, though it only gets the bytes.
"""

from __future__ import annotations

import logging
from typing import Any

from distributed import Scheduler
from distributed.protocol.pickle import dumps

import mori

__all__ = ["Versions"]

_logger = logging.getLogger("distributed.scheduler.mori")


class Versions:
    """The versions of a scheduler, its workers and its clients."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._by_whom = {"the scheduler": mori.__version__}
        self._clients: set[str] = set()

    def note_worker(self, address: str, said: Any) -> None:
        """Record a worker's version; warn where it is the first one with another version."""
        version = said.get("version") if isinstance(said, dict) else None
        if not isinstance(version, str):
            return
        is_new = version not in self._by_whom.values()
        self._by_whom[f"worker {address}"] = version
        if is_new:
            self._warn()

    def note_client(self, client: str) -> None:
        """Record a client's version; warn it, once, of versions that differ."""
        if client in self._clients or client not in self._scheduler.client_comms:
            return
        self._clients.add(client)
        comm = self._scheduler.client_comms[client].comm
        said = comm.remote_info.get("mori") if comm is not None else None
        version = said.get("version") if isinstance(said, dict) else None
        if isinstance(version, str):
            self._by_whom[f"client {client}"] = version
        if len({*self._by_whom.values()}) > 1:
            self._warn()

    def forget_worker(self, address: str) -> None:
        """Forget one that is gone."""
        self._by_whom.pop(f"worker {address}", None)

    def forget_client(self, client: str) -> None:
        """Forget one that is gone."""
        self._clients.discard(client)
        self._by_whom.pop(f"client {client}", None)

    def _warn(self) -> None:
        first: dict[str, str] = {}
        for who, version in self._by_whom.items():
            first.setdefault(version, who)
        found = ", ".join(f"{version} on {who}" for version, who in first.items())
        text = (
            f"The versions of mori differ in this cluster: {found}. What one of them writes another may not "
            "be able to open: install the same version everywhere."
        )
        _logger.warning(text)
        # The way of distributed.worker.warn: each client gives the warning to its user.
        self._scheduler.log_event("warn", {"message": dumps(text), "category": dumps(RuntimeWarning)})
