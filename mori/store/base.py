"""What all stores have in common: names and headers of regions, owners of descriptors, and the interface.

A name is ``/mori_4d1b_1``, that of a part ``/mori_4d1b_1[2,0]``: the creator's pid and its running number, as
lower-case hexadecimal without leading zeros, then the path, which counts from 0. One region has one name. One
in a file that a user named is ``file:/data/x.mori``, and a part of it ``file:/data/x.mori[2,0]``. The
header says what a store and a mapping know of a region; docs/format.md has its table.

A store hands out file descriptors of whole, read-only regions; it neither maps nor reads them.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import select
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALIGNMENT",
    "ENCODED",
    "FILES",
    "HEADER",
    "HEADER_FIELDS",
    "LABEL",
    "MAGIC",
    "MAX_STEPS",
    "MEMFD",
    "NO_PICKLES",
    "PATH",
    "RECEIPTS_NBYTES",
    "SMALL_ALIGNMENT",
    "VERSION",
    "Draft",
    "Entry",
    "Header",
    "Held",
    "Name",
    "Owner",
    "R",
    "Store",
    "Where",
    "align",
    "boot_id",
    "entry_of",
    "format_label",
    "format_name",
    "forsake",
    "is_out_of_descriptors",
    "new_memfd",
    "opened",
    "pack_header",
    "parse_label",
    "parse_name",
    "unpack_header",
]

MAX_STEPS = 64
_MAX_INDEX = 2**31 - 1
_NUMBER = "[1-9a-f][0-9a-f]{0,7}"
LABEL = f"mori_({_NUMBER})_({_NUMBER})"
"""Pattern of the names that `format_label` returns, with a group for each number."""

_LABEL = re.compile(LABEL)
_INDEXES = r"(?:0|[1-9]\d*)(?:,(?:0|[1-9]\d*))*"
_NAME = re.compile(rf"/{LABEL}(?:\[({_INDEXES})\])?")
_FILE = "file:"  # before the path of a file that a user named
_STEPS = re.compile(rf"\[((?:{_INDEXES})?)\]\Z", re.ASCII)


class Name(NamedTuple):
    """A parsed name: the creator's pid, its running number there, and the path to a part.

    Of a region in a file that a user named: pid and number are 0, and `source` is where the file is.
    """

    pid: int
    number: int
    path: tuple[int, ...] = ()
    source: str | None = None


def format_label(pid: int, number: int) -> str:
    """Return the region's name as a store writes it, without the slash."""
    return f"mori_{pid:x}_{number:x}"


def parse_label(text: str) -> Name | None:
    """Read what `format_label` wrote; None for anything else."""
    match = _LABEL.fullmatch(text)
    return Name(int(match[1], 16), int(match[2], 16)) if match else None


def format_name(name: Name) -> str:
    """Return the name that users see."""
    path = f"[{','.join(map(str, name.path))}]" if name.path else ""
    if name.source is not None:
        return f"{_FILE}{name.source}{path or ('[]' if _STEPS.search(name.source) else '')}"
    return f"/{format_label(name.pid, name.number)}{path}"


def parse_name(text: object) -> Name | None:
    """Read a name; None for what is not well formed, of whatever type."""
    if not isinstance(text, str):
        return None
    if text.startswith(_FILE):
        steps = _STEPS.search(text)
        path = _parse_path(steps[1] if steps else "")
        source = text[len(_FILE) : steps.start() if steps else None]
        return None if path is None or source[:1] != "/" or "\0" in source else Name(0, 0, path, source)
    match = _NAME.fullmatch(text) if text.isascii() else None
    path = _parse_path(match[3] or "") if match is not None else None
    return None if match is None or path is None else Name(int(match[1], 16), int(match[2], 16), path)


def _parse_path(text: str) -> tuple[int, ...] | None:
    digits = text.split(",") if text else []
    if len(digits) > MAX_STEPS or any(len(step) > 10 for step in digits):
        return None
    path = tuple(map(int, digits))
    return None if any(step > _MAX_INDEX for step in path) else path


MAGIC: Final = b"mori\r\n\x1a\n"
VERSION: Final = 1
ALIGNMENT: Final = 64
SMALL_ALIGNMENT: Final = 8

