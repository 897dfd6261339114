"""Mappings: regions that lie in this process's memory, once each, and who finds them there.

Invariant: arrays refer to buffers, buffers to the `Mapping`, the mapping to its `Lease`; no table here keeps
anything alive.
"""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import threading
import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mori._fork import in_child
from mori.errors import CorruptRegionError, UnsafeRegionError
from mori.memory.mmap import PAGE, copied_pages, map_files
from mori.store import limits
from mori.store.base import (
    ALIGNMENT,
    ENCODED,
    MEMFD,
    NO_PICKLES,
    SMALL_ALIGNMENT,
    Header,
    Held,
    Name,
    Owner,
    is_out_of_descriptors,
    opened,
    unpack_header,
)

if TYPE_CHECKING:
    from mori.memory.lease import Lease

__all__ = [
    "Bytes",
    "Mapping",
    "Reopener",
    "address_of",
    "byte_bounds",
    "held_by",
    "key_of",
    "known",
    "live",
    "map_bytes",
    "mapped",
    "mapping_at",
    "used",
    "writable",
    "writable_mapping",
    "written_pages",
]

Bytes = npt.NDArray[np.uint8]
Reopener = Callable[["Mapping"], Any]
"""Opens a node of a mapping again without reading it; returns None if it cannot."""

_PRIVATE: Final = (
    mmap.PROT_READ | mmap.PROT_WRITE,
    mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0),
)
_READ_ONLY: Final = mmap.PROT_READ, mmap.MAP_SHARED
"""Instead of `_PRIVATE` where the system counts pages that could be written to as used: native code that
writes all the same gets a SIGSEGV.
"""
_FEW: Final = 4  # pages that are copied rather than mapped once more
_GONE: Final = 4  # mappings whose places are not forgotten before there are so many, and as many as are left
_REMEMBERED: Final = 1 << 10  # nodes of a mapping whose reopeners are kept


class _Used:
    """Whether anything that this process pickles can refer to a region: not so until it has had one.

    An adapter that passes references on without opening them says so, too. It is asked for all that an engine
    sends: an attribute, since a call would take longer.
    """

    __slots__ = ("ever",)

    def __init__(self) -> None:
        self.ever: bool = False


used: Final = _Used()

Key = bytes | tuple[bytes, str, bool]
"""What the one mapping of a region is known by: its id; with the path, and whether its pickles may be read,
where a user named its file.

Somebody else may have written that file, with whatever id: it stands for no region of a store.
"""

_mappings: weakref.WeakValueDictionary[Key, Mapping] = weakref.WeakValueDictionary()
_placed: list[tuple[int, int, weakref.ref[Mapping]]] = []  # by address; some may be gone
_privates: weakref.WeakValueDictionary[int, _Private] = weakref.WeakValueDictionary()  # by address
_counter = itertools.count()
_changes = 0  # of the places
_is_forgetting = False
_lock = threading.RLock()  # reentrant: a finalizer that runs meanwhile may open a region, too


