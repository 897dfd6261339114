"""Pages: files mapped into this process's addresses, and what is done to them.

Imports limits. ctypes, because Python's own mmap puts nothing side by side, protects nothing, and keeps a
descriptor for each mapping.
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
    "huge_pages",
    "keep_from_children",
    "map_files",
    "map_pages",
    "populate",
    "protect",
    "unmap",
    "unmap_pages",
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
unmap = _libc.munmap  # called as it is by finalizers
unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_mprotect = _libc.mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def map_pages(
    fd: int, nbytes: int, protection: int, flags: int, at: int | None = None, offset: int = 0
) -> int:
    """Map a file and return the address; LimitError if that is refused."""
    address = _mmap(at, nbytes, protection, flags, fd, offset)
    if address == _FAILED:
        raise limits.mapping_error(nbytes, ctypes.get_errno())
    assert address is not None
    return int(address)


def unmap_pages(address: int, nbytes: int) -> None:
    """Unmap a range of addresses."""
    unmap(address, nbytes)


def map_files(
    fds: Sequence[int], segment_nbytes: int, start: int, nbytes: int, protection: int, flags: int
) -> int:
    """Map part of a region that stands in one file, or in segments of several, as one range of addresses.

    `start` is a multiple of the page size. Raises LimitError if that is refused; then nothing is mapped.
    """
    if len(fds) == 1:
        return map_pages(fds[0], nbytes, protection, flags, offset=start)
    address = _reserved(nbytes)
    done = 0
    try:
        while done < nbytes:
            number, offset = divmod(start + done, segment_nbytes)
            piece = min(segment_nbytes - offset, nbytes - done)
            map_pages(fds[number], piece, protection, flags | _FIXED, address + done, offset)
            done += piece
    except BaseException:
        unmap_pages(address, nbytes)
        raise
    return address


def _reserved(nbytes: int) -> int:
    """Return a range of addresses for segments to be put side by side, where huge pages fit in."""
    whole = map_pages(-1, nbytes + HUGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = -(-whole // HUGE) * HUGE
    end = address + -(-nbytes // PAGE) * PAGE
    if address > whole:
        unmap_pages(whole, address - whole)
    unmap_pages(end, whole + nbytes + HUGE - end)
    return address


def protect(address: int, nbytes: int, protection: int) -> None:
    """Allow what may be done to pages, and nothing else."""
    _check(_mprotect(address, nbytes, protection))


def populate(address: int, nbytes: int) -> None:
    """Have pages ready to be written to; a lack of memory is an error here, and no SIGBUS later."""
    try:
        _check(_madvise(address, nbytes, _POPULATE_WRITE))
    except OSError as error:
        if error.errno == errno.EFAULT:  # a write there would be a SIGBUS
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
        raise


@contextmanager
def huge_pages(fd: int, nbytes: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Give a new file its size, and huge pages that can be written to while the block lasts."""
    os.ftruncate(fd, nbytes)
    address = map_pages(fd, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
    try:
        keep_from_children(address, nbytes)
        _check(_madvise(address, nbytes, mmap.MADV_HUGEPAGE))
        populate(address, nbytes)
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        yield np.frombuffer(memory, np.uint8)
    finally:
        unmap_pages(address, nbytes)


def keep_from_children(address: int, nbytes: int) -> None:
    """Have forked children not inherit pages."""
    _check(_madvise(address, nbytes, mmap.MADV_DONTFORK))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
