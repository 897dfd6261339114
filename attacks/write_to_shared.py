"""The owner of a region, and a reader of it, try to change its bytes or its size."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

import mori
from attacks.trying import attempt, row
from mori.memory import mapping as mappings

_libc = ctypes.CDLL(None, use_errno=True)
_PUNCH_HOLE = 0x01 | 0x02  # keeps the size
_MADV_REMOVE = 9


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("nbytes", ctypes.c_size_t))


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


class Target:
    """A shared array, as an attacker in a process that has it sees it."""

    def __init__(self, array: Any) -> None:
        mapping = mappings.held_by(array)
        assert mapping is not None
        assert mapping.lease is not None
        self.array, self.address, self.nbytes = array, mapping.address, mapping.nbytes
        self.fd = mapping.lease.fd
        self.place = array.__array_interface__["data"][0]

    def reopened(self) -> int:
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR)


def by_pwrite(target: Target) -> None:
    os.pwrite(target.fd, b"x" * 8, target.nbytes - 8)


def by_pwrite_reopened(target: Target) -> None:
    os.pwrite(target.reopened(), b"x" * 8, target.nbytes - 8)


def by_shrinking(target: Target) -> None:
    os.ftruncate(target.reopened(), 100)


def by_growing(target: Target) -> None:
    os.ftruncate(target.reopened(), target.nbytes + 4096)


def by_opening_truncated(target: Target) -> None:
    os.open(f"/proc/self/fd/{target.fd}", os.O_RDWR | os.O_TRUNC)


def by_punching(target: Target) -> None:
    size = ctypes.c_long(target.nbytes)
    _checked(_libc.fallocate(target.reopened(), _PUNCH_HOLE, ctypes.c_long(0), size))


def by_new_mapping(target: Target) -> None:
    with mmap.mmap(target.reopened(), 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
        memory[-8:] = b"x" * 8


def by_unsealing(target: Target) -> str:
    before = fcntl.fcntl(target.fd, 1034)
    fcntl.fcntl(target.reopened(), 1033, 0)
    return "done"[: 4 * (fcntl.fcntl(target.fd, 1034) != before)] or "no seal can be taken off"


def by_numpy(target: Target) -> None:
    target.array.view(np.ndarray).flags.writeable = True


def by_private_write(target: Target) -> None:
    target.array[-1] = -1


def by_memmove(target: Target) -> None:
    ctypes.memset(target.place, 0x78, 8)


def by_mprotect(target: Target) -> None:
    pages, size = ctypes.c_void_p(target.address), ctypes.c_size_t(target.nbytes)
    _checked(_libc.mprotect(pages, size, mmap.PROT_READ | mmap.PROT_WRITE))
    ctypes.memset(target.place, 0x78, 8)


def by_proc_mem(target: Target) -> None:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(target.place)
        memory.write(b"x" * 8)


def by_process_vm_writev(target: Target) -> None:
    data = ctypes.create_string_buffer(b"x" * 8)
    ours = _Vector(ctypes.addressof(data), 8)
    theirs = _Vector(target.place, 8)
    _checked(_libc.process_vm_writev(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))


def by_madvise(target: Target) -> None:
    pages, size = ctypes.c_void_p(target.address), ctypes.c_size_t(target.nbytes)
    _checked(_libc.madvise(pages, size, _MADV_REMOVE))


def by_executing(target: Target) -> None:
    os.fchmod(target.reopened(), 0o700)
    os.execve(target.fd, ["x"], {})


ABUSES: tuple[tuple[str, Callable[[Target], Any]], ...] = (
    ("`pwrite` to the descriptor that holds it", by_pwrite),
    ("`pwrite` to the same, opened again for writing", by_pwrite_reopened),
    ("`ftruncate` to less", by_shrinking),
    ("`ftruncate` to more", by_growing),
    ("`open` with `O_TRUNC`", by_opening_truncated),
    ("`fallocate`, punching a hole", by_punching),
    ("a new writable, shared mapping", by_new_mapping),
    ("taking seals off", by_unsealing),
    ("`array.flags.writeable = True`", by_numpy),
    ("`array[-1] = -1`, which is meant to work, for this array alone", by_private_write),
    ("`ctypes.memset` on the mapped pages", by_memmove),
    ("`mprotect` of the mapped pages", by_mprotect),
    ("`/proc/self/mem`", by_proc_mem),
    ("`process_vm_writev`", by_process_vm_writev),
    ("`madvise(MADV_REMOVE)`", by_madvise),
    ("making it a program, and executing it", by_executing),
)


def outcome(abuse: Callable[[Target], Any], is_reader: bool) -> str:
    """Try it on a region of its own, and look from here what is left of that."""
    shared = mori.share(np.arange(10_000))
    name = mori.shared_name(shared)
    assert name is not None
    said = attempt(lambda: abuse(Target(_opened_anew(shared, name) if is_reader else shared)))
    with open(f"/proc/self/fd/{Target(shared).fd}", "rb") as file:
        data = file.read()
    intact = len(data) == Target(shared).nbytes and data[-80_000:] == np.arange(10_000).tobytes()
    if intact:
        return said
    return f"**{said}: others see it**"


def _opened_anew(shared: Any, name: str) -> Any:
    """Open it as another process does: with a descriptor and a mapping of its own."""
    from mori.memory import mapping

    mapping._mappings.clear()
    return mori.map_shared(name)


def main() -> None:
    os.environ["MORI_GRACE"] = "0"
    with tempfile.TemporaryDirectory() as directory:
        for what, abuse in ABUSES:
            found = []
            for setting in ("memfd", f"files:{directory}"):
                os.environ["MORI_STORE"] = setting
                owner, reader = outcome(abuse, False), outcome(abuse, True)
                found.append(owner if owner == reader else f"owner {owner}; reader {reader}")
            row(what, *found)


if __name__ == "__main__":
    main()
