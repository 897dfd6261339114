"""What R's mori states in test-strings.R: strings, missing ones, and what works on all of them."""

import pickle

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from tests.mori.pandas_versions import NAN_STRINGS

FORMS = {
    "list": list,
    "str series": lambda words: pd.Series(words, dtype=NAN_STRINGS),
    "string series": lambda words: pd.Series(words, dtype="string"),
    "array": np.array,
}
WITH_MISSING = {form: FORMS[form] for form in ("list", "str series", "string series")}


def as_list(x) -> list:
    """Return the strings, None for what is missing."""
    values = x.tolist() if hasattr(x, "tolist") else list(x)
    return [None if pd.isna(value) else value for value in values]


# R: 121, 123, 124, 125, 127
@pytest.mark.parametrize("words", [
    ["alpha", "beta"], ["", "a", ""], [], ["Größe", "naïve", "森", "€", "\N{DEER}"],
], ids=["plain", "empty ones", "none at all", "beyond ascii"])  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_strings_round_trip_by_name_and_are_usable_at_once(store, there, form, words):
    shared = mori.share(FORMS[form](words))
    assert len(shared) == len(words)
    assert as_list(shared) == words
    assert there(as_list, shared) == words


# R: 122, 123
@pytest.mark.parametrize("form", WITH_MISSING)
def test_missing_strings_stay_missing_and_are_not_empty_ones(store, there, form):
    words = ["a", None, "", None, "z"]
    shared = mori.share(WITH_MISSING[form](words))
    assert as_list(shared) == words
    assert there(as_list, shared) == words


# R: 126
@pytest.mark.parametrize("form", FORMS)
def test_ten_thousand_strings_are_all_equal(store, there, form):
    words = [f"string number {i}" for i in range(10_000)]
    shared = mori.share(FORMS[form](words))
    at = shared.iloc if hasattr(shared, "iloc") else shared
    assert (at[0], at[9_999]) == (words[0], words[-1])
    assert there(as_list, shared) == words


# R: 128
def test_a_string_column_of_a_table_round_trips(store, there):
    frame = pd.DataFrame({"n": [1, 2, 3], "s": pd.array(["a", None, ""], dtype=NAN_STRINGS)})
    shared = mori.share(frame)
    assert there(lambda x: as_list(x["s"]), shared) == ["a", None, ""]
    pdt.assert_frame_equal(there(mori.materialize, shared), frame)


# R: 129
def test_strings_in_a_list_round_trip_with_missing_ones(store, there):
    shared = mori.share([["a", None, "c"], np.arange(3)])
    assert there(lambda x: as_list(x[0]), shared) == as_list(shared[0]) == ["a", None, "c"]


# R: 130
def test_labelled_strings_in_a_list_keep_their_labels(store, worker, there):
    labelled = pd.Series(["x", "y"], index=["first", "second"], dtype=NAN_STRINGS)
    shared = mori.share([labelled, 1])
    for ours in (
        shared[0],
        there(lambda x: mori.materialize(x[0]), shared),
        worker(mori.materialize, shared[0]),
    ):
        pdt.assert_series_equal(mori.materialize(ours), labelled)
    assert mori.materialize(pickle.loads(pickle.dumps(shared))[0])["second"] == "y"


# R: 131, 132, 133
@pytest.mark.parametrize("form", FORMS)
def test_uniqueness_duplicates_and_order_work_and_leave_the_strings_alone(store, there, form):
    words = ["b", "a", "c", "a", "b"]

    def look(x):
        column = pd.Series(as_list(x), dtype=NAN_STRINGS)
        order = sorted(range(len(x)), key=as_list(x).__getitem__)
        return (
            [*dict.fromkeys(as_list(x))],
            column.duplicated().tolist(),
            order,
            np.argsort(x, kind="stable").tolist(),
        )

    shared = mori.share(FORMS[form](words))
    expected = ["b", "a", "c"], [False, False, False, True, True], [1, 3, 0, 4, 2], [1, 3, 0, 4, 2]
    assert look(shared) == expected
    assert there(look, shared) == expected
    assert as_list(shared) == words
    assert mori.is_shared(shared)
