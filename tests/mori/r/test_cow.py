"""What R's mori states in test-cow.R: writes are local."""

import pickle

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori

VECTORS = {
    "floats": (np.arange(100.0), -1.5),
    "ints": (np.arange(100), -7),
    "bools": (np.arange(100) % 3 == 0, False),
    "raw": (np.arange(100, dtype="u1"), 255),
    "complex": (np.arange(100) * 1j, 3 - 2j),
    "strings": (np.array([f"s{i}" for i in range(100)]), "new"),
}


# R: 42, 43, 47, 48, 49, 50
@pytest.mark.parametrize("kind", VECTORS)
def test_a_write_to_a_mapped_vector_changes_this_copy_alone(store, there, kind):
    plain, value = VECTORS[kind]
    shared = mori.share(plain)

    def write(mapped):
        mapped[0] = value
        again = mori.map_shared(name)
        return mapped[0], again[0], mori.is_shared(mapped), mori.is_shared(again)

    name = mori.shared_name(shared)
    assert there(write, shared) == (value, plain[0], False, True)
    np.testing.assert_array_equal(shared, plain)


# R: 43
def test_a_write_to_a_mapped_list_of_strings_changes_this_copy_alone(store, there):
    words = [f"word {i}" for i in range(100)]
    shared = mori.share(words)

    def write(mapped):
        mapped[3] = "other"
        return mapped[3], list(mapped)[4], mori.is_shared(mapped)

    assert there(write, shared) == ("other", "word 4", False)
    assert shared == words


# R: 44
def test_reductions_after_a_write_use_the_private_copy(store):
    array, series = mori.share(np.arange(10.0)), mori.share(pd.Series(np.arange(10.0)))
    array[0] = series.iloc[0] = 100.0
    for written in (array, series):
        assert (written.sum(), written.max(), written.min()) == (145.0, 100.0, 1.0)


# R: 45
def test_labels_shape_and_categories_stay_after_a_write(store):
    series = mori.share(pd.Series([1.0, 2.0], index=["a", "b"], name="n"))
    matrix = mori.share(np.arange(6).reshape(2, 3))
    factor = mori.share(pd.Series(pd.Categorical(["x", "y"], categories=["y", "x"])))
    series["a"], matrix[0, 0], factor[0] = 9.0, 9, "y"
    pdt.assert_series_equal(mori.materialize(series), pd.Series([9.0, 2.0], index=["a", "b"], name="n"))
    assert matrix.shape == (2, 3)
    assert factor.cat.categories.tolist() == ["y", "x"]
    assert factor.tolist() == ["y", "y"]


# R: 46
def test_what_was_written_to_pickles_with_its_labels_and_its_new_values(store, worker):
    series = mori.share(pd.Series(np.arange(100.0), index=[f"k{i}" for i in range(100)], name="n"))
    series["k3"] = -1.0
    assert len(pickle.dumps(series)) > series.nbytes
    arrived = worker(mori.materialize, series)
    expected = pd.Series(np.arange(100.0), index=[f"k{i}" for i in range(100)], name="n")
    expected["k3"] = -1.0
    pdt.assert_series_equal(arrived, expected)
