"""Which part of an object does not pickle, and how a user writes the way to a part."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["fault_in", "path_to"]

_MOST_OBJECTS: Final = 10_000  # objects, on the way to a part that an error is to name
_DEEP: Final = 4  # steps on the way into what is nested too deeply: its innermost part is that, too


def _items(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object is made of, as far as that can be seen, and how a user writes the way there."""
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield f".keys()[{key!r}]", key
            yield f"[{key!r}]", value
    elif isinstance(obj, list | tuple | deque):
        for index, value in enumerate(obj):
            yield f"[{index}]", value
    if isinstance(obj, type):
        return
    for name, value in getattr(obj, "__dict__", {}).items():
        yield f".{name}", value
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):
                yield f".{name}", getattr(obj, name)


def _below(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield everything below an object, the nearest first, each once, up to a limit."""
    seen, waiting = {id(obj)}, deque([("", obj)])
    while waiting and len(seen) < _MOST_OBJECTS:
        path, current = waiting.popleft()
        for step, value in _items(current):
            if id(value) not in seen:
                seen.add(id(value))
                waiting.append((path + step, value))
                yield path + step, value


def path_to(obj: Any, wanted: object) -> str:
    """Return how a user writes the way from an object to what it contains."""
    return next((path for path, found in _below(obj) if found is wanted), ".<part>")


def fault_in(obj: Any, error: Exception, dump: Callable[[Any], object]) -> tuple[str, str]:
    """Return the way to the innermost part that `dump` raises for, and what is wrong with it."""
    is_deep = isinstance(error, RecursionError)
    path, found, seen = "", str(error), {id(obj)}  # an inner error itself would be a cycle with this frame
    steps = _DEEP if is_deep else _MOST_OBJECTS
    while len(seen) < _MOST_OBJECTS and steps:
        steps -= 1
        for step, value in _items(obj):
            if id(value) in seen:
                continue
            seen.add(id(value))
            try:
                dump(value)
            except Exception as inner:
                path, obj, found = path + step, value, str(inner)
                break
        else:
            break
    if is_deep:
        return path, f"its containers are nested more deeply than pickle can follow ({error})"
    return path, f"it is a {type(obj).__qualname__} that does not pickle ({found})"
