"""pandas: frames, series, indexes and the arrays inside them.

Imports codec, layout, errors, pandas, and pyarrow for Arrow-backed strings. Every use of pandas' own
internals stands here or in `frames`; tests/mori/test_pandas_internals.py fails when one moves. A
frame keeps its consolidated blocks: a block a column would make pandas copy. Blocks are plain
ndarrays (pandas.testing compares classes), indexes keep SharedArrays, to travel as references.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import zoneinfo
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.extensions import ExtensionArray
from pandas.arrays import DatetimeArray, TimedeltaArray
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from mori import codec
from mori.codec import Buffer, Buffers, Encoded, Pickled
from mori.layout import Codec as Id

try:
    from pandas.api.internals import create_dataframe_from_blocks
except ImportError:  # pandas < 3
    from pandas import DataFrame
    from pandas.core.internals.api import make_block
    from pandas.core.internals.managers import BlockManager

    def create_dataframe_from_blocks(blocks: Any, index: Any, columns: Any) -> Any:
        made = [make_block(values, placement) for values, placement in blocks]
        manager = BlockManager(made, [columns, index])
        return DataFrame._from_mgr(manager, manager.axes)


try:
    import pyarrow as pa
    from pandas.arrays import ArrowStringArray
except ImportError:
    pa = ArrowStringArray = None

__all__ = ["FIRST_BLOCK", "ArrowStringArray", "create_dataframe_from_blocks", "pa", "places_of"]

FIRST_BLOCK: Final = 2  # of a frame's children; the columns and the index stand before


def _json(plain: object) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode()


def _pack(plain: dict[str, Any], children: Sequence[object], **extras: object) -> Encoded:
    """Return a node of plain data and children, with what is plain of the extras in the meta.

    An extra that is no string, number or None (the name of an index may be anything) is pickled as a
    child behind the others, and the meta says which: ``[place]``.
    """
    behind: list[object] = []
    for key, value in extras.items():
        if value is None:
            continue
        if type(value) in (str, int):
            plain[key] = value
        else:
            plain[key] = [len(children) + len(behind)]
            behind.append(Pickled(value))
    return Encoded(_json(plain), (), (*children, *behind))


def _extra(plain: dict[str, Any], children: Sequence[Any], key: str) -> Any:
    """Return an extra that `_pack` put away."""
    value = plain.get(key)
    value = children[value[0]] if isinstance(value, list) else value
    if key == "attrs":
        _need(value is None or type(value) is dict, "attrs that are no dict")
    else:
        hash(value)
    return value


def _need(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)


def _need_array(values: Any) -> None:
    """pandas takes the arrays of blocks and indexes on trust: they have to be such as it makes itself."""
    plain = isinstance(values, np.ndarray) and values.dtype.kind in "biufcO"
    _need(plain or isinstance(values, ExtensionArray), f"{type(values).__name__} for an array")


def _values(values: Any) -> object:
    """Return the values of a block or an index as a child; objects are pickled."""
    if isinstance(values, np.ndarray) and values.dtype.hasobject:
        return Pickled(values.view(np.ndarray))
    return values


def _bare(values: Any) -> Any:
    """Return values as a block wants them: plain ndarrays over the same memory."""
    if isinstance(values, DatetimeArray | TimedeltaArray):
        bare: Any = type(values)._simple_new(_bare(values._ndarray), dtype=values.dtype)
        if (freq := getattr(values, "_freq", None)) is not None:
            bare._freq = freq
        return bare
    return values.view(np.ndarray) if isinstance(values, np.ndarray) else values


class _Parts:
    """What the codecs of this file have in common."""

    def step(self, obj: Any, index: int) -> str:
        return ""


class FrameCodec(_Parts):
    """A DataFrame: columns, index and the values of each block."""

    id = Id.DATAFRAME

    def encode(self, obj: pd.DataFrame) -> Encoded:
        blocks = obj._mgr.blocks
        plain = {
            "blocks": [_placement(block.mgr_locs.as_array) for block in blocks],
            "duplicates": obj.flags.allows_duplicate_labels,
        }
        values = [_values(block.values) for block in blocks]
        return _pack(plain, (obj.columns, obj.index, *values), attrs=obj.attrs or None)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.DataFrame:
        plain = json.loads(meta)
        columns, index = children[0], children[1]
        _need(isinstance(columns, pd.Index) and isinstance(index, pd.Index), "axes that are no indexes")
        placements = [_places(place, len(columns)) for place in plain["blocks"]]
        values = [_bare(children[FIRST_BLOCK + number]) for number in range(len(placements))]
        _check_blocks(values, placements, len(columns), len(index))
        frame = create_dataframe_from_blocks(
            list(zip(values, placements, strict=True)), index=index, columns=columns
        )
        if (attrs := _extra(plain, children, "attrs")) is not None:
            frame.attrs = attrs
        if not plain["duplicates"]:
            frame.flags.allows_duplicate_labels = False
        return frame

    def step(self, obj: Any, index: int) -> str:
        if index < FIRST_BLOCK:
            return (".columns", ".index")[index]
        blocks = obj._mgr.blocks
        if index - FIRST_BLOCK >= len(blocks):
            return ".attrs"
        names = obj.columns[blocks[index - FIRST_BLOCK].mgr_locs.as_array].tolist()
        return f"[{names[0]!r}]" if len(names) == 1 else f"[{names!r}]"


def _placement(places: npt.NDArray[np.intp]) -> list[int]:
    """Return [start, step, count] for evenly spaced places, [-1, *places] for others."""
    if len(places) < 2:
        return [int(places[0]) if len(places) else 0, 1, len(places)]
    steps = np.diff(places)
    if (steps == steps[0]).all() and steps[0] > 0:
        return [int(places[0]), int(steps[0]), len(places)]
    return [-1, *places.tolist()]


def _places(plain: list[int], width: int) -> npt.NDArray[np.intp]:
    _need(all(type(number) is int for number in plain), f"places {plain}")
    if plain[0] < 0:
        return np.array(plain[1:], np.intp)
    start, step, count = plain
    _need(0 <= count <= width and 0 < step <= max(1, width), f"{count} of {width} columns")
    return np.arange(start, start + step * count, step, dtype=np.intp)


def places_of(meta: bytes, block: int) -> npt.NDArray[np.intp]:
    """Return the places of a block's columns in its frame."""
    return _places(json.loads(meta)["blocks"][block], sys.maxsize)


