"""Values that nothing is lost with when they are let go: they cannot be written to."""

from __future__ import annotations

import enum
from typing import Final

import numpy as np

__all__ = ["is_atom"]

_ATOMS: Final = (type(None), bool, int, float, complex, str, bytes, np.generic, enum.Enum)
_ELSEWHERE: Final = frozenset(  # named, not imported
    (
        *(("datetime", "date"), ("datetime", "datetime"), ("datetime", "time"), ("datetime", "timedelta")),
        *(("decimal", "Decimal"), ("uuid", "UUID"), ("fractions", "Fraction")),
        *(("pathlib", "PosixPath"), ("pathlib", "PurePosixPath"), ("zoneinfo", "ZoneInfo")),
        *(("pandas", "Timestamp"), ("pandas", "Timedelta"), ("pandas", "Period"), ("pandas", "Interval")),
    )
)


def is_atom(value: object) -> bool:
    """Say whether a value cannot be written to."""
    if isinstance(value, _ATOMS):
        return True
    cls = type(value)
    return (cls.__module__.partition(".")[0], cls.__name__) in _ELSEWHERE
