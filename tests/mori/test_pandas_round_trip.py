"""Frames, series and indexes come back equal to the last attribute, in this process and in others."""

import datetime as dt
import pickle
import threading
import warnings
import zoneinfo

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pyarrow as pa
import pytest

import mori
from tests.mori.pandas_versions import NA_STRINGS, NAN_STRINGS, str_frame

DAYS = pd.date_range("2024-03-30", periods=4, freq="D")
COLUMNS = {
    "int64": [1, -2, 3, 2**62],
    "int8": np.array([1, -2, 3, 127], "i1"),
    "uint16": np.array([0, 1, 2, 65535], "u2"),
    "float64": [1.5, np.nan, -0.0, np.inf],
    "float32": np.array([1.5, np.nan, 0.1, 3], "f4"),
    "complex": [1j, 2, 3 + 4j, 0],
    "bool": [True, False, True, True],
    "datetime": DAYS,
    "datetime with NaT": pd.to_datetime(["2024-01-01", None, "1969-12-31", "2262-01-01"]),
    "datetime in seconds": np.array(["2024-01-01", "NaT", "0001-01-01", "9999-12-31"], "M8[s]"),
    "tz": DAYS.tz_localize("Europe/Berlin"),
    "utc": DAYS.tz_localize("UTC"),
    "zoneinfo": DAYS.tz_localize(zoneinfo.ZoneInfo("Asia/Tokyo")),
    "fixed offset": DAYS.tz_localize(dt.timezone(dt.timedelta(hours=5, minutes=30))),
    "timedelta": pd.to_timedelta(["1D", None, "2h", "-3s"]),
    "period": pd.period_range("2024-01", periods=4, freq="M"),
    "interval": pd.IntervalIndex.from_breaks([0, 1, 2, 3, 4]),
    "str": pd.array(["a", None, "", "mörî 森"], dtype=NAN_STRINGS),
    "string": pd.array(["a", pd.NA, "", "x\0y"], dtype=NA_STRINGS),
    "string in python": pd.array(["a", pd.NA, "", "x"], dtype="string[python]"),
    "category": pd.Categorical(["b", None, "a", "b"]),
    "ordered": pd.Categorical(["lo", "hi", "lo", None], ["lo", "mid", "hi"], ordered=True),
    "category of numbers": pd.Categorical([3, 1, 3, 2]),
    "category of times": pd.Categorical(DAYS),
    "category of intervals": pd.cut([1, 2, 3, 4], 2),
    "Int64": pd.array([1, None, -3, 2**62], dtype="Int64"),
    "UInt8": pd.array([1, None, 3, 255], dtype="UInt8"),
    "Float32": pd.array([1.5, None, 0.5, 3], dtype="Float32"),
    "boolean": pd.array([True, None, False, True], dtype="boolean"),
    "sparse": pd.arrays.SparseArray([0, 0, 1, 2]),
    "arrow": pd.array([1, None, 3, 4], dtype="int64[pyarrow]"),
    "arrow lists": pd.array([[1], None, [], [2, 3]], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
}
PAIRS = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1), ("c", 3)], names=["letter", None])
INDEXES = {
    "range": pd.RangeIndex(3, 11, 2, name="r"),
    "int": pd.Index([3, 1, 2, 2], name="i"),
    "float": pd.Index([0.5, np.nan, 1, 2]),
    "bool": pd.Index([True, False, True, True]),
    "str": pd.Index(["a", None, "", "d"], dtype=NAN_STRINGS, name="s"),
    "object": pd.Index([1, "two", None, (3, 4)], dtype=object, name=("a", 1)),
    "datetime with freq": DAYS,
    "datetime with business freq": pd.date_range("2024-01-31", periods=4, freq="BME", name="b"),
    "datetime with custom freq": pd.date_range(
        "2024-01-01", periods=4, freq=pd.offsets.CustomBusinessDay(holidays=["2024-01-02"])
    ),
    "tz with freq": pd.date_range("2024-03-30", periods=4, freq="h", tz="Europe/Berlin"),
    "timedelta with freq": pd.timedelta_range("1h", periods=4, freq="30min", name=7),
    "period": pd.period_range("2024Q1", periods=4, freq="Q"),
    "category": pd.CategoricalIndex(["b", "a", "b", None], ["a", "b", "z"], ordered=True),
    "interval": pd.IntervalIndex.from_breaks([0, 1, 2, 3, 4], closed="left"),
    "nullable": pd.Index([1, None, 3, 4], dtype="Int64"),
    "multi": PAIRS,
    "multi of times": pd.MultiIndex.from_product([DAYS[:2], ["x", "y"]], names=[("t", 0), "v"]),
    "duplicates": pd.Index(["a", "a", "b", "a"]),
}


