"""Streams of record batches, written to a region as they come: the whole is never in private memory.

Anything with ``__arrow_c_stream__``: a `pyarrow.RecordBatchReader`, a query of DuckDB or polars, a cursor of
ADBC. What comes of it is a `pyarrow.Table` in one node, whose head is written last, into room that was left
for it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori import _progress
from mori.format import codec, layout, writer
from mori.format.layout import Id, to_json
from mori.memory import region
from mori.memory.mapping import Mapping
from mori.store.base import ALIGNMENT, MAGIC, Header, align, pack_header

__all__ = ["is_stream", "read", "write_stream"]

_TOGETHER: Final = 1 << 24  # bytes of batches that are written as one: opening a table takes time for each
_HEAD: Final = 1 << 20  # bytes that are left for the node's record, meta and table of buffers, at least
_COLUMN: Final = 1 << 18  # for each column


def is_stream(obj: object) -> bool:
    """Return whether an object is a stream of record batches.

    Not what numpy takes for an array, as xarray's objects: that is data of its own kind, and comes back so.
    """
    cls = type(obj)
    is_one = hasattr(cls, "__arrow_c_stream__") and not hasattr(cls, "__array__")
    return is_one and codec.for_type(cls) is None


def read(obj: Any) -> tuple[Any, Any, Iterator[Any]]:
    """Begin to read a stream.

    Returns
    -------
    table : pyarrow.Table or None
        All of it, if it is small.
    schema : pyarrow.Schema
    batches : iterator of pyarrow.RecordBatch
        Else, of some megabytes each.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise ImportError(
            "a stream of record batches is read by pyarrow: install mori[arrow]", name=error.name
        ) from error

    reader = pa.RecordBatchReader.from_stream(obj)
    tables = _tables(reader)
    first = next(tables, reader.schema.empty_table())
    second = next(tables, None)
    if second is None:
        return first, reader.schema, iter(())

    begun = [second, first]
    del first, second  # each goes when it is written
    return None, reader.schema, _batches(begun, tables)


def _batches(begun: list[Any], tables: Iterator[Any]) -> Iterator[Any]:
    while begun or (begun := [*itertools.islice(tables, 1)]):
        batches = begun.pop().combine_chunks().to_batches()
        while batches:
            yield batches.pop(0)


def _tables(reader: Any) -> Iterator[Any]:
    """Yield tables of some megabytes each."""
    import pyarrow as pa

    pending, nbytes = [], 0
    for batch in reader:
        pending.append(batch)
        nbytes += batch.get_total_buffer_size()
        if nbytes >= _TOGETHER:
            yield pa.Table.from_batches(pending, reader.schema)
            pending, nbytes = [], 0
    if pending:
        yield pa.Table.from_batches(pending, reader.schema)


class _Pieces:
    """Writes buffers one behind the other, and gives them numbers."""

    def __init__(self, fd: int, position: int, reserve: Callable[[int], None]) -> None:
        self.table: list[tuple[int, int]] = []
        self.position = position
        self._fd = fd
        self._reserve = reserve
        self._meter = _progress.meter()

    def add(self, piece: npt.NDArray[Any]) -> int:
        self.position = align(self.position, ALIGNMENT)
        view = memoryview(piece.reshape(-1).view(np.uint8))
        self.table.append((self.position - writer.ROOT, view.nbytes))
        self._reserve(view.nbytes)
        while view:
            written = os.pwrite(self._fd, view[: 1 << 24], self.position)
            self.position += written
            view = view[written:]
            if self._meter is not None:
                self._meter.did(written)
        return len(self.table) - 1


def write_stream(schema: Any, batches: Iterator[Any], path: str | None = None) -> Mapping | None:
    """Write batches to a new region and return its mapping; to a file if `path` is given, and None.

    Raises
    ------
    ValueError
        If a type of the schema cannot be written.
    StoreFullError
        If there is no room. Nothing is left behind.
    """
    from mori.codecs.arrow_buffers import schema_to_plain, take_apart

    plain = schema_to_plain(schema)
    room = align(max(_HEAD, _COLUMN * len(schema)))

    def fill(fd: int, header: Header, reserve: Callable[[int], None]) -> Header:
        os.pwrite(fd, MAGIC, 0)  # proves whose file it is if this process is killed now
        pieces: Any = _Pieces(fd, writer.ROOT + room, reserve)
        chunks, rows = [], 0
        for batch in batches:
            chunks.append([take_apart(column, pieces) for column in batch.columns])
            rows += batch.num_rows
            del batch
        nbytes = align(pieces.position)
        meta = to_json({"schema": plain, "rows": rows, "chunks": chunks})
        extent = nbytes - writer.ROOT
        head = layout.pack_head(Id.ARROW_TABLE, meta, pieces.table, 0, extent, 0, 0)
        if len(head) > room:
            raise ValueError(
                f"{len(chunks)} batches of {len(schema)} columns are too many for a table: write it in parts"
            )
        header = header._replace(nbytes=nbytes)
        os.pwrite(fd, head, writer.ROOT)
        os.ftruncate(fd, nbytes)
        os.pwrite(fd, pack_header(header), 0)
        return header

    return region.gather(fill, writer.ROOT, path)
