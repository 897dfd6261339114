"""What the user may set of mori_ray, read from the environment at each use.

A value that cannot be used is an error that names the variable.
"""

from __future__ import annotations

import math
import os

from mori import SettingError, adapters

__all__ = ["keep_nbytes", "keep_seconds", "metrics_seconds"]


def keep_seconds() -> float:
    """Seconds for which a process keeps its node's copy of another node's region (``MORI_RAY_KEEP``, 60)."""
    return _number("MORI_RAY_KEEP", "seconds", 60.0)


def keep_nbytes() -> float:
    """Bytes of such copies that a process keeps (``MORI_RAY_KEEP_BYTES``, a quarter of what is free)."""
    found = _number("MORI_RAY_KEEP_BYTES", "bytes", -1.0)
    return found if found >= 0 else adapters.free_bytes() / 4


def metrics_seconds() -> float:
    """Seconds between two reports of a process to Ray's metrics (``MORI_RAY_METRICS``, 10); 0 for none."""
    return _number("MORI_RAY_METRICS", "seconds", 10.0)


def _number(setting: str, unit: str, default: float) -> float:
    text = os.environ.get(setting)
    if text is None:
        return default
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise SettingError(setting=setting, value=text, wanted=f"{unit}, a number from 0 up")
    return found
