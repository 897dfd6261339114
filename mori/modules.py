"""Modules that are imported already, by this thread or another.

Imports nothing of mori. What stands in `sys.modules` may be half of a module: another thread is in the
middle of importing it, and names that it will have are still missing.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["imported"]


def imported(name: str) -> Any:
    """Return a module that is imported as a whole; None for one that is not, or not yet."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module
