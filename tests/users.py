"""Another user, for tests of what one may do to another: it takes root to be two."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

_ANOTHER = 54_321


def as_another_user(call: Callable[[], object]) -> None:
    """Run a function in a child process, as another user."""
    assert os.waitstatus_to_exitcode(os.waitpid(_start(call), 0)[1]) == 0


def _start(call: Callable[[], object]) -> int:
    if os.geteuid():
        pytest.skip("only root can be another user, too")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setgid(_ANOTHER)
            os.setuid(_ANOTHER)
            call()
            status = 0
        finally:
            os._exit(status)
    return pid


@contextmanager
def directory_for_all() -> Iterator[Path]:
    """Make a directory where all users may make files, as in /dev/shm."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        os.chmod(name, 0o1777)
        yield Path(name)


@contextmanager
def locked_by_another_user(*paths: Path) -> Iterator[list[str]]:
    """Have another user lock what he can open of some files; yield which those were."""
    ours, theirs = os.pipe()

    def lock() -> None:
        locked = []
        for path in paths:
            with suppress(OSError):
                flock(os.open(path, os.O_RDONLY), LOCK_EX)
                locked.append(str(path))
        os.write(theirs, "\n".join(locked).encode())
        time.sleep(100)

    pid = _start(lock)
    try:
        os.close(theirs)
        yield os.read(ours, 10_000).decode().split("\n")
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
