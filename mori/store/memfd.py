"""The memfd store: anonymous, sealed memory that the kernel frees with its last holder.

Imports identifier, limits, errors and store. A region's memfd carries its name and id as the name of the
file, so that `/proc/PID/fd` says which descriptor it is, without opening any.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from mori import limits
from mori.errors import StoreError, UnsafeRegionError
from mori.identifier import format_label, parse_label
from mori.store import MEMFD, Draft, Entry, Held, Where, boot_id, entry_of
from mori.store.processes import descriptors, processes

__all__ = ["MemfdStore"]

# Constants of <linux/fcntl.h>; Python's fcntl has them on Linux only, and not under mypy elsewhere.
_ADD_SEALS: Final = 1033
_GET_SEALS: Final = 1034
_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE
_NOEXEC: Final = 0x8  # MFD_NOEXEC_SEAL: nobody can make a region a program
_PREFIX: Final = "/memfd:"
_SUFFIX: Final = " (deleted)"
_MOST_SEGMENTS: Final = 64  # that are believed


class _Link(NamedTuple):
    """What the link of a descriptor says: the file's region, and which of its segments it is."""

    label: str
    region_id: bytes
    segment: int
    segments: int


def _parse_link(link: str) -> _Link | None:
    """Read a descriptor's link; None for any file that is no segment of a region."""
    if not link.startswith("/memfd:mori_"):
        return None
    label, *parts = link.removeprefix(_PREFIX).removesuffix(_SUFFIX).split(".")
    if parse_label(label) is None or len(parts) not in (1, 3) or len(parts[0]) != 32:
        return None
    try:
        region_id = bytes.fromhex(parts[0])
        segment, segments = map(int, parts[1:] or ("0", "1"))
    except ValueError:
        return None
    if not 0 <= segment < segments <= _MOST_SEGMENTS:
        return None
    return _Link(label, region_id, segment, segments)


