"""What R's mori states in test-list.R: lists and tables."""

import numpy as np
import pytest

import mori

pytestmark = pytest.mark.usefixtures("nodes")


# R: 58
def test_a_mixed_list_round_trips(store, there):
    mixed = [np.linspace(0, 1, 10), ["a", "b"], np.arange(3), 1.5, "text"]
    floats, strings, ints, *rest = there(mori.materialize, mori.share(mixed))
    np.testing.assert_array_equal(floats, mixed[0])
    np.testing.assert_array_equal(ints, mixed[2])
    assert strings == ["a", "b"]
    assert rest == [1.5, "text"]


# R: 59
def test_none_is_none_at_the_second_reading_too(store, there):
    shared = mori.share([None, np.arange(3), None])
    for _ in range(2):
        assert shared[0] is None
        assert shared[2] is None
    assert there(lambda x: [x[0], x[2], x[0], x[-1]], shared) == [None] * 4


# R: 62, 63
def test_a_tuple_stays_a_tuple_and_can_be_indexed(store, there):
    pair = (np.arange(1000), "two")
    shared = mori.share(pair)
    assert isinstance(shared, mori.SharedTuple)
    assert shared[1] == "two"
    arrived = there(mori.materialize, shared)
    assert type(arrived) is tuple
    np.testing.assert_array_equal(arrived[0], pair[0])


# R: 64
def test_a_list_in_a_list_of_one_vector_works(store):
    shared = mori.share([[np.arange(5)]])
    assert len(shared) == len(shared[0]) == 1
    assert shared[0][0].tolist() == [0, 1, 2, 3, 4]