class Mapping:
    """A region mapped into this process, or one that lies in somebody's buffer.

    Its arrays are read-only for numpy. The pages are private, and writable for the processor: native code
    that ignores numpy's flag changes this process's copy of a page, as it would a plain array's.

    `trusted` says that whoever made it encoded its bytes itself, and that nobody, its owner included, can
    have changed them since. What was adopted, or lies in a file or a buffer, is checked before C code follows
    it.

    numpy takes it as the owner of the memory (``__array_interface__``), so every array over it
    keeps it alive, and the pages go when the last of them does.

    Notes
    -----
    Safe on any thread. A forked child inherits it and holds the region on its own account.
    """

    def __init__(
        self, header: Header, address: int, lease: Lease | None, owner: object, source: str | None = None
    ) -> None:
        used.ever = True
        # Of the memory. It goes first: in the pool, whoever has pages mapped holds them.
        self._owner = owner
        self.header = header
        self.address = address
        self.nbytes: int = header.nbytes
        self.lease = lease
        self.source: str | None = source
        """The path of its file, where a user named that."""
        self.is_r: bool = not header.root
        """Whether it is in R's layout; a region of mori's begins with its header."""
        is_sealed = lease is not None and lease.home.kind == MEMFD and not lease.is_recycled
        self.trusted: bool = is_sealed and header.flags & ENCODED == ENCODED
        self.allows_pickles: bool = not header.flags & NO_PICKLES
        """Whether pickles that name more than plain data may be read."""
        self.is_writable = False
        """Whether numpy may write to it: then it is of one owner alone, and its writes are its own."""
        self.original: Mapping | None = None
        """The mapping that others open, if what was not written to in this one is to go as a reference."""
        self.targets: set[int] = set()  # of aliases: offsets whose parents the reader has checked
        self.reopeners: dict[int, Reopener] = {}
        """By the offset of a node: how its object is opened again."""
        self.offsets: dict[int, int] = {}
        """Of nodes with a reopener whose object is found by its memory: by where that starts."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        data = self.address, not self.is_writable
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": data, "version": 3}

    @property
    def name(self) -> Name:
        """The region's name, without a path."""
        if self.source is not None:
            return Name(0, 0, (), self.source)
        return Name(self.header.pid, self.header.number)

    @property
    def region_id(self) -> bytes:
        """The region's id, which its copies have, too."""
        return self.header.region_id

    @property
    def shared(self) -> bool:
        """Whether it lies in a store, where others can find it; not so for a buffer."""
        return self.lease is not None and not self.lease.is_given_back

    def is_of(self, files: object) -> bool:
        """Return whether it is mapped from these files, by device and inode."""
        return self.lease is not None and self.lease.files == files

    @property
    def kind(self) -> int:
        """The kind of its store."""
        assert self.lease is not None
        return self.lease.home.kind

    def bytes(self) -> Bytes:
        """Return the whole region as an array that holds it, read-only unless it is of one owner alone."""
        return np.asarray(self)

    def remember(self, offset: int, reopener: Reopener, start: int | None = None) -> None:
        """Remember how a node that was read is opened again; `reopener` may not refer to this mapping.

        `start` is where the object's memory starts in the region, if that tells the object.
        """
        if len(self.reopeners) >= _REMEMBERED:
            self.offsets.clear()
            self.reopeners.clear()
        self.reopeners[offset] = reopener
        if start is not None:
            self.offsets[start] = offset

    def reopen(self, offset: int) -> Any:
        """Return the object of a node that was opened before; None where it has to be read."""
        reopener = self.reopeners.get(offset)
        return None if reopener is None else reopener(self)


def mapped(lease: Lease, header: Header, *, is_new: bool) -> Mapping:
    """Return the mapping of a region that was just opened or written; one that is known already is enough.

    The lease is given back if it is not needed, or if the region cannot be mapped.
    """
    held = lease.held
    source = held.source
    key: Key = header.region_id
    if source is not None:
        key = key_of(header.region_id, source, allows_pickles=not header.flags & NO_PICKLES)
    with _lock:  # two threads may have opened it at once
        known = None if is_new else _mappings.get(key)
        # Under a user's name there may be another file by now, of whatever id.
        if known is not None and (source is None or known.is_of(lease.files)):
            lease.let_go()
            return known
        span = held, header.segment_nbytes, 0, header.nbytes
        try:
            try:
                address, owner = _map_held(*span, *(_READ_ONLY if _is_strict() else _PRIVATE))
            except OSError:  # RLIMIT_DATA counts pages that could be written to
                address, owner = _map_held(*span, *_READ_ONLY)
        except OSError:
            lease.let_go()
            raise
        mapping = Mapping(header, address, lease, owner, source)
        _mappings[key] = mapping
        _place(mapping)
        return mapping


