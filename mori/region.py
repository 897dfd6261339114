"""Regions: created, sealed, and mapped once a process.

Imports hold, the stores, layout, identifier, settings and errors. Invariant: arrays refer to buffers,
buffers to the `Mapping`, the mapping to its `Hold`; no table here keeps anything alive.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import itertools
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mori import layout, limits, settings, store
from mori.errors import CorruptRegionError, LimitError, MoriError, StoreFullError, UnsafeRegionError
from mori.hold import Hold, expire_graces
from mori.identifier import Name, format_name, parse_name
from mori.store import Draft, Held, Store, Where

__all__ = [
    "Bytes",
    "Mapping",
    "Unsealed",
    "at",
    "begin",
    "create",
    "find",
    "held_by",
    "hold",
    "is_used",
    "live",
    "located",
    "map_pages",
    "over",
    "publish",
    "unmap_pages",
    "watch",
    "writable",
]

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]

_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 1
_MAP_PRIVATE: Final = 2
_FEW: Final = 4  # pages that are copied rather than mapped once more
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
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
_munmap = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_mappings: weakref.WeakValueDictionary[bytes, Mapping] = weakref.WeakValueDictionary()
_lock = threading.RLock()  # reentrant: a finalizer that runs meanwhile may open a region, too
_numbers = itertools.count(1)
_watchers: list[Callable[[bool], None]] = []


class Unsealed(NamedTuple):
    """A region that is being written: nobody can find it yet."""

    home: Store
    draft: Draft
    header: layout.Header


class _Pages(int):
    """The pages of a mapping, as their address times 2**64 plus their bytes; they go with it.

    A mapping cannot unmap them itself: while its ``__del__`` runs, another thread may still get it from the
    table of mappings, and read what is no more. An object that the garbage collector knows would be finalized
    before what else is in the garbage, and may read them. It knows of no int.
    """

    __slots__ = ()

    def __new__(cls, address: int, nbytes: int) -> _Pages:
        return super().__new__(cls, (address << 64) + nbytes)

    def __del__(
        self,
        munmap: Callable[[int, int], int] = _munmap,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if not is_finalizing():
            munmap(self >> 64, self % (1 << 64))


class Mapping:
    """A region mapped into this process, read-only, or one that lies in somebody's buffer.

    numpy takes it as the owner of the memory (``__array_interface__``), so every array over it
    keeps it alive, and the pages go when the last of them does.

    Notes
    -----
    Safe on any thread. A forked child inherits it and holds the region on its own account.
    """

    def __init__(self, header: layout.Header, address: int, hold: Hold | None, owner: object = None) -> None:
        global _used
        _used = True
        self.header = header
        self.address = address
        self.nbytes = header.nbytes
        self.hold = hold
        self.targets: set[int] = set()  # of aliases: offsets whose parents the reader has checked
        self._owner = _Pages(address, self.nbytes) if owner is None else owner

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, True), "version": 3}

    @property
    def name(self) -> Name:
        """The region's name, without a path."""
        return Name(self.header.pid, self.header.number)

    @property
    def shared(self) -> bool:
        """Whether it lies in a store, where others can find it; not so for a buffer."""
        return self.hold is not None and not self.hold.is_given_back

    @property
    def sealed(self) -> bool:
        """Whether nobody, its owner included, can have changed it since it was written."""
        return self.hold is not None and self.kind == store.MEMFD

    @property
    def kind(self) -> int:
        """The kind of its store."""
        assert self.hold is not None
        return self.hold.home.kind

    def bytes(self) -> Bytes:
        """Return the whole region as a read-only array that holds it."""
        return np.asarray(self)


def create(
    nbytes: int, write: Callable[[int, layout.Header], None], root: int, region_id: bytes | None = None
) -> Mapping:
    """Write a new region and return its mapping.

    Parameters
    ----------
    nbytes : int
        Its size, header included.
    write : callable
        Gets the descriptor and the header, and writes everything.
    root : int
        Offset of the root node.
    region_id : bytes, optional
        Of the region that this is a copy of; a new one gets a new id.

    Raises
    ------
    StoreFullError
        If there is no room, even after a garbage collection. Nothing is left behind.
    LimitError
        If this process may not open or map any more.
    """
    home = store.current()

    def attempt() -> Mapping:
        while (mapping := publish(_begin(home, nbytes, write, root, region_id))) is None:
            continue  # its name was taken meanwhile
        return mapping

    return _with_room(home, nbytes, attempt)


def begin(nbytes: int, write: Callable[[int, layout.Header], None], root: int) -> Unsealed:
    """Begin a new region, which is to be written further; see `create`."""
    home = store.current()
    return _with_room(home, nbytes, lambda: _begin(home, nbytes, write, root))


def publish(unsealed: Unsealed) -> Mapping | None:
    """Seal a region and return its mapping; None if its name was taken meanwhile.

    Raises
    ------
    OSError
        If it cannot be sealed, since a process (a forked child) still has it mapped to be written.
    """
    home, draft, header = unsealed
    try:
        held = home.publish(draft)
    except BaseException:
        home.discard(draft)
        raise
    if held is None:
        home.discard(draft)
        return None
    mapping = _map(held, home, header)
    _tell(is_new=True)
    return mapping


