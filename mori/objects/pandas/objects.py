"""Columns of objects: the warning that names them, and the remedy."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
import pandas as pd

from mori.codecs.pandas.versions import string_dtype
from mori.errors import ObjectColumnWarning

__all__ = ["Objects"]


class Objects:
    """The columns of objects that were met while an object was measured, wherever its frames are nested."""

    def __init__(self, strings: str | None) -> None:
        self._strings = strings
        self._columns: dict[str, str] = {}  # by path: what has to be measured again is met again

    def prepare(self, obj: Any, path: str) -> Any:
        """Return a frame or series as it is to be written; columns that stay objects are noted.

        Under ``strings="arrow"`` columns of dtype object that hold nothing but strings and missing values
        become Arrow-backed ``str``.
        """
        places = _object_columns(obj)
        if self._strings == "arrow":
            made = {i: column for i in places if (column := _to_arrow(_column(obj, i))) is not None}
            if made and isinstance(obj, pd.DataFrame):
                obj = obj.copy(deep=False)
                for place, column in made.items():
                    obj.isetitem(place, column)
            elif made:
                obj = made[0]
            places = [i for i in places if i not in made]
        names = [repr(_column(obj, i).name) for i in places]
        if names:
            more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
            where = "" if path == "obj" else f" of {path}"
            self._columns[path] = ", ".join(names[:_MOST]) + more + where
        return obj

    def warn(self) -> None:
        """Warn of what was met, from the line that called `mori.share`."""
        if not self._columns:
            return
        columns = list(self._columns.values())
        more = f" and of {len(columns) - _MOST} more frames" if len(columns) > _MOST else ""
        warnings.warn(
            f"object columns {'; '.join(columns[:_MOST])}{more} are not lazy: every process that opens "
            'this frame rebuilds them in private memory. Share with strings="arrow" to keep strings in '
            "shared memory, or give the columns a dtype of their own first",
            ObjectColumnWarning,
            stacklevel=5,
        )


_MOST: Final = 5  # columns, and frames, that the warning names


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
