"""polars: frames and series, through Arrow's tables, whose buffers polars takes without copying.

What Arrow does not carry exactly (objects, integers of 128 bits) goes by pickle, column by column. Lazy
frames go by pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import polars as pl
import pyarrow as pa

from mori.codecs.arrow_buffers import check_missing
from mori.format import codec, writer
from mori.format.codec import Buffers, Encoded, LibraryCodec, Pickled
from mori.format.layout import Id, from_json, to_json
from mori.format.node import root_of
from mori.format.origins import node_of
from mori.format.plan import measure
from mori.memory.mapping import map_bytes

__all__ = ["FrameCodec", "SeriesCodec"]

_NEWEST: Final = pl.CompatLevel.newest()  # strings stay views: older layouts are a copy
_ORDERS: Final = {"a": False, "d": True}  # descending


def _to_arrow(column: pl.Series) -> pa.Table | None:
    """Return a column as a table of its own; None for one that Arrow does not give back as it is."""
    try:
        table = column.to_frame().to_arrow(compat_level=_NEWEST)
        empty = pl.from_arrow(table.slice(0, 0))
    except (pa.ArrowException, pl.exceptions.PolarsError):
        return None
    return table if isinstance(empty, pl.DataFrame) and empty.dtypes == [column.dtype] else None


def _order(column: pl.Series) -> str:
    flags = column.flags
    return "a" if flags["SORTED_ASC"] else "d" if flags["SORTED_DESC"] else ""


def _pickled(column: pl.Series) -> Pickled:
    if column.dtype == pl.Object:  # polars pickles none of these
        return Pickled((column.name, column.to_list()))
    return Pickled(column)


class _Polars(LibraryCodec):
    """What both codecs have in common."""

    def nbytes(self, obj: Any) -> int:
        return int(obj.estimated_size())

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        """Return a copy over private memory, since polars cannot pickle columns of objects."""
        if node_of(obj) is None:
            return obj
        plan = measure(obj)
        return root_of(map_bytes(writer.to_bytes(plan, writer.header_of(plan)))).decode()


class FrameCodec(_Polars):
    """A DataFrame: a table of what Arrow carries, and each other column."""

    id = Id.POLARS_FRAME

    def encode(self, obj: pl.DataFrame) -> Encoded:
        nameless = obj.columns.index("") if "" in obj.columns else None
        if nameless is not None:  # polars would give it a name on the way, perhaps another's
            obj = obj.rename({"": "_" + max(obj.columns, key=len)})
        columns = obj.get_columns()
        tables = [_to_arrow(column) for column in columns]
        pickled = [place for place, table in enumerate(tables) if table is None]
        carried = [column.name for place, column in enumerate(columns) if place not in pickled]
        plain: dict[str, Any] = {"rows": obj.height, "order": [_order(column) for column in columns]}
        if nameless is not None:
            plain["nameless"] = nameless
        if pickled:
            plain["pickled"] = pickled
        table = obj.select(carried).to_arrow(compat_level=_NEWEST)
        return Encoded(
            to_json(plain),
            (),
            (table, *(_pickled(columns[place]) for place in pickled)),
        )

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pl.DataFrame:
        plain = from_json(meta)
        table, *others = children
        if not isinstance(table, pa.Table):
            raise ValueError(f"columns of {type(table).__name__}")
        if not buffers.trusted:
            for column in table.columns:
                for chunk in column.chunks:
                    check_missing(chunk)
        frame = pl.from_arrow(table, rechunk=False)
        columns = frame.get_columns() if isinstance(frame, pl.DataFrame) and table.num_columns else []
        for place, column in zip(plain.get("pickled", ()), others, strict=True):
            made = pl.Series(*column, dtype=pl.Object) if isinstance(column, tuple) else column
            if not isinstance(made, pl.Series) or type(place) is not int:
                raise ValueError(f"a column of {type(column).__name__}")
            columns.insert(place, made)
        columns = [
            column.set_sorted(descending=_ORDERS[order]) if order else column
            for column, order in zip(columns, plain["order"], strict=True)
        ]
        if not columns:
            return _of_no_columns(plain["rows"])
        if any(len(column) != plain["rows"] for column in columns):
            raise ValueError(f"columns that do not have {plain['rows']} rows")
        made = pl.DataFrame(columns)
        if "nameless" in plain:
            names = made.columns
            names[plain["nameless"]] = ""
            made.columns = names
        return made

    def step(self, obj: Any, index: int) -> str:
        if not index:
            return ""
        places = from_json(self.encode(obj).meta)["pickled"]
        return f"[{obj.columns[places[index - 1]]!r}]"


def _of_no_columns(rows: int) -> pl.DataFrame:
    """Return a frame that may have rows all the same, where polars has such."""
    if type(rows) is not int or not 0 <= rows < 1 << 32:
        raise ValueError(f"{rows} rows")
    return pl.DataFrame(height=rows) if rows else pl.DataFrame()


class SeriesCodec(FrameCodec):
    """A Series: the frame that it is the only column of."""

    id = Id.POLARS_SERIES

    def encode(self, obj: pl.Series) -> Encoded:
        return super().encode(obj.to_frame())

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        (column,) = super().decode(meta, buffers, children).get_columns()
        return column

    def step(self, obj: Any, index: int) -> str:
        return ""


codec.register(FrameCodec(), pl.DataFrame)
codec.register(SeriesCodec(), pl.Series)
