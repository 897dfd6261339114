"""What the pandas codecs have in common: plain data with extras, and the checks of what pandas trusts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray
from pandas.arrays import DatetimeArray, TimedeltaArray

from mori.format.codec import Codec, Encoded, Pickled
from mori.format.layout import to_json

__all__ = ["Parts", "as_child", "bare", "extra", "need", "need_array", "pack"]


def pack(plain: dict[str, Any], children: Sequence[object], **extras: object) -> Encoded:
    """Return a node of plain data and children, with what is plain of the extras in the meta.

    An extra that is no string, number or None (the name of an index may be anything) is pickled as a
    child behind the others, and the meta says which: ``[place]``.
    """
    behind: list[object] = []
    for key, value in extras.items():
        if value is None:
            continue
        if type(value) in (str, int):
            plain[key] = value
        else:
            plain[key] = [len(children) + len(behind)]
            behind.append(Pickled(value))
    return Encoded(to_json(plain), (), (*children, *behind))


def extra(plain: dict[str, Any], children: Sequence[Any], key: str) -> Any:
    """Return an extra that `pack` put away."""
    value = plain.get(key)
    value = children[value[0]] if isinstance(value, list) else value
    if key == "attrs":
        need(value is None or type(value) is dict, "attrs that are no dict")
    elif key in ("name", "names"):
        hash(value)
    return value


def need(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)


def need_array(values: Any) -> None:
    """pandas takes the arrays of blocks and indexes on trust: they have to be such as it makes itself."""
    plain = isinstance(values, np.ndarray) and values.dtype.kind in "biufcO"
    need(plain or isinstance(values, ExtensionArray), f"{type(values).__name__} for an array")


def as_child(values: Any) -> object:
    """Return the values of a block or an index as a child; objects are pickled."""
    if isinstance(values, np.ndarray) and values.dtype.hasobject:
        return Pickled(values.view(np.ndarray))
    return values


def bare(values: Any) -> Any:
    """Return values as a block wants them: plain ndarrays over the same memory."""
    if isinstance(values, pd.arrays.IntervalArray):
        return type(values)._simple_new(bare(values._left), bare(values._right), dtype=values.dtype)
    if isinstance(values, DatetimeArray | TimedeltaArray | pd.arrays.PeriodArray):
        made: Any = type(values)._simple_new(bare(values._ndarray), dtype=values.dtype)
        if (freq := getattr(values, "_freq", None)) is not None:
            made._freq = freq
        return made
    return values.view(np.ndarray) if isinstance(values, np.ndarray) else values


class Parts(Codec):
    """What pandas' codecs have in common: a column is named after the frame that it lies in."""

    owns_parts = True

    def step(self, obj: Any, index: int) -> str:
        return ""

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        """Return the object: what a frame is made of is copied with the frame."""
        return obj
