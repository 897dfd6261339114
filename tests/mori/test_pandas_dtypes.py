"""Every dtype that pandas can make comes back exactly, and what can be mapped is mapped.

The dtypes are found by walking pandas' own classes, so that one that a new pandas adds fails here
until it has its examples.
"""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
import zoneinfo
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pyarrow as pa
import pytest
from pandas.api.extensions import ExtensionArray, ExtensionDtype
from pandas.arrays import NumpyExtensionArray

import mori
from mori.memory import mapping as mappings
from tests.mori.pandas_versions import IS_LEGACY, NA_STRINGS, NAN_STRINGS

DAYS = pd.date_range("2024-03-30", periods=4, freq="D")
_ABSTRACT = {
    *("StorageExtensionDtype", "PandasExtensionDtype", "BaseMaskedDtype", "NumericDtype", "FloatingDtype"),
    *("IntegerDtype",),
}


def _dtypes() -> dict[type[ExtensionDtype], list[Any]]:
    """Return arrays of each extension dtype of pandas."""
    masked = {
        kind: [pd.array([1, None, 0, 1], dtype=kind.name)]
        for kind in map(pd.api.types.pandas_dtype, ["Int8", "Int16", "Int32", "Int64", "Float32", "Float64"])
    }
    masked |= {
        kind: [pd.array([1, None, 3, 200], dtype=kind.name)]
        for kind in map(pd.api.types.pandas_dtype, ["UInt8", "UInt16", "UInt32", "UInt64"])
    }
    breaks = [[0, 1, 2, 3, 4], [0.5, 1, 2, 3.5, np.inf], pd.date_range("2024", periods=5, freq="D")]
    breaks += [pd.date_range("2024", periods=5, tz="Asia/Tokyo"), pd.timedelta_range("1h", periods=5)]
    zones = ["UTC", zoneinfo.ZoneInfo("Europe/Berlin"), dt.timezone(dt.timedelta(hours=5.5)), *_other_zones()]
    return {
        **{type(dtype): arrays for dtype, arrays in masked.items()},
        pd.BooleanDtype: [pd.array([True, None, False, True], dtype="boolean")],
        pd.StringDtype: [
            pd.array(["a", None, "", "mörî 森"], dtype=dtype)
            for dtype in (NAN_STRINGS, NA_STRINGS, "string[python]")
        ],
        pd.CategoricalDtype: [
            pd.Categorical(["b", None, "a", "b"]),
            pd.Categorical(["lo", "hi", "lo", None], ["lo", "mid", "hi"], ordered=True),
            pd.Categorical([2.5, 1, 2.5, 1]),
            pd.Categorical(DAYS),
            pd.Categorical(DAYS.tz_localize("UTC"), ordered=True),
            pd.cut([1, 2, 3, 4], 2),
            pd.Categorical(pd.period_range("2024", periods=4, freq="M")),
            pd.Categorical([True, False, None, True]),
            pd.Categorical([(1, 2), "x", (1, 2), 3]),
            pd.Categorical([None] * 4),
        ],
        pd.DatetimeTZDtype: [
            DAYS.tz_localize("UTC").tz_convert(zone).as_unit(unit).array
            for zone in zones
            for unit in ("s", "ns")
        ],
        pd.PeriodDtype: [
            pd.array(pd.PeriodIndex(["2024-01", None, "1969-12", "2262-01"], freq=freq))
            for freq in ("M", "D", "Q-MAR", "h", "3D", "Y", "W-SUN", "ns")
        ],
        pd.IntervalDtype: [
            pd.arrays.IntervalArray.from_breaks(ends, closed=closed)
            for ends in breaks
            for closed in ("left", "right", "both", "neither")
        ]
        + [pd.arrays.IntervalArray.from_tuples([(0, 1), None, (1, 3), (5, 5)])],
        pd.SparseDtype: [
            pd.arrays.SparseArray([0, 0, 1, 2]),
            pd.arrays.SparseArray([0, 0, 1, 2], kind="block"),
            pd.arrays.SparseArray([1.5, np.nan, np.nan, 2]),
            pd.arrays.SparseArray([1.5, np.nan, 0, 2], fill_value=0.0),
            pd.arrays.SparseArray([True, False, False, True]),
            pd.arrays.SparseArray(np.array([7, 7, 7, 8], "u1"), fill_value=7),
            pd.arrays.SparseArray([0, 0, 0, 0]),
            pd.arrays.SparseArray(np.array(["a", "b", "a", "a"], object), fill_value="a"),
        ],
        type(NumpyExtensionArray(np.arange(1)).dtype): [
            NumpyExtensionArray(np.arange(4, dtype="i2")),
            NumpyExtensionArray(np.array([1.5, np.nan, 0, -0.0])),
            NumpyExtensionArray(np.array([True, False, False, True])),
            NumpyExtensionArray(np.array(["a", 1, (2,), 2.5], object)),
        ],
        pd.ArrowDtype: [pd.array(values, dtype=pd.ArrowDtype(kind)) for kind, values in _arrow_values()],
    }


