"""What a worker does with a region that comes as bytes: it lands in the host's store.

Imports distributed, mori and config. So a host has one copy, however many of its workers get it, by
whatever way, and whatever they hand on within the host is a reference.
"""

from __future__ import annotations

from distributed import Worker
from distributed.core import Status

from mori.errors import MoriError
from mori.memory.adopt import land
from mori.memory.region import Mapping
from mori.wire import reference
from mori_dask import config

__all__ = ["register"]


def register() -> None:
    """Have the workers of this process land what comes to them."""
    if _land not in reference.arrivals:
        reference.arrivals.append(_land)


def _land(arrived: Mapping) -> Mapping:
    least = config.get("mori.dask.land-bytes")  # to look for it and to write it cost a millisecond or two
    if (
        least is None
        or arrived.nbytes < least
        or all(worker.status == Status.closed for worker in Worker._instances)
    ):
        return arrived
    try:
        return land(arrived)
    except (MoriError, OSError):  # no room: it stays where it is, in this worker alone
        return arrived
