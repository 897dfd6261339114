"""A user's own directory inside one that others can write to, such as /dev/shm: nobody else has a name there.

Whatever others put beside it costs nothing. Only where another user has taken its name before is it one of a
random name, which is found by looking through the names of the shared one.
"""

from __future__ import annotations

import contextlib
import os
import stat

from mori.errors import StoreError

__all__ = ["is_own", "make", "own"]


def is_own(path: str) -> bool:
    """Return whether a path is a directory, and no link to one, that this user alone can look into."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def own(shared: str) -> list[str]:
    """Return this user's directories in a shared one: none before the first was made, and then that one.

    Several, the first to be used for what is new, only where another user has taken the name and several
    processes began at once.
    """
    first = _first(shared)
    if is_own(first):
        return [first]
    if os.path.lexists(first):
        with contextlib.suppress(OSError):
            named = (os.path.join(shared, name) for name in os.listdir(shared))
            return sorted(path for path in named if path.startswith(f"{first}-") and is_own(path))
    return []


def make(shared: str) -> str:
    """Return the first of this user's directories in a shared one, made now if there is none.

    Raises
    ------
    StoreError
        If what is made there is not this user's alone; it is removed again.
    """
    if found := own(shared):
        return found[0]
    path = _first(shared)
    try:
        _mkdir(path)
    except FileExistsError:
        if found := own(shared):  # another process of this user has just made it
            return found[0]
        path = f"{path}-{os.urandom(8).hex()}"
        _mkdir(path)
    if not is_own(path):
        raise _unkept(shared, path)
    return own(shared)[0]


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
