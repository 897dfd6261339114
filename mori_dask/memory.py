"""What a worker's memory is: its own pages. Shared ones count once for the machine, not for each worker.

Dask pauses, spills and ends workers by their resident set, in which the pages of a region, or of a file of
`mori.save`, count for everybody who maps them. Where the kernel does not tell them apart, Dask's measure
stays.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Final

from distributed import Nanny, Worker

import mori
from mori import adapters
from mori_dask import config
from mori_dask.handshake import domain

__all__ = ["account", "guard", "made", "own", "release", "report", "unguard"]

_MOST: Final = 500  # regions that a worker tells of one by one


def own(pid: int | None = None) -> int | None:
    """Return the bytes that a process has in memory and that are its own: no shared memory, and no file's.

    None where the kernel does not tell, or the process is gone. Costs 30 microseconds, whatever is mapped.
    """
    try:
        with open(f"/proc/{pid or 'self'}/status", encoding="ascii", errors="replace") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)
    except OSError:
        return None


def account(worker: Worker) -> None:
    """Make a worker measure its own pages only: to pause, to spill, and to tell the scheduler."""
    monitor = worker.monitor
    if not config.get("mori.dask.memory-accounting") or "get_process_memory" in vars(monitor):
        return
    plain = monitor.get_process_memory
    if own() is None:
        return

    def get_process_memory() -> int:
        mine = own()
        return int(plain()) if mine is None else mine

    monitor.get_process_memory = get_process_memory


def release(worker: Worker) -> None:
    """Restore Dask's own measure of a worker."""
    vars(worker.monitor).pop("get_process_memory", None)


def guard(nanny: Nanny) -> None:
    """Make a nanny judge its worker by the worker's own pages only."""
    callback = nanny.periodic_callbacks.get("memory_monitor")
    if callback is None or getattr(callback.callback, "_mori", False) or own() is None:
        return
    if not config.get("mori.dask.memory-accounting"):
        return
    plain = callback.callback

    @functools.wraps(plain)
    def memory_monitor() -> Any:
        return None if _fits(nanny) else plain()

    memory_monitor._mori = True  # type: ignore[attr-defined]
    callback.callback = memory_monitor


def _fits(nanny: Nanny) -> bool:
    manager = nanny.memory_manager
    process = nanny.process.process if nanny.process is not None else None
    if process is None or process.pid is None or not manager.memory_limit:
        return False  # Dask decides
    most = manager.memory_limit * manager.memory_terminate_fraction
    mine = own(process.pid)
    return mine is not None and mine <= most


def unguard(nanny: Nanny) -> None:
    """Restore Dask's own measure of a nanny."""
    callback = nanny.periodic_callbacks.get("memory_monitor")
    if callback is not None and getattr(callback.callback, "_mori", False):
        callback.callback = callback.callback.__wrapped__


def made() -> int:
    """Return the bytes of the regions that this process made and has mapped."""
    mine = os.getpid()
    return sum(m.nbytes for m in adapters.live_regions() if m.name.pid == mine)


def report(worker: Worker) -> dict[str, Any]:
    """Return what a worker tells the scheduler with each heartbeat: its domain, and the regions it maps.

    The largest ones are told one by one, with size, name and age, so that a region that many workers map is
    counted once.
    """
    mapped = sorted(adapters.live_regions(), key=lambda m: -m.nbytes)
    return {
        "domain": domain(),
        "mapped": sum(m.nbytes for m in mapped),
        "count": len(mapped),
        "made": made(),
        "regions": {
            m.region_id.hex(): [m.nbytes, m.name.pid, m.name.number, _written(m)] for m in mapped[:_MOST]
        },
        "version": mori.__version__,
    }


def _written(mapping: adapters.Region) -> float:
    """Return when a region was written, or adopted here, in seconds since the epoch; 0 if it is gone."""
    lease = mapping.lease
    return 0.0 if lease is None or lease.is_given_back else os.fstat(lease.fd).st_mtime
