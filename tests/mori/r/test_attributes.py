"""What R's mori states in test-attributes.R: names, classes, levels and zones survive."""

import pickle

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from tests.mori.pandas_versions import NAN_STRINGS

LABELS = ["a", "b", "c"]
FACTOR = pd.Series(pd.Categorical(["hi", "lo", "hi"], categories=["lo", "mid", "hi"], ordered=True))
DATES = pd.Series(np.array(["2024-01-01", "2024-02-29", "NaT"], "M8[s]"))
ZONED = pd.Series(pd.date_range("2024-03-30 23:30", periods=3, freq="h", tz="Europe/Berlin"))
SERIES = {
    "labelled floats": pd.Series([1.5, 2.5, 3.5], index=LABELS),
    "labelled ints": pd.Series([1, 2, 3], index=LABELS),
    "factor": FACTOR,
    "dates": DATES,
    "times with a zone": ZONED,
    "labelled strings": pd.Series(["x", "y", "z"], index=LABELS, dtype=NAN_STRINGS),
}


# R: 25, 26, 27, 29, 30, 33, 34
@pytest.mark.parametrize("kind", SERIES)
def test_labels_levels_and_zones_survive_sharing_mapping_and_pickling(store, worker, there, kind):
    plain = SERIES[kind]
    shared = mori.share(plain)
    by_name = there(mori.materialize, shared)
    for ours in (mori.materialize(shared), by_name, mori.materialize(pickle.loads(pickle.dumps(shared)))):
        pdt.assert_series_equal(ours, plain)
        pdt.assert_index_equal(ours.index, plain.index)
        assert ours.dtype == plain.dtype
    assert worker(lambda x: str(x.dtype), shared) == str(plain.dtype)


# R: 28
@pytest.mark.parametrize("dtype", ["M8[D]", "M8[s]", "M8[ns]"])
def test_dates_keep_their_unit_and_values(store, there, dtype):
    dates = np.array(["2024-01-01", "1969-12-31", "NaT"], dtype)
    shared = mori.share(dates)
    assert shared.dtype == dates.dtype
    np.testing.assert_array_equal(there(np.array, shared), dates)
    pdt.assert_series_equal(mori.materialize(mori.share(DATES)), DATES)


# R: 31, 32
@pytest.mark.parametrize("column", [FACTOR, DATES], ids=["factor", "dates"])
def test_a_column_keeps_its_class_and_the_others_stay_as_they_are(store, there, column):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "special": column, "n": [3, 2, 1]})
    shared = mori.share(frame)
    pdt.assert_frame_equal(mori.materialize(shared), frame)
    pdt.assert_frame_equal(there(mori.materialize, shared), frame)