ENCODED: Final = 1
"""Flag of a header: who made the region has encoded its bytes; without it they are a copy of others' bytes.

It says something in a sealed memfd alone, whose header mori writes anew for each region. A header that came
with its bytes, in a buffer or a file, cannot vouch for them.
"""
NO_PICKLES: Final = 2
"""Flag of a header: whoever opens the region reads no pickle in it that names more than plain data.

It goes with the bytes of a file that was loaded so, to whichever process they are sent.
"""

# field, struct code: offsets follow from the codes (no padding under "<")
HEADER_FIELDS: Final = (
    ("magic", "8s"),
    ("crc32", "I"),
    ("version", "H"),
    ("flags", "H"),
    ("region_id", "16s"),
    ("nbytes", "Q"),
    ("root", "Q"),
    ("pid", "I"),
    ("number", "I"),
    ("segment_nbytes", "Q"),
)
HEADER: Final = struct.Struct("<" + "".join(code for _, code in HEADER_FIELDS))
_CRC: Final = struct.Struct("<I")
_CHECKED: Final = len(MAGIC) + _CRC.size  # where begins what the checksum covers
_LEAST: Final = HEADER.size + 48  # and the record of the root


class Header(NamedTuple):
    """The fields of a region's header."""

    region_id: bytes
    nbytes: int
    root: int
    pid: int
    number: int
    segment_nbytes: int
    flags: int = 0


def align(offset: int, alignment: int = ALIGNMENT) -> int:
    """Return the next multiple of a power of two."""
    return (offset + alignment - 1) & -alignment


def pack_header(header: Header) -> bytes:
    """Return the first 64 bytes of a region."""
    *fields, flags = header
    covered = HEADER.pack(MAGIC, 0, VERSION, flags, *fields)[_CHECKED:]
    return MAGIC + _CRC.pack(zlib.crc32(covered)) + covered


def unpack_header(data: Any) -> Header | str:
    """Read a header; a sentence that says what is wrong where it is none."""
    if len(data) < HEADER.size:
        return f"{len(data)} bytes are too few for a header of {HEADER.size}"
    raw = bytes(data[: HEADER.size])
    magic, crc, version, flags, *fields = HEADER.unpack(raw)
    if magic != MAGIC:
        return f"it starts with {magic!r} instead of {MAGIC!r}"
    if version != VERSION:
        return f"it has format version {version}, this mori reads version {VERSION}"
    if crc != zlib.crc32(raw[_CHECKED:]):
        return "the checksum of its header does not match"
    if flags & ~(ENCODED | NO_PICKLES):
        return f"its header has flags {flags:#x}, of a later mori"
    header: Header = tuple.__new__(Header, (*fields, flags))  # as all that is made for each region and node
    if header.nbytes < _LEAST or not HEADER.size <= header.root < header.nbytes:
        return f"its root at {header.root} lies outside its {header.nbytes} bytes"
    if header.root % ALIGNMENT:
        return f"its root at {header.root} is not aligned"
    return header


# A descriptor belongs to an object, as addresses belong to theirs (mori.memory.mmap), and is closed with it.
# All of that is C, from the system's call to the end, so no signal's handler can raise an exception (Ctrl-C)
# between the call and the moment when somebody owns what it opened, nor before the first line of a finalizer.
# Of the classes that close a descriptor when they go, only these accept any kind of one, unseen and without a
# warning.
if TYPE_CHECKING or sys.platform == "linux":
    Owner = select.epoll
else:
    Owner = select.kqueue

_incref = ctypes.pythonapi.Py_IncRef
_incref.argtypes, _incref.restype = [ctypes.py_object], None


def opened(call: Callable[..., int], *arguments: Any) -> Owner:
    """Return the owner of the descriptor that a function opens; `fileno` is its number, `close` closes it."""
    return next(map(Owner.fromfd, map(call, *zip(arguments, strict=False))))


def forsake(owners: object, incref: Callable[[object], None] = _incref) -> None:
    """Leak the descriptors of an owner, or of those in a tuple: their numbers may be other files' by now."""
    incref(owners)


