"""What the user may set, read from the environment at each use.

Imports errors only. A value that cannot be used is an error that names the variable.
"""

from __future__ import annotations

import math
import os

from mori.errors import SettingError

__all__ = ["grace", "store"]


def grace() -> float:
    """Seconds for which a pickled reference outlasts its last user here (``MORI_GRACE``, 10)."""
    text = os.environ.get("MORI_GRACE")
    if text is None:
        return 10.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SettingError(setting="MORI_GRACE", value=text, wanted="seconds, a number from 0 up")
    return seconds


def store() -> str:
    """Where regions live (``MORI_STORE``): ``memfd``, ``files`` or ``files:DIR``; empty for the default."""
    return os.environ.get("MORI_STORE", "")
