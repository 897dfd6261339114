"""Regions: created, sealed, found and mapped once a process.

Invariant: what can be found is whole.
"""

from __future__ import annotations

import errno
import gc
import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, ParamSpec, TypeVar

from mori import settings, store
from mori.errors import CorruptRegionError, LimitError, StoreFullError
from mori.memory import checksums, mapping, pool, receipts
from mori.memory.checksums import Pickle
from mori.memory.lease import Lease, expire_graces
from mori.memory.mapping import Mapping
from mori.memory.mmap import PAGE
from mori.memory.parallel_write import Sink, write_segments
from mori.store import limits
from mori.store.base import (
    ENCODED,
    HEADER,
    NO_PICKLES,
    Draft,
    Header,
    Held,
    Name,
    Store,
    Where,
    format_name,
    is_out_of_descriptors,
    pack_header,
    parse_name,
    unpack_header,
)
from mori.store.locks import exclusive
from mori.store.paths import PathStore

__all__ = [
    "Unsealed",
    "adopt",
    "begin",
    "create",
    "find",
    "find_copy",
    "gather",
    "lease",
    "located",
    "publish",
    "save",
    "watch",
]

P = ParamSpec("P")
T = TypeVar("T")

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)

_PATIENCE: Final = 60.0  # seconds to wait for others that adopt; then a second copy is better than none

_numbers = itertools.count(1)
_watchers: list[Callable[[bool], None]] = []


class Unsealed(NamedTuple):
    """A region that is being written: nobody can find it yet."""

    home: Store
    draft: Draft
    header: Header


def create(
    nbytes: int,
    write: Callable[[Header, Sink], object],
    root: int,
    region_id: bytes | None = None,
    flags: int = ENCODED,
    kind: int | None = None,
) -> Mapping:
    """Write a new region and return its mapping.

    Parameters
    ----------
    nbytes : int
        Its size, header included.
    write : callable
        Gets the header and a sink, and gives that all of the bytes, in order.
    root : int
        Offset of the root node.
    region_id : bytes, optional
        Of the region that this is a copy of; a new one gets a new id.
    flags : int
        Of its header. Without `ENCODED`, what it holds is checked by everyone who opens it, since it came
        from elsewhere.
    kind : int, optional
        Of the store that it goes to, where that is not the current one.

    Raises
    ------
    StoreFullError
        If there is no room, even after a garbage collection. Nothing is left behind.
    LimitError
        If this process may not open or map any more.
    """
    home = store.current() if kind is None else store.of_kind(kind)
    if (most := settings.pool()) and pool.takes(home, nbytes, most):
        home = pool.current()

    fill = partial(write_segments, write)

    def attempt() -> Mapping:
        while (found := publish(_begin(home, nbytes, root, fill, flags, region_id, nbytes))) is None:
            continue  # its name was taken meanwhile
        return found

    return _with_room(home, nbytes, attempt)


def save(path: str, nbytes: int, write: Callable[[Header, Sink], Pickle], root: int) -> None:
    """Write a new region to a file, which takes the place of what is there when it is whole.

    Parameters
    ----------
    path : str
        Absolute, without symbolic links.
    nbytes, root : int
        As for `create`.
    write : callable
        As for `create`; it returns the first node with a pickle that names more than plain data.

    Raises
    ------
    StoreFullError
        If there is no room.
    OSError
        If no file can be made there. Whatever is raised, what was there is there.
    """
    home = PathStore(path)
    fill = partial(write_segments, partial(checksums.with_checksums, write))

    def attempt() -> None:
        draft = _begin(home, nbytes, root, fill).draft
        try:
            home.publish(draft)
        except BaseException:
            home.discard(draft)
            raise
        draft.held.close()

    _with_room(home, nbytes + checksums.trailer_nbytes(nbytes), attempt)


def gather(
    fill: Callable[[int, Header, Callable[[int], None]], Header], root: int, path: str | None = None
) -> Mapping | None:
    """Write a region whose size is known when it is written, and return its mapping.

    Parameters
    ----------
    fill : callable
        Gets a descriptor, a header without the size, and what is to be called with the bytes that are needed
        before they are written. It returns the header, and is called once.
    root : int
        Offset of the root node.
    path : str, optional
        Of a file, as for `save`; then there is no mapping.

    Raises
    ------
    StoreFullError
        If there is no room.
    """
    settings.grace()
    home: Store = store.current() if path is None else PathStore(path)
    asked = 0

    def full() -> StoreFullError:
        return StoreFullError(store=home.name, asked=asked, free=home.free(), remedy=home.remedy())

    def reserve(nbytes: int) -> None:
        nonlocal asked
        asked += nbytes
        if nbytes > (1 << 20) and nbytes > home.free():
            _make_room()
            if nbytes > home.free():
                raise full()

    def fill_draft(draft: Draft, header: Header) -> Header:
        header = fill(draft.held.fds[0], header, reserve)
        if path is not None:
            checksums.append(draft.held.fds[0], header.nbytes)
        return header

    try:
        unsealed = _begin(home, 0, root, fill_draft)
        if path is None:
            made = publish(unsealed)
            if made is None:
                raise FileExistsError(f"another process has taken the name of {home.name}'s next region")
            return made
        try:
            home.publish(unsealed.draft)
        except BaseException:
            home.discard(unsealed.draft)
            raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise full() from error
    unsealed.draft.held.close()
    return None