def new_memfd(name: str, flags: int) -> Owner:
    """Make an anonymous file that can never be executed, where the kernel knows of that (from 6.3 on)."""
    try:
        return opened(os.memfd_create, name, flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return opened(os.memfd_create, name, flags)


def is_out_of_descriptors(error: OSError) -> bool:
    """Return whether the process, or the system, has no descriptor left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


_NOEXEC_SEAL: Final = 0x8  # MFD_NOEXEC_SEAL, which some systems demand
MEMFD: Final = 0
FILES: Final = 1
PATH: Final = 2
R: Final = 3
RECEIPTS_NBYTES: Final = 4096


class Where(NamedTuple):
    """Where to look for a region: its creator's pid and number, its id, and a process that had it.

    Of one in a file that a user named: its path, and whether the user trusts the pickles in it.
    """

    pid: int
    number: int
    region_id: bytes | None = None
    holder: int = 0
    fd: int = -1
    path: str | None = None
    allows_pickles: bool = True

    @property
    def shown(self) -> str:
        """How errors call it."""
        return format_name(Name(self.pid, self.number, (), self.path))


class Held(NamedTuple):
    """The open descriptors by which a process keeps a region alive, one for each segment."""

    owners: tuple[Owner, ...]
    """Of the descriptors, which are closed when nothing refers to these any more."""
    fds: tuple[int, ...]
    path: str | None = None
    pages: int = 0
    """Not 0 if they may be written again when nobody holds them: which pages, or -1 for another process's."""
    statuses: tuple[os.stat_result, ...] = ()
    """The status of each file when it was opened; empty for files that were made here."""
    source: str | None = None
    """The path of the one file, where a user named it: nothing is done to that file."""
    header: Header | None = None
    """What stands for the header of a region that does not begin with one."""

    def close(self) -> None:
        """Close the descriptors that are not closed yet."""
        for owner in self.owners:
            owner.close()

    @classmethod
    def of(
        cls,
        owners: Sequence[Owner],
        path: str | None = None,
        pages: int = 0,
        statuses: tuple[os.stat_result, ...] = (),
        source: str | None = None,
        header: Header | None = None,
    ) -> Held:
        """Return what open descriptors hold."""
        numbers = tuple(map(Owner.fileno, owners))
        return cls((*owners,), numbers, path, pages, statuses, source, header)


class Draft(NamedTuple):
    """A region that is being written; nobody else can open it yet."""

    held: Held
    pid: int
    number: int
    path: str | None = None  # of the file while it is written
    segment_nbytes: int = 0  # of each but the last; 0 where it is in one piece
    memory: npt.NDArray[np.uint8] | None = None  # to be written to instead of the files
    is_huge: bool = False  # to be written through huge pages, which the system gives to who asks for them


class Entry(NamedTuple):
    """A region found alive in the store."""

    name: str
    nbytes: int
    age: float
    """Seconds since it was written."""
    owner: int
    """The process that wrote it, which may be gone."""
    holders: tuple[int, ...]
    """The processes that are seen to hold it."""
    region_id: bytes


def entry_of(
    header: Header, status: os.stat_result, holders: Iterable[int], source: str | None = None
) -> Entry:
    """Return the entry of a region by its header and the status of its first file."""
    name = Name(header.pid, header.number, (), source)
    age = max(0.0, time.time() - status.st_mtime)
    return Entry(format_name(name), header.nbytes, age, header.pid, tuple(sorted(holders)), header.region_id)


class Store(Protocol):
    """The interface of a store."""

    kind: int
    name: str
    is_lasting: bool
    """Whether its regions stay when nobody holds them."""

    def domain(self) -> str:
        """Name the set of processes that can open each other's regions in this store."""

    def free(self) -> int:
        """Return the bytes that a new region may have."""

    def remedy(self) -> str:
        """Return what a user can do when the store is full."""

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft | None:
        """Begin a region in as many files as suit its size, in one if the size is not given.

        None if that number is taken already.
        """

    def publish(self, draft: Draft) -> Held | None:
        """Make a written region readable for others and unwritable; None if its name was taken meanwhile."""

    def discard(self, draft: Draft) -> None:
        """Drop a region that was not published."""

    def find(self, where: Where) -> Held | None:
        """Open a region; None if no process holds it."""

    def release(self, held: Held) -> None:
        """Close the descriptors; the last process to do so frees the region."""

    def create_receipts(self, number: int) -> Held | None:
        """Make a page of zeros that other processes find by this process, its descriptor and a number.

        None if that number is taken.
        """

    def open_receipts(self, pid: int, fd: int, number: int) -> Owner | None:
        """Open the page of another process to write to it; None if it is there no more."""

    def entries(self, region_id: bytes | None = None) -> Iterator[Entry]:
        """Yield the regions of this user that are alive: all, or the one of an id and its copies."""

    def prune(self) -> list[str]:
        """Remove what killed processes left; return the names."""


@functools.cache
def boot_id() -> str:
    """Name this boot of this machine, as far as the system tells."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.uname().nodename
