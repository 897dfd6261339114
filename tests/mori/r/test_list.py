"""What R's mori states in test-list.R: lists and tables."""

import numpy as np
import pandas as pd
import pandas.testing as pdt

import mori

FRAME = pd.DataFrame({"x": [1.5, 2.5, 3.5], "n": [1, 2, 3], "b": [True, False, True]})


# R: 57
def test_a_table_round_trips_by_name(store, there):
    shared = mori.share(FRAME)
    assert there(lambda x: isinstance(x, pd.DataFrame), shared)
    assert there(lambda x: (x.shape, [*x.columns]), shared) == ((3, 3), ["x", "n", "b"])
    pdt.assert_frame_equal(there(mori.materialize, shared), FRAME)


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


# R: 60
def test_a_changed_column_makes_the_table_private_and_leaves_the_region_alone(store, there):
    shared = mori.share(FRAME)
    name = mori.shared_name(shared)

    def assign(mapped):
        mapped["x"] = [9.0, 9.0, 9.0]
        return mori.is_shared(mapped), mori.is_shared(mapped["n"]), mori.materialize(mapped)

    is_shared, untouched, written = there(assign, shared)
    assert not is_shared
    assert untouched
    pdt.assert_frame_equal(written, FRAME.assign(x=9.0))
    pdt.assert_frame_equal(mori.materialize(mori.map_shared(name)), FRAME)


# R: 61
def test_what_share_returns_is_a_table_to_work_with(store):
    shared = mori.share(FRAME)
    assert isinstance(shared, pd.DataFrame)
    assert shared["n"].sum() == 6
    assert shared[shared["b"]]["x"].tolist() == [1.5, 3.5]


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