def _check_blocks(values: list[Any], placements: list[npt.NDArray[np.intp]], width: int, length: int) -> None:
    """pandas takes blocks on trust; ones that do not fill the frame exactly would crash it later."""
    taken = np.concatenate([np.empty(0, np.intp), *placements])
    if len(taken) != width or not np.array_equal(np.sort(taken), np.arange(width)):
        raise ValueError(f"the blocks do not fill {width} columns")
    for block, places in zip(values, placements, strict=True):
        _need_array(block)
        flat = not isinstance(block, np.ndarray | DatetimeArray | TimedeltaArray)
        _need(block.ndim == 2 or (flat and block.ndim == 1), f"a block of {block.ndim} dimensions")
        shape = block.shape if block.ndim == 2 else (1, len(block))
        if shape != (len(places), length):
            raise ValueError(f"a block of {shape} for {len(places)} columns of {length} rows")


class SeriesCodec(_Parts):
    """A Series: index and values."""

    id = Id.SERIES

    def encode(self, obj: pd.Series[Any]) -> Encoded:
        values = _values(obj._mgr.blocks[0].values)
        plain = {"duplicates": obj.flags.allows_duplicate_labels}
        return _pack(plain, (obj.index, values), name=obj.name, attrs=obj.attrs or None)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.Series[Any]:
        plain = json.loads(meta)
        index, values = children[0], _bare(children[1])
        name = _extra(plain, children, "name")
        _need_array(values)
        _need(isinstance(index, pd.Index), "an index that is none")
        _need(values.shape == (len(index),), f"{values.shape} values for {len(index)} labels")
        if isinstance(values, np.ndarray):
            block = create_dataframe_from_blocks(
                [(values[np.newaxis], np.zeros(1, np.intp))], index=index, columns=pd.RangeIndex(1)
            )
            series = block.iloc[:, 0]
            series.name = name
        else:
            series = pd.Series(values, index=index, name=name, copy=False)
        if (attrs := _extra(plain, children, "attrs")) is not None:
            series.attrs = attrs
        if not plain["duplicates"]:
            series.flags.allows_duplicate_labels = False
        return series

    def step(self, obj: Any, index: int) -> str:
        return (".index", ".array", ".name", ".attrs")[index]


def _freq_of(obj: Any) -> object:
    """Return the frequency of dates: as a string where that says everything."""
    freq = getattr(obj, "freq", None)
    if freq is None or isinstance(obj, pd.PeriodIndex):  # a period's is its dtype's
        return None
    try:
        if to_offset(freq.freqstr) == freq:
            return freq.freqstr
    except ValueError:
        pass
    return freq


def _set_freq(obj: Any, freq: Any) -> None:
    """Give dates their frequency; the public way checks it against every value, and so reads them all."""
    inner = getattr(obj, "_data", None)
    target: Any = inner if hasattr(type(inner), "freq") else obj  # pandas < 3.1 keeps it in the array
    freq = to_offset(freq) if isinstance(freq, str) else freq
    _need(isinstance(freq, BaseOffset), f"a frequency of {type(freq).__name__}")
    target._freq = freq


