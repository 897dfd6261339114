"""What every store does, and what passes between a store and its users.

A store hands out file descriptors of whole, read-only regions; it neither maps nor reads them.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mori.store.fds import Owner
from mori.store.header import Header
from mori.store.names import format_label

__all__ = [
    "FILES",
    "MEMFD",
    "RECEIPTS_NBYTES",
    "Draft",
    "Entry",
    "Held",
    "Store",
    "Where",
    "boot_id",
    "entry_of",
]

MEMFD: Final = 0
FILES: Final = 1
RECEIPTS_NBYTES: Final = 4096


class Where(NamedTuple):
    """Where to look for a region: its creator's pid and number, its id, and a process that had it."""

    pid: int
    number: int
    region_id: bytes | None = None
    holder: int = 0
    fd: int = -1


class Held(NamedTuple):
    """What a process has open of a region, which keeps it alive: a descriptor for each segment."""

    owners: tuple[Owner, ...]
    """Of the descriptors, which are closed when nothing refers to these any more."""
    fds: tuple[int, ...]
    path: str | None = None
    pages: int = 0
    """Not 0 if they may be written again when nobody holds them: which pages, or -1 for another process's."""
    statuses: tuple[os.stat_result, ...] = ()
    """What the system said of the files when they were opened; empty for those that were made here."""

    def close(self) -> None:
        """Close the descriptors that are not closed yet."""
        for owner in self.owners:
            owner.close()

    @classmethod
    def of(
        cls,
        owners: Sequence[Owner],
        path: str | None = None,
        pages: int = 0,
        statuses: tuple[os.stat_result, ...] = (),
    ) -> Held:
        """Return what open descriptors hold."""
        return cls((*owners,), tuple(map(Owner.fileno, owners)), path, pages, statuses)


class Draft(NamedTuple):
    """A region that is being written; nobody else can open it yet."""

    held: Held
    pid: int
    number: int
    path: str | None = None  # of the file while it is written
    segment_nbytes: int = 0  # of each but the last; 0 where it is in one piece
    memory: npt.NDArray[np.uint8] | None = None  # to be written to instead of the files
    is_huge: bool = False  # to be written through huge pages, which the system gives to who asks for them


class Entry(NamedTuple):
    """A region found alive in the store."""

    name: str
    nbytes: int
    age: float
    """Seconds since it was written."""
    owner: int
    """The process that wrote it, which may be gone."""
    holders: tuple[int, ...]
    """The processes that are seen to hold it."""
    region_id: bytes


def entry_of(header: Header, status: os.stat_result, holders: Iterable[int]) -> Entry:
    """Return the entry of a region by its header and the status of its first file."""
    label, age = format_label(header.pid, header.number), max(0.0, time.time() - status.st_mtime)
    return Entry(f"/{label}", header.nbytes, age, header.pid, tuple(sorted(holders)), header.region_id)


class Store(Protocol):
    """What a store can do."""

    kind: int
    name: str

    def domain(self) -> str:
        """Name the set of processes that can open each other's regions in this store."""

    def free(self) -> int:
        """Return the bytes that a new region may have."""

    def remedy(self) -> str:
        """Say what a user does when it is full."""

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft | None:
        """Start a region in as many files as suit its size, in one if that is not told.

        None if that number is taken already.
        """

    def publish(self, draft: Draft) -> Held | None:
        """Make a written region readable for others and unwritable; None if its name was taken meanwhile."""

    def discard(self, draft: Draft) -> None:
        """Drop a region that was not published."""

    def find(self, where: Where) -> Held | None:
        """Open a region; None if no process holds it."""

    def release(self, held: Held) -> None:
        """Let go; the last one to do so frees the region."""

    def create_receipts(self, number: int) -> Held | None:
        """Make a page of zeros that other processes find by this process, its descriptor and a number.

        None if that number is taken.
        """

    def open_receipts(self, pid: int, fd: int, number: int) -> Owner | None:
        """Open the page of another process to write to it; None if it is there no more."""

    def entries(self, region_id: bytes | None = None) -> Iterator[Entry]:
        """Yield the regions of this user that are alive: all, or the one of an id and its copies."""

    def prune(self) -> list[str]:
        """Remove what killed processes left; return the names."""


@functools.cache
def boot_id() -> str:
    """Name this boot of this machine, as far as the system tells."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.uname().nodename
