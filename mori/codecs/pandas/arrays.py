"""Extension arrays that are made of plain ones: categories, nullable numbers, intervals, sparse ones.

Imports parts, codec, layout and pandas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mori import codec
from mori.codec import Buffers, Encoded
from mori.codecs.pandas.parts import Parts, bare, need
from mori.layout import Codec as Id

__all__ = ["CategoricalCodec", "MaskedCodec"]


class CategoricalCodec(Parts):
    """A Categorical: codes and categories."""

    id = Id.CATEGORICAL

    def encode(self, obj: pd.Categorical) -> Encoded:
        return Encoded(b"\1" if obj.ordered else b"\0", (), (obj.codes, obj.categories))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.Categorical:
        codes, categories = children
        need(codes.dtype.char in "bhilq" and codes.ndim == 1, f"codes of {codes.ndim} {codes.dtype}")
        need(isinstance(categories, pd.Index), "categories that are no index")
        if not buffers.sealed:
            most = len(categories)
            need(not len(codes) or -1 <= codes.min() <= codes.max() < most, "codes without a category")
            need(categories.is_unique and not categories.hasnans, "categories that are not distinct")
        dtype = pd.CategoricalDtype._from_fastpath(categories, bool(meta[0]))
        return pd.Categorical._simple_new(bare(codes), dtype)


class MaskedCodec(Parts):
    """A nullable array of integers, floats or booleans: data and mask."""

    id = Id.MASKED_ARRAY

    def encode(self, obj: Any) -> Encoded:
        return Encoded(b"", (), (obj._data, obj._mask))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        data, mask = children
        need(data.shape == mask.shape, f"a mask of {mask.shape} for {data.shape} values")
        need(data.dtype.isnative, f"values of {data.dtype}")
        kind = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}.get(
            data.dtype.kind, pd.arrays.IntegerArray
        )
        return kind(bare(data), bare(mask), copy=False)


codec.register(CategoricalCodec(), pd.Categorical)
codec.register(MaskedCodec(), pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)
