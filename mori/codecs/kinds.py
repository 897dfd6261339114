"""Which types the elements of a list are of: what decides whether they can be packed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from mori.format.atoms import types_of

__all__ = ["PIECE", "kinds_of", "pieces_of"]

PIECE: Final = 1 << 14
"""Elements that are looked at together."""


def pieces_of(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield what has no slices in pieces: a list of all of it is as large as what is made of it."""
    iterator = iter(values)
    while piece := list(itertools.islice(iterator, PIECE)):
        yield piece


def kinds_of(values: Sequence[Any]) -> set[type]:
    """Return the exact types of some elements, of which there may be millions."""
    kinds: set[type] = set()
    for start in range(0, len(values), PIECE):
        kinds |= types_of(values[start : start + PIECE])
    return kinds
