"""Holds: what keeps a region alive for this process, and the grace that outlasts its last use.

Imports the keeper, the stores, settings and modules. Invariant: a hold is given back exactly once: when
nothing refers to it any more, after its grace if a reference to its region was pickled, or at the end of the
process. A child of multiprocessing leaves a keeper for what is in its grace then.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from mori import settings
from mori._imports import imported
from mori.memory import exit_holder
from mori.store.base import Held, Store

__all__ = ["Lease", "call_later", "expire_graces", "has_ended"]


class Lease:
    """This process's hold on a region in a store, given back when nothing refers to it any more.

    A mapping has one. An adapter keeps it beyond the mapping while its engine can still need the region.
    """

    __slots__ = ("__weakref__", "_files", "_held", "_pickled_by", "home")

    def __init__(self, held: Held, home: Store) -> None:
        self._held: Held | None
        self._files: Files | None
        # At once: whatever interrupts the rest, it is given back.
        self.home, self._pickled_by, self._files, self._held = home, 0, None, held
        statuses = held.statuses
        self._files = tuple(map(_file, statuses)) if statuses else _files_of(held)
        if _graces.kept:
            _graces.catch_up()
        process = os.getpid()
        if _arranged_in != process:
            _release_at_exit(process)
        if process == 1:
            exit_holder.reap()
        if held.path is not None:
            _files[id(self)] = self

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
    def held(self) -> Held:
        """What it holds in the store."""
        assert self._held is not None
        return self._held

    @property
    def is_recycled(self) -> bool:
        """Whether its pages may be written again when nobody holds them any more."""
        return self._held is not None and self._held.pages != 0

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
                _pickled[id(self)] = self

    def let_go(self) -> None:
        """Give it back to the store now, whoever still refers to it."""
        held, self._held = self._held, None
        if held is not None:
            _release(held, self._files, self.home)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if is_finalizing():
            return
        # Taken at once: a weak reference still gives this one out, and the end of the process lets go of all.
        held, self._held = getattr(self, "_held", None), None  # it has none if an interrupt met its beginning
        if held is None:
            return
        last = _Last(held, self._files, self.home)
        if not (self.needs_grace and _graces.keep(last)):
            last()

    def last(self) -> _Last | None:
        """Return what is left of it without its users; None if this process has pickled no reference."""
        if self._held is None or self._pickled_by != os.getpid():
            return None
        return _Last(self._held, self._files, self.home)


class _Last:
    """What is left of a hold without its users: calling it gives it back."""

    __slots__ = ("files", "held", "home")

    def __init__(self, held: Held, files: Files | None, home: Store) -> None:
        self.held = held
        self.files = files
        self.home = home

    def __call__(self) -> None:
        _release(self.held, self.files, self.home)

    @property
    def is_whole(self) -> bool:
        """Whether its descriptors are still those of the region."""
        return self.files is not None and None not in self.files and _files_of(self.held) == self.files


_LONGEST: Final = 3600.0  # seconds of one wait: no system takes any number of them
Files = tuple[tuple[int, int] | None, ...]


def _files_of(held: Held) -> Files:
    return tuple(map(_file_of, held.fds))


def _file_of(fd: int) -> tuple[int, int] | None:
    try:
        return _file(os.fstat(fd))
    except OSError:
        return None


def _file(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _release(held: Held, files: Files | None, home: Store) -> None:
    """Give a hold back, but close no descriptor that is another file's by now.

    A program may close what it does not know, as one does that becomes a daemon.
    """
    files = _files_of(held) if files is None else files
    own = [fd for fd, file in zip(held.fds, files, strict=True) if file is not None and _file_of(fd) == file]
    home.release(held._replace(fds=tuple(own)))


class _Graces:
    """Holds that outlast their last user: a reference may be on its way to another process.

    An entry says when something is due, and what is to be called then.

    A thread runs while there are any, and only then. `keep` is called from finalizers, at any
    moment of any thread, so it may not wait for a lock: to append to a list is one step, and
    `SimpleQueue.put` is reentrant. An entry is taken from the list, and called, with `closing` held: the
    end of the process and a fork miss none.

    Where no thread can be started (a limit), they stay all the same. What happens next in this process
    tries again, and lets go of what is due: whatever is mapped or dropped, and garbage collections.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[float, Callable[[], object]]] = []
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()  # for the thread: one will do
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.closing = threading.RLock()  # held across a fork, so that no child inherits half a release

    def keep(self, last: _Last) -> bool:
        try:
            seconds = settings.grace()
        except ValueError:  # share() has told the user; a finalizer cannot
            return False
        if not seconds:
            return False
        self.call(last, seconds)
        return True

    def call(self, action: Callable[[], object], seconds: float) -> None:
        self.kept.append((time.monotonic() + seconds, action))
        self.wake()
        self._ensure_thread()

    def wake(self) -> None:
        if self._news.empty():
            self._news.put(None)

    def catch_up(self) -> None:
        """See to what no thread sees to."""
        if self._thread is None and self.kept:
            self._ensure_thread()

    def _ensure_thread(self) -> None:
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="mori-grace", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:
            self._do_without()
        finally:
            self._starting.release()

    def _do_without(self) -> None:
        if _at_collection not in gc.callbacks:
            gc.callbacks.append(_at_collection)
        if self.closing.acquire(blocking=False):
            try:
                # After the end of all, nothing comes any more that could let go.
                self.expire(everything=_ended == os.getpid())
            finally:
                self.closing.release()

    def _run(self) -> None:
        while True:
            self.expire()
            if not self.kept and self._starting.acquire(blocking=False):
                self._thread = None
                self._starting.release()
                # What arrived while the lock was ours found no thread to start.
                if self.kept:
                    self._ensure_thread()
                return
            wait = min((until for until, _ in self.pending()), default=0.0) - time.monotonic()
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=min(max(0.0, wait), _LONGEST))

    def pending(self) -> list[tuple[float, Callable[[], object]]]:
        """Return what is due, and when."""
        return [*self.kept]

    def expire(self, *, everything: bool = False) -> None:
        """Let go of what has had its time, or of everything."""
        with self.closing:
            now = time.monotonic()
            for entry in self.pending():
                if not everything and entry[0] > now:
                    continue
                try:
                    self.kept.remove(entry)
                except ValueError:  # a finalizer that ran meanwhile has come here, too
                    continue
                with contextlib.suppress(OSError):  # the others are due all the same
                    entry[1]()

    def forget(self) -> None:
        """In a forked child: the graces are the parent's; close its descriptors here, start anew."""
        try:
            self.expire(everything=True)
        finally:
            self.__init__()  # type: ignore[misc]


