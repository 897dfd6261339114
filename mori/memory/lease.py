"""Leases: what keeps a region alive for this process, and for a grace beyond its last use.

Invariant: a lease is given back exactly once: when nothing refers to it any more, after its grace if a
reference to its region was pickled, or at the end of the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from mori.memory.exit import arrange, at_exit, at_exit_of_child
from mori.memory.grace import TIMER
from mori.memory.release import Files, Release, files_of
from mori.store.base import Held, Store, forsake

__all__ = ["Lease", "expire_graces"]


class Lease:
    """This process's lease of a region in a store, given back when nothing refers to it any more.

    A mapping has one. An adapter keeps it beyond the mapping while its engine can still need the region.
    """

    __slots__ = ("__weakref__", "_files", "_held", "_pickled_by", "home", "is_recycled")

    def __init__(self, held: Held, home: Store) -> None:
        self._held: Held | None
        self._files: Files | None
        # At once: whatever interrupts the rest, it is given back.
        self.home, self._pickled_by, self._files, self._held = home, 0, None, held
        self.is_recycled = held.pages != 0
        """Whether its pages may be written again when nobody holds them any more."""
        statuses = held.statuses
        self._files = [(now.st_dev, now.st_ino) for now in statuses] if statuses else files_of(held)
        if TIMER.entries:
            TIMER.catch_up()
        if TIMER.arranged_in != (process := os.getpid()) or process == 1:
            arrange()
        if held.path is not None:
            at_exit[id(self)] = self

    @property
    def held(self) -> Held:
        """What it holds in the store."""
        assert self._held is not None
        return self._held

    @property
    def fd(self) -> int:
        """The descriptor by which this process holds it."""
        assert self._held is not None
        return self._held.fds[0]

    @property
    def path(self) -> str | None:
        """The file in a directory, where the region is one."""
        return None if self._held is None else self._held.path

    @property
    def is_given_back(self) -> bool:
        """Whether it holds nothing any more: the process is about to end."""
        return self._held is None

    @property
    def needs_grace(self) -> bool:
        """Whether a reference was pickled that only the grace keeps good, here or before a fork."""
        return self._pickled_by != 0

    @needs_grace.setter
    def needs_grace(self, needed: bool) -> None:
        process = os.getpid() if needed else 0
        if self._pickled_by != process:
            self._pickled_by = process
            if needed:
                at_exit_of_child[id(self)] = self

    def let_go(self) -> None:
        """Give it back to the store now, whoever still refers to it."""
        held, self._held = self._held, None
        if held is not None:
            Release(held, self.home, self._files)()

    def in_grace(self) -> Release | None:
        """Return what gives it back; None if this process has pickled no reference that needs a grace."""
        if self._held is None or self._pickled_by != os.getpid():
            return None
        return Release(self._held, self.home, self._files)

    def __del__(
        self,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
        forsake: Callable[[object], None] = forsake,
    ) -> None:
        if is_finalizing():
            forsake(getattr(self, "_held", None))  # whatever has the numbers now
            return
        # Taken at once: a weak reference still gives this one out, and the end of the process lets go of all.
        held, self._held = getattr(self, "_held", None), None  # it has none if an interrupt met its beginning
        if held is None:
            return
        release = Release(held, self.home, self._files)
        if not (self.needs_grace and TIMER.keep(release)):
            release()


def expire_graces() -> None:
    """Give back everything that only a grace keeps."""
    TIMER.expire(everything=True)
    TIMER.expire(everything=True)  # what was called may have dropped leases, which have a grace then
    TIMER.wake()
