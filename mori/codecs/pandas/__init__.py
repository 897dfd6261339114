"""pandas: frames, series, indexes and the arrays inside them. Importing it registers their codecs."""

from mori.codecs.pandas import arrays, axes, frames, strings, subclasses, times
from mori.codecs.pandas.frames import FIRST_BLOCK, places_of
from mori.codecs.pandas.versions import (
    ARROW_ARRAYS,
    STRING_ARRAYS,
    create_dataframe_from_blocks,
    pa,
    string_dtype,
)

__all__ = [
    "ARROW_ARRAYS",
    "FIRST_BLOCK",
    "STRING_ARRAYS",
    "arrays",
    "axes",
    "create_dataframe_from_blocks",
    "frames",
    "pa",
    "places_of",
    "string_dtype",
    "strings",
    "subclasses",
    "times",
]
