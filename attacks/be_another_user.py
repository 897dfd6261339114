"""Another user of the host, and root, try to read a user's regions, and to get theirs opened by that user."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mori
from attacks.trying import attempt, row

_ATTACKER, _VICTIM = 65533, 65534
_SYS_PIDFD_OPEN, _SYS_PIDFD_GETFD = 434, 438
_libc = ctypes.CDLL(None, use_errno=True)

_OF_VICTIM = """
import os, pickle, sys
import numpy, mori
from attacks.trying import become
from mori.memory import mapping as mappings
from mori.memory import region
first = mori.share(numpy.arange(3))  # imports what it takes: that user may not be able to
become(65534)
shared = mori.share(numpy.arange(1000))
mapping = mappings.held_by(shared)
said = [mori.shared_name(shared), pickle.dumps(shared), mapping.lease.fd, mapping.address, os.getpid()]
sys.stdout.buffer.write(pickle.dumps(said))
sys.stdout.flush()
for name in sys.stdin:  # names to open, one a line
    try:
        got = mori.map_shared(name.strip())
        print(f"opened: {got.sum()}", flush=True)
    except mori.MoriError as error:
        print(f"refused: {type(error).__name__}", flush=True)
"""


class Region(NamedTuple):
    """What there is to know of the victim's region; a name is no secret."""

    name: str
    pickled: bytes
    fd: int
    address: int
    pid: int
    directory: Path
    process: Any


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("nbytes", ctypes.c_size_t))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def by_name(region: Region) -> str:
    return f"**reads {mori.map_shared(region.name).sum()}**"


def by_reference(region: Region) -> str:
    return f"**reads {pickle.loads(region.pickled).sum()}**"


def by_listing(region: Region) -> str:
    return "**sees it**" if region.name in [each.name for each in mori.regions()] else "it is not listed"


def by_descriptor(region: Region) -> None:
    os.open(f"/proc/{region.pid}/fd/{region.fd}", os.O_RDONLY)


def by_file(region: Region) -> None:
    os.open(region.directory / region.name[1:], os.O_RDONLY)


def by_stealing(region: Region) -> None:
    pidfd = _checked(_libc.syscall(_SYS_PIDFD_OPEN, region.pid, 0))
    _checked(_libc.syscall(_SYS_PIDFD_GETFD, pidfd, region.fd, 0))


def by_reading_memory(region: Region) -> None:
    data = ctypes.create_string_buffer(8)
    ours, theirs = _Vector(ctypes.addressof(data), 8), _Vector(region.address, 8)
    _checked(_libc.process_vm_readv(region.pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))


def by_pruning(region: Region) -> str:
    return "**removes it**" if region.name in mori.prune_shared() else "nothing of it is removed"


def by_unlinking(region: Region) -> str | None:
    path = region.directory / region.name[1:]
    try:
        path.unlink()
    except FileNotFoundError:
        return "there is no file"
    return None


def by_handing_over(region: Region) -> str:
    """Make a region of one's own, under a name that the victim then opens."""
    shared = mori.share(np.arange(1000))
    region.process.stdin.write(f"{mori.shared_name(shared)}\n".encode())
    region.process.stdin.flush()
    said: str = region.process.stdout.readline().decode().strip()
    return said


ABUSES: tuple[tuple[str, Callable[[Region], Any]], ...] = (
    ("`map_shared` of its name", by_name),
    ("unpickling its reference, and using what comes", by_reference),
    ("`regions()`", by_listing),
    ("opening `/proc/PID/fd/N`", by_descriptor),
    ("opening the file of its name", by_file),
    ("`pidfd_getfd`", by_stealing),
    ("`process_vm_readv`", by_reading_memory),
    ("`prune_shared()`", by_pruning),
    ("having the victim open a region of the attacker's", by_handing_over),
    ("unlinking its file", by_unlinking),  # the last: it is gone then
)


def main() -> None:
    if os.geteuid():
        sys.exit("only root can become two other users")
    os.environ["MORI_GRACE"] = "0"
    for who, uid in (("another user", _ATTACKER), ("root", 0)):
        memfd, files = (_outcomes(kind, uid) for kind in ("memfd", "files"))
        for (what, _), *cells in zip(ABUSES, memfd, files, strict=True):
            row(f"{who}: {what}", *cells)


def _outcomes(kind: str, uid: int) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o1777)
        os.environ["MORI_STORE"] = kind if kind == "memfd" else f"files:{directory}"
        first = mori.share(np.arange(3))  # imports what it takes, as long as that can be done
        assert pickle.loads(pickle.dumps(first)) is not None
        del first
        with subprocess.Popen(
            [sys.executable, "-c", _OF_VICTIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as victim:
            assert victim.stdout is not None
            known = Region(*pickle.load(victim.stdout), Path(directory) / f"mori-{_VICTIM}", victim)
            outcomes = [attempt(partial(abuse, known), uid) for _, abuse in ABUSES]
            victim.communicate()
        return outcomes


if __name__ == "__main__":
    main()
