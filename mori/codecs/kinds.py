"""Which types the elements of a list are of: what decides whether they can be packed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

__all__ = ["PIECE", "kinds_of", "pieces_of"]

PIECE: Final = 1 << 14
"""Elements that are looked at together."""


def pieces_of(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield what has no slices in pieces: a list of all of it is as large as what is made of it."""
    iterator = iter(values)
    while piece := list(itertools.islice(iterator, PIECE)):
        yield piece


def kinds_of(values: Sequence[Any]) -> set[type]:
    """Return the exact types of some elements.

    To count one type in a list of types takes half as long as to make a set of a million.
    """
    kinds: set[type] = set()
    for start in range(0, len(values), PIECE):
        types = [*map(type, values[start : start + PIECE])]
        if types.count(types[0]) == len(types):
            kinds.add(types[0])
        else:
            kinds.update(types)
    return kinds