_INDEXES: Final = {
    cls.__name__: cls
    for cls in (
        pd.Index,
        pd.DatetimeIndex,
        pd.TimedeltaIndex,
        pd.PeriodIndex,
        pd.CategoricalIndex,
        pd.IntervalIndex,
    )
}


class IndexCodec(_Parts):
    """An Index of one level: its array and its name."""

    id = Id.INDEX

    def encode(self, obj: pd.Index[Any]) -> Encoded:
        plain = {"class": type(obj).__name__}
        return _pack(plain, (_values(obj._data),), name=obj.name, freq=_freq_of(obj))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.Index[Any]:
        plain = json.loads(meta)
        cls = _INDEXES[plain["class"]]
        values = children[0]
        _need_array(values)
        own = (
            made for made in _INDEXES.values() if made is not pd.Index and isinstance(values, made._data_cls)
        )
        if values.ndim != 1 or next(own, pd.Index) is not cls:
            raise ValueError(f"a {cls.__name__} over {type(values).__name__}")
        # The public constructors would strip the SharedArray, and the index would travel by value.
        index = cls._simple_new(values, name=_extra(plain, children, "name"))
        if (freq := _extra(plain, children, "freq")) is not None:
            _set_freq(index, freq)
        return index


class RangeIndexCodec(_Parts):
    """A RangeIndex: three numbers and a name."""

    id = Id.RANGE_INDEX

    def encode(self, obj: pd.RangeIndex) -> Encoded:
        return _pack({"range": [obj.start, obj.stop, obj.step]}, (), name=obj.name)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.RangeIndex:
        plain = json.loads(meta)
        return pd.RangeIndex(*plain["range"], name=_extra(plain, children, "name"))


class MultiIndexCodec(_Parts):
    """A MultiIndex: the names, then its levels, then its codes."""

    id = Id.MULTI_INDEX

    def encode(self, obj: pd.MultiIndex) -> Encoded:
        codes = [np.asarray(code) for code in obj.codes]
        plain = {"levels": obj.nlevels, "sortorder": obj.sortorder}
        return _pack(plain, (*obj.levels, *codes), names=tuple(obj.names))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.MultiIndex:
        plain = json.loads(meta)
        count = plain["levels"]
        return pd.MultiIndex(
            levels=children[:count],
            codes=children[count : 2 * count],
            sortorder=plain["sortorder"],
            names=_extra(plain, children, "names"),
            copy=False,
            verify_integrity=not buffers.sealed,
        )


class CategoricalCodec(_Parts):
    """A Categorical: codes and categories."""

    id = Id.CATEGORICAL

    def encode(self, obj: pd.Categorical) -> Encoded:
        return Encoded(b"\1" if obj.ordered else b"\0", (), (obj.codes, obj.categories))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.Categorical:
        codes, categories = children
        _need(codes.dtype.char in "bhilq" and codes.ndim == 1, f"codes of {codes.ndim} {codes.dtype}")
        _need(isinstance(categories, pd.Index), "categories that are no index")
        if not buffers.sealed:
            most = len(categories)
            _need(not len(codes) or -1 <= codes.min() <= codes.max() < most, "codes without a category")
            _need(categories.is_unique and not categories.hasnans, "categories that are not distinct")
        dtype = pd.CategoricalDtype._from_fastpath(categories, bool(meta[0]))
        return pd.Categorical._simple_new(_bare(codes), dtype)


def _zone(tz: object) -> object:
    """Return a time zone: as its key where that says everything."""
    if tz is dt.timezone.utc:
        return "utc"
    if type(tz) is zoneinfo.ZoneInfo and tz.key:
        return f"zone:{tz.key}"
    return tz


_TIMES: Final = {kind: [np.dtype(f"{kind}8[{unit}]") for unit in ("s", "ms", "us", "ns")] for kind in "Mm"}


