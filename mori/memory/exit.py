"""The end of this process: leases of files are given back, what is in its grace is left to another process.

The kernel closes descriptors by itself; a file has to be unlinked by its last holder. Children of
multiprocessing end by `os._exit`, after their finalizers and without `atexit`, so both are arranged for.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import weakref
from typing import Protocol

from mori import settings
from mori._fork import in_child
from mori._imports import imported
from mori.memory import exit_holder
from mori.memory.grace import TIMER, has_ended
from mori.memory.release import Release

__all__ = ["arrange", "at_exit", "at_exit_of_child"]


class _Lease(Protocol):
    def let_go(self) -> None: ...

    def in_grace(self) -> Release | None: ...


at_exit: weakref.WeakValueDictionary[int, _Lease] = weakref.WeakValueDictionary()
"""Leases, by their ids, that have to be given back when this process ends: those of files."""
at_exit_of_child: weakref.WeakValueDictionary[int, _Lease] = weakref.WeakValueDictionary()
"""Leases of regions that this process has pickled references to."""

_is_registered = False
_children_arrange = False
_child = 0  # the process that has a finalizer


def arrange() -> None:
    """Arrange for the end of this process, once; in process 1, clear up, too, what has ended."""
    global _is_registered
    process = os.getpid()
    if process == 1:
        exit_holder.reap()
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
    leases = [lease for ref in at_exit_of_child.valuerefs() if (lease := ref()) is not None]
    left += [(grace, release) for lease in leases if (release := lease.in_grace()) is not None]
    whole = [release.held for _, release in left if release.is_whole]
    if whole and (longest := max(seconds for seconds, _ in left)) > 0:
        exit_holder.hold_after_exit(whole, longest)


def _release_all() -> None:
    for ref in at_exit.valuerefs():  # a list: other threads may still be opening regions
        if (lease := ref()) is not None:
            with contextlib.suppress(OSError):
                lease.let_go()
    TIMER.expire(everything=True)
