"""What the tests need to know of the version of pandas: its Arrow-backed strings, and its ways to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["IS_LEGACY", "NAN_STRINGS", "NA_STRINGS", "str_frame"]

IS_LEGACY = int(pd.__version__.partition(".")[0]) < 3


def _dtype(nan: bool) -> Any:
    try:
        return pd.StringDtype("pyarrow", na_value=np.nan if nan else pd.NA)
    except TypeError:
        return pd.StringDtype("pyarrow_numpy" if nan else "pyarrow")


NAN_STRINGS = _dtype(True)  # what pandas 3 calls str
NA_STRINGS = _dtype(False)


def str_frame(data: Any, *args: Any, **kwargs: Any) -> pd.DataFrame:
    """Return a frame whose strings are Arrow-backed, labels included, as pandas 3 makes it."""
    frame = pd.DataFrame(data, *args, **kwargs)
    for place in range(frame.shape[1]):
        if pd.api.types.infer_dtype(frame.iloc[:, place], skipna=True) == "string":
            frame.isetitem(place, frame.iloc[:, place].astype(NAN_STRINGS))
    return frame
