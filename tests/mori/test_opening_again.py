"""What is open already is opened again without reading its node, and pickled again without looking for it.

Each opening stays its holder's own.
"""

import gc
import pickle
import sys
import threading

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from mori.format.node import Node
from mori.memory import mapping as mappings
from tests.mori.pandas_versions import NAN_STRINGS


def frame():
    return pd.DataFrame(
        {
            "f": np.arange(6.0),
            "i": np.arange(6),
            "b": np.arange(6) % 2 == 0,
            "s": pd.array(list("uvwxyz"), NAN_STRINGS),
            "c": pd.Categorical(list("aabbcc")),
            "n": pd.array([1, 2, None, 4, 5, 6], "Int64"),
            "t": pd.date_range("2024", periods=6, tz="UTC"),
            "r": pd.arrays.IntervalArray.from_breaks(range(7)),
            "p": pd.array(pd.period_range("2024", periods=6, freq="D")),
            "z": pd.arrays.SparseArray([0, 0, 1, 0, 0, 2]),
            "a": pd.array(range(6), "int64[pyarrow]"),
        },
        index=pd.Index([10, 20, 30, 40, 50, 60], name="key"),
    )


def indexed(index):
    return pd.DataFrame({"x": np.arange(4.0)}, index=index)


INDEXES = {
    "range": pd.RangeIndex(4, name="n"),
    "strings": pd.Index(list("abcd"), dtype=NAN_STRINGS),
    "objects": pd.Index(list("abcd"), dtype=object),
    "levels": pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["u", "v"]),
    "times": pd.date_range("2024", periods=4, freq="D"),
    "categories": pd.CategoricalIndex(list("aabb")),
    "intervals": pd.IntervalIndex.from_breaks(range(5)),
    "periods": pd.period_range("2024", periods=4, freq="h"),
}
OBJECTS = {
    "array": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "structured": np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "dates": np.arange("2024-01", "2024-05", dtype="M8[D]"),
    "empty": np.empty((0, 3)),
    "scalar": np.array(3.5),
    "frame": frame(),
    "series": pd.Series(np.arange(4.0), name="s"),
    "strings": pd.Series(list("abcd"), dtype=NAN_STRINGS, name=("s", 1)),
    **{f"frame over {name}": indexed(index) for name, index in INDEXES.items()},
}


def nodes_read(call):
    """Call something and return what it returns, and how many nodes were read for it."""
    read = 0

    def look(frame, event, arg):
        nonlocal read
        read += event == "call" and frame.f_code is Node.__init__.__code__

    sys.setprofile(look)
    try:
        result = call()
    finally:
        sys.setprofile(None)
    return result, read


def assert_same(left, right):
    if isinstance(right, np.ndarray):
        assert left.dtype == right.dtype
        assert left.flags.f_contiguous == right.flags.f_contiguous
        np.testing.assert_array_equal(np.asarray(left), right)
    elif isinstance(right, pd.DataFrame):
        pdt.assert_frame_equal(left, right, check_freq=True)
    else:
        pdt.assert_series_equal(left, right, check_series_type=False)


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_second_opening_is_equal_and_a_reference_again(store, kind):
    plain = OBJECTS[kind]
    shared = mori.share(plain)
    payload = pickle.dumps(shared)
    opened = [pickle.loads(payload) for _ in range(3)]
    for one in opened:
        assert type(one) is type(shared)
        assert_same(one, plain)
        assert mori.shared_name(one) == mori.shared_name(shared)
        assert pickle.dumps(one) == payload
    assert len({id(one) for one in opened}) == 3


@pytest.mark.parametrize("first", ["share", "map_shared", "unpickled"])
@pytest.mark.parametrize("kind", ["array", "fortran", "dates", "frame", "series", "strings"])
def test_what_one_way_has_opened_the_others_open_without_reading_a_node(store, kind, first):
    shared = mori.share(OBJECTS[kind])
    payload, name = pickle.dumps(shared), mori.shared_name(shared)
    kept = shared
    if first != "share":
        kept = mori.map_shared(name) if first == "map_shared" else pickle.loads(payload)
        del shared
    for _ in range(2):
        one, read = nodes_read(lambda: pickle.loads(payload))
        assert read == 0
        assert_same(one, OBJECTS[kind])
        del one
    other = mori.map_shared(name)
    assert other is not kept
    assert_same(other, OBJECTS[kind])


