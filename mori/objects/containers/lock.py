"""The lock on what openings have handed out; a forked child has a new one, since no thread of its holds it.

Imports nothing of mori. Reentrant: what a garbage collection runs may open something, too.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Final

__all__ = ["lock"]


class _Lock:
    """A reentrant lock that is free after a fork."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        self._inner = threading.RLock()

    def renew(self) -> None:
        """In a forked child, forget a holder that is a thread of the parent's."""
        if self._inner.acquire(blocking=False):  # it was free, or the forking thread has it and lets go of it
            self._inner.release()
        else:
            self._inner = threading.RLock()

    def __enter__(self) -> None:
        self._inner.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.release()


lock: Final = _Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lock.renew)