def watch(call: Callable[[bool], None]) -> None:
    """Have a function called after each region that is mapped, and told whether it was created here."""
    _watchers.append(call)


def _tell(is_new: bool) -> None:
    for call in _watchers:
        call(is_new)


def _with_room(home: Store, nbytes: int, attempt: Callable[[], T]) -> T:
    """Create something, and try once more after a garbage collection if there is no room for it."""
    settings.grace()
    if nbytes > (1 << 20) and nbytes > home.free():
        _make_room()
        if nbytes > (free := home.free()):
            raise StoreFullError(store=home.name, asked=nbytes, free=free, remedy=home.remedy())
    try:
        return _twice(attempt)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise limits.file_size_error(nbytes) from error
        if error.errno not in _FULL:
            raise
        raise StoreFullError(store=home.name, asked=nbytes, free=home.free(), remedy=home.remedy()) from error


def _twice(attempt: Callable[[], T]) -> T:
    """Try something, and once more when what is not needed has been let go, if that may help."""
    try:
        return attempt()
    except OSError as error:
        if not _may_help(error):
            raise
    _make_room()
    try:
        return attempt()
    except OSError as error:
        if limits.is_out_of_descriptors(error):
            raise limits.descriptors_error(error) from error
        raise


def _may_help(error: OSError) -> bool:
    """Say whether to try again when what is not needed has been let go; raise the limit of open files."""
    if limits.is_out_of_descriptors(error):
        limits.raise_descriptors()
        return True
    return isinstance(error, LimitError) or error.errno in _FULL


def _make_room() -> None:
    gc.collect()
    expire_graces()


def _begin(
    home: Store,
    nbytes: int,
    write: Callable[[int, layout.Header], None],
    root: int,
    region_id: bytes | None = None,
) -> Unsealed:
    region_id = secrets.token_bytes(16) if region_id is None else region_id
    draft: Draft | None = None
    while draft is None:  # a number that is taken is passed over
        draft = home.create(next(_numbers), region_id)
    header = layout.Header(region_id, nbytes, root, draft.pid, draft.number, 0)
    try:
        write(draft.held.fds[0], header)
    except BaseException:
        home.discard(draft)
        raise
    return Unsealed(home, draft, header)


def map_pages(fd: int, nbytes: int, protection: int, flags: int, at: int | None = None) -> int:
    """Map a file and return the address; LimitError if that is refused."""
    address = _mmap(at, nbytes, protection, flags, fd, 0)
    if address == _FAILED:
        raise limits.mapping_error(nbytes, ctypes.get_errno())
    assert address is not None
    return int(address)


def unmap_pages(address: int, nbytes: int) -> None:
    """Unmap a range of addresses that `map_pages` returned."""
    _munmap(address, nbytes)


def _map(held: Held, home: Store, header: layout.Header) -> Mapping:
    try:
        fd = held.fds[0] if held.path is None else _opened_again(held.fds[0], held.path)
    except OSError:
        home.release(held)
        raise
    try:
        address = map_pages(fd, header.nbytes, _PROT_READ, _MAP_SHARED)
    except OSError:
        home.release(held)
        raise
    finally:
        if fd != held.fds[0]:
            os.close(fd)
    mapping = Mapping(header, address, Hold(held, home))
    with _lock:
        _mappings[header.region_id] = mapping
    return mapping


def _opened_again(fd: int, path: str) -> int:
    """Open a held file once more, to be mapped.

    A mapping keeps the open file that it was made from, and with that its lock: a process that lets go
    at its end, with the pages still mapped, would find itself holding the region, and leave the file.
    """
    try:
        again = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if limits.is_out_of_descriptors(error):
            raise
        raise UnsafeRegionError(
            name=path, found=f"it was taken away while it was opened ({error})"
        ) from error
    if os.path.samestat(os.fstat(again), os.fstat(fd)):
        return again
    os.close(again)
    raise UnsafeRegionError(name=path, found="it was replaced while it was opened")


def find(where: Where, kind: int) -> Mapping | None:
    """Return the mapping of a region, mapped now if need be; None if no process holds it.

    Raises
    ------
    CorruptRegionError, UnsafeRegionError
        If what is found there is not a region of this user.
    LimitError
        If this process may not open or map any more.
    """
    if where.region_id is not None and (mapping := _mappings.get(where.region_id)) is not None:
        return mapping
    home = store.of_kind(kind)
    mapping = _twice(lambda: _find(home, where))
    _tell(is_new=False)
    return mapping


def hold(where: Where, kind: int) -> Hold | None:
    """Hold a region without mapping it; None if no process holds it. Raises what `find` does."""
    if where.region_id is not None and (mapping := _mappings.get(where.region_id)) is not None:
        return mapping.hold
    home = store.of_kind(kind)
    found = _twice(lambda: _open(home, where))
    return None if found is None else Hold(found[0], home)


