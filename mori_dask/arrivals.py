"""What a worker does with a region that comes as bytes: it adopts it, into the host's store.

So a host has one copy, however many of its workers get it, by whatever way, and whatever they hand on within
the host is a reference.
"""

from __future__ import annotations

from distributed import Worker
from distributed.core import Status

from mori import MoriError, adapters
from mori.adapters import Region, adopt
from mori_dask import config

__all__ = ["register"]


def register() -> None:
    """Adopt what comes to the workers of this process."""
    adapters.on_receive(_adopt)


def _adopt(arrived: Region) -> Region:
    least = config.get("mori.dask.land-bytes")  # to look for it and to write it cost a millisecond or two
    if (
        least is None
        or arrived.nbytes < least
        or all(worker.status == Status.closed for worker in Worker._instances)
    ):
        return arrived
    try:
        return adopt(arrived)
    except (MoriError, OSError):  # no room: it stays where it is, in this worker alone
        return arrived
