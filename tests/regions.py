"""Regions as bytes, and the comparison of what is read from them, for tests that need no store."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pandas as pd

from mori.format import writer
from mori.format.plan import PlanNode, measure
from tests.mori.classes import fields_of

PLAIN = (list, tuple, set, frozenset, dict)


def region_of(obj: object) -> bytes:
    """Return the region of an object."""
    return bytes_of(measure(obj))


def bytes_of(plan: PlanNode) -> bytes:
    """Return the region of a plan, whose root may have been written to."""
    plan.table = ()
    plan.close()
    return bytes(writer.to_bytes(plan, writer.header_of(plan)))


def exact(one: Any, other: Any, met: dict[tuple[int, int], Any] | None = None) -> bool:
    """Return whether two values are of one type and equal at every depth: dicts in their order, floats in
    their bits.
    """
    met = {} if met is None else met
    if type(one) is not type(other):
        return False
    if (id(one), id(other)) in met:  # below themselves, or compared before
        return True
    if isinstance(one, float | complex) and not isinstance(one, np.generic):
        return struct.pack("<dd", one.real, one.imag) == struct.pack("<dd", other.real, other.imag)
    if isinstance(one, np.ndarray | np.generic):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if one.dtype.hasobject:
            return exact(one.tolist(), other.tolist(), met)
        return bool(one.tobytes() == other.tobytes())
    if isinstance(one, pd.DataFrame | pd.Series | pd.Index):
        return bool(one.equals(other))
    met[id(one), id(other)] = one, other  # kept: the id of one that is gone is soon another's
    if isinstance(one, dict):
        return exact([*one.items()], [*other.items()], met)
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(exact(mine, its, met) for its in other) for mine in one)
    if isinstance(one, list | tuple) and len(one) != len(other):
        return False
    if isinstance(one, list | tuple) and not all(exact(*pair, met) for pair in zip(one, other, strict=True)):
        return False
    if type(one) in PLAIN:
        return True
    fields = {} if isinstance(one, type) else fields_of(one)
    return exact(fields, fields_of(other), met) if fields else bool(one == other)
