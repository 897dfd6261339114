"""What differs between the versions of pandas, and whether pyarrow is there.

Private names of pandas stand here, in `frames` of the codecs and in mori.objects.pandas.managers;
tests/mori/test_pandas_internals.py fails when one moves.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any, Final

import numpy as np
import pandas as pd

__all__ = ["ARROW_ARRAYS", "STRING_ARRAYS", "create_dataframe_from_blocks", "has_nan", "pa", "string_dtype"]

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


pa: Any = None
with contextlib.suppress(ImportError):
    pa = importlib.import_module("pyarrow")


def string_dtype(*, nan: bool) -> Any:
    """Return the dtype of Arrow-backed strings with NaN, or with NA, for what is missing."""
    try:
        return pd.StringDtype("pyarrow", na_value=np.nan if nan else pd.NA)
    except TypeError:  # pandas < 2.3
        return pd.StringDtype("pyarrow_numpy" if nan else "pyarrow")


def has_nan(dtype: Any) -> bool | None:
    """Return whether Arrow-backed strings of a dtype have NaN where one is missing; None for other dtypes."""
    if type(dtype) is not pd.StringDtype or not dtype.storage.startswith("pyarrow"):
        return None
    return bool(dtype.na_value is not pd.NA)


STRING_ARRAYS: Final[tuple[Any, ...]] = (
    () if pa is None else tuple({string_dtype(nan=nan).construct_array_type(): None for nan in (False, True)})
)

ARROW_ARRAYS: Final[tuple[Any, ...]] = () if pa is None else (*STRING_ARRAYS, pd.arrays.ArrowExtensionArray)