def begin(
    nbytes: int, write: Callable[[int, Header], object], root: int, path: str | None = None
) -> Unsealed:
    """Begin a new region of one piece, which is to be written further; `write` gets its descriptor.

    With `path` it becomes a file, as by `save`.
    """
    home: Store = store.current() if path is None else PathStore(path)

    def fill(draft: Draft, header: Header) -> None:
        write(draft.held.fds[0], header)

    return _with_room(home, nbytes, lambda: _begin(home, nbytes, root, fill))


def publish(unsealed: Unsealed) -> Mapping | None:
    """Seal a region and return its mapping; None if its name was taken meanwhile.

    Raises
    ------
    OSError
        If it cannot be sealed, since a process (a forked child) still has it mapped to be written.
    """
    home, draft, header = unsealed
    try:
        if home.is_lasting:
            checksums.append(draft.held.fds[0], header.nbytes)
        held = home.publish(draft)
    except BaseException:
        home.discard(draft)
        raise
    if held is None:
        home.discard(draft)
        return None
    made = mapping.mapped(Lease(held, home), header, is_new=True)
    for call in _watchers:
        call(True)
    return made


def watch(call: Callable[[bool], None]) -> None:
    """Call a function after each region that is mapped, with whether it was created here."""
    _watchers.append(call)


def _with_room(home: Store, nbytes: int, attempt: Callable[[], T]) -> T:
    """Create something, and try once more after a garbage collection if there is no room for it."""
    settings.grace()
    if nbytes > (1 << 20) and nbytes > home.free():
        _make_room()
        if nbytes <= home.free() + receipts.nbytes():
            # Receivers are behind: whoever shares waits for them, as for a queue that is full.
            for _ in receipts.arriving():
                _make_room()
                if nbytes <= home.free():
                    break
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


