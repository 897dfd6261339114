"""The pool: the pages of freed regions, kept for a while to be written again under a new id.

Invariant: pages are written to only while this process has the exclusive lock of each of their files. Every
holder of a region, and every mapping of it, has a shared one for as long as it lives.

What that gives up: a file that is to be written again cannot be sealed against all writing. Nobody can write
to it by a descriptor or by a new mapping (F_SEAL_FUTURE_WRITE), but its creator keeps one mapping. That is
read-only while the region lives, and a call of mprotect could open it. So the pool is for who asks for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import mmap
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from mori import settings
from mori._fork import in_child
from mori.errors import LimitError, StoreWarning
from mori.memory.grace import call_later
from mori.memory.mmap import PAGE, keep_from_children, map_files, populate, protect
from mori.store import limits
from mori.store.base import (
    HEADER,
    MEMFD,
    Draft,
    Held,
    Owner,
    Store,
    align,
    forsake,
    is_out_of_descriptors,
    opened,
)
from mori.store.locks import lock
from mori.store.memfd import RECYCLED, MemfdStore, seal_for_reuse, segments_of

__all__ = ["current", "give_back", "takes"]

_LEAST: Final = 1 << 20  # smaller regions cost little
_STEPS: Final = 8  # sizes for each power of two: what is a little larger still fits
_WASTE: Final = 2  # how many times as large as a region its pages may be
_EVERY: Final = 1.0  # seconds between the looks at what is kept
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE


class _Pages:
    """Files that are written again and again, and the one mapping that can write to them."""

    def __init__(self, owners: tuple[Owner, ...], segment_nbytes: int) -> None:
        self.held = Held.of(owners)
        self.fds = fds = self.held.fds
        self.segment_nbytes = segment_nbytes
        self.nbytes = len(fds) * segment_nbytes
        self.used = 0  # bytes that have been written to since they were made
        self._ready = 0  # bytes that can be written to without a fault
        self.is_sealed = False
        self.since = 0.0  # when its region was let go
        for fd in fds:
            os.ftruncate(fd, segment_nbytes)
        self._owner: mmap.mmap | None
        self.address, self._owner = map_files(
            fds, segment_nbytes, 0, self.nbytes, _READ_WRITE, mmap.MAP_SHARED
        )
        keep_from_children(self.address, self.nbytes)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    def close_to_writes(self) -> None:
        if not self.is_sealed:
            for fd in self.fds:
                seal_for_reuse(fd)
            self.is_sealed = True
        protect(self.address, self.nbytes, mmap.PROT_READ)
        os.utime(self.fds[0])  # writing through a mapping does not say when

    @property
    def is_ready(self) -> bool:
        """Whether they can be opened to writes at once."""
        return self._ready >= self.used

    def open_to_writes(self) -> bool:
        """Make ready to be written again, if no process holds or maps them; say whether it was so."""
        for done, fd in enumerate(self.fds):
            if not lock(fd, fcntl.LOCK_EX):
                self.unlock(done)
                return False
        protect(self.address, self.nbytes, _READ_WRITE)
        np.asarray(self)[: HEADER.size] = 0  # they are no region until all of it is written
        self.reserve(self.used)
        return True

    def unlock(self, count: int | None = None) -> None:
        for fd in self.fds[:count]:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def reserve(self, nbytes: int) -> None:
        """Reserve memory for so many bytes; a lack of it is an error here and not a later SIGBUS.

        This maps each page, too, so that writing is no more than copying.
        """
        if (missing := align(nbytes, PAGE) - self._ready) > 0:
            populate(self.address + self._ready, missing)
            self._ready += missing
        self.used = max(self.used, nbytes)

    def close(self, *, is_child: bool = False) -> None:
        """Unmap and close them; in a forked child, which has not inherited the mapping, close them only."""
        if is_child:  # others' memory may lie there
            forsake(self._owner)
        self._owner = None
        self.held.close()


class RecyclingStore(MemfdStore):
    """Regions in memfds that are written again when nobody holds or maps them any more.

    Their holders find them as they find all that lies in memfds.
    """

    def __init__(self, later: Callable[[Callable[[], object], float], None]) -> None:
        super().__init__()
        self._later = later
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        # A signal's handler that shares may come in wherever its thread has it: see `_take`.
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._all: dict[int, _Pages] = {}
        self._returned: queue.SimpleQueue[int] = queue.SimpleQueue()  # finalizers may not wait for the lock
        self._let_go: list[int] = []  # others may still hold them
        self._free: list[int] = []
        self._is_tended = False

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft | None:
        pid = os.getpid()
        with self._lock:
            self._collect(at_once=True)
            fitting = self._fitting(nbytes)
            which = self._new(nbytes) if fitting is None else fitting
            found = self._all[which]
        draft = Draft(found.held._replace(pages=which), pid, number, None, found.segment_nbytes)
        if len(found.fds) == 1:
            draft = draft._replace(segment_nbytes=0)
        if fitting is None:
            found.used = nbytes
            return draft
        try:
            found.reserve(nbytes)
        except BaseException:
            self.discard(draft)
            raise
        return draft._replace(memory=np.asarray(found)[:nbytes])

    def _fitting(self, nbytes: int) -> int | None:
        """Return the number of free pages of a fitting size, now taken; None if there are none."""
        sizes = {which: self._all[which].nbytes for which in self._free[:] if which in self._all}
        fitting = [which for which, most in sizes.items() if nbytes <= most <= _WASTE * nbytes]
        return next(
            (which for which in sorted(fitting, key=sizes.__getitem__) if _take(which, self._free)), None
        )

    def _new(self, nbytes: int) -> int:
        step = (1 << (nbytes.bit_length() - 1)) // _STEPS
        rounded = -(-nbytes // step) * step
        segments, segment_nbytes = segments_of(rounded)
        made = _Pages(self.files(RECYCLED, os.urandom(16), segments), segment_nbytes or align(rounded, PAGE))
        which = next(self._numbers)
        self._all[which] = made
        return which

    def publish(self, draft: Draft) -> Held:
        found = self._all[draft.held.pages]
        found.close_to_writes()
        found.unlock()
        owners = []
        for fd in found.fds:
            owners.append(opened(os.open, f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
            lock(owners[-1].fileno(), fcntl.LOCK_SH)
        return Held.of(owners, pages=draft.held.pages)

    def discard(self, draft: Draft) -> None:
        with self._lock:
            if (found := self._all.pop(draft.held.pages, None)) is not None:
                found.close()

    def release(self, held: Held) -> None:
        super().release(held)
        if held.pages in self._all and self._pid == os.getpid():
            self._returned.put(held.pages)
            self._later(self.tend, 0)

    def tend(self) -> None:
        """Collect returned pages, free expired ones, and schedule the next round."""
        if self._pid != os.getpid():  # a child that was forked just now: nothing of it is its own
            return
        with self._lock:
            self._collect()
            self._is_tended = False
            self._schedule()

    def give_back(self) -> None:
        """Free all pages without a region: the room is needed."""
        with self._lock:
            self._collect()
            for which in self._free[:]:
                self._drop(which)

    def _collect(self, *, at_once: bool = False) -> None:
        """Collect pages that were returned and that nobody holds; `at_once`: those that take no time."""
        with contextlib.suppress(queue.Empty):
            while True:
                which = self._returned.get_nowait()
                if which in self._all:
                    self._all[which].since = time.monotonic()
                    self._let_go.append(which)
        for which in self._let_go[:]:
            if not _take(which, self._let_go):
                continue
            found, is_open = self._all[which], False
            try:
                with contextlib.suppress(OSError):  # there is no memory: they will be given back
                    is_open = (found.is_ready or not at_once) and found.open_to_writes()
            finally:
                (self._free if is_open else self._let_go).append(which)
        try:
            most, seconds = settings.pool(), settings.pool_seconds()
        except ValueError:  # share() tells the user
            most, seconds = 0, 0.0
        due = time.monotonic() - seconds
        for which in [*self._let_go, *self._free]:
            if (old := self._all.get(which)) is not None and old.since <= due:
                self._drop(which)
        for which in self._free[:]:
            if (idle := self._idle_nbytes()) <= most and idle <= limits.memory():
                break
            self._drop(which)

    def _idle_nbytes(self) -> int:
        return sum(self._all[which].used for which in self._free[:] if which in self._all)

    def _drop(self, which: int) -> None:
        """Free pages; whoever still holds their region keeps them."""
        if _take(which, self._free) or _take(which, self._let_go):
            self._all.pop(which).close()

    def _schedule(self) -> None:
        if (self._free or self._let_go) and not self._is_tended:
            self._is_tended = True
            self._later(self.tend, _EVERY)

    def after_fork(self) -> None:
        """In a forked child: the pages are the parent's."""
        inherited = self._all
        self._forget()
        for found in inherited.values():
            with contextlib.suppress(OSError):
                found.close(is_child=True)