def assert_same(shared, expected) -> None:
    assert isinstance(shared, type(expected))
    if isinstance(expected, pd.Index):
        pdt.assert_index_equal(shared, expected, exact=True)
        assert list(shared.names) == list(expected.names)
        assert getattr(shared, "freq", None) == getattr(expected, "freq", None)
        return
    if isinstance(expected, pd.Series):
        pdt.assert_series_equal(shared, expected, check_exact=True, check_series_type=False)
        assert shared.name == expected.name
        axes = [(shared.index, expected.index)]
    else:
        pdt.assert_frame_equal(shared, expected, check_exact=True)
        axes = [(shared.index, expected.index), (shared.columns, expected.columns)]
    for ours, theirs in axes:
        assert_same(ours, theirs)
    assert shared.attrs == expected.attrs
    assert shared.flags == expected.flags


def frames() -> dict[str, pd.DataFrame]:
    plain = str_frame({"a": [1, 2, 3, 4], "b": [1.5, 2, 3, 4], "c": list("wxyz"), "d": [5, 6, 7, 8]})
    attrs = plain.copy()
    attrs.attrs = {"source": "here", "nested": {"a": [1, 2]}}
    unique = plain.set_flags(allows_duplicate_labels=False)
    both = pd.DataFrame(np.arange(16.0).reshape(4, 4), PAIRS, PAIRS)
    named = plain.rename_axis(index="rows", columns="cols")
    twice = plain.copy()
    twice.columns = ["a", "b", "a", "a"]
    inserted = plain.copy()
    for place in range(5):  # many blocks of one dtype
        inserted.insert(place, f"new {place}", np.arange(4) + place)
    return {
        "plain": plain,
        "every kind of column": pd.DataFrame(COLUMNS),
        "attrs": attrs,
        "no duplicate labels": unique,
        "both axes of two levels": both,
        "named axes": named,
        "duplicate columns": twice,
        "fragmented": inserted,
        "strided": plain.iloc[::-2, ::2],
        "columns out of order": plain[["d", "c", "a"]],
        "no columns": pd.DataFrame(index=DAYS),
        "no rows": plain.iloc[:0],
        "nothing": pd.DataFrame(),
        "transposed": pd.DataFrame(np.arange(6).reshape(2, 3)).T,
        "columns of ints": pd.DataFrame(np.eye(3), columns=[2, 0, 1]),
        "columns of times": pd.DataFrame(np.ones((2, 4)), columns=DAYS),
        "columns of tuples": pd.DataFrame(np.ones((1, 2)), columns=pd.Index([("a", 1), 2], dtype=object)),
    }


def compare_everything(shared: dict, columns: dict, indexes: dict) -> int:
    for name, frame in frames().items():
        assert_same(shared[name], frame)
    for name, values in COLUMNS.items():
        assert_same(columns[name], pd.Series(values, name=name))
    for name, index in INDEXES.items():
        assert_same(indexes[name].index, index)
        assert_same(indexes[name], pd.DataFrame({"x": range(4)}, index))
    return len(shared)


# R: 25, 26, 27, 29, 30, 33, 34, 136
@pytest.mark.parametrize("kind", COLUMNS)
def test_every_kind_of_column_comes_back_in_a_series_and_in_a_frame(store, kind):
    series = pd.Series(COLUMNS[kind], DAYS, name=kind)
    if isinstance(COLUMNS[kind], pd.Index):
        series = pd.Series(COLUMNS[kind].array, DAYS, name=kind)
    assert_same(mori.share(series), series)
    frame = pd.DataFrame({kind: series, "other": 1.5})
    shared = mori.share(frame)
    assert_same(shared, frame)
    assert_same(shared[kind], frame[kind])
    assert_same(pickle.loads(pickle.dumps(shared[kind])), frame[kind])