class MemfdStore:
    """Regions in sealed memfds, found through /proc."""

    kind = MEMFD
    has_segments = True
    name = "memfd"

    def __init__(self) -> None:
        self._flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _NOEXEC
        found = None
        if not os.path.isdir("/proc/self/fd"):
            found = "regions are found through /proc, which is not mounted here"
        elif os.stat("/proc/self/fd").st_uid != os.geteuid():
            found = (
                "other processes of this user may not look into this one in /proc: it has changed its user "
                "since it was started, or has itself forbidden it (PR_SET_DUMPABLE)"
            )
        elif (refused := self._try()) is not None:
            found = f"the system refuses to make anonymous files ({refused.strerror})"
        if found is not None:
            raise StoreError(
                store=self.name,
                found=found,
                remedy="Set MORI_STORE=files, or MORI_STORE=files:DIR for a directory of your own",
            )

    def _try(self) -> OSError | None:
        """Find out whether memfds can be made; kernels before 6.3 know no `_NOEXEC`."""
        for flags in (self._flags, self._flags & ~_NOEXEC):
            try:
                os.close(os.memfd_create("mori", flags))
            except OSError as error:
                refused = error
                if error.errno != errno.EINVAL:
                    break
            else:
                self._flags = flags
                return None
        # What has no descriptor left has its own error, when a region is made.
        return None if limits.is_out_of_descriptors(refused) else refused

    def domain(self) -> str:
        # A region is found through /proc/PID/fd: the pid namespace decides, and the user.
        spaces = "/".join(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "user"))
        return f"memfd:{boot_id()}:{spaces}:{os.geteuid()}"

    def free(self) -> int:
        return limits.memory()

    def remedy(self) -> str:
        return limits.memory_remedy()

    def create(self, number: int, region_id: bytes, segments: int = 1) -> Draft:
        pid = os.getpid()
        name = f"{format_label(pid, number)}.{region_id.hex()}"
        fds: list[int] = []
        try:
            # One after the other: they mostly have numbers that follow, and are looked for there.
            for segment in range(segments):
                # It can be seen at once, but what is not sealed yet is half a region: `_open` passes it over.
                label = name if segments == 1 else f"{name}.{segment}.{segments}"
                fds.extend(map(os.memfd_create, [label], [self._flags]))  # no signal comes between
                os.fchmod(fds[-1], 0o600)
            return Draft(Held(tuple(fds)), pid, number)
        except BaseException:
            self.release(Held(tuple(fds)))
            raise

    def publish(self, draft: Draft) -> Held:
        # The first one is looked for: it is sealed when all of the others are.
        for fd in reversed(draft.held.fds):
            fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
            # Nothing to write with is kept. Kernels before 6.7 map no sealed memfd that could be written to.
            reading: list[int] = []
            try:
                reading.extend(map(os.open, [f"/proc/self/fd/{fd}"], [os.O_RDONLY | os.O_CLOEXEC]))
                os.dup2(reading[0], fd, inheritable=False)
            finally:
                self.release(Held(tuple(reading)))
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
        for fd in held.fds:
            os.close(fd)

    def entries(self) -> Iterator[Entry]:
        found: dict[bytes, tuple[str, os.stat_result, dict[int, int], list[int]]] = {}
        for pid in processes():
            for number, link in descriptors(pid):
                if (parsed := _parse_link(link)) is None:
                    continue
                known = found.get(parsed.region_id)
                if known is None or parsed.segment not in known[2]:
                    try:
                        status = os.stat(f"/proc/{pid}/fd/{number}")
                    except OSError:
                        continue
                    known = found.setdefault(parsed.region_id, (parsed.label, status, {}, []))
                    known[2][parsed.segment] = status.st_size
                if pid not in known[3]:
                    known[3].append(pid)
        for region_id, (label, status, sizes, holders) in found.items():
            yield entry_of(label, status, sum(sizes.values()), holders, region_id)

    def prune(self) -> list[str]:
        return []

    def _search(self, pid: int, label: str, region_id: bytes | None) -> Held | None:
        for number, link in descriptors(pid):
            parsed = _parse_link(link)
            if parsed is None or parsed.segment or not _is_asked(parsed, label, region_id):
                continue
            if held := self._whole(pid, number, label, region_id):
                return held
        return None

    def _whole(self, pid: int, number: str, label: str, region_id: bytes | None) -> Held | None:
        """Open a region by the descriptor that a process has of its first segment."""
        first = self._open(pid, number, label, region_id)
        if first is None:
            return None
        fd, link = first
        if link.segment:
            os.close(fd)
            return None
        fds = [fd]
        try:
            for segment in range(1, link.segments):
                wanted = link._replace(segment=segment)
                if (opened := self._segment(pid, int(number) + segment, wanted)) is None:
                    break
                fds.append(opened)
        except BaseException:
            self.release(Held(tuple(fds)))
            raise
        if len(fds) < link.segments:  # that process is just letting go of it
            self.release(Held(tuple(fds)))
            return None
        return Held(tuple(fds))

    def _segment(self, pid: int, likely: int, wanted: _Link) -> int | None:
        """Open a segment by the descriptor that a process has of it, which is likely to have this number."""
        listed = (number for number, link in descriptors(pid) if _parse_link(link) == wanted)
        for number in itertools.chain((str(likely),), listed):
            opened = self._open(pid, number, wanted.label, wanted.region_id)
            if opened is not None:
                if opened[1] == wanted:
                    return opened[0]
                os.close(opened[0])
        return None

    def _open(self, pid: int, number: str, label: str, region_id: bytes | None) -> tuple[int, _Link] | None:
        """Open one descriptor of a process, if it is a sealed segment of the region asked for.

        The link is read again from our own descriptor: between looking and opening, that process
        may have closed the file and opened another under the same number.
        """
        path = f"/proc/{pid}/fd/{number}"
        try:
            if not os.readlink(path).startswith(f"{_PREFIX}{label}."):
                return None
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if limits.is_out_of_descriptors(error):
                raise
            return None
        try:
            parsed = _parse_link(os.readlink(f"/proc/self/fd/{fd}"))
            if parsed is None or not _is_asked(parsed, label, region_id):
                os.close(fd)
                return None
            if fcntl.fcntl(fd, _GET_SEALS) & _SEALS != _SEALS:  # still being written
                os.close(fd)
                return None
            if os.fstat(fd).st_uid != os.geteuid():
                raise UnsafeRegionError(name=f"/{label}", found="it belongs to another user")
        except OSError as error:
            os.close(fd)
            if isinstance(error, UnsafeRegionError):
                raise
            return None
        return fd, parsed


def _is_asked(link: _Link, label: str, region_id: bytes | None) -> bool:
    return link.label == label and region_id in (None, link.region_id)
