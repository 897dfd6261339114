"""pyarrow: arrays, chunked arrays, record batches and tables.

What comes back are pyarrow's own classes over the region's buffers: chunks, field and schema metadata are
kept. Scalars, types and schemas go by pickle.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from mori.codecs.arrow_buffers import (
    Pieces,
    checked,
    put_together,
    schema_from_plain,
    schema_to_plain,
    take_apart,
)
from mori.format.codec import Buffers, Encoded, LibraryCodec, register
from mori.format.layout import Id, from_json, to_json

__all__ = ["ARRAYS", "ArrayCodec", "ChunkedCodec", "TableCodec"]


def _encoded(kind: pa.DataType, chunks: Sequence[pa.Array], name: str) -> Encoded | None:
    pieces = Pieces()
    try:
        schema = schema_to_plain(pa.schema([pa.field("", kind)]))
        plain = [take_apart(chunk, pieces) for chunk in chunks]
        for chunk in plain:  # an older pyarrow has arrays that it cannot put together
            put_together(kind, chunk, pieces)
    except (ValueError, NotImplementedError):
        return None
    return Encoded(to_json({"schema": schema, name: plain if name == "chunks" else plain[0]}), pieces)


def _kind(plain: dict[str, Any]) -> pa.DataType:
    (field,) = schema_from_plain(plain["schema"])
    return field.type


class _ImmutableCodec(LibraryCodec):
    """Objects that cannot be written to."""

    def is_intact(self, node: Any, obj: Any) -> bool:
        """Return True."""
        return True


class ArrayCodec(_ImmutableCodec):
    """An array of any type."""

    id = Id.ARROW_ARRAY

    def encode(self, obj: pa.Array) -> Encoded | None:
        return _encoded(obj.type, [obj], "array")

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pa.Array:
        plain = from_json(meta)
        return checked(put_together(_kind(plain), plain["array"], buffers), trusted=buffers.trusted)


class ChunkedCodec(_ImmutableCodec):
    """A chunked array; its chunks have their buffers in one node, what they share but once."""

    id = Id.ARROW_CHUNKED_ARRAY

    def encode(self, obj: pa.ChunkedArray) -> Encoded | None:
        return _encoded(obj.type, obj.chunks, "chunks")

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pa.ChunkedArray:
        plain = from_json(meta)
        kind = _kind(plain)
        chunks = [
            checked(put_together(kind, chunk, buffers), trusted=buffers.trusted) for chunk in plain["chunks"]
        ]
        return pa.chunked_array(chunks, kind)


class TableCodec(_ImmutableCodec):
    """A table or a record batch: its schema, and its columns as children."""

    def __init__(self, number: int, cls: Any, column: Any) -> None:
        self.id = number
        self._cls = cls
        self._column = column

    def encode(self, obj: Any) -> Encoded | None:
        try:
            schema = schema_to_plain(obj.schema)
        except ValueError:
            return None
        return Encoded(to_json({"schema": schema, "rows": obj.num_rows}), (), obj.columns)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        plain = from_json(meta)
        schema, rows = schema_from_plain(plain["schema"]), plain["rows"]
        if "chunks" in plain:
            return self._of_batches(plain, schema, buffers)
        columns = list(children)
        if not columns and not len(schema):
            return self._of_no_columns(rows, schema)
        for field, column in zip(schema, columns, strict=True):
            if not isinstance(column, self._column) or column.type != field.type or len(column) != rows:
                raise ValueError(f"a column of {type(column).__name__} for {rows} of {field.type}")
        return self._cls.from_arrays(columns, schema=schema)

    def _of_batches(self, plain: dict[str, Any], schema: pa.Schema, buffers: Buffers) -> Any:
        """Return a table that was written as it came, batch by batch."""
        columns = [
            pa.chunked_array(
                [
                    checked(put_together(field.type, chunk, buffers), trusted=buffers.trusted)
                    for chunk in chunks
                ],
                field.type,
            )
            for field, *chunks in zip(schema, *plain["chunks"], strict=True)
        ]
        if self.id != Id.ARROW_TABLE or any(len(column) != plain["rows"] for column in columns):
            raise ValueError(f"batches for {plain['rows']!r:.40} rows")
        return self._cls.from_arrays(columns, schema=schema)

    def _of_no_columns(self, rows: int, schema: pa.Schema) -> Any:
        """Return a table that has rows all the same, as `select` makes one."""
        if type(rows) is not int or not 0 <= rows < 1 << 62:
            raise ValueError(f"{rows} rows")
        return self._cls.from_arrays([pa.nulls(rows)], names=[""], metadata=schema.metadata).select([])

    def step(self, obj: Any, index: int) -> str:
        return f"[{obj.schema.names[index]!r}]"


ARRAYS: Final = tuple(
    cls for cls in vars(pa.lib).values() if inspect.isclass(cls) and issubclass(cls, pa.Array)
)
"""The classes of arrays."""

register(ArrayCodec(), *ARRAYS)
register(ChunkedCodec(), pa.ChunkedArray)
register(TableCodec(Id.ARROW_TABLE, pa.Table, pa.ChunkedArray), pa.Table)
register(TableCodec(Id.ARROW_RECORD_BATCH, pa.RecordBatch, pa.Array), pa.RecordBatch)
