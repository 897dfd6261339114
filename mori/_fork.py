"""What a forked child does before anything else in it runs.

A lock that another thread held when the process forked stays locked in the child for ever, and what the
parent keeps or is in the middle of is not the child's. Whoever has such a lock or table renews it here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_child"]

F = TypeVar("F", bound=Callable[[], object])


def in_child(call: F) -> F:
    """Call a function in each child that is forked from now on; a decorator."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
    return call
