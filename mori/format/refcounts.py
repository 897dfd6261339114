"""Who else holds an object: the one place that looks at reference counts.

What a count is when nobody else holds an object depends on how it is asked, and on the version of Python. So
it is asked in one way, with a list that holds the objects, and compared with what a probe gives, asked
likewise.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from itertools import compress
from typing import Any, Final

import numpy as np

from mori.format.atoms import NAMED, VALUES

__all__ = ["ATOMS", "held_twice", "is_held"]

ATOMS: Final = frozenset((*VALUES, *NAMED))
"""Types of objects that refer to nothing that can be written to; which of two equal ones it is does not
matter.
"""

_WALKED: Final = (list, dict, tuple, set, frozenset)
_LOOKED_AT: Final = 100_000  # objects below some others; what has more counts as held


def _referents(objects: Sequence[Any], known: Container[int]) -> list[Any]:
    """Return what some objects refer to, one level down, but for atoms, classes and what is known.

    What lies in a region refers to the region, as much else does: it is not looked into.
    """
    if any(type(one).__module__.startswith("mori.") for one in objects):
        objects = [one for one in objects if isinstance(one, _WALKED) or type(one).__module__[:5] != "mori."]
    found = gc.get_referents(*objects)
    for one in objects:  # the garbage collector does not look into arrays
        if isinstance(one, np.ndarray) and one.dtype.kind == "O":
            found += one.ravel().tolist()
    kinds = set(map(type, found)) - ATOMS
    if not kinds:
        return []
    return [one for one in found if type(one) in kinds and not isinstance(one, type) and id(one) not in known]


def _counts(objects: list[Any]) -> Iterator[int]:
    return map(sys.getrefcount, objects)


def _alone() -> int:
    """Return what `_counts` gives for an object that one list refers to."""
    return next(iter(_counts([object()])))


_ALONE: Final = _alone()


def held_twice(objects: list[Any], holders: int) -> list[Any]:
    """Return those of the objects in a list that more than `holders` refer to besides the list."""
    few = _ALONE + holders
    are_held = list(map(few.__lt__, _counts(objects)))  # at once: compress holds the one it looks at
    return list(compress(objects, are_held)) if True in are_held else []


def is_held(objects: list[Any], *, is_flat: bool, known: Container[int] = ()) -> bool:
    """Return whether anybody but a list holds one of its objects, or a mutable part of one.

    `is_flat` says that the objects refer to atoms only. Objects whose ids are `known` are not looked at. What
    one of them refers to and another, too, is held by neither: then the references from inside are counted,
    as a garbage collection counts them.
    """
    if max(_counts(objects), default=0) > _ALONE:
        return _is_reached(objects, known)
    if is_flat:
        return False
    level = objects
    while True:
        if any(map(_has_held_parts, level)):
            return True
        level = _referents(level, known)
        if not level:
            return False
        if max(_counts(level)) > _ALONE + 1:
            del level  # it holds what is counted
            return _is_reached(objects, known)


def _is_reached(objects: list[Any], known: Container[int]) -> bool:
    inside = Counter(map(id, objects))
    # These are held by two lists, of which `inside` knows one; what is below them is held by this one alone.
    order = [*{id(one): one for one in objects if id(one) not in known}.values()]
    level = order
    while level:
        if len(order) > _LOOKED_AT:
            return True
        below = _referents(level, known)
        level = []
        while below:
            one = below.pop()
            if id(one) not in inside:
                level.append(one)
            inside[id(one)] += 1
        order = order + level
    one = None
    counts = list(_counts(order))
    if any(count > inside[id(order[number])] + _ALONE for number, count in enumerate(counts)):
        return True
    return any(map(_has_held_parts, order))


def _has_held_parts(obj: Any) -> bool:
    """Return whether anybody holds what an object has handed out and does not refer to where it is looked."""
    cls = type(obj)
    if hasattr(cls, "_mori_is_idle"):
        return not obj._mori_is_idle()
    if isinstance(obj, np.ndarray):  # views of an array refer to its memory alone
        is_own = obj.base is None or cls.__module__.startswith("mori.")
        return not is_own and sys.getrefcount(obj.base) > _BASE_ALONE
    return _DICTS_ARE_HIDDEN and _has_held_dict(obj)


def dict_of(obj: Any) -> Any:
    """Return the ``__dict__`` of an instance, None if it has none, whatever its class's ``__getattr__``."""
    try:
        return object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return None


_DICTS_ARE_HIDDEN: Final = sys.version_info >= (3, 13)
"""Whether the ``__dict__`` of an instance is no referent of it, as the garbage collector sees it."""


def _has_held_dict(obj: Any) -> bool:
    """Return whether anybody holds the ``__dict__`` of an instance, by which it can be written to."""
    if not getattr(type(obj), "__dictoffset__", 0):
        return False
    return _count_of_dict(obj) > _DICT_ALONE


def _count_of_dict(obj: Any) -> int:
    own = dict_of(obj)
    return sys.getrefcount(own) if type(own) is dict else 0


_BASE_ALONE: Final = sys.getrefcount(np.frombuffer(bytearray(8), np.uint8).base)


class _Probe:
    pass


_DICT_ALONE: Final = _count_of_dict(_Probe())
