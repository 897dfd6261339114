"""What the user holds of pandas. Imported when the first frame is met; it registers how frames open."""

from mori.frames import arrow, managers
from mori.frames.names import name_of, node_of
from mori.frames.objects import prepare
from mori.frames.shared import SharedDataFrame, SharedSeries, materialize_pandas

__all__ = [
    "SharedDataFrame",
    "SharedSeries",
    "arrow",
    "managers",
    "materialize_pandas",
    "name_of",
    "node_of",
    "prepare",
]
