"""Types of elements: which ones cannot be written to and refer to nothing that can, and which a list has."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any, Final

import numpy as np

__all__ = ["NAMED", "NUMPY", "PIECE", "VALUES", "kinds_of", "pieces_of", "types_of"]

VALUES: Final = (
    *(type(None), bool, int, float, complex, str, bytes),
    *(type(Ellipsis), type(NotImplemented), range),
)
"""Of values: which of two equal ones it is does not matter."""

NUMPY: Final = tuple(np.dtype(code).type for code in "?bBhHiIlLqQefdgFDGmMSU")
"""Of numpy's scalars."""

NAMED: Final = (type, FunctionType, BuiltinFunctionType, MethodDescriptorType, ModuleType)
"""Of what a pickle has by its name, and what is the same object for everybody in a process."""


def types_of(objects: Sequence[Any]) -> set[type]:
    """Return the exact types of some objects.

    To count one type in a list of types takes two thirds of the time that a set of these takes.
    """
    if not objects or type(objects[0]) is not type(objects[-1]):
        return set(map(type, objects))
    types = [*map(type, objects)]
    return {types[0]} if types.count(types[0]) == len(types) else set(types)


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