WRITES = {
    "a float": lambda f: f.__setitem__("f", f["f"] * 2),
    "a cell": lambda f: f.__setitem__(("f"), 0.0) or f.iloc.__setitem__((0, 0), 99.0),
    "a cell of strings": lambda f: f.iloc.__setitem__((0, 3), "new"),
    "a nullable cell": lambda f: f.iloc.__setitem__((2, 5), 3),
    "a category": lambda f: f.iloc.__setitem__((0, 4), "c"),
    "a date": lambda f: f.iloc.__setitem__((0, 6), pd.Timestamp("2030", tz="UTC")),
    "a new column": lambda f: f.insert(0, "new", 1),
    "a column less": lambda f: f.drop(columns="i", inplace=True),
    "rows less": lambda f: f.drop(index=[10, 20], inplace=True),
    "the name of the index": lambda f: setattr(f.index, "name", "other"),
    "the name of the columns": lambda f: setattr(f.columns, "name", "other"),
    "other columns": lambda f: setattr(f, "columns", list("ABCDEFGHIJK")),
    "an attribute": lambda f: f.attrs["list"].append(2),
    "flags": lambda f: setattr(f.flags, "allows_duplicate_labels", False),
    "sorted in place": lambda f: f.sort_values("f", ascending=False, inplace=True),
    "missing filled": lambda f: f.fillna({"n": 7}, inplace=True),
}


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("written", ["the first opening", "the second opening"])
def test_what_is_written_to_one_opening_is_not_seen_in_another(store, what, written):
    plain = frame()
    plain.attrs["list"] = [1]
    shared = mori.share(plain)  # kept: its descriptor stands in the reference
    payload = pickle.dumps(shared)
    first, second = pickle.loads(payload), pickle.loads(payload)
    pair = (first, second) if written == "the first opening" else (second, first)
    WRITES[what](pair[0])
    third = pickle.loads(payload)
    for untouched in (pair[1], third):
        pdt.assert_frame_equal(untouched, plain)
        assert untouched.index.name == "key"
        assert untouched.columns.name is None
        assert untouched.attrs == {"list": [1]}
        assert untouched.flags.allows_duplicate_labels
        assert pickle.dumps(untouched) == payload
    if what != "flags":
        # Without what is sparse: pandas 2 compares no sparse array in read-only memory.
        changed, rest = pair[0].drop(columns="z", errors="ignore"), plain.drop(columns="z")
        same = changed.equals(rest) and changed.attrs == rest.attrs and changed.index.name == "key"
        assert not (same and changed.columns.name is None)


@pytest.mark.parametrize("column", ["s", "a"])
def test_the_arrays_of_columns_are_each_openings_own(store, column):
    payload = pickle.dumps(mori.share(frame()))
    first, second = pickle.loads(payload), pickle.loads(payload)
    values = first._mgr.blocks
    assert not {id(block) for block in values} & {id(block) for block in second._mgr.blocks}
    mine, other = first[column].array, second[column].array
    assert mine is not other
    assert mine._pa_array is not None
    mine._pa_array = mine._pa_array.slice(0, 0)  # as a write to it does
    assert len(second[column].array) == len(pickle.loads(payload)[column].array) == 6


def test_a_frequency_that_is_taken_from_one_index_stays_in_another(store):
    plain = indexed(INDEXES["times"])
    payload = pickle.dumps(mori.share(plain))
    first, second = pickle.loads(payload), pickle.loads(payload)
    first.index.freq = None
    assert second.index.freq == plain.index.freq
    assert pickle.loads(payload).index.freq == plain.index.freq


def test_objects_are_each_openings_own(store):
    with pytest.warns(mori.ObjectColumnWarning):
        payload = pickle.dumps(mori.share(pd.DataFrame({"o": [[1], [2]], "x": [1, 2]})))
    first, second = pickle.loads(payload), pickle.loads(payload)
    first["o"].iloc[0].append(3)
    assert second["o"].iloc[0] == [1]
    assert pickle.loads(payload)["o"].iloc[0] == [1]


