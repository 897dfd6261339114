"""Another user, for tests of what one may do to another: it takes root to be two."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest


@contextmanager
def user_of_its_own() -> Iterator[int]:
    """Yield the id of a user without processes; remove his directory in /dev/shm, which has to be empty."""
    user = 1_900_000_000 + os.getpid() % 4_000_000
    home = Path(f"/dev/shm/mori-{user}")
    try:
        yield user
        left = os.listdir(home) if home.exists() else []
        assert not left, f"{home} has {left}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def as_another_user(call: Callable[[], object]) -> None:
    """Run a function in a child process, as another user."""
    with user_of_its_own() as user:
        assert os.waitstatus_to_exitcode(os.waitpid(_start(call, user), 0)[1]) == 0


def _start(call: Callable[[], object], user: int) -> int:
    if os.geteuid():
        pytest.skip("only root can be another user, too")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
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

    with user_of_its_own() as user:
        pid = _start(lock, user)
        try:
            os.close(theirs)
            yield os.read(ours, 10_000).decode().split("\n")
        finally:
            os.close(ours)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
