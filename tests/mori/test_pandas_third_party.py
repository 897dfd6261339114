"""A dtype that another library adds to pandas comes back by its pickle, its arrays over the region."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
from pandas.api.extensions import ExtensionArray, ExtensionDtype, register_extension_dtype, take

import mori


@register_extension_dtype
class LengthDtype(ExtensionDtype):
    """Lengths with a unit, and a scalar of their own: stands for any library's dtype."""

    type = float
    kind = "f"
    na_value = np.nan
    _metadata = ("unit",)

    def __init__(self, unit: str = "m") -> None:
        self.unit = unit

    @property
    def name(self) -> str:
        return f"length[{self.unit}]"

    @classmethod
    def construct_from_string(cls, string: str) -> LengthDtype:
        if isinstance(string, str) and string.startswith("length[") and string.endswith("]"):
            return cls(string[len("length[") : -1])
        raise TypeError(f"Cannot construct a 'LengthDtype' from '{string}'")

    @classmethod
    def construct_array_type(cls) -> type[LengthArray]:
        return LengthArray


class LengthArray(ExtensionArray):
    """Two arrays, a whole and a rest, under a class that pickle takes apart by its ``__dict__``."""

    def __init__(self, whole: Any, rest: Any, unit: str) -> None:
        self.whole = whole
        self.rest = rest
        self._dtype = LengthDtype(unit)

    @classmethod
    def of(cls, values: Any, unit: str = "m") -> LengthArray:
        values = np.asarray(values, "f8")
        whole = np.floor(values)
        return cls(whole, values - whole, unit)

    @classmethod
    def _from_sequence(cls, scalars: Sequence[Any], *, dtype: Any = None, copy: bool = False) -> LengthArray:
        return cls.of(list(scalars), "m" if dtype is None else pd.api.types.pandas_dtype(dtype).unit)

    @classmethod
    def _from_factorized(cls, values: Any, original: LengthArray) -> LengthArray:
        return cls.of(values, original.dtype.unit)

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[LengthArray]) -> LengthArray:
        whole, rest = (
            np.concatenate([getattr(each, name) for each in to_concat]) for name in ("whole", "rest")
        )
        return cls(whole, rest, to_concat[0].dtype.unit)

    @property
    def dtype(self) -> LengthDtype:
        return self._dtype

    @property
    def nbytes(self) -> int:
        return int(self.whole.nbytes + self.rest.nbytes)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, item: Any) -> Any:
        item = pd.api.indexers.check_array_indexer(self, item)
        if np.isscalar(item) or isinstance(item, int):
            return self.whole[item] + self.rest[item]
        return type(self)(self.whole[item], self.rest[item], self.dtype.unit)

    def __setitem__(self, item: Any, value: Any) -> None:
        values = np.asarray(value, "f8")
        whole = np.floor(values)
        self.whole[item], self.rest[item] = whole, values - whole

    def __eq__(self, other: Any) -> Any:
        return np.asarray(self) == np.asarray(other)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.whole + self.rest, dtype)

    def isna(self) -> Any:
        return np.isnan(self.whole)

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> LengthArray:
        fill = np.nan if fill_value is None else fill_value
        taken = [
            take(each, indices, fill_value=fill, allow_fill=allow_fill) for each in (self.whole, self.rest)
        ]
        return type(self)(*taken, self.dtype.unit)

    def copy(self) -> LengthArray:
        return type(self)(self.whole.copy(), self.rest.copy(), self.dtype.unit)


SIZE = 5000
VALUES = np.where(np.arange(SIZE) % 7, np.arange(SIZE) / 4, np.nan)


def lengths() -> LengthArray:
    return LengthArray.of(VALUES, "ft")


def assert_lengths(array: Any, expected: LengthArray) -> None:
    assert type(array) is LengthArray
    assert type(array.dtype) is LengthDtype
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(array), np.asarray(expected))


def lies_in_region(array: LengthArray) -> bool:
    return mori.is_shared(array.whole) and mori.is_shared(array.rest)


def holders() -> dict[str, Any]:
    return {
        "frame": (pd.DataFrame({"x": lengths(), "n": np.arange(SIZE)}), lambda x: x["x"].array),
        "series": (pd.Series(lengths(), name="x"), lambda x: x.array),
        "index": (pd.Series(np.arange(SIZE), pd.Index(lengths(), name="x")), lambda x: x.index.array),
        "container": ([pd.Index(lengths(), name="x"), lengths()], lambda x: x[0].array),
        "array": ([lengths()], lambda x: x[0]),
    }


@pytest.mark.parametrize("kind", holders())
def test_an_array_of_another_library_comes_back_over_the_region(store: str, worker: Any, kind: str) -> None:
    plain, get = holders()[kind]
    shared = mori.share(plain)
    assert_lengths(get(shared), lengths())
    assert lies_in_region(get(shared))
    assert_lengths(get(pickle.loads(pickle.dumps(shared))), lengths())
    assert len(pickle.dumps(shared)) <= 200
    with mori.by_value():
        data = pickle.dumps(shared)
    assert_lengths(get(pickle.loads(data)), lengths())
    assert_lengths(get(mori.materialize(shared)), lengths())
    assert not lies_in_region(get(mori.materialize(shared)))
    if kind in ("frame", "series"):
        assert worker(
            lambda x: float(np.nansum(np.asarray(x))), shared[["x"]] if kind == "frame" else shared
        ) == np.nansum(VALUES)


def test_a_column_of_another_library_is_written_to_alone(store: str) -> None:
    plain = holders()["frame"][0]
    shared = mori.share(plain)
    name = mori.shared_name(shared)
    shared.loc[1, "x"] = 99.5
    shared.loc[2:4, "x"] = 1.25
    expected = plain.copy()
    expected.loc[1, "x"] = 99.5
    expected.loc[2:4, "x"] = 1.25
    pdt.assert_frame_equal(shared, expected)
    assert_lengths(shared["x"].array, expected["x"].array)
    assert mori.is_shared(shared["n"])
    pdt.assert_frame_equal(pickle.loads(pickle.dumps(shared)), expected)
    assert_lengths(mori.map_shared(name)["x"].array, lengths())


def test_pandas_computes_with_a_shared_column_of_another_library(store: str) -> None:
    plain = holders()["frame"][0]
    shared = mori.share(plain)
    for made, expected in (
        (shared["x"].dropna(), plain["x"].dropna()),
        (shared.sort_values("x"), plain.sort_values("x")),
        (pd.concat([shared, shared])["x"], pd.concat([plain, plain])["x"]),
        (shared.iloc[10:20], plain.iloc[10:20]),
        (shared[shared["x"].notna()], plain[plain["x"].notna()]),
    ):
        assert type(made) is type(expected)
        (pdt.assert_frame_equal if isinstance(made, pd.DataFrame) else pdt.assert_series_equal)(
            made, expected
        )
