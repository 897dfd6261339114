"""Locks between processes of one user, and the user's own directory in which they lie.

What another user may open, he may lock, for as long as he likes. So each user has a directory inside a shared
one, such as /dev/shm, where nobody else has a name: whatever others put beside it costs nothing. Only where
another user has taken its name before is it one of a random name, which is found by looking through the names
of the shared one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from mori.errors import StoreError
from mori.store.base import Owner, opened

__all__ = ["exclusive", "is_own_directory", "lock", "make_directory", "own_directories"]

_PAUSE: Final = 0.005


def is_own_directory(path: str) -> bool:
    """Return whether a path is a directory, and no link to one, that this user alone can look into."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def own_directories(shared: str) -> list[str]:
    """Return this user's directories in a shared one: none before the first was made, and then that one.

    Several, the first to be used for what is new, only where another user has taken the name and several
    processes began at once.
    """
    first = _first(shared)
    if is_own_directory(first):
        return [first]
    if os.path.lexists(first):
        with contextlib.suppress(OSError):
            named = (os.path.join(shared, name) for name in os.listdir(shared))
            return sorted(path for path in named if path.startswith(f"{first}-") and is_own_directory(path))
    return []


def make_directory(shared: str) -> str:
    """Return the first of this user's directories in a shared one, made now if there is none.

    Raises
    ------
    StoreError
        If what is made there is not this user's alone; it is removed again.
    """
    if found := own_directories(shared):
        return found[0]
    path = _first(shared)
    try:
        _mkdir(path)
    except FileExistsError:
        if found := own_directories(shared):  # another process of this user has just made it
            return found[0]
        path = f"{path}-{os.urandom(8).hex()}"
        _mkdir(path)
    if not is_own_directory(path):
        raise _unkept(shared, path)
    return own_directories(shared)[0]


def _mkdir(path: str) -> None:
    os.mkdir(path, 0o700)
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700)  # a umask such as 177 has left its user out, too


def _unkept(shared: str, path: str) -> StoreError:
    """Remove a directory that is not as it was asked for; return the error that says so."""
    status = os.lstat(path)
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return StoreError(
        store=f"files:{shared}",
        found=f"a directory made there for user {os.geteuid()} alone (mode 700) belongs to user "
        f"{status.st_uid} and has mode {stat.S_IMODE(status.st_mode):o}, so that this file system (such as "
        "vfat, or what a network or a virtual machine shares) does not keep other users out",
        remedy="Set MORI_STORE=files:DIR to a directory on a file system with owners and modes",
    )


def _first(shared: str) -> str:
    return os.path.join(shared, f"mori-{os.geteuid()}")


def lock(fd: int, how: int) -> bool:
    """Lock a file as `fcntl.flock` says; return whether that was possible at once."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def exclusive(shared: str, name: str, seconds: float) -> Iterator[None]:
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
        path = os.path.join(make_directory(shared), f"{name}.lock")
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
