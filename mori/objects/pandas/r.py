"""R's data frames, factors, dates, names and missing values as pandas has them.

The elements stay where R wrote them, a mask beside them where any are missing; factors, dates, times and
logicals are converted, since R has other numbers for them: docs/r.md has the table.
"""

from __future__ import annotations

import contextlib
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from mori.codecs.pandas.versions import pa, string_dtype
from mori.format.codec import Codec
from mori.format.r import CHARACTER, INTEGER, LIST, LOGICAL, OTHER, RNode
from mori.objects.containers.identity import Identity
from mori.objects.pandas.shared import SharedFrameCodec, SharedSeriesCodec
from mori.objects.r import NA, RCodec, Strings, numbers_of

__all__ = ["frame_codec", "series_codec"]

_SECONDS: Final = {"secs": 1, "mins": 60, "hours": 3600, "days": 86400, "weeks": 604800}
_NAT: Final = np.iinfo(np.int64).min


class _Frame(RCodec, SharedFrameCodec):  # type: ignore[misc]
    """Data frames: a block for each column, over R's pages where the elements need no conversion."""

    def make(self, node: RNode) -> pd.DataFrame:
        columns = [_column(node.child(place)) for place in range(node.length)]
        frame = pd.DataFrame(dict(enumerate(columns)), index=_row_names(node), copy=False)
        frame.columns = _labels(node.names or [])
        return frame


class _Series(RCodec, SharedSeriesCodec):
    """Vectors that have names, missing integers or logicals, or a class that pandas has, too."""

    def make(self, node: RNode) -> pd.Series[Any]:
        names = node.names
        index = pd.RangeIndex(node.length) if names is None else _labels(names)
        return pd.Series(_values(node), index=index, copy=False)


_FRAME, _SERIES = _Frame(), _Series()


def series_codec(node: RNode) -> Codec:
    """Return the codec of a vector that is opened as a series."""
    return _SERIES


def frame_codec(node: RNode) -> Codec | None:
    """Return the codec of a data frame; None where a column is no vector as long as the frame.

    R may have a matrix or a frame for a column, which pandas has not.
    """
    length = len(_row_names(node))
    if node.names is None:
        return None
    for place in range(node.length):
        child = node.child(place)
        if child.type == OTHER or child.length != length or child.attributes.get("dim") is not None:
            return None
        if child.type == LIST and child.classes:
            return None
    return _FRAME


def _row_names(node: RNode) -> pd.Index[Any]:
    found = node.attributes.get("row.names")
    if isinstance(found, range) or found is None:
        return pd.RangeIndex(len(found or ()))
    if isinstance(found, np.ndarray):
        if len(found) == 2 and found[0] == NA:
            return pd.RangeIndex(abs(int(found[1])))
        return pd.Index(found.astype(np.int64))
    return _labels(found)


def _labels(names: Any) -> pd.Index[Any]:
    """Return names as an index."""
    return pd.Index([*names], dtype=object).infer_objects() if len(names) else pd.Index([], dtype=object)


def _column(node: RNode) -> Any:
    if node.type == LIST:
        elements = np.empty(node.length, object)
        for place in range(node.length):
            child = node.child(place)
            elements[place] = child.codec.open_in(child, Identity())
        return elements
    return _values(node)


def _values(node: RNode) -> Any:
    """Return the elements of a vector as a block of pandas has them."""
    classes = node.classes
    if node.type == CHARACTER:
        return _text(node)
    if node.type == INTEGER and "factor" in classes:
        return _factor(node, ordered="ordered" in classes)
    numbers = numbers_of(node)
    if numbers.dtype.kind in "if":
        for name, convert in _CONVERTERS.items():
            if name in classes:
                return convert(node, numbers)
    if node.type not in (INTEGER, LOGICAL):
        return numbers
    missing = numbers == NA
    if node.type == LOGICAL:
        truths = numbers != 0
        return pd.arrays.BooleanArray(truths & ~missing, missing, copy=False) if missing.any() else truths
    return pd.arrays.IntegerArray(numbers, missing, copy=False) if missing.any() else numbers


