"""Shared containers: small ones contain their elements, large ones read them when they are asked."""

from mori.objects.containers.mapping import SharedDict
from mori.objects.containers.sequences import SharedList, SharedTuple
from mori.objects.containers.sets import SharedFrozenSet, SharedSet
from mori.objects.containers.small import (
    Small,
    SmallDict,
    SmallFrozenSet,
    SmallList,
    SmallSet,
    SmallTuple,
)
from mori.objects.containers.view import View

__all__ = [
    "SharedDict",
    "SharedFrozenSet",
    "SharedList",
    "SharedSet",
    "SharedTuple",
    "Small",
    "SmallDict",
    "SmallFrozenSet",
    "SmallList",
    "SmallSet",
    "SmallTuple",
    "View",
]
