"""The timer of graces: what is called after a while, on a thread of its own that is there only meanwhile.

A grace is a lease that outlasts its last user, since a reference may be on its way to another process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import threading
import time
from collections.abc import Callable

__all__ = ["TIMER", "call_later", "has_ended"]

_LONGEST = 3600.0  # seconds of one wait: no system takes any number of them


class GraceTimer:
    """Calls what is due, on a thread that runs while there is anything to wait for.

    `call` is called from finalizers, at any moment of any thread, so it may not wait for a lock: to append to
    a list is one step, and `SimpleQueue.put` is reentrant. An entry is taken from the list, and called, with
    `closing` held, so that the end of the process and a fork miss none.

    Where no thread can be started (a limit), the entries stay all the same. What happens next in this process
    tries again, and calls what is due: whatever is mapped or dropped, and garbage collections.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[float, Callable[[], object]]] = []
        # Held across a fork, so that no child inherits half a release.
        self.closing: threading.RLock = threading.RLock()
        self.arranged_in = 0  # the process whose end is arranged for, since that is partly lost in a fork
        self.ended = 0  # the process that has come to its end: nothing may wait any more
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes the thread: one will do
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def call(self, action: Callable[[], object], seconds: float) -> None:
        """Call something after some seconds."""
        self.entries.append((time.monotonic() + seconds, action))
        self.wake()
        self._ensure_thread()

    def wake(self) -> None:
        """Wake the thread: the entries have changed."""
        if self._news.empty():
            self._news.put(None)

    def catch_up(self) -> None:
        """Start the thread that could not be started before, or do its work."""
        if self._thread is None and self.entries:
            self._ensure_thread()

    def expire(self, *, everything: bool = False) -> None:
        """Call what is due, or everything."""
        with self.closing:
            now = time.monotonic()
            for entry in [*self.entries]:
                if not everything and entry[0] > now:
                    continue
                try:
                    self.entries.remove(entry)
                except ValueError:  # a finalizer that ran meanwhile has come here, too
                    continue
                with contextlib.suppress(OSError):  # the others are due all the same
                    entry[1]()

    def before_fork(self) -> None:
        """Wait until no release is half done."""
        self.closing.acquire()

    def after_fork_in_parent(self) -> None:
        """Release the lock again."""
        self.closing.release()

    def after_fork_in_child(self) -> None:
        """Reset the timer: the graces are the parent's, and their descriptors are closed here."""
        try:
            self.expire(everything=True)
        finally:
            self.__init__()  # type: ignore[misc]

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
                self.expire(everything=has_ended())
            finally:
                self.closing.release()

    def _run(self) -> None:
        while True:
            self.expire()
            if not self.entries and self._starting.acquire(blocking=False):
                self._thread = None
                self._starting.release()
                # What arrived while the lock was ours found no thread to start.
                if self.entries:
                    self._ensure_thread()
                return
            wait = min((due for due, _ in [*self.entries]), default=0.0) - time.monotonic()
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=min(max(0.0, wait), _LONGEST))


TIMER = GraceTimer()


def _at_collection(phase: str, info: object) -> None:
    if phase == "stop":
        TIMER.catch_up()


def call_later(action: Callable[[], object], seconds: float = 0) -> None:
    """Call something on the thread of the graces, for those that may not wait, such as finalizers.

    It is called before its time if room is needed.
    """
    TIMER.call(action, seconds)


def has_ended() -> bool:
    """Return whether this process is about to end, and gives back all that it has."""
    return TIMER.ended == os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=TIMER.before_fork,
        after_in_parent=TIMER.after_fork_in_parent,
        after_in_child=TIMER.after_fork_in_child,
    )