@pytest.mark.parametrize("how", ["fields", "fields within"])
def test_fields_that_are_renamed_in_one_opening_keep_their_names_in_all_others(store, how):
    plain = np.array([(1, (2.0, 3))], dtype=[("a", "i4"), ("b", [("x", "f8"), ("y", "i2")])])
    shared = mori.share(plain)
    payload = pickle.dumps(shared)
    first, second = pickle.loads(payload), pickle.loads(payload)
    (first.dtype if how == "fields" else first.dtype["b"]).names = ("p", "q")
    for other in (second, shared, pickle.loads(payload), mori.share(plain.copy())):
        assert other.dtype == plain.dtype
        assert other["b"]["y"].tolist() == [3]


def test_an_array_that_became_private_leaves_the_region_to_the_next_opening(store):
    payload = pickle.dumps(mori.share(np.arange(5)))
    first = pickle.loads(payload)
    second = pickle.loads(payload)
    first[0] = 100
    second.sort()
    assert pickle.loads(payload).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["array", "frame", "series"])
def test_what_is_remembered_of_an_opening_keeps_no_region(store, kind):
    shared = mori.share(OBJECTS[kind])
    payload = pickle.dumps(shared)
    name = mori.shared_name(shared)
    opened = [shared, *(pickle.loads(payload) for _ in range(3))]
    assert name in {f"/mori_{one.name.pid:x}_{one.name.number:x}" for one in mappings.live()}
    del shared
    gc.disable()
    try:
        opened.clear()
        assert name not in {f"/mori_{one.name.pid:x}_{one.name.number:x}" for one in mappings.live()}
    finally:
        gc.enable()


def test_threads_that_open_the_same_frame_at_once_have_frames_of_their_own(store):
    plain = frame()
    payload = pickle.dumps(mori.share(plain))
    kept = pickle.loads(payload)
    faults = []

    def work(number):
        try:
            for _ in range(50):
                one = pickle.loads(payload)
                one.iloc[0, 0] = number
                assert one.iat[0, 0] == number
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    pdt.assert_frame_equal(kept, plain)
    pdt.assert_frame_equal(pickle.loads(payload), plain)


def test_pickled_again_an_array_is_found_without_reading_its_node(monkeypatch):
    parts = mori.share([np.arange(5.0), np.arange(3)])
    for array in (mori.share(np.arange(12.0).reshape(3, 4)), parts[1], parts[0]):
        first = pickle.dumps(array, 5)
        with monkeypatch.context() as patch:
            patch.setattr(Node, "__init__", None)
            assert pickle.dumps(array, 5) == first
        opened = pickle.loads(first)
        np.testing.assert_array_equal(opened, array)
        assert mori.shared_name(opened) == mori.shared_name(array)


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.T,
        lambda array: array[:2],
        lambda array: array.reshape(4, 3),
        lambda array: array.view("i8"),
        lambda array: array.view(np.dtype("f8", metadata={"unit": "m"})),
        lambda array: array.view(np.ndarray),
        lambda array: array.view(np.recarray),
    ],
    ids=["transposed", "slice", "reshaped", "other elements", "metadata", "plain", "subclass"],
)
def test_what_starts_where_a_pickled_array_does_stays_what_it_is(change):
    shared = mori.share(np.arange(12.0).reshape(3, 4))
    pickle.dumps(shared, 5)
    wanted = change(np.arange(12.0).reshape(3, 4))
    found = pickle.loads(pickle.dumps(change(shared), 5))
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype
    assert found.dtype.metadata == wanted.dtype.metadata
    assert isinstance(found, np.recarray) == isinstance(wanted, np.recarray)


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
def test_an_array_whose_shape_was_set_in_place_is_pickled_as_it_is():
    shared = mori.share(np.arange(12.0))
    pickle.dumps(shared, 5)
    shared.shape = (3, 4)
    assert pickle.loads(pickle.dumps(shared, 5)).shape == (3, 4)


def test_an_array_that_was_pickled_is_pickled_by_value_where_that_is_said():
    shared = mori.share(np.arange(1000.0))
    assert len(pickle.dumps(shared, 5)) < 200
    with mori.by_value():
        assert len(pickle.dumps(shared, 5)) > 8000