def _text(node: RNode) -> Any:
    strings = Strings(node)
    if pa is None:
        return pd.Series(strings.all(), dtype=None if node.length else object).array
    dtype = string_dtype(nan=True)
    table = np.frombuffer(strings.table, [("offset", "i8"), ("length", "i4"), ("encoding", "i4")])
    missing = table["length"] < 0
    lengths = np.where(missing, 0, table["length"]).astype(np.int64)
    offsets = np.zeros(node.length + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    # R writes one string behind the other: the text can stay where it is, and Arrow checks that it is UTF-8.
    in_place = (table["offset"] == offsets[:-1]) | missing
    if in_place.all() and np.isin(table["encoding"], (0, 1, 64)).all() and offsets[-1] <= len(strings.text):
        validity = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
        array = pa.LargeStringArray.from_buffers(
            node.length, pa.py_buffer(offsets), pa.py_buffer(strings.text), validity, int(missing.sum())
        )
        with contextlib.suppress(pa.ArrowInvalid):  # R has strings that are no UTF-8
            array.validate(full=True)
            return dtype.__from_arrow__(array)
    return dtype.__from_arrow__(pa.array(strings.all(), pa.large_string()))


def _factor(node: RNode, *, ordered: bool) -> pd.Categorical:
    levels = node.attributes["levels"]
    codes = numbers_of(node).astype(np.int64) - 1
    codes[codes == NA - 1] = -1
    if codes.min(initial=-1) < -1 or (codes == -1).sum() != (numbers_of(node) == NA).sum():
        raise ValueError("a factor with numbers below 1")
    if codes.max(initial=-1) >= len(levels):
        raise ValueError(f"a factor with a number beyond its {len(levels)} levels")
    if None in levels:  # R may have a level for what is missing; pandas has it missing
        place = levels.index(None)
        codes[codes == place] = -1
        codes[codes > place] -= 1
        levels = [level for level in levels if level is not None]
    return pd.Categorical.from_codes(codes, _labels(levels), ordered=ordered)


def _date(node: RNode, numbers: npt.NDArray[Any]) -> Any:
    with np.errstate(invalid="ignore"):  # R's NA is a signalling NaN
        days = np.floor(_floats(numbers))
    return _times(days, 86400, "M8[s]")


def _time(node: RNode, numbers: npt.NDArray[Any]) -> Any:
    times = _times(_floats(numbers), 1_000_000, "M8[us]")
    zone = node.attributes.get("tzone")
    name = str(zone[0] if isinstance(zone, list) and zone else "") or "UTC"
    try:
        zoneinfo.ZoneInfo(name)  # pandas takes some names for those of files
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # an instant is the same in any zone
        name = "UTC"
    return pd.arrays.DatetimeArray._simple_new(times, dtype=pd.DatetimeTZDtype("us", name))


def _difference(node: RNode, numbers: npt.NDArray[Any]) -> Any:
    (units,) = node.attributes.get("units") or ("secs",)
    return _times(_floats(numbers), _SECONDS[units] * 1_000_000, "m8[us]")


def _integer64(node: RNode, numbers: npt.NDArray[Any]) -> Any:
    if numbers.dtype != np.dtype("f8"):
        return numbers
    wide = numbers.view(np.int64)
    missing = wide == _NAT
    return pd.arrays.IntegerArray(wide, missing, copy=False) if missing.any() else wide


def _floats(numbers: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if numbers.dtype.kind == "f":
        return numbers
    return np.where(numbers == NA, np.nan, numbers)


def _times(numbers: npt.NDArray[np.float64], ticks: int, dtype: str) -> npt.NDArray[Any]:
    """Return numbers of R's as times; what is missing, infinite or too far away is NaT."""
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(numbers * ticks)
    fits = np.abs(scaled) < 2.0**62  # not so for NaN
    times = np.full(len(numbers), _NAT, np.int64)
    times[fits] = scaled[fits].astype(np.int64)
    return times.view(dtype)


_CONVERTERS: Final[dict[str, Callable[[RNode, npt.NDArray[Any]], Any]]] = {
    "Date": _date,
    "POSIXct": _time,
    "difftime": _difference,
    "integer64": _integer64,
}
