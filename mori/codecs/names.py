"""What a name in a region stands for: the one place where mori imports what bytes name."""

from __future__ import annotations

import importlib
from typing import Any

from mori.errors import ClassNotFoundError

__all__ = ["find_object"]


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
