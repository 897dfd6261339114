"""Columns of objects: the warning that names them, and the remedy.

Imports errors and the pandas codecs.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from mori.codecs.pandas.versions import string_dtype
from mori.errors import ObjectColumnWarning

__all__ = ["prepare"]


def prepare(obj: Any, strings: str | None) -> Any:
    """Return a frame or series as it is to be shared, and warn of columns of objects.

    Parameters
    ----------
    obj : DataFrame or Series
        What the user wants shared.
    strings : {None, "arrow"}
        ``"arrow"`` converts columns of dtype object that hold nothing but strings and missing
        values to Arrow-backed ``str``.
    """
    is_frame = isinstance(obj, pd.DataFrame)
    places = _object_columns(obj)
    if strings == "arrow":
        made = {i: column for i in places if (column := _to_arrow(_column(obj, i))) is not None}
        if made and is_frame:
            frame = pd.concat([made.get(i, obj.iloc[:, i]) for i in range(obj.shape[1])], axis=1)
            frame.columns = obj.columns
            obj = frame.__finalize__(obj)
        elif made:
            obj = made[0]
        places = [i for i in places if i not in made]
    columns = [_column(obj, i) for i in places]
    if columns:
        names = ", ".join(repr(column.name) for column in columns[:5])
        more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
        warnings.warn(
            f"object columns {names}{more} are not lazy: every process that opens this frame rebuilds "
            'them in private memory. Share with strings="arrow" to keep strings in shared memory, or '
            "give the columns a dtype of their own first",
            ObjectColumnWarning,
            stacklevel=3,
        )
    return obj


def _column(obj: Any, place: int) -> Any:
    return obj.iloc[:, place] if isinstance(obj, pd.DataFrame) else obj


def _object_columns(obj: Any) -> list[int]:
    if isinstance(obj, pd.DataFrame):
        return [
            int(i)
            for i in np.flatnonzero([isinstance(dtype, np.dtype) and dtype.hasobject for dtype in obj.dtypes])
        ]
    return [0] if isinstance(obj.dtype, np.dtype) and obj.dtype.hasobject else []


def _to_arrow(column: Any) -> Any:
    if pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty"):
        return None
    return column.astype(string_dtype(nan=True))