@pytest.mark.parametrize("kind", INDEXES)
def test_every_kind_of_index_comes_back(store, kind):
    frame = pd.DataFrame({"x": range(4)}, INDEXES[kind])
    shared = mori.share(frame)
    assert_same(shared, frame)
    assert_same(pickle.loads(pickle.dumps(shared.index)), INDEXES[kind])
    assert_same(mori.share([INDEXES[kind]])[0], INDEXES[kind])


# R: 31, 32, 57
@pytest.mark.parametrize("kind", frames())
def test_every_kind_of_frame_comes_back(store, kind):
    frame = frames()[kind]
    shared = mori.share(frame)
    assert mori.is_shared(shared)
    assert_same(shared, frame)
    assert_same(mori.map_shared(mori.shared_name(shared)), frame)
    assert_same(mori.materialize(shared), frame)
    assert type(mori.materialize(shared)) is pd.DataFrame
    with mori.by_value():
        data = pickle.dumps(shared)
    assert_same(pickle.loads(data), frame)


def test_another_process_reads_every_frame_series_and_index(store, worker):
    shared = {name: mori.share(frame) for name, frame in frames().items()}
    columns = {name: mori.share(pd.Series(values, name=name)) for name, values in COLUMNS.items()}
    indexes = {name: mori.share(pd.DataFrame({"x": range(4)}, index)) for name, index in INDEXES.items()}
    assert worker(compare_everything, shared, columns, indexes) == len(shared)


@pytest.mark.parametrize("name", [None, "s", 3, 2.5, ("a", 1), pd.Timestamp("2024-01-01"), b"b"])
def test_a_series_keeps_its_name(store, name):
    series = pd.Series([1, 2], name=name)
    shared = mori.share(series)
    assert_same(shared, series)
    assert type(shared.name) is type(name)


def test_an_object_column_keeps_its_values_and_dtype_and_the_warning_names_it(store, worker):
    frame = pd.DataFrame({"n": [1, 2, 3], "mixed": pd.Series(["a", 2, None], dtype=object)})
    with pytest.warns(mori.ObjectColumnWarning, match=r"'mixed'.*strings=\"arrow\"") as caught:
        shared = mori.share(frame)
    assert caught[0].filename == __file__
    assert_same(shared, frame)
    assert shared["mixed"].dtype == object
    assert [type(value) for value in shared["mixed"]] == [str, int, type(None)]
    assert worker(lambda x: x["mixed"].tolist(), shared) == ["a", 2, None]


def test_an_object_column_of_strings_can_be_shared_as_arrow(store, worker):
    frame = pd.DataFrame({"n": [1, 2, 3], "s": pd.Series(["a", "b", None], dtype=object)})
    frame.attrs = {"kept": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared = mori.share(frame, strings="arrow")
    assert_same(shared, frame.astype({"s": NAN_STRINGS}))
    assert mori.is_shared(shared["s"])
    assert worker(lambda x: x["s"].tolist()[:2], shared) == ["a", "b"]


def test_what_is_no_string_stays_an_object_under_strings_arrow(store):
    series = pd.Series(["a", 1], dtype=object, name="odd")
    with pytest.warns(mori.ObjectColumnWarning, match="'odd'"):
        shared = mori.share(series, strings="arrow")
    assert_same(shared, series)


def test_an_unknown_way_for_strings_is_refused(store):
    with pytest.raises(ValueError, match="'utf8'"):
        mori.share(pd.DataFrame(), strings="utf8")


def test_a_part_that_does_not_pickle_is_named_by_its_column(store):
    frame = pd.DataFrame({"a": [1], "bad": pd.Series([threading.Lock()], dtype=object)})
    with (
        pytest.warns(mori.ObjectColumnWarning, match=r"'bad' of obj\['deep'\]"),
        pytest.raises(mori.NotShareableError, match=r"obj\['deep'\]\['bad'\]") as caught,
    ):
        mori.share({"deep": frame})
    assert caught.value.path == "obj['deep']['bad']"


def test_a_part_that_does_not_pickle_is_among_the_columns_that_are_named(store):
    frame = pd.DataFrame([["x", threading.Lock()]], columns=["fine", "bad"], dtype=object)
    with pytest.warns(mori.ObjectColumnWarning), pytest.raises(mori.NotShareableError) as caught:
        mori.share(frame)
    assert caught.value.path == "obj[['fine', 'bad']]"