def _place(mapping: Mapping) -> None:
    """Note where a mapping lies, and forget, at times, where those lay that are gone."""
    global _changes, _is_forgetting
    with _lock:
        _changes += 1
        insort(_placed, (mapping.address, next(_counter), weakref.ref(mapping)))
        if len(_placed) <= 2 * len(_mappings) + _GONE or _is_forgetting:
            return
        try:
            _is_forgetting = True  # a finalizer that comes here meanwhile would remove the same ones
            # All of it in C: were it interrupted, there would be more to do the next time.
            entries = [*_placed]
            mappings = map(weakref.ref.__call__, map(itemgetter(2), entries))
            gone = [*itertools.compress(entries, map(is_, mappings, itertools.repeat(None)))]
            _changes += 1
            # Each is looked up and removed in one go of C: no finalizer can add one in between.
            deque(map(_placed.pop, map(bisect_left, itertools.repeat(_placed), gone)), maxlen=0)
        finally:
            _is_forgetting = False


_is_strict: Final = functools.cache(limits.is_overcommit_strict)


def _map_held(
    held: Held, segment_nbytes: int, start: int, nbytes: int, protection: int, flags: int
) -> tuple[int, mmap.mmap]:
    """Map part of a region that is held; return the address, and what its memory belongs to."""
    if held.path is None:
        return map_files(held.fds, segment_nbytes, start, nbytes, protection, flags)
    owner = _reopened(held.fds[0], held.path)
    try:
        return map_files((owner.fileno(),), segment_nbytes, start, nbytes, protection, flags)
    finally:
        owner.close()


