"""The processes of this user and what they have open, as /proc shows them.

A memfd's link has the name that it was made with. The name of a segment says which region it is of, so that
none has to be opened to be looked for; what is found is compared again when it is open. A process can also
keep an empty one open whose name says where it is in an engine, for those who list who holds what: it goes
with the process. What is gone, or cannot be looked into, is passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from mori.store import limits
from mori.store.base import HEADER, LABEL, Header, format_label, unpack_header

__all__ = [
    "RECYCLED",
    "Link",
    "announce",
    "descriptors",
    "file_name",
    "parse_link",
    "process_labels",
    "processes",
    "readers",
]

RECYCLED: Final = "mori_recycled"
"""The label of files that are written again and again."""

_LINK: Final = re.compile(
    rf"/memfd:({RECYCLED}|{LABEL})\.([0-9a-f]{{32}})(?:\.(\d{{1,2}})\.(\d{{1,2}}))? \(deleted\)", re.ASCII
)
_MOST_SEGMENTS: Final = 64  # that are believed
_LABEL_PREFIX: Final = "mori-at:"
_LABEL_LINK: Final = re.compile(r"/memfd:mori-at:([a-z]{1,20}:[\w.-]{1,120}) \(deleted\)", re.ASCII)
_NOEXEC: Final = 0x8  # MFD_NOEXEC_SEAL, which some systems demand and old ones do not know


def processes() -> Iterator[int]:
    """Yield the processes of this user, this one last: it has looked in its own cache."""
    me, uid = os.getpid(), os.geteuid()
    try:
        entries = [entry for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError as error:
        if limits.is_out_of_descriptors(error):
            raise
        return
    for entry in entries:
        try:
            if int(entry.name) != me and entry.stat().st_uid == uid:
                yield int(entry.name)
        except OSError:
            continue
    yield me


def descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """Yield number and link of each descriptor of a process; nothing if it cannot be looked into."""
    directory = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(directory)
    except OSError as error:
        if limits.is_out_of_descriptors(error):
            raise  # not "there is nothing"
        return
    for number in numbers:
        try:
            yield number, os.readlink(f"{directory}/{number}")
        except OSError:
            continue


def readers(pipes: set[int]) -> dict[int, set[int]] | None:
    """Return which processes can read from pipes, by their inodes; None where that cannot be told.

    A pipe that none can read from is missing.
    """
    if not os.path.isdir("/proc/self/fd"):
        return None
    found: dict[int, set[int]] = {}
    wanted = {f"pipe:[{inode}]": inode for inode in pipes}
    for pid in processes() if wanted else ():
        for number, link in descriptors(pid):
            if (inode := wanted.get(link)) is None:
                continue
            try:
                if os.lstat(f"/proc/{pid}/fd/{number}").st_mode & 0o400:  # the way it was opened
                    found.setdefault(inode, set()).add(pid)
            except OSError:
                continue
    return found


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
        """Say whether it may lead to the region of a label, and of an id where that is known."""
        return self.label == RECYCLED or (self.label == label and region_id in (None, self.region_id))

    def leads_to(self, fd: int, label: str, region_id: bytes | None) -> bool:
        """Say whether the first segment, which is open and locked, is that of the region asked for."""
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
    """Return the name that a memfd is made with."""
    return f"{label}.{region_id.hex()}" + (f".{segment}.{segments}" if segments > 1 else "")


def parse_link(link: str) -> Link | None:
    """Read a descriptor's link; None for any file that is no segment of a region."""
    match = _LINK.fullmatch(link)
    if match is None:
        return None
    label, _, _, region_id, segment, segments = match.groups()
    place, count = (0, 1) if segment is None else (int(segment), int(segments))
    if not place < count <= _MOST_SEGMENTS:
        return None
    found: Link = tuple.__new__(Link, (label, bytes.fromhex(region_id), place, count))
    return found


def announce(engine: str, place: str) -> int | None:
    """Say that this process is at a place of an engine's; return the descriptor that says it.

    It is said until that is closed. None where it cannot be said.
    """
    create = getattr(os, "memfd_create", None)
    if create is None:
        return None
    for flags in (os.MFD_CLOEXEC | _NOEXEC, os.MFD_CLOEXEC):
        try:
            fd: int = create(f"{_LABEL_PREFIX}{engine}:{place}", flags)
            return fd
        except OSError:
            continue
    return None


def process_labels(pid: int) -> list[str]:
    """Return what a process says, ``"ray:5499f3dc..."``; nothing for one that cannot be looked into."""
    return sorted({found[1] for _, link in descriptors(pid) if (found := _LABEL_LINK.fullmatch(link))})
