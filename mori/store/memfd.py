"""The memfd store: anonymous, sealed memory that the kernel frees with its last holder.

The name of a segment says which region it is of, so none has to be opened to be looked for; what is found is
compared again when it is open. Invariant: what it opens is sealed, whole and this user's.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from mori.errors import StoreError, UnsafeRegionError
from mori.store import limits
from mori.store.base import (
    HEADER,
    LABEL,
    MEMFD,
    RECEIPTS_NBYTES,
    Draft,
    Entry,
    Header,
    Held,
    Owner,
    Where,
    align,
    boot_id,
    entry_of,
    format_label,
    is_out_of_descriptors,
    new_memfd,
    opened,
    unpack_header,
)
from mori.store.limits import HUGE
from mori.store.locks import lock
from mori.store.processes import descriptors, processes

__all__ = ["RECYCLED", "MemfdStore", "seal_for_reuse", "segments_of"]

# Constants of <linux/fcntl.h>; Python's fcntl has them on Linux only, and not under mypy elsewhere.
_ADD_SEALS: Final = 1033
_GET_SEALS: Final = 1034
_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE
_FLAGS: Final = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING if sys.platform == "linux" else 0
_RECYCLED_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x10  # FUTURE_WRITE for WRITE: one mapping that can write is left
_BUSY: Final = (0.01, 0.05, 0.2)  # seconds
_MOST_SEGMENTS: Final = 8
_RECEIPTS: Final = "mori-receipts:{:x}"
_LEAST_SEGMENT: Final = 1 << 24
_LEAST_HUGE: Final = 2 * HUGE
_HUGE_PAGES: Final = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

RECYCLED: Final = "mori_recycled"
"""The label of files that are written again and again."""

_LINK: Final = re.compile(
    rf"/memfd:({RECYCLED}|{LABEL})\.([0-9a-f]{{32}})(?:\.(\d{{1,2}})\.(\d{{1,2}}))? \(deleted\)", re.ASCII
)
_BELIEVED_SEGMENTS: Final = 64


class Link(NamedTuple):
    """The region of a memfd, and which of its segments it is.

    Files that are written again and again have a random number for an id: what is in them says which region
    it is.
    """

    label: str
    region_id: bytes
    segment: int
    segments: int

    @property
    def text(self) -> str:
        """The link as the system has it."""
        return f"/memfd:{file_name(*self)} (deleted)"

    @property
    def is_recycled(self) -> bool:
        """Whether the file is one of those that are written again and again."""
        return self.label == RECYCLED

    def may_be(self, label: str, region_id: bytes | None) -> bool:
        """Return whether it may lead to the region of a label, and of an id where that is known."""
        return self.label == RECYCLED or (self.label == label and region_id in (None, self.region_id))

    def leads_to(self, fd: int, label: str, region_id: bytes | None) -> bool:
        """Return whether the first segment, which is open and locked, is that of the region asked for."""
        if self.label != RECYCLED:
            return self.may_be(label, region_id)
        header = unpack_header(os.pread(fd, HEADER.size, 0))
        if isinstance(header, str):
            return False
        return format_label(header.pid, header.number) == label and region_id in (None, header.region_id)

    def is_of(self, header: Header) -> bool:
        """Return whether a file with this header may have this link."""
        named = self.label, self.region_id
        return self.is_recycled or named == (format_label(header.pid, header.number), header.region_id)


def file_name(label: str, region_id: bytes, segment: int, segments: int) -> str:
    """Return the name that the memfd of a segment is made with."""
    return f"{label}.{region_id.hex()}" + (f".{segment}.{segments}" if segments > 1 else "")


def parse_link(link: str) -> Link | None:
    """Read a descriptor's link; None for any file that is no segment of a region."""
    match = _LINK.fullmatch(link)
    if match is None:
        return None
    label, _, _, region_id, segment, segments = match.groups()
    place, count = (0, 1) if segment is None else (int(segment), int(segments))
    if not place < count <= _BELIEVED_SEGMENTS:
        return None
    found: Link = tuple.__new__(Link, (label, bytes.fromhex(region_id), place, count))
    return found


_Opened = tuple[Owner, Link, os.stat_result]
"""A segment that is open: the owner of its descriptor, what it is, and what the system says of the file."""


