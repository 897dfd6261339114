"""Lazy containers over nodes: one noun a file, what they have in common in `view`."""

from mori.views.mapping import SharedDict
from mori.views.sequences import SharedList, SharedTuple
from mori.views.sets import SharedFrozenSet, SharedSet
from mori.views.view import View

__all__ = ["SharedDict", "SharedFrozenSet", "SharedList", "SharedSet", "SharedTuple", "View"]
