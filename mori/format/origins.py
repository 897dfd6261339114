"""Origins: which node an object of a class that is not mori's was opened from.

An ndarray is known by its memory and a view by its node; objects of other
libraries' classes, and of the user's, have no room for either. Invariant: this table keeps no object
alive; an object keeps its region alive, through the node that stands here beside a weak reference.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from mori.format.atoms import NAMED

if TYPE_CHECKING:
    from mori.format.node import Node

__all__ = ["KNOWN", "node_of", "remember", "watch"]

KNOWN: Final = frozenset({np.ndarray, *NAMED})
"""Classes whose objects picklers know by themselves: arrays by their memory, others by their names."""

T = TypeVar("T")

_origins: dict[int, tuple[weakref.ref[Any], Node]] = {}
_classes: weakref.WeakSet[type] = weakref.WeakSet()
_watchers: list[Callable[[type], None]] = []


def watch(call: Callable[[type], None]) -> None:
    """Call a function with each class of which an object is remembered, and with those that were already."""
    _watchers.append(call)
    for cls in [*_classes]:
        call(cls)


def remember(obj: T, node: Node) -> T:
    """Note that an object was opened from a node, and return it.

    To be called when a node is opened, with an object that was made now and has something mapped. An
    object of a class without weak references is returned all the same, and is not known as shared.
    """
    key = id(obj)
    try:
        ref = weakref.ref(obj, lambda _: _forget(key))
    except TypeError:
        return obj
    _origins[key] = ref, node
    if (cls := type(obj)) not in _classes and cls not in KNOWN:
        _classes.add(cls)
        for call in _watchers:
            call(cls)
    return obj


def _forget(key: int, origins: dict[int, tuple[weakref.ref[Any], Node]] = _origins) -> None:
    origins.pop(key, None)


def node_of(obj: object) -> Node | None:
    """Return the node that an object was opened from; None for any other object.

    The node is what was shared; a change made to the object since then is in that object alone.
    """
    found = _origins.get(id(obj))
    return found[1] if found is not None and found[0]() is obj else None
