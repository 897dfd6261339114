"""Modules that are imported already, by this thread or another, and those that mori imports at need.

It is the one place where mori imports what a name in a region stands for (`find_object`).

What stands in `sys.modules` may be half of a module: another thread is in the middle of importing it, and
names that it will have are still missing. Invariant: a fork in one thread waits until what mori imports in
others is whole, since its child would wait for that for ever.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from typing import Any, Final

from mori.errors import ClassNotFoundError

__all__ = ["find_object", "imported", "importing", "load"]

_LIMIT: Final = 30.0  # seconds, since what is imported may itself wait for the thread that forks
_PAUSE: Final = 0.002


def imported(name: str) -> Any:
    """Return a module that is imported as a whole; None for one that is not, or not yet."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module


def load(name: str) -> Any:
    """Import a module that may not be there yet, and return it."""
    module = imported(name)
    if module is not None:
        return module
    with importing:
        return importlib.import_module(name)


def find_object(module: object, name: object) -> Any:
    """Return the class, function or constant of a name.

    Raises
    ------
    ClassNotFoundError
        If there is no such thing here.
    """
    asked = f"{module}.{name}"[:200]
    parts = (*str(module).split("."), *str(name).split("."))
    if not (isinstance(module, str) and isinstance(name, str) and all(part.isidentifier() for part in parts)):
        raise ClassNotFoundError(cls=asked, found="that is no name of a class")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ClassNotFoundError(cls=asked, found=f"{type(error).__name__}: {error}"[:300]) from error
    return found


class _Importing:
    """Context of an import that may be the first of its module.

    Imports do not wait for each other: two threads may need modules that the other one has half of, which
    Python finds out, and a lock would not.
    """

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}  # of each thread, which changes its own alone
        self._forking = threading.RLock()  # held across a fork

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._forking:
            self._depths[me] = self._depths.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        depth = self._depths.get(me, 0) - 1
        if depth > 0:
            self._depths[me] = depth
        else:
            self._depths.pop(me, None)

    def before_fork(self) -> None:
        limit = time.monotonic() + _LIMIT
        while True:
            self._forking.acquire()
            if not ({*self._depths} - {threading.get_ident()}) or time.monotonic() > limit:
                return
            self._forking.release()
            time.sleep(_PAUSE)

    def after_fork_in_parent(self) -> None:
        self._forking.release()

    def after_fork_in_child(self) -> None:
        me = threading.get_ident()
        self._depths = {me: self._depths[me]} if me in self._depths else {}
        self._forking = threading.RLock()


importing = _Importing()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.before_fork,
        after_in_parent=importing.after_fork_in_parent,
        after_in_child=importing.after_fork_in_child,
    )
