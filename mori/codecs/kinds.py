"""Which types the elements of a list are of: what decides whether they can be packed.

Imports nothing of mori.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["kinds_of"]

_PIECE = 1 << 14  # elements that are looked at together


def kinds_of(values: Sequence[Any]) -> set[type]:
    """Return the exact types of some elements.

    To count one type in a list of types takes half as long as to make a set of a million.
    """
    kinds: set[type] = set()
    for start in range(0, len(values), _PIECE):
        types = [*map(type, values[start : start + _PIECE])]
        if types.count(types[0]) == len(types):
            kinds.add(types[0])
        else:
            kinds.update(types)
    return kinds
