"""What R's mori states in test-serialization.R: references, and what was written to."""

import pickle

import numpy as np
import pytest

import mori

WORDS = [f"word {i}" for i in range(1000)]


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
    np.testing.assert_equal(worker(mori.materialize, part), leaf)
