"""Lazy containers over nodes: one noun a file, what they have in common in `view`."""

from mori.objects.containers.mapping import SharedDict
from mori.objects.containers.sequences import SharedList, SharedTuple
from mori.objects.containers.sets import SharedFrozenSet, SharedSet
from mori.objects.containers.view import View

__all__ = ["SharedDict", "SharedFrozenSet", "SharedList", "SharedSet", "SharedTuple", "View"]
