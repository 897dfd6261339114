"""What the user may set, read from the environment at each use.

A value that cannot be used is an error that names the variable. An adapter may add its engine's own
configuration, which is looked in for what the environment does not say.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable

from mori.errors import SettingError

__all__ = ["add_source", "grace", "pool", "pool_seconds", "r_version", "store"]

Source = Callable[[str], tuple[str, str] | None]

_sources: list[Source] = []


def add_source(source: Source) -> None:
    """Add a source of settings: called with a name (``grace``), it returns its own key and the text."""
    if source not in _sources:
        _sources.append(source)


def _find(name: str) -> tuple[str, str] | None:
    """Return where a setting was found, as the user knows it, and its text."""
    variable = f"MORI_{name.upper()}"
    try:
        return variable, os.environ[variable]
    except KeyError:
        for source in _sources:
            if (found := source(name)) is not None:
                return found
    return None


def grace() -> float:
    """Seconds for which a pickled reference outlasts its last user here (``MORI_GRACE``, 10)."""
    found = _find("grace")
    return 10.0 if found is None else _seconds(*found)


def pool_seconds() -> float:
    """Seconds for which the pages of freed regions are kept (``MORI_POOL_SECONDS``, 10)."""
    found = _find("pool_seconds")
    return 10.0 if found is None else _seconds(*found)


def pool() -> int:
    """Bytes of freed regions whose pages are kept to be written again (``MORI_POOL``, 0), such as ``2G``."""
    found = _find("pool")
    if found is None:
        return 0
    setting, text = found
    matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if matched is None:
        raise SettingError(setting=setting, value=text, wanted="bytes, such as 512M or 2G; 0 keeps none")
    number, unit, binary = matched.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit or " "))


def _seconds(setting: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SettingError(setting=setting, value=text, wanted="seconds, a number from 0 up")
    return seconds


def r_version() -> tuple[int, int] | None:
    """Version of the R that reads what is shared for it (``MORI_R_VERSION``, such as 4.5)."""
    found = _find("r_version")
    if found is None:
        return None
    matched = re.fullmatch(r"\s*(\d+)\.(\d+)(\.\d+)?\s*", found[1])
    if matched is None:
        raise SettingError(setting=found[0], value=found[1], wanted="a version of R, such as 4.5")
    return int(matched[1]), int(matched[2])


def store() -> str:
    """Where regions live (``MORI_STORE``): ``memfd``, ``files`` or ``files:DIR``; empty for the default."""
    found = _find("store")
    return "" if found is None else found[1]
