"""What the user holds of pandas. Imported when the first frame is met; it registers how frames open."""

import pandas as pd

from mori.objects.pandas import arrow, managers
from mori.objects.pandas.names import lies_in_region, name_of, node_of, refers_to_region
from mori.objects.pandas.objects import Objects
from mori.objects.pandas.shared import materialize_pandas, plain_over
from mori.wire import picklers

__all__ = [
    "Objects",
    "arrow",
    "lies_in_region",
    "managers",
    "materialize_pandas",
    "name_of",
    "node_of",
    "plain_over",
    "refers_to_region",
]

picklers.guard(
    refers_to_region,
    *(pd.DataFrame, pd.Series, pd.Index, pd.MultiIndex, pd.DatetimeIndex),
    *(pd.TimedeltaIndex, pd.PeriodIndex, pd.CategoricalIndex, pd.IntervalIndex),
)