def _other_zones() -> Iterator[Any]:
    try:
        import pytz
    except ImportError:
        pass
    else:
        yield pytz.timezone("America/New_York")
        yield pytz.FixedOffset(-90)
    from dateutil import tz

    if not IS_LEGACY:  # pandas 2 cannot print dates in the zones of some versions of dateutil
        yield tz.gettz("Europe/Paris")
    yield tz.tzoffset("odd", 1234 * 60)


def _arrow_values() -> Iterator[tuple[pa.DataType, list[Any]]]:
    now = dt.datetime(2024, 3, 30, 1, 2, 3)
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        yield getattr(pa, name)(), [1, None, 3, 100]
    yield pa.float32(), [1.5, None, -0.0, 2]
    yield pa.float64(), [1.5, None, -0.0, 2]
    yield pa.bool_(), [True, None, False, True]
    yield pa.null(), [None] * 4
    yield pa.decimal128(12, 3), [decimal.Decimal("1.250"), None, decimal.Decimal(0), decimal.Decimal(-3)]
    yield pa.decimal256(60, 3), [decimal.Decimal("1.250"), None, decimal.Decimal(0), decimal.Decimal(-3)]
    yield pa.string(), ["a", None, "", "森"]
    yield pa.large_string(), ["a", None, "", "森"]
    yield pa.binary(), [b"a", None, b"", b"\0"]
    yield pa.large_binary(), [b"a", None, b"", b"\0"]
    yield pa.binary(2), [b"ab", None, b"cd", b"\0\0"]
    for unit in ("s", "ms", "us", "ns"):
        yield pa.timestamp(unit), [now, None, now, now]
        yield pa.timestamp(unit, "Europe/Berlin"), [now, None, now, now]
        yield pa.duration(unit), [dt.timedelta(1), None, dt.timedelta(0), dt.timedelta(-1)]
    yield pa.date32(), [now.date(), None, now.date(), now.date()]
    yield pa.date64(), [now.date(), None, now.date(), now.date()]
    for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        yield kind, [now.time(), None, dt.time(0), now.time()]
    yield pa.list_(pa.int64()), [[1], None, [], [2, 3]]
    yield pa.large_list(pa.string()), [["x"], None, [], ["y", None]]
    yield pa.list_(pa.int8(), 2), [[1, 2], None, [3, 4], [5, None]]
    yield (
        pa.struct([("a", pa.int8()), ("b", pa.string())]),
        [{"a": 1, "b": "x"}, None, {"a": None}, {"b": ""}],
    )
    yield pa.map_(pa.string(), pa.int8()), [[("a", 1)], None, [], [("b", None)]]
    yield pa.dictionary(pa.int8(), pa.string()), ["a", None, "b", "a"]


ARRAYS = [array for arrays in _dtypes().values() for array in arrays]
IDS = [f"{number}-{array.dtype}" for number, array in enumerate(ARRAYS)]


def _subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def test_every_dtype_class_of_pandas_has_an_example() -> None:
    found = {cls for cls in _subclasses(ExtensionDtype) if cls.__module__.partition(".")[0] == "pandas"}
    found = {cls for cls in found if cls.__name__ not in _ABSTRACT}
    assert found == set(_dtypes())


def assert_exact(got: Any, expected: Any) -> None:
    assert got.dtype == expected.dtype
    assert type(got.dtype) is type(expected.dtype)
    pdt.assert_extension_array_equal(got, expected, check_exact=True)
    if isinstance(expected, pd.arrays.SparseArray):
        assert type(got.fill_value) is type(expected.fill_value)
        assert got.sp_index.equals(expected.sp_index)
        assert got.kind == expected.kind
    if isinstance(expected, pd.Categorical):
        pdt.assert_index_equal(got.categories, expected.categories, exact=True)
    if isinstance(expected.dtype, pd.DatetimeTZDtype):
        assert got.dtype.tz == expected.dtype.tz
        assert type(got.dtype.tz) is type(expected.dtype.tz)