_graces = _Graces()


def _at_collection(phase: str, info: object) -> None:
    if phase == "stop":
        _graces.catch_up()


def call_later(action: Callable[[], object], seconds: float = 0) -> None:
    """Call something on the thread of the graces: for those that may not wait, such as callbacks.

    It is called before its time if room is needed.
    """
    _graces.call(action, seconds)


def expire_graces() -> None:
    """Let go of everything that only a grace keeps."""
    _graces.expire(everything=True)
    _graces.expire(everything=True)  # what was called may have let go of holds, which have a grace then
    _graces.wake()


def has_ended() -> bool:
    """Return whether this process is about to end, and lets go of all that it holds."""
    return _ended == os.getpid()


_files: weakref.WeakValueDictionary[int, Lease] = weakref.WeakValueDictionary()
_pickled: weakref.WeakValueDictionary[int, Lease] = weakref.WeakValueDictionary()
_arranged_in = 0  # the process, since what is arranged is partly lost in a fork
_children_arrange = False
_child = 0  # the process that has a finalizer
_ended = 0  # the process that has come to its end


def _release_at_exit(me: int) -> None:
    """Arrange that files are let go when this process ends: the last holder has to unlink."""
    global _arranged_in
    if not _arranged_in:
        atexit.register(_at_exit)
    _arranged_in = me
    _have_children_arrange()
    process = imported("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _release_at_exit_of_child()


def _have_children_arrange() -> None:
    # A child of multiprocessing drops the finalizers that it inherited, or had before it knew that it is
    # one, and then calls this; for any other it stays without effect.
    global _children_arrange
    util = imported("multiprocessing.util")
    if util is not None and not _children_arrange:
        _children_arrange = True
        util.register_after_fork(_graces, _release_at_exit_of_child)


def _release_at_exit_of_child(_: object = None) -> None:
    # Children of multiprocessing leave by os._exit, after their finalizers and without atexit.
    from multiprocessing import util

    global _child
    _child = os.getpid()
    # After the feeders of queues (-5), which pickle what was put in last.
    util.Finalize(None, _end_of_child, exitpriority=-100)


def _at_exit() -> None:
    # From Python 3.13 a child's finalizers are called at exit, too: after this, and after what queues send.
    global _ended
    if _child != os.getpid() or _ended == os.getpid():
        _ended = os.getpid()
        _release_all()


def _end_of_child() -> None:
    """Let go of everything; a keeper holds for its grace what this process has passed on itself."""
    global _ended
    if _ended == os.getpid():  # arranged for twice
        return
    _ended = os.getpid()
    with _graces.closing:
        with contextlib.suppress(ValueError):  # a setting that is wrong: share() has told the user
            _leave_to_keeper(settings.grace())
        _release_all()


def _leave_to_keeper(grace: float) -> None:
    now = time.monotonic()
    left = [(due - now, last) for due, last in _graces.pending() if isinstance(last, _Last)]
    left += [(grace, last) for ref in _pickled.valuerefs() if (lease := ref()) and (last := lease.last())]
    holds = [last.held for _, last in left if last.is_whole]
    if holds and (longest := max(seconds for seconds, _ in left)) > 0:
        exit_holder.keep(holds, longest)


def _release_all() -> None:
    for ref in _files.valuerefs():  # a list: other threads may still be opening regions
        if (lease := ref()) is not None:
            with contextlib.suppress(OSError):
                lease.let_go()
    _graces.expire(everything=True)


def _before_fork() -> None:
    _graces.closing.acquire()


def _after_fork_in_parent() -> None:
    _graces.closing.release()


def _after_fork_in_child() -> None:
    _graces.forget()
    _have_children_arrange()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
