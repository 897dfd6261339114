"""What the user may set, read from the environment at each use.

Imports errors only. A value that cannot be used is an error that names the variable. An adapter may add
its engine's own configuration, which is looked in for what the environment does not say.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

from mori.errors import SettingError

__all__ = ["grace", "look_in", "store"]

Source = Callable[[str], tuple[str, str] | None]

_sources: list[Source] = []


def look_in(source: Source) -> None:
    """Look in one more place: asked for a setting (``grace``), it returns its own key and the text."""
    if source not in _sources:
        _sources.append(source)


def _find(name: str) -> tuple[str, str] | None:
    """Return where a setting was found, as the user knows it, and its text."""
    variable = f"MORI_{name.upper()}"
    if (text := os.environ.get(variable)) is not None:
        return variable, text
    for source in _sources:
        if (found := source(name)) is not None:
            return found
    return None


def grace() -> float:
    """Seconds for which a pickled reference outlasts its last user here (``MORI_GRACE``, 10)."""
    found = _find("grace")
    if found is None:
        return 10.0
    setting, text = found
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SettingError(setting=setting, value=text, wanted="seconds, a number from 0 up")
    return seconds


def store() -> str:
    """Where regions live (``MORI_STORE``): ``memfd``, ``files`` or ``files:DIR``; empty for the default."""
    found = _find("store")
    return "" if found is None else found[1]