@pytest.mark.filterwarnings("ignore:Allowing arbitrary scalar fill_value")
@pytest.mark.filterwarnings("ignore::mori.ObjectColumnWarning")
@pytest.mark.parametrize("array", ARRAYS, ids=IDS)
def test_every_dtype_comes_back(array: ExtensionArray) -> None:
    plain = pd.Series(array, name="v")
    frame = pd.DataFrame({"v": array, "w": range(4)}, index=DAYS)
    shared, framed = mori.share(plain), mori.share(frame)
    assert_exact(shared.array, array)
    assert_exact(framed["v"].array, array)
    assert_exact(mori.share(plain.iloc[:0]).array, array[:0])
    assert_exact(mori.share(plain.iloc[1:3]).array, array[1:3])
    assert_exact(mori.share([array])[0], array)
    for part, expected in ((framed["v"], array), (framed["v"].iloc[1:3], array[1:3])):
        assert_exact(pickle.loads(pickle.dumps(part)).array, expected)
        with mori.by_value():
            data = pickle.dumps(part)
        assert_exact(pickle.loads(data).array, expected)
    assert_exact(mori.materialize(framed)["v"].array, array)
    assert repr(framed) == repr(frame)
    written = array[::-1].copy()
    framed["v"] = written
    assert_exact(framed["v"].array, written)
    assert_exact(mori.map_shared(mori.shared_name(shared)).array, array)


@pytest.mark.filterwarnings("ignore:Allowing arbitrary scalar fill_value")
@pytest.mark.filterwarnings("ignore::mori.ObjectColumnWarning")
def test_every_dtype_comes_back_in_another_process(store: str, worker: Any) -> None:
    series = {name: mori.share(pd.Series(array)) for name, array in zip(IDS, ARRAYS, strict=True)}
    back = worker(lambda series: {name: one.array for name, one in series.items()}, series)
    for name, array in zip(IDS, ARRAYS, strict=True):
        assert_exact(back[name], array)


def _buffers(array: Any) -> Iterator[tuple[int, int]]:
    """Yield address and bytes of all that an extension array lies in."""
    if isinstance(array, np.ndarray):
        yield array.__array_interface__["data"][0], array.nbytes
    elif hasattr(array, "_pa_array"):
        for chunk in array._pa_array.chunks:
            for buffer in chunk.buffers():
                if buffer is not None and buffer.size:
                    yield buffer.address, buffer.size
    else:
        names = ("_ndarray", "_data", "_mask", "_left", "_right", "_sparse_values")
        for name in names:
            if hasattr(array, name):
                yield from _buffers(getattr(array, name))
        if hasattr(array, "sp_index"):
            where = array.sp_index
            for places in [where.blocs, where.blengths] if hasattr(where, "blocs") else [where.indices]:
                yield from _buffers(places)


MAPPED = [
    array
    for array in ARRAYS
    if array.dtype != "string[python]"
    and not any(
        pd.api.types.is_object_dtype(getattr(array.dtype, inner, 0)) for inner in ("subtype", "numpy_dtype")
    )
]


@pytest.mark.parametrize("array", MAPPED, ids=lambda array: str(array.dtype))
def test_a_column_is_mapped_and_not_read(array: ExtensionArray) -> None:
    for shared in (mori.share(pd.Series(array)), mori.share(pd.DataFrame({"a": array}))["a"]):
        found = [size and mappings.mapping_at(address, size) for address, size in _buffers(shared.array)]
        assert all(mapping is not None for mapping in found)
        assert found or array.dtype == pd.ArrowDtype(pa.null())


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["M8", "m8"])
def test_times_of_numpy_come_back_in_their_unit(store: str, kind: str, unit: str) -> None:
    series = pd.Series(np.array([1, "NaT", -5], f"{kind}[{unit}]"))
    shared = mori.share(series)
    assert shared.dtype == series.dtype == np.dtype(f"{kind}[{unit}]")
    pdt.assert_series_equal(shared, series, check_series_type=False)


@pytest.mark.parametrize("code", [*np.typecodes["AllInteger"], *np.typecodes["AllFloat"], "?"])
def test_every_kind_of_number_of_numpy_comes_back(code: str) -> None:
    frame = pd.DataFrame({"a": np.array([0, 1, 100], code), "b": np.array([3, 2, 1], code)})
    shared = mori.share(frame)
    pdt.assert_frame_equal(shared, frame, check_exact=True)
    assert (shared.dtypes == frame.dtypes).all()
    assert mori.is_shared(shared["b"])
