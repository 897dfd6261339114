"""Links: what `/proc/PID/fd` says a descriptor is, which for a memfd is the name that it was made with.

Imports identifier and layout. A name says which region a file is a segment of, so that none has to be opened
to be looked for; what is found is compared again when it is open.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from mori import layout
from mori.identifier import format_label, parse_label

__all__ = ["RECYCLED", "Link", "file_name", "parse_link"]

RECYCLED: Final = "mori_recycled"
"""The label of files that are written again and again."""

_PREFIX: Final = "/memfd:"
_SUFFIX: Final = " (deleted)"
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
        return f"{_PREFIX}{file_name(*self)}{_SUFFIX}"

    @property
    def is_recycled(self) -> bool:
        """Whether the file is one of those that are written again and again."""
        return self.label == RECYCLED

    def may_be(self, label: str, region_id: bytes | None) -> bool:
        """Say whether it may lead to the region of a label, and of an id where that is known."""
        return self.is_recycled or (self.label == label and region_id in (None, self.region_id))

    def leads_to(self, fd: int, label: str, region_id: bytes | None) -> bool:
        """Say whether the first segment, which is open and locked, is that of the region asked for."""
        if not self.is_recycled:
            return self.may_be(label, region_id)
        header = layout.unpack_header(os.pread(fd, layout.HEADER.size, 0))
        if isinstance(header, str):
            return False
        return format_label(header.pid, header.number) == label and region_id in (None, header.region_id)


def file_name(label: str, region_id: bytes, segment: int, segments: int) -> str:
    """Return the name that a memfd is made with."""
    return f"{label}.{region_id.hex()}" + (f".{segment}.{segments}" if segments > 1 else "")


def parse_link(link: str) -> Link | None:
    """Read a descriptor's link; None for any file that is no segment of a region."""
    if not link.startswith("/memfd:mori_"):
        return None
    label, *parts = link.removeprefix(_PREFIX).removesuffix(_SUFFIX).split(".")
    if (label != RECYCLED and parse_label(label) is None) or len(parts) not in (1, 3) or len(parts[0]) != 32:
        return None
    try:
        region_id = bytes.fromhex(parts[0])
        segment, segments = map(int, parts[1:] or ("0", "1"))
    except ValueError:
        return None
    if not 0 <= segment < segments <= _MOST_SEGMENTS:
        return None
    return Link(label, region_id, segment, segments)