def _twice(attempt: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Try something, and again when what is not needed has been let go, if that may help.

    Then again, whenever a receiver has made room by opening what was sent to it.
    """
    try:
        return attempt(*arguments, **keywords)
    except OSError as error:
        if not _may_help(error):
            raise
    _make_room()
    arriving = receipts.arriving()
    while True:
        try:
            return attempt(*arguments, **keywords)
        except OSError as error:
            if not _may_help(error):
                raise
            for _ in arriving:
                break
            else:
                if is_out_of_descriptors(error):
                    raise limits.descriptors_error(error) from error
                raise
        _make_room()


def _may_help(error: OSError) -> bool:
    """Return whether to try again when what is not needed has been let go; raise the limit of open files."""
    if is_out_of_descriptors(error):
        limits.raise_descriptors()
        return True
    return isinstance(error, LimitError) or error.errno in _FULL


def _make_room() -> None:
    gc.collect()
    receipts.settle()
    expire_graces()
    pool.give_back()


def _begin(
    home: Store,
    nbytes: int,
    root: int,
    fill: Callable[[Draft, Header], Header | None],
    flags: int = ENCODED,
    region_id: bytes | None = None,
    size: int = 0,
) -> Unsealed:
    """Return a new region that `fill` has filled; in one file where the store is not told its size.

    What `fill` returns, if anything, is the header as it turned out.
    """
    draft: Draft | None = None
    region_id = region_id or os.urandom(16)
    try:
        while draft is None:  # a number that is taken is passed over
            draft = home.create(next(_numbers), region_id, size)
        header = Header(region_id, nbytes, root, draft.pid, draft.number, draft.segment_nbytes, flags)
        return Unsealed(home, draft, fill(draft, header) or header)
    except BaseException:
        if draft is not None:
            home.discard(draft)
        raise


def find(where: Where, kind: int) -> Mapping | None:
    """Return the mapping of a region, mapped now if need be; None if no process holds it.

    Raises
    ------
    CorruptRegionError, UnsafeRegionError
        If what is found there is not a region of this user.
    LimitError
        If this process may not open or map any more.
    """
    if (found := _known(where)) is not None:
        return found
    home = store.of_kind(kind)
    found = _twice(_find, home, where)
    for call in _watchers:
        call(False)
    return found


def _known(where: Where) -> Mapping | None:
    if where.region_id is None:
        return None
    if where.path is None:  # as nearly always
        return mapping.known(where.region_id)
    return mapping.known(mapping.key_of(where.region_id, where.path, allows_pickles=where.allows_pickles))


def lease(where: Where, kind: int) -> Lease | None:
    """Lease a region without mapping it; None if no process holds it. Raises what `find` does."""
    if (mapped := _known(where)) is not None:
        return mapped.lease
    home = store.of_kind(kind)
    found = _twice(_open, home, where)
    return None if found is None else Lease(found[0], home)


def located(region_id: bytes) -> list[Where]:
    """Return where the region of an id is in the store, and the copies of it, the oldest name first."""
    names = (parse_name(entry.name) for entry in store.current().entries(region_id))
    return sorted(Where(name.pid, name.number, region_id) for name in names if name is not None)


def find_copy(region_id: bytes, origin: tuple[int, int]) -> Mapping | None:
    """Return the region of an id, which may be a copy of the one of this pid and number; None without one."""
    for where in sorted(located(region_id), key=lambda where: (where.pid, where.number) != origin):
        if (found := find(where, store.current().kind)) is not None:
            return found
    return None


def adopt(arrived: Mapping) -> Mapping:
    """Return a region that lies in a buffer as a region of the store, under the id that it had.

    Parameters
    ----------
    arrived : Mapping
        What `map_bytes` returned.

    Returns
    -------
    Mapping
        The region itself if this domain has it, or the copy that another process has adopted; else a
        copy that is written now. It has the same region id, and its own name.

    Raises
    ------
    StoreFullError, LimitError
        As `create` does.

    Notes
    -----
    Safe on any thread and in any process: one adopts at a time, the others wait and map what it has written.
    However often and in however many processes of a domain the same region arrives, one copy of it is there,
    if they have the directory in common in which they lock a file.
    """
    header = arrived.header
    with exclusive(store.directory(), "adopt", _PATIENCE):
        if (found := find_copy(header.region_id, (header.pid, header.number))) is not None:
            return found if found.allows_pickles == arrived.allows_pickles else arrived

        def write(new: Header, put: Sink) -> None:
            put(pack_header(new))
            put(memoryview(arrived.bytes())[HEADER.size :], borrowed=True)

        return create(arrived.nbytes, write, header.root, header.region_id, header.flags & NO_PICKLES)


def _open(home: Store, where: Where) -> tuple[Held, Header] | None:
    held = home.find(where)
    if held is None:
        return None
    try:
        header = held.header or unpack_header(os.pread(held.fds[0], HEADER.size, 0))
        if fault := header if isinstance(header, str) else _fault(header, held, where):
            raise CorruptRegionError(name=where.shown, found=fault)
    except BaseException:
        home.release(held)
        raise
    assert not isinstance(header, str)
    if where.region_id not in (None, header.region_id):
        home.release(held)
        return None
    if held.source is not None:
        untrusted = 0 if where.allows_pickles else NO_PICKLES
        header = header._replace(flags=header.flags & ~NO_PICKLES | untrusted)
    return held, header


def _find(home: Store, where: Where) -> Mapping | None:
    found = _open(home, where)
    return None if found is None else mapping.mapped(Lease(found[0], home), found[1], is_new=False)


def _fault(header: Header, held: Held, where: Where) -> str | None:
    """Return the fault of a region with a valid header, in its name or in the sizes of its files."""
    sizes = [status.st_size for status in held.statuses]
    if held.source is not None:
        whole = header.nbytes + checksums.trailer_nbytes(header.nbytes)
        is_cut = sizes[0] not in (header.nbytes, whole) or header.segment_nbytes
        return f"it has {sizes[0]} bytes, where {whole} were saved" if is_cut else None
    if (header.pid, header.number) != (where.pid, where.number):
        return f"its header says that it is {format_name(Name(header.pid, header.number))}"
    is_exact = not held.pages
    if header.nbytes != sum(sizes) and (is_exact or header.nbytes > sum(sizes)):
        return f"its header says {header.nbytes} bytes, it has {sum(sizes)}"
    each = header.segment_nbytes
    if len(sizes) == 1:
        return f"its header says segments of {each} bytes, it has one file" if each else None
    if each <= 0 or each % PAGE or set(sizes[:-1]) != {each} or not 0 < sizes[-1] <= each:
        return f"its header says segments of {each} bytes, it has files of {sizes}"
    return None
