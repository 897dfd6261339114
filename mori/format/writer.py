"""A plan becomes bytes, in a region or not: written once, in order, straight from the source buffers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mori.format import layout
from mori.format.codec import Buffer, Joined
from mori.format.plain import STREAMS, first_name
from mori.memory import region
from mori.memory.checksums import Pickle
from mori.memory.mapping import Mapping
from mori.memory.parallel_write import Sink
from mori.store.base import HEADER, Header, align, pack_header

if TYPE_CHECKING:
    from mori.format.plan import PlanNode

__all__ = ["ROOT", "header_of", "region_nbytes", "to_bytes", "to_file", "to_region", "write"]

ROOT: Final = align(HEADER.size)
_SMALL: Final = 1 << 16  # what is smaller is gathered
_BLOCK: Final = 1 << 20


def region_nbytes(root: PlanNode) -> int:
    """Return the size of the region of a plan."""
    return ROOT + root.extent


def to_region(root: PlanNode) -> Mapping:
    """Write a plan into a new region and return its mapping; raises what `region.create` does."""
    return region.create(ROOT + root.extent, partial(write, root), ROOT)


def to_file(root: PlanNode, path: str, pickle_path: str = "") -> None:
    """Write a plan to a file; raises what `region.save` does.

    `pickle_path` is how a user writes the way to the first pickle that names more than plain data.
    """

    def write_noting(header: Header, put: Sink) -> Pickle:
        return Pickle(write(root, header, put, finds_names=True), pickle_path)

    region.save(path, region_nbytes(root), write_noting, ROOT)


def header_of(root: PlanNode, region_id: bytes = bytes(16), pid: int = 0, number: int = 0) -> Header:
    """Return the header of a plan's region that lies in no store."""
    return Header(region_id, region_nbytes(root), ROOT, pid, number, 0)


def to_bytes(root: PlanNode, header: Header) -> bytearray:
    """Return a region as bytes, for what is sent by value."""
    made = bytearray()

    def put(data: Any, *, borrowed: bool = False) -> None:
        made.extend(data)

    write(root, header, put)
    return made


def write(root: PlanNode, header: Header, put: Sink, *, finds_names: bool = False) -> int:
    """Pass the bytes of a region to `put`, in order.

    With `finds_names`, returns the offset of the first node with a pickle that names more than plain data; 0
    if there is none.
    """
    out = _Gatherer(put, pack_header(header))
    first = 0
    starts: dict[int, int] = {}
    pending = [(root, ROOT, 0, 0)]
    while pending:
        node, start, back, index = pending.pop()
        meta = node.meta
        if finds_names and node.codec in STREAMS and not first and first_name(node.codec, meta) is not None:
            first = start
        if node.flags & layout.ALIASED:
            starts[id(node)] = start
        if node.target is not None:
            meta = layout.CHILD.pack(start - starts[id(node.target)])
        count = len(node.children)
        out.put(
            start,
            layout.pack_head(node.codec, meta, node.table, count, node.extent, back, index, node.flags),
        )
        if node.children:
            table = np.fromiter((child.back for child in node.children), "<u8", len(node.children))
            out.put(out.position, table.tobytes())
        for buffer, (offset, _) in zip(node.buffers, node.table, strict=True):
            if type(buffer) is np.ndarray and buffer.nbytes and buffer.flags.c_contiguous:  # as most are
                out.put(start + offset, buffer.reshape(-1).view(np.uint8), borrowed=True)
                continue
            out.put(start + offset, b"")
            for piece, borrowed in _pieces(buffer):
                out.put(out.position, piece, borrowed=borrowed)
        for number in range(len(node.children) - 1, -1, -1):
            child = node.children[number]
            pending.append((child, start + child.back, child.back, number))
    out.finish(ROOT + root.extent)
    return first


class _Gatherer:
    """Puts small pieces together, so that a million nodes are not a million system calls."""

    def __init__(self, put: Sink, head: bytes) -> None:
        self.position = len(head)
        self._put = put
        self._small = bytearray(head)

    def put(self, offset: int, data: Any, *, borrowed: bool = False) -> None:
        nbytes = len(data)
        self._small += bytes(offset - self.position)
        self.position = offset + nbytes
        if nbytes < _SMALL:
            self._small += memoryview(data)
            if len(self._small) >= _BLOCK:
                self.flush()
        else:
            self.flush()
            self._put(data, borrowed=borrowed)

    def finish(self, nbytes: int) -> None:
        self._small += bytes(nbytes - self.position)
        if self._small:
            self._put(self._small)

    def flush(self) -> None:
        if self._small:
            self._put(self._small)
            self._small = bytearray()


def _pieces(buffer: Buffer) -> Iterator[tuple[npt.NDArray[np.uint8], bool]]:
    """Yield a buffer's bytes as arrays, and whether they are its own memory, or copied block by block."""
    if isinstance(buffer, Joined):
        for block in buffer:
            yield block, False
    elif isinstance(buffer, Sequence):
        for piece in buffer:
            yield from _pieces(piece)
    elif not buffer.nbytes:
        return
    elif buffer.flags.c_contiguous or buffer.flags.f_contiguous:
        yield buffer.ravel(order="K").view(np.uint8), True
    else:
        row = buffer[0].nbytes
        if row > _BLOCK and buffer.ndim > 1:
            for part in buffer:
                yield from _pieces(part)
        else:
            step = max(1, _BLOCK // max(1, row))
            for start in range(0, len(buffer), step):
                yield np.ascontiguousarray(buffer[start : start + step]).ravel().view(np.uint8), False
