"""What the user holds of pandas. Imported when the first frame is met; it registers how frames open."""

import pandas as pd

from mori import plain
from mori.frames import arrow, managers
from mori.frames.names import lies_in_region, name_of, node_of, refers_to_region
from mori.frames.objects import Objects
from mori.frames.shared import SharedDataFrame, SharedSeries, materialize_pandas

__all__ = [
    "Objects",
    "SharedDataFrame",
    "SharedSeries",
    "arrow",
    "lies_in_region",
    "managers",
    "materialize_pandas",
    "name_of",
    "node_of",
]

plain.guard(
    refers_to_region,
    *(pd.DataFrame, pd.Series, SharedDataFrame, SharedSeries, pd.Index, pd.MultiIndex, pd.DatetimeIndex),
    *(pd.TimedeltaIndex, pd.PeriodIndex, pd.CategoricalIndex, pd.IntervalIndex),
)
