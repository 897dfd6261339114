"""Walks over nested views with a stack of their own: comparison, plain tuples, and the bound of a repr.

A view is Python, so a walk that calls itself would meet the recursion limit at half the depth at which the
builtins do.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, cast

from mori.objects.containers.view import View

__all__ = ["bounded", "equal", "plain_tuple"]

_DEPTH: Final = 4  # levels that a repr shows
_KINDS: Final = (list, tuple, dict)
_NOTHING: Final = object()


def _kind(x: object) -> type | None:
    """Return the builtin that a container stands for; None for anything else."""
    if isinstance(x, View):
        kind = getattr(type(x), "_kind", None)
        return kind if kind in _KINDS else None
    return next((kind for kind in _KINDS if isinstance(x, kind)), None)


def equal(one: Any, other: Any) -> bool:
    """Say whether two containers of one kind, views or builtins, are equal: element by element, in order."""
    levels: list[Iterator[tuple[Any, Any]]] = [iter(((one, other),))]
    while levels:
        pair = next(levels[-1], None)
        if pair is None:
            levels.pop()
            continue
        ours, theirs = pair
        if ours is theirs:
            continue
        kind = _kind(ours)
        if isinstance(ours, View):
            is_walked = kind is not None and not ours._is_flat()
        else:
            is_walked = kind is not None and isinstance(theirs, View)
        if not is_walked or (their_kind := _kind(theirs)) is None:
            if not (ours == theirs):  # noqa: SIM201 (a class may have an __ne__ of its own)
                return False
        elif kind is not their_kind or len(ours) != len(theirs):
            return False
        else:
            levels.append(_values(ours, theirs) if kind is dict else zip(ours, theirs, strict=True))
    return True


def _values(ours: Any, theirs: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in ours.items():
        if key not in theirs:
            yield _NOTHING, None
            return
        yield value, theirs[key]


def plain_tuple(x: Iterable[Any]) -> tuple[Any, ...]:
    """Return a tuple of a view's elements, with tuples for the views of tuples in it."""
    levels: list[tuple[Iterator[Any], list[Any]]] = [(iter(x), [])]
    while True:
        left, made = levels[-1]
        for part in left:
            if isinstance(part, View) and _kind(part) is tuple:
                levels.append((iter(cast(Iterable[Any], part)), []))
                break
            made.append(part)
        else:
            levels.pop()
            if not levels:
                return tuple(made)
            levels[-1][1].append(tuple(made))


class _Showing(threading.local):
    depth = 0


_showing = _Showing()


def bounded(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Make a repr end at a depth: a view below says no more than what it is."""

    @functools.wraps(show)
    def shown(self: Any) -> str:
        if _showing.depth >= _DEPTH:
            return f"<{type(self).__name__} of {len(self):,}>"
        _showing.depth += 1
        try:
            return show(self)
        finally:
            _showing.depth -= 1

    return shown
