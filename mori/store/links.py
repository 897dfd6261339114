"""Links: what `/proc/PID/fd` says a descriptor is, which for a memfd is the name that it was made with.

A name says which region a file is a segment of, so that none has to be opened to be looked for; what is found
is compared again when it is open.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from mori.store.header import HEADER, Header, unpack_header
from mori.store.names import LABEL, format_label

__all__ = ["RECYCLED", "Link", "file_name", "parse_link"]

RECYCLED: Final = "mori_recycled"
"""The label of files that are written again and again."""

_LINK: Final = re.compile(
    rf"/memfd:({RECYCLED}|{LABEL})\.([0-9a-f]{{32}})(?:\.(\d{{1,2}})\.(\d{{1,2}}))? \(deleted\)", re.ASCII
)
_MOST_SEGMENTS: Final = 64  # that are believed


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
