"""Who else holds an object: the one place that looks at reference counts.

What a count is when nobody else holds an object depends on how it is asked, and on the version of Python. So
it is asked in one way, with a list that holds the objects, and compared with what a probe gives, asked
likewise.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Container, Iterator
from itertools import compress
from typing import Any, Final

import numpy as np

from mori.format.atoms import NAMED, VALUES, types_of

__all__ = ["ATOMS", "held_twice", "is_held"]

ATOMS: Final = frozenset((*VALUES, *NAMED))
"""Types of objects that refer to nothing that can be written to; which of two equal ones it is does not
matter.
"""

_WALKED: Final = frozenset({list, dict, tuple, set, frozenset})
_MOST_OBJECTS: Final = 100_000  # objects below some others; what has more counts as held


def _referents(objects: list[Any], kinds: set[type], known: Container[int]) -> list[Any]:
    """Return what some objects of these types refer to, one level down, but for atoms, classes and what is
    known.

    What lies in a region refers to the region, as much else does: it is not looked into.
    """
    others = kinds - _WALKED
    if ours := {cls for cls in others if _is_ours(cls) and not issubclass(cls, tuple(_WALKED))}:
        objects = [one for one in objects if type(one) not in ours]
    found = gc.get_referents(*objects)
    if any(issubclass(cls, np.ndarray) for cls in others):  # the garbage collector does not look into arrays
        for one in objects:
            if isinstance(one, np.ndarray) and one.dtype.kind == "O":
                found += one.ravel().tolist()
    inner = types_of(found) - ATOMS
    inner = {cls for cls in inner if cls in _WALKED or not issubclass(cls, type)}
    return [one for one in found if type(one) in inner and id(one) not in known] if inner else []


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("mori.")


def _counts(objects: list[Any]) -> Iterator[int]:
    return map(sys.getrefcount, objects)


def _unshared_count() -> int:
    """Return what `_counts` gives for an object that one list refers to."""
    return next(iter(_counts([object()])))


_UNSHARED_COUNT: Final = _unshared_count()


def held_twice(objects: list[Any], holders: int) -> list[Any]:
    """Return those of the objects in a list that more than `holders` refer to besides the list."""
    few = _UNSHARED_COUNT + holders
    if max(_counts(objects), default=0) <= few:
        return []
    are_held = list(map(few.__lt__, _counts(objects)))  # at once: compress holds the one it looks at
    return list(compress(objects, are_held))


def is_held(objects: list[Any], *, is_flat: bool, known: Container[int] = ()) -> bool:
    """Return whether anybody but a list holds one of its objects, or a mutable part of one.

    `is_flat` says that the objects refer to atoms only. Objects whose ids are `known` are not looked at. What
    one of them refers to and another, too, is held by neither: then the references from inside are counted,
    as a garbage collection counts them.
    """
    if max(_counts(objects), default=0) > _UNSHARED_COUNT:
        return _is_reached(objects, known)
    if is_flat:
        return False
    level = objects
    while True:
        kinds = types_of(level)
        if _any_has_held_parts(level, kinds):
            return True
        level = _referents(level, kinds, known)
        if not level:
            return False
        if max(_counts(level)) > _UNSHARED_COUNT + 1:
            del level  # it holds what is counted
            return _is_reached(objects, known)


def _is_reached(objects: list[Any], known: Container[int]) -> bool:
    inside = Counter(map(id, objects))
    # These are held by two lists, of which `inside` knows one; what is below them is held by this one alone.
    order = [*{id(one): one for one in objects if id(one) not in known}.values()]
    level = order
    while level:
        if len(order) > _MOST_OBJECTS:
            return True
        below = _referents(level, types_of(level), known)
        level = []
        while below:
            one = below.pop()
            if id(one) not in inside:
                level.append(one)
            inside[id(one)] += 1
        order = order + level
    one = None
    counts = list(_counts(order))
    if any(count > inside[id(order[number])] + _UNSHARED_COUNT for number, count in enumerate(counts)):
        return True
    return _any_has_held_parts(order, types_of(order))


def _any_has_held_parts(objects: list[Any], kinds: set[type]) -> bool:
    """Return whether anybody holds what one of the objects has given out, and does not itself refer to."""
    owners = {cls for cls in kinds - _WALKED if _hands_out(cls)}
    return bool(owners) and any(_has_held_parts(one) for one in objects if type(one) in owners)


def _hands_out(cls: type) -> bool:
    if hasattr(cls, "_mori_is_idle") or (_DICTS_ARE_HIDDEN and cls.__dictoffset__):
        return True
    return issubclass(cls, np.ndarray) and not _is_ours(cls)


def _has_held_parts(obj: Any) -> bool:
    if hasattr(type(obj), "_mori_is_idle"):
        return not obj._mori_is_idle()
    if isinstance(obj, np.ndarray):  # views of an array refer to its memory alone
        return obj.base is not None and sys.getrefcount(obj.base) > _UNSHARED_BASE_COUNT
    return _count_of_dict(obj) > _UNSHARED_DICT_COUNT


def dict_of(obj: Any) -> Any:
    """Return the ``__dict__`` of an instance, None if it has none, whatever its class's ``__getattr__``."""
    try:
        return object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return None


_DICTS_ARE_HIDDEN: Final = sys.version_info >= (3, 13)
"""Whether the ``__dict__`` of an instance is no referent of it, as the garbage collector sees it."""


def _count_of_dict(obj: Any) -> int:
    own = dict_of(obj)
    return sys.getrefcount(own) if type(own) is dict else 0


_PROBED: Final = np.frombuffer(bytearray(8), np.uint8)
_UNSHARED_BASE_COUNT: Final = sys.getrefcount(_PROBED.base)


class _Probe:
    pass


_UNSHARED_DICT_COUNT: Final = _count_of_dict(_Probe())
