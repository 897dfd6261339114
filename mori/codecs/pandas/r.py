"""pandas' objects in R's layout: data frames, named vectors, factors, dates, missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.arrays import BooleanArray, DatetimeArray, FloatingArray, IntegerArray, TimedeltaArray

from mori.codecs.pandas.versions import pa
from mori.codecs.r import NA_INTEGER, Encoder, checked, refused, strings_of, zone_of
from mori.format.r import INTEGER
from mori.format.r_writer import RList, RVector

__all__ = ["encode"]


def encode(encoder: Encoder, obj: Any, path: str) -> RVector | RList | None:
    """Return an object of pandas' as vectors and lists; None for one that R has not."""
    if isinstance(obj, pd.DataFrame):
        return _frame(encoder, obj, path)
    if isinstance(obj, pd.Series):
        return _series(encoder, obj, path)
    if isinstance(obj, pd.MultiIndex):
        raise refused(path, "it has several levels", "Share its frame: x.to_frame(index=False)")
    if isinstance(obj, pd.Index):
        return _values(encoder, obj.array, path)
    if isinstance(obj, pd.api.extensions.ExtensionArray):
        return _values(encoder, obj, path)
    if isinstance(obj, pd.Timestamp | pd.Timedelta) or obj is pd.NaT or obj is pd.NA:
        return _values(encoder, pd.Series([obj]).array, path)
    return None


def _frame(encoder: Encoder, frame: pd.DataFrame, path: str) -> RList:
    names = frame.columns.tolist()
    for name in names:
        if not isinstance(name, str):
            raise refused(
                f"{path}.columns", f"{name!r} is no text", "Use text: df.columns = df.columns.map(str)"
            )
        checked(name, f"{path}.columns")
    children = [
        _values(encoder, frame.iloc[:, place].array, f"{path}[{name!r}]") for place, name in enumerate(names)
    ]
    rows = _row_names(frame.index, f"{path}.index")
    return RList(children, {"names": names, "class": ["data.frame"], "row.names": rows})


def _row_names(index: pd.Index[Any], path: str) -> Any:
    _check_name(index, path)
    if isinstance(index, pd.RangeIndex) and (index.start, index.step) == (0, 1):
        if len(index) >= 2**31:
            raise refused(path, "R's frames have fewer than 2**31 rows", "Split it")
        return np.array([NA_INTEGER, -len(index)], np.int32)
    if not index.is_unique:
        raise refused(path, "R's row names are distinct", "Use df.reset_index()")
    if index.dtype.kind in "iu" and isinstance(index.dtype, np.dtype) and len(index):
        numbers = index.to_numpy()
        if NA_INTEGER < numbers.min() <= numbers.max() < 2**31:
            return numbers.astype(np.int32)
    return _labels(index, path, "Use df.reset_index()")


def _labels(index: pd.Index[Any], path: str, remedy: str) -> list[str]:
    """Return the labels of an index as text."""
    labels: list[Any] = index.tolist()
    for label in labels:
        if not isinstance(label, str):
            raise refused(path, f"the label {label!r} is no text", remedy)
        checked(label, path)
    return labels


def _check_name(index: pd.Index[Any], path: str) -> None:
    if index.nlevels > 1 or index.names[0] is not None:
        found = f"it is called {index.names[0]!r}" if index.nlevels == 1 else "it has several levels"
        raise refused(
            path, found, "Make it a column (x.reset_index()), or take the name off (x.rename_axis(None))"
        )


def _series(encoder: Encoder, series: pd.Series[Any], path: str) -> RVector | RList:
    made = _values(encoder, series.array, path)
    index = series.index
    if isinstance(index, pd.RangeIndex) and (index.start, index.step) == (0, 1):
        return made
    _check_name(index, f"{path}.index")
    names = _labels(
        index, f"{path}.index", "Use x.reset_index(drop=True), or x.reset_index() for a data frame"
    )
    return made._replace(attributes={**made.attributes, "names": names})


def _values(encoder: Encoder, values: Any, path: str) -> RVector | RList:
    if isinstance(values, pd.Categorical):
        return _factor(values, path)
    if isinstance(values, DatetimeArray):
        plain: Any = values._ndarray
        return encoder.times(plain, path, zone_of(values.tz))
    if isinstance(values, TimedeltaArray):
        return encoder.array(values._ndarray, path)
    if isinstance(values, IntegerArray | FloatingArray | BooleanArray):
        return encoder.array(values._data, path, values._mask)
    if isinstance(values.dtype, pd.StringDtype):
        return _text(encoder, values, path)
    if isinstance(values, pd.arrays.NumpyExtensionArray):
        return encoder.array(np.asarray(values), path)
    remedy = "Convert it to numbers, text, dates or categories (x.astype(str))"
    raise refused(path, f"its dtype is {values.dtype}, which R has not", remedy)


def _factor(values: pd.Categorical, path: str) -> RVector:
    levels = values.categories.tolist()
    for level in levels:
        if not isinstance(level, str):
            remedy = "Use x.cat.rename_categories(x.cat.categories.astype(str))"
            raise refused(path, f"its category {level!r} is no text, as levels are", remedy)
        checked(level, path)
    codes: npt.NDArray[np.int32] = values.codes.astype(np.int32) + np.int32(1)
    codes[codes == 0] = NA_INTEGER
    classes = ["ordered", "factor"] if values.ordered else ["factor"]
    return RVector(INTEGER, len(codes), [codes], {"levels": levels, "class": classes})


def _text(encoder: Encoder, values: Any, path: str) -> RVector:
    missing = np.asarray(values.isna(), bool)
    if pa is None or not values.dtype.storage.startswith("pyarrow"):
        objects = values.to_numpy(object)
        objects[missing] = None
        return encoder.strings(objects.tolist(), path)
    array: Any = values.__arrow_array__()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    array = array.cast(pa.large_string())
    _, offsets, text = array.buffers()
    if not len(array) or text is None:  # Arrow may have no buffers for what is empty
        return encoder.strings([None if gone else "" for gone in missing], path)
    ends = np.frombuffer(offsets, np.int64)[array.offset :][: len(array) + 1]
    return strings_of(np.diff(ends), missing, np.frombuffer(text, np.uint8)[ends[0] : ends[-1]], path)