class MemfdStore:
    """Regions in sealed memfds, found through /proc."""

    kind = MEMFD
    is_lasting = False
    name = "memfd"

    def __init__(self) -> None:
        if not os.path.isdir("/proc/self/fd"):
            raise self._unusable("regions are found through /proc, which is not mounted here")
        if os.stat("/proc/self/fd").st_uid != os.geteuid():
            raise self._unusable(
                "other processes of this user may not look into this one in /proc: it has changed its user "
                "since it was started, or has itself forbidden it (PR_SET_DUMPABLE)"
            )

    def prepare(self) -> None:
        """Find out whether memfds can be made. StoreError if they cannot."""
        try:
            new_memfd("mori", _FLAGS).close()
        except OSError as error:
            # What has no descriptor left has its own error, when a region is made.
            if not is_out_of_descriptors(error):
                found = f"the system refuses to make anonymous files ({error.strerror})"
                raise self._unusable(found) from error

    def _unusable(self, found: str) -> StoreError:
        return StoreError(
            store=self.name,
            found=found,
            remedy="Set MORI_STORE=files, or MORI_STORE=files:DIR for a directory of your own",
        )

    def domain(self) -> str:
        # A region is found through /proc/PID/fd: the pid namespace decides, and the user.
        spaces = "/".join(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "user"))
        return f"memfd:{boot_id()}:{spaces}:{os.geteuid()}"

    def free(self) -> int:
        return limits.memory()

    def remedy(self) -> str:
        return limits.memory_remedy()

    def create(self, number: int, region_id: bytes, nbytes: int = 0) -> Draft | None:
        pid, label = os.getpid(), format_label(os.getpid(), number)
        is_huge = nbytes >= _LEAST_HUGE and _gives_huge_pages()
        segments, segment_nbytes = (1, 0) if is_huge or nbytes < 2 * _LEAST_SEGMENT else segments_of(nbytes)
        held = Held.of(self.files(label, region_id, segments))
        return Draft(held, pid, number, segment_nbytes=segment_nbytes, is_huge=is_huge)

    def files(self, label: str, region_id: bytes, segments: int) -> tuple[Owner, ...]:
        """Make the files of a region. They can be seen at once, but are passed over until they are sealed."""
        # One after the other: they mostly have numbers that follow, and are looked for there.
        owners = []
        for segment in range(segments):
            name = file_name(label, region_id, segment, segments)
            owners.append(new_memfd(name, _FLAGS))
            os.fchmod(owners[-1].fileno(), 0o600)
        return tuple(owners)

    def publish(self, draft: Draft) -> Held:
        # The first one is looked for: it is sealed when all of the others are.
        for fd in reversed(draft.held.fds):
            _seal(fd)
            # Nothing to write with is kept. Kernels before 6.7 map no sealed memfd that could be written to.
            reading = opened(os.open, f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(reading.fileno(), fd, inheritable=False)
            reading.close()
        return draft.held

    def discard(self, draft: Draft) -> None:
        self.release(draft.held)

    def find(self, where: Where) -> Held | None:
        label = format_label(where.pid, where.number)
        if where.fd >= 0 and (held := self._whole(where.holder, str(where.fd), label, where.region_id)):
            return held
        tried: set[int] = set()
        for pid in (where.holder, where.pid):
            if pid and pid not in tried:
                tried.add(pid)
                if held := self._search(pid, label, where.region_id):
                    return held
        for pid in processes():
            if pid not in tried and (held := self._search(pid, label, where.region_id)):
                return held
        return None

    def release(self, held: Held) -> None:
        held.close()

    def create_receipts(self, number: int) -> Held:
        held = Held.of([new_memfd(_RECEIPTS.format(number), _FLAGS)])
        os.fchmod(held.fds[0], 0o600)
        os.posix_fallocate(held.fds[0], 0, RECEIPTS_NBYTES)  # who writes there needs no memory for it
        return held

    def open_receipts(self, pid: int, fd: int, number: int) -> Owner | None:
        path, link = f"/proc/{pid}/fd/{fd}", f"/memfd:{_RECEIPTS.format(number)} (deleted)"
        try:
            if os.readlink(path) != link:
                return None
            sheet = opened(os.open, path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        # As in `_open`: another file may have that number by now.
        if os.readlink(f"/proc/self/fd/{sheet.fileno()}") == link:
            return sheet
        sheet.close()
        return None

    def entries(self, region_id: bytes | None = None) -> Iterator[Entry]:
        found: dict[Link, dict[int, str]] = {}  # which processes have it, and under which number
        for pid in processes():
            for number, link in descriptors(pid):
                parsed = parse_link(link)
                if parsed is None or parsed.segment:
                    continue
                if (
                    _is_creators(pid, number)
                    if parsed.is_recycled
                    else region_id not in (None, parsed.region_id)
                ):
                    continue
                found.setdefault(parsed, {})[pid] = number
        for places in found.values():
            entries = (self._entry(pid, number, places) for pid, number in places.items())
            entry = next(filter(None, entries), None)
            if entry is not None and region_id in (None, entry.region_id):
                yield entry

    def _entry(self, pid: int, number: str, holders: Iterable[int]) -> Entry | None:
        """Return the entry of the region that a process has under a number; None if it is none."""
        try:
            found = self._open(pid, number)
        except UnsafeRegionError:
            return None
        if found is None:
            return None
        owner, link, status = found
        header = unpack_header(os.pread(owner.fileno(), HEADER.size, 0))
        owner.close()
        if isinstance(header, str) or not link.is_of(header):
            return None
        return entry_of(header, status, holders)

    def prune(self) -> list[str]:
        return []

    def _search(self, pid: int, label: str, region_id: bytes | None) -> Held | None:
        for number, link in descriptors(pid):
            parsed = parse_link(link)
            if parsed is None or parsed.segment or not parsed.may_be(label, region_id):
                continue
            if held := self._whole(pid, number, label, region_id):
                return held
        return None

    def _whole(self, pid: int, number: str, label: str, region_id: bytes | None) -> Held | None:
        """Open a region by the descriptor that a process has of its first segment."""
        first = self._open(pid, number)
        if first is None:
            return None
        segments = [first]
        try:
            owner, link, _ = first
            if link.segment or not link.leads_to(owner.fileno(), label, region_id):
                owner.close()
                return None
            for segment in range(1, link.segments):
                wanted = link._replace(segment=segment)
                if (found := self._segment(pid, int(number) + segment, wanted)) is None:
                    break
                segments.append(found)
        except BaseException:
            for owner, *_ in segments:
                owner.close()
            raise
        if len(segments) < link.segments:  # that process is just letting go of it
            return None
        owners, _, statuses = zip(*segments, strict=True)
        return Held.of(owners, None, -1 if link.is_recycled else 0, statuses)

    def _segment(self, pid: int, likely: int, wanted: Link) -> _Opened | None:
        """Open a segment by the descriptor that a process has of it, which is likely to have this number."""
        listed = (number for number, link in descriptors(pid) if link == wanted.text)
        for number in itertools.chain((str(likely),), listed):
            if (found := self._open(pid, number, wanted)) is not None:
                return found
        return None

    def _open(self, pid: int, number: str, wanted: Link | None = None) -> _Opened | None:
        """Open one descriptor of a process, if it is a sealed segment of a region, or the one wanted.

        The link is read again from our own descriptor: between looking and opening, that process
        may have closed the file and opened another under the same number.
        """
        path = f"/proc/{pid}/fd/{number}"
        try:
            if not os.readlink(path).startswith("/memfd:mori_"):
                return None
            owner = opened(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if is_out_of_descriptors(error):
                raise
            return None
        fd = owner.fileno()
        try:
            text = os.readlink(f"/proc/self/fd/{fd}")
            link = wanted if wanted is not None and text == wanted.text else parse_link(text)
            if link is None or wanted not in (None, link) or not _is_sealed(fd, link):
                owner.close()
                return None
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                raise UnsafeRegionError(name=f"/{link.label}", found="it belongs to another user")
        except OSError as error:
            owner.close()
            if isinstance(error, UnsafeRegionError):
                raise
            return None
        return owner, link, status


def segments_of(nbytes: int) -> tuple[int, int]:
    """Return in how many files a new region stands, and the bytes of each but the last (0 for one)."""
    count = min(_cpus(), _MOST_SEGMENTS, nbytes // _LEAST_SEGMENT)
    if count < 2:
        return 1, 0
    segment_nbytes = align(-(-nbytes // count), HUGE)
    return -(-nbytes // segment_nbytes), segment_nbytes


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gives_huge_pages() -> bool:
    """Return whether huge pages go to who asks for them; where they go to all, those who write have them."""
    try:
        with open(_HUGE_PAGES, encoding="ascii") as file:
            return "[advise]" in file.read()
    except OSError:
        return False


def _is_sealed(fd: int, link: Link) -> bool:
    """Return whether nobody can write to a file: it is sealed, and locked here where that is not for ever."""
    seals = fcntl.fcntl(fd, _GET_SEALS)
    if not link.is_recycled:
        return seals & _SEALS == _SEALS
    return seals & _RECYCLED_SEALS == _RECYCLED_SEALS and lock(fd, fcntl.LOCK_SH)


def _seal(fd: int) -> None:
    """Seal a file.

    The kernel refuses while somebody has it mapped to be written, and while it works on one of its pages
    itself, as it does when it moves pages to have large ones: that takes a moment, so it is tried again.
    """
    for pause in _BUSY:
        try:
            fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return
        time.sleep(pause)
    fcntl.fcntl(fd, _ADD_SEALS, _SEALS)


def seal_for_reuse(fd: int) -> None:
    """Seal a file against resizing, and against writes other than by the mapping that exists."""
    fcntl.fcntl(fd, _ADD_SEALS, _RECYCLED_SEALS)


def _is_creators(pid: int, number: str) -> bool:
    """Return whether a descriptor is that by which its creator keeps recycled pages, and no holder's."""
    try:
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
            flags = next(line.split()[1] for line in file if line.startswith("flags:"))
    except (OSError, StopIteration):
        return True
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
