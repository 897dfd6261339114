"""Landing: a region that came as bytes gets a place in this domain's store, under the id that it had.

Invariant: however often and in however many processes of a domain the same region arrives, one copy of it is
there, if they have the directory in common in which they lock a file.
"""

from __future__ import annotations

from typing import Final

from mori import store
from mori.memory import region
from mori.memory.region import Mapping, Sink
from mori.store.header import HEADER, Header, pack_header
from mori.store.locks import alone

__all__ = ["adopt", "find"]

_PATIENCE: Final = 60.0  # seconds; then a second copy is better than none


def find(region_id: bytes, origin: tuple[int, int]) -> Mapping | None:
    """Return the region of an id, which may be a copy of the one of this pid and number; None without one."""
    for where in sorted(region.located(region_id), key=lambda where: (where.pid, where.number) != origin):
        if (found := region.find(where, store.current().kind)) is not None:
            return found
    return None


def adopt(arrived: Mapping) -> Mapping:
    """Return a region that lies in a buffer as a region of the store.

    Parameters
    ----------
    arrived : Mapping
        What `region.over` returned.

    Returns
    -------
    Mapping
        The region itself if this domain has it, or the copy that another process has landed; else a
        copy that is written now. It has the same region id, and its own name.

    Raises
    ------
    StoreFullError, LimitError
        As `region.create` does.

    Notes
    -----
    Safe on any thread and in any process: one lands at a time, the others wait and map what it has written.
    """
    region_id = arrived.header.region_id
    with alone(store.directory(), "landing", _PATIENCE):
        if (found := find(region_id, (arrived.header.pid, arrived.header.number))) is not None:
            return found

        def write(header: Header, put: Sink) -> None:
            put(pack_header(header))
            put(memoryview(arrived.bytes())[HEADER.size :], borrowed=True)

        return region.create(arrived.nbytes, write, arrived.header.root, region_id)