class DatetimeLikeCodec(_Parts):
    """A DatetimeArray or TimedeltaArray, of one or two dimensions."""

    def __init__(self, number: int, cls: Any) -> None:
        self.id = number
        self._cls = cls

    def encode(self, obj: Any) -> Encoded:
        zone = _zone(obj.tz) if self._cls is DatetimeArray else None
        return _pack({}, (obj._ndarray,), zone=zone, freq=_freq_of(obj))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        plain = json.loads(meta)
        values, zone = children[0], _extra(plain, children, "zone")
        kind = "M" if self._cls is DatetimeArray else "m"
        dtype = values.dtype
        _need(dtype in _TIMES[kind] and values.ndim in (1, 2), f"times of {values.ndim} {dtype}")
        _need(zone is None or kind == "M", "a difference of times in a time zone")
        if zone == "utc":
            zone = dt.timezone.utc
        elif isinstance(zone, str):
            zone = zoneinfo.ZoneInfo(zone.removeprefix("zone:"))
        if zone is not None:
            dtype = pd.DatetimeTZDtype(np.datetime_data(dtype)[0], zone)
        array = self._cls._simple_new(values, dtype=dtype)  # an index keeps the SharedArray; see _bare
        if (freq := _extra(plain, children, "freq")) is not None and hasattr(self._cls, "freq"):
            _set_freq(array, freq)
        return array


class MaskedCodec(_Parts):
    """A nullable array of integers, floats or booleans: data and mask."""

    id = Id.MASKED_ARRAY

    def encode(self, obj: Any) -> Encoded:
        return Encoded(b"", (), (obj._data, obj._mask))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        data, mask = children
        _need(data.shape == mask.shape, f"a mask of {mask.shape} for {data.shape} values")
        _need(data.dtype.isnative, f"values of {data.dtype}")
        kind = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}.get(
            data.dtype.kind, pd.arrays.IntegerArray
        )
        return kind(_bare(data), _bare(mask), copy=False)


class StringCodec(_Parts):
    """Arrow-backed strings: validity, offsets and UTF-8, as Arrow's large_string lays them out."""

    id = Id.STRING_ARRAY

    def encode(self, obj: Any) -> Encoded | None:
        if type(obj.dtype) is not pd.StringDtype or obj.dtype.storage != "pyarrow":
            return None
        array = obj.__arrow_array__()
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        chunks = [chunk.cast(pa.large_string()) for chunk in chunks if len(chunk)]
        missing = sum(chunk.null_count for chunk in chunks)
        pieces: list[npt.NDArray[Any]] = []
        ends = [np.zeros(1, "<i8")]
        for chunk in chunks:
            offsets = np.frombuffer(chunk.buffers()[1], "<i8")[chunk.offset :][: len(chunk) + 1]
            text = chunk.buffers()[2]
            if text is not None:
                pieces.append(np.frombuffer(text, np.uint8)[offsets[0] : offsets[-1]])
            shift = ends[-1][-1] - offsets[0]
            ends.append(offsets[1:] if not shift else offsets[1:] + shift)
        validity = np.empty(0, np.uint8)
        if missing:
            valid = [np.asarray(chunk.is_valid()) for chunk in chunks]
            validity = np.packbits(np.concatenate(valid), bitorder="little")
        meta = _json(
            {"length": len(obj), "missing": missing, "na": "NA" if obj.dtype.na_value is pd.NA else "nan"}
        )
        buffers: list[Buffer] = [validity, ends, pieces]
        return Encoded(meta, buffers)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        if pa is None:
            raise ImportError("this region holds strings in Arrow's layout: install mori[arrow]")
        plain = json.loads(meta)
        length, missing = plain["length"], plain["missing"]
        validity, offsets, text = buffers
        if offsets.nbytes != 8 * (length + 1) or not 0 <= missing <= length:
            raise ValueError(f"{offsets.nbytes} bytes of offsets for {length} strings")
        if validity.nbytes != ((length + 7) // 8 if missing else 0):
            raise ValueError(f"{validity.nbytes} bytes of validity for {length} strings")
        array = pa.LargeStringArray.from_buffers(
            length,
            pa.py_buffer(offsets),
            pa.py_buffer(text),
            pa.py_buffer(validity) if missing else None,
            missing,
        )
        # O(1) on sealed memory; what somebody could have changed is read through once.
        array.validate(full=not buffers.sealed)
        dtype = pd.StringDtype("pyarrow", na_value=pd.NA if plain["na"] == "NA" else np.nan)
        return dtype.__from_arrow__(array)


codec.register(FrameCodec(), pd.DataFrame)
codec.register(SeriesCodec(), pd.Series)
codec.register(IndexCodec(), *_INDEXES.values())
codec.register(RangeIndexCodec(), pd.RangeIndex)
codec.register(MultiIndexCodec(), pd.MultiIndex)
codec.register(CategoricalCodec(), pd.Categorical)
codec.register(DatetimeLikeCodec(Id.DATETIME_ARRAY, DatetimeArray), DatetimeArray)
codec.register(DatetimeLikeCodec(Id.TIMEDELTA_ARRAY, TimedeltaArray), TimedeltaArray)
codec.register(MaskedCodec(), pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)
if pa is not None:
    codec.register(StringCodec(), ArrowStringArray)