def _reopened(fd: int, path: str) -> Owner:
    """Open a held file once more, to be mapped.

    A mapping keeps the open file that it was made from, and with that its lock: a process that lets go
    at its end, with the pages still mapped, would find itself holding the region, and leave the file.
    """
    try:
        owner = opened(os.open, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if is_out_of_descriptors(error):
            raise
        raise UnsafeRegionError(
            name=path, found=f"it was taken away while it was opened ({error})"
        ) from error
    if os.path.samestat(os.fstat(owner.fileno()), os.fstat(fd)):
        return owner
    owner.close()
    raise UnsafeRegionError(name=path, found="it was replaced while it was opened")


def key_of(region_id: bytes, source: str | None = None, *, allows_pickles: bool = True) -> Key:
    """Return the key of a region, which is in the file of a path if that is given."""
    return region_id if source is None else (region_id, source, allows_pickles)


def known(key: Key) -> Mapping | None:
    """Return the mapping of a region that this process has mapped already."""
    return _mappings.get(key)


def map_bytes(buffer: object, head: bytes | None = None) -> Mapping:
    """Return a mapping over a buffer that holds a region; the buffer is kept, its bytes are not copied.

    A buffer that is not aligned to 8 bytes is copied once: numpy and Arrow want aligned memory.
    `head` is the region's header where it does not stand at the start of the buffer.

    Raises
    ------
    CorruptRegionError
        If the buffer does not start with a whole region.
    """
    data = np.frombuffer(buffer, np.uint8)  # type: ignore[call-overload]
    header = unpack_header(memoryview(data) if head is None else head)
    if isinstance(header, str):
        raise CorruptRegionError(name="in a buffer", found=header)
    if header.nbytes > data.nbytes:
        raise CorruptRegionError(
            name="in a buffer", found=f"its header says {header.nbytes} bytes, the buffer has {data.nbytes}"
        )
    if data.ctypes.data % SMALL_ALIGNMENT:
        aligned = np.empty(header.nbytes + ALIGNMENT, np.uint8)
        start = -aligned.ctypes.data % ALIGNMENT
        aligned[start : start + header.nbytes] = data[: header.nbytes]
        data = aligned[start:]
    return Mapping(header, data.ctypes.data, None, data)


def address_of(array: npt.NDArray[Any]) -> int:
    """Return where in memory the first element of an array lies; `array.ctypes` takes ten times as long."""
    address: int = array.__array_interface__["data"][0]
    return address


def byte_bounds(array: npt.NDArray[Any]) -> tuple[int, int]:
    """Return the addresses of the first byte of an array that is not empty, and of the first one after it."""
    address = address_of(array)
    reach = [(length - 1) * step for length, step in zip(array.shape, array.strides, strict=True)]
    low = address + sum(step for step in reach if step < 0)
    return low, address + sum(step for step in reach if step > 0) + array.itemsize


def held_by(array: npt.NDArray[Any]) -> Mapping | None:
    """Return the mapping that an array's memory lies in, None for private memory."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
        while isinstance(base, np.ndarray):
            base = base.base
    return base if isinstance(base, Mapping) else None


class _Private:
    """Pages of a region mapped once more, for one owner alone: they are shared until they are written to."""

    def __init__(self, mapping: Mapping, start: int, nbytes: int) -> None:
        lease = mapping.lease
        assert lease is not None
        both, private = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE
        self.address, self._owner = _map_held(
            lease.held, mapping.header.segment_nbytes, start, nbytes, both, private
        )
        self.nbytes = nbytes
        self.mapping = mapping
        self.start = start
        """Where in the region the pages begin."""
        _privates[self.address] = self

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}


def writable(array: Bytes) -> Bytes:
    """Return the same bytes for an owner who may write to them: its writes are its own.

    For libraries that know no read-only memory, where a write to a sealed mapping would end the
    process. The pages are those of the region until they are written to (copy on write). Bytes that
    lie in no store, and few ones, are copied.
    """
    mapping = held_by(array)
    if mapping is not None and mapping.is_writable:
        return array
    if mapping is None or not mapping.shared or array.nbytes < _FEW * PAGE:
        return array.copy()
    offset = address_of(array) - mapping.address
    start = offset - offset % PAGE
    private = np.asarray(_Private(mapping, start, offset + array.nbytes - start))
    return private[offset - start :]


def written_pages(address: int, array: Bytes) -> list[tuple[int, int]] | None:
    """Return where private memory may differ from an array of a region that its pages are of.

    `address` is where the memory begins. Returns the first byte and the one after the last of each run of
    pages that this process has written to, as places in the array. Nothing is read of either. None if the
    memory is not known to be pages of the same part of the region.
    """
    mapping = held_by(array)
    if mapping is None:
        return None
    offset = address_of(array) - mapping.address
    for start in (offset - offset % PAGE, 0):
        pages = _privates.get(address - (offset - start))
        if pages is not None and pages.mapping is mapping and pages.start == start:
            runs = copied_pages(address, array.nbytes)
            return (
                None
                if runs is None
                else [(max(low - address, 0), min(high - address, array.nbytes)) for low, high in runs]
            )
    return None


def writable_mapping(mapping: Mapping) -> Mapping:
    """Return a mapping of the same region for one owner, who may write to it (copy on write)."""
    pages = _Private(mapping, 0, mapping.nbytes)
    private = Mapping(mapping.header, pages.address, None, pages, mapping.source)
    private.trusted = mapping.trusted
    private.is_writable = True
    return private


def mapping_at(address: int, nbytes: int) -> Mapping | None:
    """Return the mapping whose memory encloses an address range, None if none does."""
    with _lock:
        while True:
            changes = _changes
            found = _nearest(address)
            if changes == _changes:  # else a finalizer has mapped something meanwhile, and places are others
                return (
                    found if found is not None and address + nbytes <= found.address + found.nbytes else None
                )


def _nearest(address: int) -> Mapping | None:
    """Return the mapping that begins at an address or nearest below; mappings do not overlap."""
    for place in range(bisect_left(_placed, (address + 1,)) - 1, -1, -1):
        if place < len(_placed) and (mapping := _placed[place][2]()) is not None:
            return mapping
    return None


def live() -> list[Mapping]:
    """Return the regions that this process has mapped."""
    return [mapping for ref in _mappings.valuerefs() if (mapping := ref()) is not None]


@in_child
def _after_fork_in_child() -> None:
    global _is_forgetting, _lock
    _is_forgetting, _lock = False, threading.RLock()
