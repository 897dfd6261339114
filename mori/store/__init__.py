"""Stores: where regions live and how a name finds them.

Imports errors, settings, identifier and layout. A store hands out file descriptors of whole,
read-only regions; it neither maps nor reads them. `memfd` and `files` keep one interface.
"""

from __future__ import annotations

import functools
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mori import settings
from mori.errors import StoreError, StoreWarning
from mori.identifier import parse_label

if TYPE_CHECKING:
    from mori.store.memfd import MemfdStore

__all__ = [
    "FILES",
    "MEMFD",
    "Draft",
    "Entry",
    "Held",
    "Store",
    "Where",
    "boot_id",
    "current",
    "entry_of",
    "of_kind",
]

MEMFD: Final = 0
FILES: Final = 1
_SHM: Final = "/dev/shm"


class Where(NamedTuple):
    """Where to look for a region: its creator's pid and number, its id, and a process that had it."""

    pid: int
    number: int
    region_id: bytes | None = None
    holder: int = 0
    fd: int = -1


class Held(NamedTuple):
    """One process's hold on a region: what keeps it alive. `fds` has one entry a segment."""

    fds: tuple[int, ...]
    path: str | None = None
    pages: int = 0
    """Not 0 if they may be written again when nobody holds them: which pages, or -1 for another process's."""
    statuses: tuple[os.stat_result, ...] = ()
    """What the system said of the files when they were opened; empty for those that were made here."""


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
    region_id: bytes | None


def entry_of(
    label: str, status: os.stat_result, nbytes: int, holders: Iterable[int], region_id: bytes | None = None
) -> Entry:
    """Return the entry of a region by the label and the status of its first file, and its size."""
    name = parse_label(label)
    assert name is not None
    age = max(0.0, time.time() - status.st_mtime)
    return Entry(f"/{label}", nbytes, age, name[0], tuple(sorted(holders)), region_id)


class Store(Protocol):
    """What a store can do."""

    kind: int
    name: str

    def domain(self) -> str:
        """Name the set of processes that can open each other's regions in this store."""

    def free(self) -> int:
        """Return the bytes that a new region may have."""

    def remedy(self) -> str:
        """Say what a user does when it is full."""

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft | None:
        """Start a region in as many files as suit its size, in one if that is not told.

        None if that number is taken already.
        """

    def publish(self, draft: Draft) -> Held | None:
        """Make a written region readable for others and unwritable; None if its name was taken meanwhile."""

    def discard(self, draft: Draft) -> None:
        """Drop a region that was not published."""

    def find(self, where: Where) -> Held | None:
        """Open a region; None if no process holds it."""

    def release(self, held: Held) -> None:
        """Let go; the last one to do so frees the region."""

    def entries(self) -> Iterator[Entry]:
        """Yield the regions of this user that are alive."""

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


_stores: dict[str, Store] = {}


def _open_default() -> Store:
    """Open what MORI_STORE stands for when it is not set: memfd, and files where that cannot work."""
    if sys.platform == "linux":
        try:
            return _open("memfd")
        except StoreError as error:
            store = _open("files")
            warnings.warn(
                f"shared regions go to files in {store.name.partition(':')[2]}, since memfd cannot be used "
                f"here: {error.found}. Every process that is to open them has to choose the same; set "
                "MORI_STORE=files in all of them to be sure of it, and to see this no more",
                StoreWarning,
                stacklevel=2,
            )
            return store
    return _open("files")


def _temporary() -> str:
    import tempfile  # which imports much, for those few who need it

    return tempfile.gettempdir()


def _files_dir() -> str:
    if sys.platform != "linux":
        return _temporary()
    if os.path.isdir(_SHM) and os.access(_SHM, os.W_OK | os.X_OK):
        return _SHM
    directory = _temporary()
    warnings.warn(
        f"shared regions go to files in {directory}, which may be on a disk: "
        f"{_SHM} is {'not writable' if os.path.isdir(_SHM) else 'missing'}. Mount a tmpfs there, or set "
        "MORI_STORE=files:DIR to say where they are to go",
        StoreWarning,
        stacklevel=2,
    )
    return directory


@functools.cache
def _memfd() -> MemfdStore:
    from mori.store.memfd import MemfdStore

    return MemfdStore()


def _open(setting: str) -> Store:
    kind, _, directory = setting.partition(":")
    if kind == "memfd" and not directory:
        if sys.platform != "linux":
            raise StoreError(
                store=setting, found=f"{sys.platform} has no memfd", remedy="Set MORI_STORE=files"
            )
        home = _memfd()
        home.prepare()
        return home
    if kind == "files":
        if os.name != "posix":
            raise StoreError(store=setting, found="it needs a POSIX system", remedy="Use one")
        from mori.store.files import FilesStore

        return FilesStore(directory or _files_dir())
    raise StoreError(
        store=setting,
        found="there is no such store",
        remedy="Set MORI_STORE to memfd, files or files:DIR, or leave it unset",
    )


def current() -> Store:
    """Return the store that new regions go to."""
    setting = settings.store()
    store = _stores.get(setting)
    if store is None:
        # Two threads may open it at once: all of them go on with one.
        store = _stores.setdefault(setting, _open(setting) if setting else _open_default())
    return store


def of_kind(kind: int) -> Store:
    """Return the store that a reference of this kind is looked up in."""
    if kind == MEMFD and sys.platform == "linux":
        return _memfd()  # whether or not one could be made
    store = current()
    if store.kind == kind:
        return store
    setting = ("memfd", "files")[kind]
    if setting not in _stores:
        return _stores.setdefault(setting, _open(setting))
    return _stores[setting]


if os.name == "posix":
    # Not at their first use: a child that another thread forks in the middle of it would wait for ever for
    # that import to end. A Pool forks in a thread while another one opens what arrives.
    from mori.store import files, memfd  # noqa: F401
