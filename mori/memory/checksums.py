"""Checksums of a region in a file: one for each megabyte, in a trailer behind the region, written by `save`.

Opening a file reads none of them; `verify` reads all of the data. docs/format.md has the layout.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mori import _progress
from mori.memory.parallel_write import Sink
from mori.store.base import Header

__all__ = [
    "TRAILER",
    "TRAILER_FIELDS",
    "Pickle",
    "Trailer",
    "append",
    "damaged",
    "pack_trailer",
    "read_trailer",
    "trailer_nbytes",
    "with_checksums",
]

_MAGIC: Final = b"mori sum"
_BLOCK: Final = 1 << 20

TRAILER_FIELDS: Final = (
    ("magic", "8s"),
    ("crc32", "I"),
    ("block_nbytes", "I"),
    ("pickle", "Q"),
    ("path", "232s"),
)
TRAILER: Final = struct.Struct("<" + "".join(code for _, code in TRAILER_FIELDS))
_SUM: Final = struct.Struct("<I")
_PATH_NBYTES: Final = 232
_CHECKED: Final = 12  # where begins what the trailer's own checksum covers


class Pickle(NamedTuple):
    """The first node with a pickle that names more than plain data: its offset, 0 if there is none, and how a
    user writes the way to it.
    """

    offset: int
    path: str = ""


class Trailer(NamedTuple):
    """What a file has behind its region, without the checksums."""

    crc32: int
    pickle: Pickle


def trailer_nbytes(nbytes: int) -> int:
    """Return the size of the trailer behind a region."""
    return TRAILER.size + _SUM.size * -(-nbytes // _BLOCK)


class _Summing:
    """Passes bytes on to a sink, and sums them up, block by block."""

    def __init__(self, put: Sink) -> None:
        self.sums = bytearray()
        self._put = put
        self._sum = self._filled = 0

    def __call__(self, data: Any, *, borrowed: bool = False) -> None:
        view = memoryview(data).cast("B")
        while view:
            # Block by block: what is summed up is still in the processor's cache when it is written.
            piece = view[: _BLOCK - self._filled]
            view = view[len(piece) :]
            self._sum = zlib.crc32(piece, self._sum)
            self._filled += len(piece)
            if self._filled == _BLOCK:
                self.finish()
            self._put(piece, borrowed=borrowed)

    def finish(self) -> None:
        if self._filled:
            self.sums += _SUM.pack(self._sum)
            self._sum = self._filled = 0


def with_checksums(write: Callable[[Header, Sink], Pickle], header: Header, put: Sink) -> None:
    """Write a region and its trailer; `write` returns the `pickle` of that."""
    summing = _Summing(put)
    pickle = write(header, summing)
    summing.finish()
    put(pack_trailer(summing.sums, pickle))


def append(fd: int, nbytes: int) -> None:
    """Write the trailer behind a region that is in a file already, and needs no pickles."""
    summing = _Summing(_drop)
    for start in range(0, nbytes, _BLOCK):
        summing(os.pread(fd, min(_BLOCK, nbytes - start), start))
    summing.finish()
    trailer = pack_trailer(summing.sums, Pickle(0))
    while trailer:
        written = os.pwrite(fd, trailer, nbytes)
        trailer, nbytes = trailer[written:], nbytes + written


def _drop(data: Any, *, borrowed: bool = False) -> None: ...


def pack_trailer(sums: bytes | bytearray, pickle: Pickle) -> bytes:
    """Return the trailer of a region whose blocks have these checksums."""
    path = pickle.path.encode("utf-8", "replace")
    if len(path) > _PATH_NBYTES:
        path = path[: _PATH_NBYTES - 3].decode("utf-8", "ignore").encode() + b"..."
    rest = TRAILER.pack(_MAGIC, 0, _BLOCK, pickle.offset, path)[_CHECKED:] + sums
    return _MAGIC + _SUM.pack(zlib.crc32(rest)) + rest


def read_trailer(fd: int, nbytes: int) -> Trailer | None:
    """Return the trailer behind a region of a size; None for what is none."""
    data = os.pread(fd, TRAILER.size, nbytes)
    if len(data) < TRAILER.size:
        return None
    magic, crc32, block, offset, path = TRAILER.unpack(data)
    if (magic, block) != (_MAGIC, _BLOCK):
        return None
    return Trailer(crc32, Pickle(offset, path.rstrip(b"\0").decode("utf-8", "replace")))


def damaged(fd: int, nbytes: int) -> str | None:
    """Read all of a region in a file; return what is wrong with it, None if it is as it was written."""
    trailer = read_trailer(fd, nbytes)
    if trailer is None:
        return "it has no checksums behind it"
    sums = os.pread(fd, trailer_nbytes(nbytes) - _CHECKED, nbytes + _CHECKED)
    if zlib.crc32(sums) != trailer.crc32:
        return "its checksums are damaged themselves"
    meter = _progress.meter()
    expected = _SUM.iter_unpack(sums[TRAILER.size - _CHECKED :])
    for start, (crc32,) in zip(range(0, nbytes, _BLOCK), expected, strict=True):
        end = min(start + _BLOCK, nbytes)
        data = os.pread(fd, end - start, start)
        if zlib.crc32(data) != crc32:
            return f"the checksum of the bytes from {start} to {end} does not match"
        if meter is not None:
            meter.did(len(data))
    return None
