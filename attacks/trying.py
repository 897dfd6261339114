"""Tries an abuse in a child, under a limit of time, and says what came of it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable

__all__ = ["attempt", "become", "row"]

_PR_SET_DUMPABLE = 4
_LIMIT = 30  # seconds


def become(uid: int) -> None:
    """Become another user, as far as a process can tell that was started by one."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after execve: its /proc is its own again


def attempt(abuse: Callable[[], object], uid: int | None = None) -> str:
    """Return what an abuse comes to in a forked child: what it returns, its error, or its end."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        try:
            if uid is not None:
                become(uid)
            said = abuse()
            text = "done" if said is None else str(said)
        except BaseException as error:
            text = _named(error)
        os.write(theirs, text.encode())
        os._exit(0)
    os.close(theirs)
    limit = time.monotonic() + _LIMIT
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > limit:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(ours)
            return "hung"
        time.sleep(0.002)
    with os.fdopen(ours, "rb") as pipe:
        text = pipe.read().decode()
    if os.WIFSIGNALED(ended[1]):
        return f"ends the process ({signal.Signals(os.WTERMSIG(ended[1])).name})"
    return text


def _named(error: BaseException) -> str:
    if type(error).__module__.startswith("mori"):
        return f"refused: {type(error).__name__}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"refused: {errno.errorcode[error.errno]}"
    return f"refused: {type(error).__name__}"


def row(*cells: str) -> None:
    """Print a line of the table in README.md."""
    print(f"| {' | '.join(cells)} |", flush=True)
