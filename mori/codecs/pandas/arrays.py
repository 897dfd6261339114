"""Extension arrays that are made of plain ones: categories, nullable numbers, intervals, sparse ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas._libs.sparse import BlockIndex, IntIndex
from pandas.api.extensions import ExtensionArray

from mori.codecs.pandas.parts import Parts, as_child, bare, need, need_array
from mori.format import codec
from mori.format.codec import Buffers, Encoded
from mori.format.layout import Id, from_json, to_json

__all__ = ["CategoricalCodec", "IntervalCodec", "MaskedCodec", "SparseCodec"]


class CategoricalCodec(Parts):
    """A Categorical: codes and categories."""

    id = Id.CATEGORICAL

    def encode(self, obj: pd.Categorical) -> Encoded:
        return Encoded(b"\1" if obj.ordered else b"\0", (), (obj.codes, obj.categories))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.Categorical:
        codes, categories = children
        need(codes.dtype.char in "bhilq" and codes.ndim == 1, f"codes of {codes.ndim} {codes.dtype}")
        need(isinstance(categories, pd.Index), "categories that are no index")
        if not buffers.trusted:
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


class IntervalCodec(Parts):
    """An IntervalArray: which side is closed, and the arrays of both ends."""

    id = Id.INTERVAL_ARRAY

    def encode(self, obj: Any) -> Encoded:
        return Encoded(to_json({"closed": obj.closed}), (), (obj._left, obj._right))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        closed = from_json(meta)["closed"]
        left, right = map(bare, children)  # in an index, too: pandas.testing compares the classes of ends
        for end in (left, right):
            need_array(end)
            need(end.ndim == 1 and type(end) is type(left) and end.dtype == left.dtype, "ends of two kinds")
        need(len(left) == len(right), f"{len(left)} and {len(right)} ends")
        need(closed in _CLOSED, f"{closed!r} for a side that is closed")
        dtype = pd.IntervalDtype(left.dtype, closed)
        array = pd.arrays.IntervalArray._simple_new(left, right, dtype=dtype)
        if not buffers.trusted:
            array._validate(left, right, dtype=dtype)
        return array

    def step(self, obj: Any, index: int) -> str:
        return (".left", ".right")[index]


_CLOSED: Final = ("left", "right", "both", "neither")


class SparseCodec(Parts):
    """A SparseArray: the values that are there, the fill value, and where they are."""

    id = Id.SPARSE_ARRAY

    def encode(self, obj: Any) -> Encoded:
        where = obj.sp_index
        places = (where.indices,) if isinstance(where, IntIndex) else (where.blocs, where.blengths)
        plain = to_json({"length": len(obj), "blocks": len(places) == 2})
        return Encoded(plain, (), (as_child(obj.sp_values), obj.fill_value, *places))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        plain = from_json(meta)
        length = plain["length"]
        values, fill, *places = children
        need_array(values)
        fits = isinstance(values, np.ndarray | ExtensionArray) and values.ndim == 1
        need(fits and type(length) is int and 0 <= length < 1 << 31, f"{length!r} elements")
        for array in places:
            need(
                isinstance(array, np.ndarray) and array.dtype == np.dtype("i4") and array.ndim == 1, "places"
            )
            need(not len(array) or array.min() >= 0, "places before the first")
        # pandas reads the places, to see that they are in order and inside.
        if plain["blocks"]:
            where = BlockIndex(length, *map(bare, places))
        else:
            where = IntIndex(length, *map(bare, places))
        need(where.npoints == len(values), f"{len(values)} values for {where.npoints} places")
        dtype = pd.SparseDtype(values.dtype, fill)
        return pd.arrays.SparseArray._simple_new(bare(values), where, dtype)


codec.register(IntervalCodec(), pd.arrays.IntervalArray)
codec.register(SparseCodec(), pd.arrays.SparseArray)
codec.register(CategoricalCodec(), pd.Categorical)
codec.register(MaskedCodec(), pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)
