"""What R's mori states in test-serialization.R: references, and what was written to."""

import pickle

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from tests.mori.pandas_versions import NAN_STRINGS

WORDS = [f"word {i}" for i in range(1000)]
LABELLED = pd.Series(np.arange(100.0), index=[f"k{i}" for i in range(100)])
TABLE = pd.DataFrame({
    "factor": pd.Categorical(["hi", "lo", "hi"] * 100, categories=["lo", "hi"]),
    "date": pd.date_range("2024-01-01", periods=300, freq="D"),
    "x": np.linspace(0, 1, 300),
})  # fmt: skip
OBJECTS = {
    "floats": np.arange(1000.0),
    "ints": np.arange(1000),
    "strings": WORDS,
    "table": TABLE[["x"]],
    "matrix": np.arange(600.0).reshape(20, 30),
    "labelled": LABELLED,
    "factor": TABLE["factor"],
    "dates": TABLE["date"],
    "labelled strings": pd.Series(WORDS, index=np.arange(1000) * 2, dtype=NAN_STRINGS),
    "table of all": TABLE,
}


def assert_equal(ours, theirs) -> None:
    if isinstance(theirs, pd.DataFrame):
        pdt.assert_frame_equal(ours, theirs)
    elif isinstance(theirs, pd.Series):
        pdt.assert_series_equal(ours, theirs)
    elif isinstance(theirs, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other) if isinstance(other, list | np.ndarray) else np.testing.assert_equal(
                one, other
            )


# R: 100, 101, 102, 103, 104, 111, 112, 113, 114, 115
@pytest.mark.parametrize("kind", OBJECTS)
def test_what_is_shared_pickles_small_and_arrives_equal(store, worker, kind):
    shared = mori.share(OBJECTS[kind])
    assert len(pickle.dumps(shared)) < 1000
    assert_equal(worker(mori.materialize, shared), OBJECTS[kind])


# R: 105, 110
@pytest.mark.parametrize(
    ("obj", "value"), [(np.arange(100.0), -1.0), (WORDS, "other")], ids=["array", "strings"]
)
def test_what_was_written_to_pickles_whole_with_its_new_values(store, worker, obj, value):
    shared = mori.share(obj)
    shared[0] = value
    assert len(pickle.dumps(shared)) > 8 * 100
    expected = obj.copy()
    expected[0] = value
    assert type(worker(lambda x: x, shared)) is type(obj)
    assert_equal(worker(mori.materialize, shared), expected)


# R: 106, 116
@pytest.mark.parametrize("column", TABLE.columns)
def test_a_column_pickles_small_and_arrives_equal(store, worker, column):
    taken = mori.share(TABLE)[column]
    assert len(pickle.dumps(taken)) < 1000
    assert_equal(worker(mori.materialize, taken), TABLE[column])


# R: 107
def test_strings_in_a_list_pickle_small_and_arrive_equal(store, worker):
    taken = mori.share([np.arange(3), WORDS])[1]
    assert len(pickle.dumps(taken)) < 1000
    assert worker(mori.materialize, taken) == WORDS


# R: 108
def test_an_element_that_was_written_to_pickles_whole(store, worker):
    shared = mori.share([np.arange(100.0), WORDS])
    shared[0][0] = -1.0
    assert len(pickle.dumps(shared[0])) > 800
    assert worker(lambda x: x[:2].tolist(), shared[0]) == [-1.0, 1.0]
    assert worker(lambda x: (x[0][0], mori.is_shared(x[1])), shared) == (-1.0, True)


# R: 109
def test_a_hundred_thousand_doubles_are_under_a_thousand_bytes(store):
    assert len(pickle.dumps(mori.share(np.arange(100_000.0)))) < 1000


# R: 117, 118, 119, 120
@pytest.mark.parametrize(
    "leaf",
    [np.arange(100.0), WORDS, "/mori_1_1", [np.arange(100.0)]],
    ids=["array", "strings", "text", "list"],
)
def test_what_lies_too_deep_for_a_name_arrives_equal_all_the_same(store, worker, leaf):
    deep = leaf
    for _ in range(66):
        deep = [deep]
    part = mori.share(deep)
    for _ in range(66):
        part = part[0]
    assert mori.shared_name(part) is None
    assert_equal(worker(mori.materialize, part), leaf)