def located(region_id: bytes) -> list[Where]:
    """Return where the region of an id is in the store, and the copies of it, the oldest name first."""
    home = store.current()
    found = []
    for entry in home.entries():
        name = parse_name(entry.name)
        assert name is not None
        where = Where(name.pid, name.number, entry.region_id)
        if entry.region_id is None:
            with contextlib.suppress(MoriError, OSError):
                if (opened := _open(home, where)) is not None:
                    home.release(opened[0])
                    where = where._replace(region_id=opened[1].region_id)
        if where.region_id == region_id:
            found.append(where)
    return sorted(found)


def _open(home: Store, where: Where) -> tuple[Held, layout.Header] | None:
    held = home.find(where)
    if held is None:
        return None
    try:
        header = _read_header(held, where)
    except BaseException:
        home.release(held)
        raise
    if where.region_id not in (None, header.region_id):
        home.release(held)
        return None
    return held, header


def _find(home: Store, where: Where) -> Mapping | None:
    found = _open(home, where)
    if found is None:
        return None
    held, header = found
    with _lock:  # two threads may have opened it at once: one mapping is enough
        mapping = _mappings.get(header.region_id)
        if mapping is None:
            return _map(held, home, header)
    home.release(held)
    return mapping


def _read_header(held: Held, where: Where) -> layout.Header:
    name = Name(where.pid, where.number)
    size = os.fstat(held.fds[0]).st_size
    header = layout.unpack_header(os.pread(held.fds[0], layout.HEADER.size, 0))
    if isinstance(header, str):
        raise CorruptRegionError(name=format_name(name), found=header)
    if header.segment_nbytes:
        found = f"it stands in segments of {header.segment_nbytes} bytes, which a later mori reads"
        raise CorruptRegionError(name=format_name(name), found=found)
    if header.nbytes != size:
        raise CorruptRegionError(
            name=format_name(name), found=f"its header says {header.nbytes} bytes, it has {size}"
        )
    if (header.pid, header.number) != name[:2]:
        found = f"its header says that it is {format_name(Name(header.pid, header.number))}"
        raise CorruptRegionError(name=format_name(name), found=found)
    return header


def over(buffer: object, head: bytes | None = None) -> Mapping:
    """Return a mapping over a buffer that holds a region; the buffer is kept, its bytes are not copied.

    A buffer that is not aligned to 8 bytes is copied once: numpy and Arrow want aligned memory.
    `head` is the region's header where it does not stand at the start of the buffer.

    Raises
    ------
    CorruptRegionError
        If the buffer does not start with a whole region.
    """
    data = np.frombuffer(buffer, np.uint8)  # type: ignore[call-overload]
    header = layout.unpack_header(memoryview(data) if head is None else head)
    if isinstance(header, str):
        raise CorruptRegionError(name="in a buffer", found=header)
    if header.nbytes > data.nbytes:
        raise CorruptRegionError(
            name="in a buffer", found=f"its header says {header.nbytes} bytes, the buffer has {data.nbytes}"
        )
    if data.ctypes.data % layout.SMALL_ALIGNMENT:
        aligned = np.empty(header.nbytes + layout.ALIGNMENT, np.uint8)
        start = -aligned.ctypes.data % layout.ALIGNMENT
        aligned[start : start + header.nbytes] = data[: header.nbytes]
        data = aligned[start:]
    return Mapping(header, data.ctypes.data, None, data)


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
        hold = mapping.hold
        assert hold is not None
        fd = hold.fd if hold.path is None else _opened_again(hold.fd, hold.path)
        address = _mmap(None, nbytes, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE, fd, start)
        number = ctypes.get_errno()
        if fd != hold.fd:
            os.close(fd)
        if address == _FAILED:
            raise limits.mapping_error(nbytes, number)
        self.address: int = address
        self.nbytes = nbytes
        self._mapping = mapping

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    def __del__(
        self,
        munmap: Callable[[int, int], int] = _munmap,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if hasattr(self, "address") and not is_finalizing():
            munmap(self.address, self.nbytes)


def writable(array: Bytes) -> Bytes:
    """Return the same bytes for an owner who may write to them: its writes are its own.

    For libraries that know no read-only memory, where a write to a sealed mapping would end the
    process. The pages are those of the region until they are written to (copy on write). Bytes that
    lie in no store, and few ones, are copied.
    """
    mapping = held_by(array)
    page = os.sysconf("SC_PAGE_SIZE")
    if mapping is None or not mapping.shared or array.nbytes < _FEW * page:
        return array.copy()
    offset = array.__array_interface__["data"][0] - mapping.address
    start = offset - offset % page
    private = np.asarray(_Private(mapping, start, offset + array.nbytes - start))
    return private[offset - start :]


def at(address: int, nbytes: int) -> Mapping | None:
    """Return the mapping whose memory encloses an address range, None if none does."""
    for mapping in live():
        if mapping.address <= address and address + nbytes <= mapping.address + mapping.nbytes:
            return mapping
    return None


_used = False


def is_used() -> bool:
    """Say whether this process has had a region: until then, nothing that it pickles refers to one."""
    return _used


def live() -> list[Mapping]:
    """Return the regions that this process has mapped."""
    return [mapping for ref in _mappings.valuerefs() if (mapping := ref()) is not None]


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
