"""Leases: what keeps a region alive for this process, and for a grace beyond its last use.

Invariant: a lease is given back exactly once: when nothing refers to it any more, after its grace if a
reference to its region was pickled, or at the end of the process.

No descriptor is closed that is another file's by then. A program may close descriptors that it does not know,
as one does that becomes a daemon, and their numbers are soon used again.

At the end, the kernel closes descriptors by itself; a file has to be unlinked by its last holder, and what is
in its grace is left to another process. Children of multiprocessing end by `os._exit`, after their finalizers
and without `atexit`, so both are arranged for.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable

from mori import settings
from mori._fork import in_child
from mori._imports import imported
from mori.memory.exit_holder import hold_after_exit, reap_holders
from mori.memory.grace import TIMER, has_ended
from mori.store.base import Held, Store, forsake

__all__ = ["Lease", "Release", "expire_graces"]

_Files = list[tuple[int, int] | None]
"""Device and inode of each file that is held; None for a descriptor that is closed."""


class Release:
    """Gives a leased region back when it is called; remains when the lease has no users."""

    __slots__ = ("_files", "held", "home")

    def __init__(self, held: Held, home: Store, files: _Files | None) -> None:
        self.held: Held = held
        self.home: Store = home
        self._files = files  # None if a signal came before they were known

    def __call__(self) -> None:
        now = _files_of(self.held)
        files = now if self._files is None else self._files
        own = []
        for owner, then, is_now in zip(self.held.owners, files, now, strict=True):
            if then is not None and then == is_now:
                own.append(owner)
            elif not owner.closed:
                forsake(owner)
        self.home.release(self.held._replace(owners=tuple(own)))

    @property
    def is_whole(self) -> bool:
        """Whether all of its descriptors are still those of the region."""
        return self._files is not None and None not in self._files and _files_of(self.held) == self._files


def _files_of(held: Held) -> _Files:
    """Return the files that descriptors are open for now."""
    files: _Files = []
    for fd in held.fds:
        try:
            status = os.fstat(fd)
        except OSError:
            files.append(None)
        else:
            files.append((status.st_dev, status.st_ino))
    return files


class Lease:
    """This process's lease of a region in a store, given back when nothing refers to it any more.

    A mapping has one. An adapter keeps it beyond the mapping while its engine can still need the region.
    """

    __slots__ = ("__weakref__", "_files", "_held", "_pickled_by", "home", "is_recycled")

    def __init__(self, held: Held, home: Store) -> None:
        self._held: Held | None
        self._files: _Files | None
        # At once: whatever interrupts the rest, it is given back.
        self.home: Store = home
        self._pickled_by, self._files, self._held = 0, None, held
        self.is_recycled: bool = held.pages != 0
        """Whether its pages may be written again when nobody holds them any more."""
        statuses = held.statuses
        self._files = [(now.st_dev, now.st_ino) for now in statuses] if statuses else _files_of(held)
        if TIMER.entries:
            TIMER.catch_up()
        if TIMER.arranged_in != (process := os.getpid()) or process == 1:
            _arrange()
        if held.path is not None:
            _of_files[id(self)] = self

    @property
    def held(self) -> Held:
        """The open descriptors of the region."""
        assert self._held is not None
        return self._held

    @property
    def fd(self) -> int:
        """The descriptor by which this process holds it."""
        assert self._held is not None
        return self._held.fds[0]

    @property
    def files(self) -> _Files | None:
        """Device and inode of each file that it holds."""
        return self._files

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
        process = os.getpid() if needed and not self.home.is_lasting else 0
        if self._pickled_by != process:
            self._pickled_by = process
            if needed:
                _passed_on[id(self)] = self

    def let_go(self) -> None:
        """Give the region back to the store now, whoever still refers to the lease."""
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
        seconds = 0.0
        if self.needs_grace:
            with contextlib.suppress(ValueError):  # share() has told the user; a finalizer cannot
                seconds = settings.grace()
        if seconds:
            TIMER.call(release, seconds)
        else:
            release()


_of_files: weakref.WeakValueDictionary[int, Lease] = weakref.WeakValueDictionary()
"""Leases, by their ids, that have to be given back when this process ends: those of files."""
_passed_on: weakref.WeakValueDictionary[int, Lease] = weakref.WeakValueDictionary()
"""Leases of regions that this process has pickled references to."""


def expire_graces() -> None:
    """Give back everything that only a grace keeps."""
    TIMER.expire(everything=True)
    TIMER.expire(everything=True)  # what was called may have dropped leases, which have a grace then
    TIMER.wake()


_is_registered = False
_children_arrange = False
_child = 0  # the process that has a finalizer


def _arrange() -> None:
    """Arrange for the end of this process, once; in process 1, clear up, too, what has ended."""
    global _is_registered
    process = os.getpid()
    if process == 1:
        reap_holders()
    if TIMER.arranged_in == process:
        return
    if not _is_registered:
        _is_registered = True
        atexit.register(_at_exit)
    TIMER.arranged_in = process
    _have_children_arrange()
    module = imported("multiprocessing.process")
    if module is not None and module.parent_process() is not None:
        _arrange_in_child()


@in_child
def _have_children_arrange() -> None:
    # A child of multiprocessing drops the finalizers that it inherited, or had before it knew that it is
    # one, and then calls this; for any other it stays without effect.
    global _children_arrange
    util = imported("multiprocessing.util")
    if util is not None and not _children_arrange and _is_registered:
        _children_arrange = True
        util.register_after_fork(TIMER, _arrange_in_child)


def _arrange_in_child(_: object = None) -> None:
    from multiprocessing import util

    global _child
    _child = os.getpid()
    # After the feeders of queues (-5), which pickle what was put in last.
    util.Finalize(None, _end_child, exitpriority=-100)


def _at_exit() -> None:
    # From Python 3.13 a child's finalizers are called at exit, too: after this, and after what queues send.
    if _child != os.getpid() or has_ended():
        TIMER.ended = os.getpid()
        _release_all()


def _end_child() -> None:
    """Give everything back; another process holds for its grace what this one has passed on itself."""
    if has_ended():  # arranged for twice
        return
    TIMER.ended = os.getpid()
    with TIMER.closing:
        with contextlib.suppress(ValueError):  # a setting that is wrong: share() has told the user
            _leave_to_holder(settings.grace())
        _release_all()


def _leave_to_holder(grace: float) -> None:
    now = time.monotonic()
    left = [(due - now, release) for due, release in [*TIMER.entries] if isinstance(release, Release)]
    leases = [lease for ref in _passed_on.valuerefs() if (lease := ref()) is not None]
    left += [(grace, release) for lease in leases if (release := lease.in_grace()) is not None]
    whole = [release.held for _, release in left if release.is_whole]
    if whole and (longest := max(seconds for seconds, _ in left)) > 0:
        hold_after_exit(whole, longest)


def _release_all() -> None:
    for ref in _of_files.valuerefs():  # a list: other threads may still be opening regions
        if (lease := ref()) is not None:
            with contextlib.suppress(OSError):
                lease.let_go()
    TIMER.expire(everything=True)
