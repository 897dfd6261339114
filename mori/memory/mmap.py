"""Pages: files mapped into this process's addresses, and what is done to them.

Invariant: addresses belong to a `mmap.mmap`, which is there before anything is mapped at them, and unmaps
them when nothing refers to it any more. That is C: no signal's handler can raise an exception (Ctrl-C)
between the system's call and the moment when somebody knows of it, nor in place of a finalizer.

It only reserves them. The files are mapped over that by ctypes, because `mmap.mmap` puts nothing side by
side, protects nothing, and keeps a descriptor for each file.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from mori.store import limits
from mori.store.limits import HUGE

__all__ = [
    "PAGE",
    "copied_pages",
    "huge_pages",
    "keep_from_children",
    "map_files",
    "map_pages",
    "populate",
    "protect",
]

PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_FIXED: Final = 0x10  # MAP_FIXED, everywhere; Python's mmap does not name it
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, Linux 5.14
_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ssize_t,
]
_mprotect = _libc.mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def map_pages(fd: int, nbytes: int, protection: int, flags: int, address: int, offset: int = 0) -> None:
    """Map a file at an address, over what is mapped there; LimitError if that is refused."""
    if _mmap(address, nbytes, protection, flags | _FIXED, fd, offset) == _FAILED:
        raise limits.mapping_error(nbytes, ctypes.get_errno())


def map_files(
    fds: Sequence[int], segment_nbytes: int, start: int, nbytes: int, protection: int, flags: int
) -> tuple[int, mmap.mmap]:
    """Map part of a region that stands in one file, or in segments of several, as one range of addresses.

    `start` is a multiple of the page size. Returns the address, and what the addresses belong to. Raises
    LimitError if that is refused; then nothing is mapped.
    """
    # More addresses than that where huge pages fit in, which begin at multiples of their size.
    slack = HUGE if nbytes >= HUGE else 0
    try:
        owner = mmap.mmap(-1, nbytes + slack, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0)
    except OSError as error:
        raise limits.mapping_error(nbytes, error.errno or 0) from error
    address: int = np.frombuffer(owner, np.uint8).__array_interface__["data"][0]
    address += -address % HUGE if slack else 0
    done = 0
    while done < nbytes:
        number, offset = divmod(start + done, segment_nbytes) if segment_nbytes else (0, start)
        piece = min(segment_nbytes - offset, nbytes - done) if segment_nbytes else nbytes
        map_pages(fds[number], piece, protection, flags, address + done, offset)
        done += piece
    return address, owner


def protect(address: int, nbytes: int, protection: int) -> None:
    """Allow what may be done to pages, and nothing else."""
    _check(_mprotect(address, nbytes, protection))


def copied_pages(address: int, nbytes: int) -> list[tuple[int, int]] | None:
    """Return the runs of pages of a private mapping of a file that are this process's copies.

    As the addresses at which each begins and ends. A page that was not touched, or only read, is the file's.
    None where the system does not tell.
    """
    first = address // PAGE
    count = (address + nbytes - 1) // PAGE - first + 1
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            entries = np.frombuffer(os.pread(file.fileno(), 8 * count, 8 * first), np.uint64)
    except OSError:
        return None
    if len(entries) != count:
        return None
    is_there, is_swapped, is_files = ((entries >> np.uint64(bit)) & np.uint64(1) for bit in (63, 62, 61))
    copied = np.zeros(count + 2, np.int8)  # with a page at each end that is not
    copied[1:-1] = is_swapped | (is_there & ~is_files)
    edges = np.flatnonzero(np.diff(copied))
    return [
        ((first + int(low)) * PAGE, (first + int(high)) * PAGE)
        for low, high in zip(edges[::2], edges[1::2], strict=True)
    ]


def populate(address: int, nbytes: int) -> None:
    """Allocate pages for writing; a lack of memory is an error here, and no SIGBUS later."""
    try:
        _check(_madvise(address, nbytes, _POPULATE_WRITE))
    except OSError as error:
        if error.errno == errno.EFAULT:  # a write there would be a SIGBUS
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
        raise


@contextmanager
def huge_pages(fd: int, nbytes: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Set the size of a new file, and map huge pages of it that can be written to inside the context."""
    os.ftruncate(fd, nbytes)
    address, owner = map_files((fd,), 0, 0, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
    try:
        keep_from_children(address, nbytes)
        _check(_madvise(address, nbytes, mmap.MADV_HUGEPAGE))
        populate(address, nbytes)
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        yield np.frombuffer(memory, np.uint8)
    finally:
        del owner  # now: the frame of an error's traceback would keep it


def keep_from_children(address: int, nbytes: int) -> None:
    """Keep pages from being inherited by forked children."""
    _check(_madvise(address, nbytes, mmap.MADV_DONTFORK))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
