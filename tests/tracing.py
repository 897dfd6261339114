"""A child that is killed at the system call of one's choice: ptrace, by ctypes alone."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["Ended", "can_trace", "run_until_call"]

_TRACEME: Final = 0
_SYSCALL: Final = 24
_SETOPTIONS: Final = 0x4200
_GET_SYSCALL_INFO: Final = 0x420E
_SYSGOOD: Final = 1
_EXITKILL: Final = 0x100000
_AT_CALL: Final = signal.SIGTRAP | 0x80
_ENTRY: Final = 1
_UNTRACED: Final = 77


class _Info(ctypes.Structure):
    """``struct ptrace_syscall_info``, of an entry."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class Ended(NamedTuple):
    """How a traced child ended."""

    pid: int
    calls: tuple[int, ...]
    """The numbers of the system calls that it began, the one that it was killed at included."""
    status: int
    """As `os.waitstatus_to_exitcode` has it: -9 where it was killed."""


def _ptrace(request: int, pid: int, address: int, data: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    found = int(libc.ptrace(request, pid, address, data))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def run_until_call(
    act: Callable[[], object],
    last: int,
    prepare: Callable[[], object] = lambda: None,
    look: Callable[[int], object] = lambda pid: None,
) -> Ended:
    """Fork a child, and kill it with SIGKILL as it enters its system call number `last`, counted from 0.

    The call is not carried out. While it stands still, before it is killed, `look` is called with its pid.
    Counting starts when `prepare` has returned; a child that gets by with fewer calls ends by itself. Only
    the calling thread of this process may wait for the child.

    Raises
    ------
    OSError
        If this system does not let a process trace its child.
    """
    pid = os.fork()
    if not pid:
        status = 1
        try:
            prepare()
            try:
                _ptrace(_TRACEME, 0, 0, None)
            except OSError:
                os._exit(_UNTRACED)
            os.kill(os.getpid(), signal.SIGSTOP)
            act()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    calls: list[int] = []
    try:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            ended = os.waitstatus_to_exitcode(status)
            if ended == _UNTRACED:
                raise OSError("ptrace is refused here")
            return Ended(pid, (), ended)
        _ptrace(_SETOPTIONS, pid, 0, _SYSGOOD | _EXITKILL)
        passed_on = 0
        while True:
            _ptrace(_SYSCALL, pid, 0, passed_on)
            _, status = os.waitpid(pid, 0)
            if not os.WIFSTOPPED(status):
                return Ended(pid, tuple(calls), os.waitstatus_to_exitcode(status))
            stopped_by = os.WSTOPSIG(status)
            passed_on = 0 if stopped_by in (_AT_CALL, signal.SIGSTOP) else stopped_by
            if stopped_by != _AT_CALL:
                continue
            info = _Info()
            _ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
            if info.op != _ENTRY:
                continue
            calls.append(info.number)
            if len(calls) > last:
                look(pid)
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                return Ended(pid, tuple(calls), os.waitstatus_to_exitcode(status))
    except BaseException:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        raise


def can_trace() -> str | None:
    """Say why no child can be traced here; None if one can."""
    if sys.platform != "linux":
        return f"{platform.system()} has no ptrace that counts system calls"
    try:
        run_until_call(os.getppid, 0)
    except OSError as error:
        return f"ptrace is refused here ({error})"
    return None
