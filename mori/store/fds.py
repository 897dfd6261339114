"""Descriptors that belong to an object, as addresses belong to theirs (mori.memory.mmap), and go with it.

That is C, from the system's call to the end: no signal's handler can raise an exception (Ctrl-C) in between,
as it can before the first line of a finalizer, and in each function that hands a number on.
"""

from __future__ import annotations

import ctypes
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["Owner", "forsake", "opened"]

# Of what closes a descriptor when it goes, these alone take any, without a look at it, and without a warning.
if TYPE_CHECKING or sys.platform == "linux":
    Owner = select.epoll
else:
    Owner = select.kqueue

_incref = ctypes.pythonapi.Py_IncRef
_incref.argtypes, _incref.restype = [ctypes.py_object], None


def opened(call: Callable[..., int], *arguments: Any) -> Owner:
    """Return the owner of the descriptor that a function opens; `fileno` is its number, `close` closes it."""
    return next(map(Owner.fromfd, map(call, *zip(arguments, strict=False))))


def forsake(owners: object, incref: Callable[[object], None] = _incref) -> None:
    """Leave what belongs to an owner, or to those in a tuple, for good: it may be another's."""
    incref(owners)
