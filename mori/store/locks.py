"""Locks on open files of this user's: what another user may open, he may lock, for as long as he likes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

from mori.store import directories
from mori.store.base import Owner, opened

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
        Of what is done. While it is done, a file of this name is in the user's own directory. It stays there
        only if its process was killed, until the next one is done with it.
    seconds : float
        How long to wait for others. After that, or where no file can be made, the block runs all the same.
    """
    pid = os.getpid()
    owner: Owner | None = None
    with contextlib.suppress(OSError):
        path = os.path.join(directories.make(shared), f"{name}.lock")
        owner = _wait(path, time.monotonic() + seconds)
    try:
        yield
    finally:
        if owner is not None and os.getpid() == pid:  # a forked child that leaves the block has not locked it
            fd = owner.fileno()
            with contextlib.suppress(OSError):
                # Before it is unlocked: afterwards it may be another's. Nor is it ours if it was removed.
                if os.fstat(fd).st_nlink:
                    os.unlink(path)
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile would keep it
        if owner is not None:
            owner.close()


def _wait(path: str, limit: float) -> Owner | None:
    """Return the owner of the locked file of a path; None if others have it locked until the limit.

    Whoever had it has unlinked it before he unlocks it. A lock on what was unlinked keeps nobody out, since
    the next one makes another file of that path.
    """
    while True:
        owner = opened(os.open, path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        while not lock(owner.fileno(), fcntl.LOCK_EX):
            if time.monotonic() >= limit:
                return None
            time.sleep(_PAUSE)
        if os.fstat(owner.fileno()).st_nlink:
            return owner
        owner.close()
