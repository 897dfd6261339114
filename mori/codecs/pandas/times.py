"""Arrays of dates and of differences of times, their zones and their frequencies."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.arrays import DatetimeArray, TimedeltaArray
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from mori.codecs.pandas.parts import Parts, extra, need, pack
from mori.format import codec
from mori.format.codec import Buffers, Encoded
from mori.format.layout import Id, from_json

__all__ = ["DatetimeLikeCodec", "PeriodCodec", "freq_of", "set_freq", "without_freq"]


def freq_of(obj: Any) -> object:
    """Return the frequency of dates: as a string where that says everything."""
    freq = getattr(obj, "freq", None)
    if freq is None or isinstance(obj, pd.PeriodIndex):  # a period's is its dtype's
        return None
    try:
        if to_offset(freq.freqstr) == freq:
            return freq.freqstr
    except ValueError:
        pass
    return freq


def without_freq(values: Any) -> Any:
    """Return an index's array without the frequency that pandas 2 keeps there: the index says it."""
    if getattr(values, "_freq", None) is None or not isinstance(values, DatetimeArray | TimedeltaArray):
        return values
    return type(values)._simple_new(values._ndarray, dtype=values.dtype)


def set_freq(obj: Any, freq: Any) -> None:
    """Set the frequency of dates; the public setter checks it against every value, and so reads them all."""
    inner = getattr(obj, "_data", None)
    target: Any = inner if hasattr(type(inner), "freq") else obj  # pandas < 3.1 keeps it in the array
    freq = to_offset(freq) if isinstance(freq, str) else freq
    need(isinstance(freq, BaseOffset), f"a frequency of {type(freq).__name__}")
    target._freq = freq


def _zone(tz: object) -> object:
    """Return a time zone: as its key where that says everything."""
    if tz is dt.UTC:
        return "utc"
    if type(tz) is zoneinfo.ZoneInfo and tz.key:
        return f"zone:{tz.key}"
    return tz


_TIMES: Final = {kind: [np.dtype(f"{kind}8[{unit}]") for unit in ("s", "ms", "us", "ns")] for kind in "Mm"}


class DatetimeLikeCodec(Parts):
    """A DatetimeArray or TimedeltaArray, of one or two dimensions."""

    def __init__(self, number: int, cls: Any) -> None:
        self.id = number
        self._cls = cls

    def encode(self, obj: Any) -> Encoded:
        zone = _zone(obj.tz) if self._cls is DatetimeArray else None
        return pack({}, (obj._ndarray,), zone=zone, freq=freq_of(obj))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        plain = from_json(meta)
        values, zone = children[0], extra(plain, children, "zone")
        kind = "M" if self._cls is DatetimeArray else "m"
        dtype = values.dtype
        need(dtype in _TIMES[kind] and values.ndim in (1, 2), f"times of {values.ndim} {dtype}")
        need(zone is None or kind == "M", "a difference of times in a time zone")
        if zone == "utc":
            zone = dt.UTC
        elif isinstance(zone, str):
            zone = zoneinfo.ZoneInfo(zone.removeprefix("zone:"))
        if zone is not None:
            dtype = pd.DatetimeTZDtype(np.datetime_data(dtype)[0], zone)
        array = self._cls._simple_new(values, dtype=dtype)  # an index keeps the SharedArray; see bare
        if (freq := extra(plain, children, "freq")) is not None and hasattr(self._cls, "freq"):
            set_freq(array, freq)
        return array


class PeriodCodec(Parts):
    """A PeriodArray: its frequency, and ordinals."""

    id = Id.PERIOD_ARRAY

    def encode(self, obj: Any) -> Encoded:
        name = obj.dtype.name.removeprefix("period[").removesuffix("]")
        try:
            freq: object = name if pd.PeriodDtype(name) == obj.dtype else obj.dtype.freq
        except ValueError:
            freq = obj.dtype.freq
        return pack({}, (obj._ndarray,), freq=freq)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        ordinals, freq = children[0], extra(from_json(meta), children, "freq")
        need(isinstance(freq, str | BaseOffset), f"a frequency of {type(freq).__name__}")
        fits = isinstance(ordinals, np.ndarray) and ordinals.dtype == np.dtype("<i8")
        need(fits and ordinals.ndim in (1, 2), "ordinals that are no integers")
        return pd.arrays.PeriodArray._simple_new(ordinals, dtype=pd.PeriodDtype(freq))


codec.register(PeriodCodec(), pd.arrays.PeriodArray)
codec.register(DatetimeLikeCodec(Id.DATETIME_ARRAY, DatetimeArray), DatetimeArray)
codec.register(DatetimeLikeCodec(Id.TIMEDELTA_ARRAY, TimedeltaArray), TimedeltaArray)
