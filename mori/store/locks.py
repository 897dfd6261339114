"""Locks on open files of this user's: what another user may open, he may lock, for as long as he likes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

from mori.store import directories

__all__ = ["alone", "lock"]

_PAUSE: Final = 0.005


def lock(fd: int, how: int) -> bool:
    """Lock a file as `fcntl.flock` says; return whether that was possible at once."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def alone(shared: str, name: str, seconds: float) -> Iterator[None]:
    """Keep this user's other processes, and threads, from doing the same at once.

    Parameters
    ----------
    shared : str
        A directory that all of them see, and other users may, too.
    name : str
        Of what is done. There is a file of this name in the user's own directory afterwards.
    seconds : float
        How long to wait for others. After that, or where no file can be made, the block runs all the same.
    """
    fd = -1
    try:
        with contextlib.suppress(OSError):
            path = os.path.join(directories.make(shared), f"{name}.lock")
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            limit = time.monotonic() + seconds
            while not lock(fd, fcntl.LOCK_EX) and time.monotonic() < limit:
                time.sleep(_PAUSE)
        yield
    finally:
        if fd >= 0:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile would keep it
            os.close(fd)
