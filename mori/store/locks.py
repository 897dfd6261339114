"""Locks on open files, taken at once or not at all.

Imports nothing of mori.
"""

from __future__ import annotations

import fcntl

__all__ = ["lock"]


def lock(fd: int, how: int) -> bool:
    """Lock a file as `fcntl.flock` says; say whether that was possible at once."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
