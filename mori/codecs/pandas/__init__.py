"""pandas: frames, series, indexes and the arrays inside them. Importing it registers their codecs."""

from mori.codecs.pandas import arrays, axes, frames, strings, subclasses, times

__all__ = ["arrays", "axes", "frames", "strings", "subclasses", "times"]
