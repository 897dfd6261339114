"""pandas: frames, series, indexes and the arrays inside them. Importing it registers their codecs."""

from mori.codecs.pandas import arrays, arrow, axes, frames, subclasses, times

__all__ = ["arrays", "arrow", "axes", "frames", "subclasses", "times"]
