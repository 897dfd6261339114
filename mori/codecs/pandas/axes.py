"""Every kind of Index. They keep SharedArrays, which pickle as references by themselves."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from mori.codecs.pandas.parts import Parts, as_child, extra, need_array, pack
from mori.codecs.pandas.times import freq_of, set_freq, without_freq
from mori.format import codec
from mori.format.codec import Buffers, Encoded
from mori.format.layout import Id, from_json

__all__ = ["IndexCodec", "MultiIndexCodec", "RangeIndexCodec"]

_INDEXES: Final = {
    cls.__name__: cls
    for cls in (
        pd.Index,
        pd.DatetimeIndex,
        pd.TimedeltaIndex,
        pd.PeriodIndex,
        pd.CategoricalIndex,
        pd.IntervalIndex,
    )
}


class _Axis(Parts):
    """What the codecs of indexes have in common."""

    is_independent = True

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return pickle.loads(pickle.dumps(obj, 5)).copy(deep=True)  # what was pickled is read-only


class IndexCodec(_Axis):
    """An Index of one level: its array and its name."""

    id = Id.INDEX

    def encode(self, obj: pd.Index[Any]) -> Encoded:
        plain = {"class": type(obj).__name__}
        return pack(plain, (as_child(without_freq(obj._data)),), name=obj.name, freq=freq_of(obj))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.Index[Any]:
        plain = from_json(meta)
        cls = _INDEXES[plain["class"]]
        values = children[0]
        need_array(values)
        own = (
            made for made in _INDEXES.values() if made is not pd.Index and isinstance(values, made._data_cls)
        )
        if values.ndim != 1 or next(own, pd.Index) is not cls:
            raise ValueError(f"a {cls.__name__} over {type(values).__name__}")
        # The public constructors would strip the SharedArray, and the index would pickle by value.
        index = cls._simple_new(values, name=extra(plain, children, "name"))
        if (freq := extra(plain, children, "freq")) is not None:
            set_freq(index, freq)
        return index


class RangeIndexCodec(_Axis):
    """A RangeIndex: three numbers and a name."""

    id = Id.RANGE_INDEX

    def encode(self, obj: pd.RangeIndex) -> Encoded:
        return pack({"range": [obj.start, obj.stop, obj.step]}, (), name=obj.name)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.RangeIndex:
        plain = from_json(meta)
        return pd.RangeIndex(*plain["range"], name=extra(plain, children, "name"))


class MultiIndexCodec(_Axis):
    """A MultiIndex: the names, then its levels, then its codes."""

    id = Id.MULTI_INDEX

    def encode(self, obj: pd.MultiIndex) -> Encoded:
        codes = [np.asarray(code) for code in obj.codes]
        plain = {"levels": obj.nlevels, "sortorder": obj.sortorder}
        return pack(plain, (*obj.levels, *codes), names=tuple(obj.names))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.MultiIndex:
        plain = from_json(meta)
        count = plain["levels"]
        return pd.MultiIndex(
            levels=children[:count],
            codes=children[count : 2 * count],
            sortorder=plain["sortorder"],
            names=extra(plain, children, "names"),
            copy=False,
            verify_integrity=not buffers.trusted,
        )


codec.register(IndexCodec(), *_INDEXES.values())
codec.register(RangeIndexCodec(), pd.RangeIndex)
codec.register(MultiIndexCodec(), pd.MultiIndex)
