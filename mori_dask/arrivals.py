"""What a worker does with a region that comes as bytes: it lands in the host's store.

Imports mori. So a host has one copy, however many of its workers get it, by whatever way, and whatever
they hand on within the host is a reference.
"""

from __future__ import annotations

from typing import Final

from distributed import Worker
from distributed.core import Status

from mori import reference
from mori.errors import MoriError
from mori.landing import land
from mori.region import Mapping

__all__ = ["register"]

_LEAST: Final = 1 << 20  # bytes: looking for the region and writing it cost a millisecond or two


def register() -> None:
    """Have the workers of this process land what comes to them."""
    if _land not in reference.arrivals:
        reference.arrivals.append(_land)


def _land(arrived: Mapping) -> Mapping:
    if arrived.nbytes < _LEAST or all(worker.status == Status.closed for worker in Worker._instances):
        return arrived
    try:
        return land(arrived)
    except (MoriError, OSError):  # no room: it stays where it is, in this worker alone
        return arrived
