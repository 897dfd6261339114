"""The exit holder: a process that has nothing but descriptors, until a grace is over.

It holds what a child process has passed on as its last act, for as long as the reference may be on its way.
It is nobody's child, has none of its creator's other files, and frees what it was the last to hold.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mori.store.base import Held


__all__ = ["hold_after_exit", "reap_holders"]

_NAME: Final = "mori-holder"
_REAP_EVERY: Final = 1.0  # seconds

# The shell and its sleep take 0.3 MB, Python 2.5 MB: it comes only in the end, for what has to be unlinked.
_WAIT: Final = 'printf %s "$0" >/proc/self/comm; sleep "$1"; shift; test $# = 0 || exec "$@"'

# As the files store lets go: close first, then see by a new descriptor's lock whether it was the last.
_UNLINK: Final = """
import fcntl, os, sys
try:
    with open("/proc/self/comm", "w") as comm:
        comm.write(sys.argv.pop(1))
except OSError:
    pass
for fd, path in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        held = os.fstat(int(fd))
        os.close(int(fd))
        new = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if os.path.samestat(os.fstat(new), held):
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path, follow_symlinks=False), held):
                os.unlink(path)
        os.close(new)
    except OSError:
        pass
"""


def hold_after_exit(holds: Sequence[Held], seconds: float) -> None:
    """Start a process that holds these regions for some seconds; where none can be started, they are lost.

    What this process holds itself stays as it is.
    """
    files = [str(word) for held in holds if held.path is not None for word in (held.fds[0], _absolute(held))]
    unlink = [sys.executable, "-I", "-S", "-c", _UNLINK, _NAME, *files] if files else []
    if files and (not sys.executable or getattr(sys, "frozen", False)):
        return  # this program is no interpreter that could unlink
    # Not all that sleep take fractions.
    wait = f"{seconds:.3f}" if seconds < 1 else str(math.ceil(seconds))
    import subprocess  # which multiprocessing has imported by now

    with contextlib.suppress(OSError):
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT, _NAME, wait, *unlink],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            pass_fds=[fd for held in holds for fd in held.fds],
            start_new_session=True,
        )
        process.returncode = 0  # it outlives this process: nobody waits for it


def _absolute(held: Held) -> str:
    assert held.path is not None
    return os.path.abspath(held.path)


_reaped = -_REAP_EVERY


def reap_holders() -> None:
    """Remove exit holders that have ended from the table of processes, in the first process of a container.

    That process adopts them. An init reaps whatever it adopts; a program that was started as the first does
    not.
    """
    global _reaped
    if time.monotonic() - _reaped < _REAP_EVERY:
        return
    _reaped = time.monotonic()
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                children = file.read().split()
            for child in children:
                _reap_if_over(child)


def _reap_if_over(child: str) -> None:
    with contextlib.suppress(OSError):  # another thread has been faster
        with open(f"/proc/{child}/stat", encoding="utf-8", errors="replace") as file:
            is_over = f" ({_NAME}) Z " in file.read()
        if is_over:
            os.waitpid(int(child), os.WNOHANG)