def _take(which: int, among: list[int]) -> bool:
    """Remove pages from a list; False if they are not there any more.

    Whoever does something with pages takes them first. Else a signal's handler that shares in the middle of
    it would take them, too, and its region would lose its header, or be given back while it is used.
    """
    try:
        among.remove(which)
    except ValueError:
        return False
    return True


_store: RecyclingStore | None = None
_starting = threading.Lock()


def takes(home: Store, nbytes: int, most: int) -> bool:
    """Return whether a region of this size is to have recycled pages, of which there may be `most` bytes."""
    return home.kind == MEMFD and _LEAST <= nbytes <= most and _works()


@functools.cache
def _works() -> bool:
    """Return whether the system has what the pool needs: Linux from 5.14 on does."""
    try:
        tried = _Pages(current().files(RECYCLED, os.urandom(16), 1), PAGE)
        tried.close_to_writes()
        works = tried.open_to_writes()
        tried.reserve(PAGE)
    except OSError as error:
        if is_out_of_descriptors(error) or isinstance(error, LimitError):
            raise
        works = False
    if not works:
        warnings.warn(
            "MORI_POOL is set, but this system cannot keep pages to be written again (Linux can from 5.14 "
            "on): each region gets new pages",
            StoreWarning,
            stacklevel=2,
        )
    return works


def current() -> RecyclingStore:
    """Return the store of such regions."""
    global _store
    with _starting:
        if _store is None:
            _store = RecyclingStore(call_later)
    return _store


def give_back() -> None:
    """Free the pages that are kept: the room is needed."""
    if _store is not None:
        _store.give_back()


@in_child
def _after_fork_in_child() -> None:
    global _starting
    _starting = threading.Lock()
    if _store is not None:
        _store.after_fork()
