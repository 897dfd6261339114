"""What R's mori states in test-nested.R: lists in lists."""

import enum
import fractions
import gc
import pickle

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from tests.mori.pandas_versions import NAN_STRINGS

pytestmark = pytest.mark.usefixtures("nodes")

WORDS = [f"word {i}" for i in range(500)]
NUMBERS = np.arange(1000.0)


class Named(list):
    """A user's own class of lists."""


class Colour(enum.Enum):
    RED = 1


def tree():
    return [[NUMBERS, WORDS], 7]


# R: 65
def test_a_nested_list_round_trips_by_name(store, there):
    (numbers, words), seven = there(mori.materialize, mori.share(tree()))
    np.testing.assert_array_equal(numbers, NUMBERS)
    assert words == WORDS
    assert seven == 7


# R: 66, 77
def test_an_inner_list_and_its_leaves_are_shared_and_lazy_on_the_mapped_side(store, there):
    def look(x):
        return isinstance(x[0], mori.SharedList), [*map(mori.is_shared, (x, x[0], x[0][0], x[0][1]))]

    shared = mori.share(tree())
    assert look(shared) == (True, [True] * 4)
    assert there(look, shared) == (True, [True] * 4)


# R: 67
def test_a_table_with_a_column_of_lists_round_trips_cell_by_cell(store, there):
    frame = pd.DataFrame({"n": [1, 2, 3], "cells": [[1, 2], ["a"], []]})
    with pytest.warns(mori.ObjectColumnWarning, match="cells"):
        shared = mori.share(frame)
    for ours in (shared["cells"].tolist(), there(lambda x: x["cells"].tolist(), shared)):
        assert ours == [[1, 2], ["a"], []]
        assert [*map(type, ours)] == [list] * 3


# R: 68
def test_a_list_of_lists_of_tables_keeps_the_tables(store, there):
    frames = [pd.DataFrame({"a": [i, i + 1], "s": pd.array(["x", "y"], NAN_STRINGS)}) for i in range(3)]
    shared = mori.share([frames[:2], frames[2:]])
    assert there(lambda x: isinstance(x[0][1], pd.DataFrame), shared)
    for part, plain in zip([shared[0][0], shared[0][1], shared[1][0]], frames, strict=True):
        pdt.assert_frame_equal(there(mori.materialize, part), plain)


# R: 69
def test_the_names_of_a_sub_list_are_the_keys_of_a_dict(store, there):
    shared = mori.share([{"first": NUMBERS, "second": WORDS}])
    assert [*shared[0]] == there(lambda x: [*x[0]], shared) == ["first", "second"]


# R: 70
def test_a_users_own_class_survives_inside_a_list(store, there):
    shared = mori.share([Named([1, 2]), fractions.Fraction(1, 3), Colour.RED])
    assert type(shared[0]) is Named
    assert shared[0] == [1, 2]
    assert there(lambda x: (type(x[0]).__name__, [*x[0]], x[1], x[2].name), shared) == (
        "Named",
        [1, 2],
        fractions.Fraction(1, 3),
        "RED",
    )


# R: 71
def test_a_factor_inside_a_sub_list_survives(store, there):
    factor = pd.Series(pd.Categorical(["hi", "lo"], categories=["lo", "hi"], ordered=True))
    pdt.assert_series_equal(
        there(lambda x: mori.materialize(x[0][1]), mori.share([[NUMBERS, factor]])), factor
    )


# R: 72, 73
def test_empty_lists_and_nones_survive_in_sub_lists(store, there):
    shared = mori.share([[], [None, NUMBERS, None], {}, ()])
    for empty in (shared[0], shared[2], shared[3]):
        assert len(empty) == 0
    assert there(lambda x: [len(x[0]), x[1][0], x[1][2], len(x[1])], shared) == [0, None, None, 3]


# R: 74, 75, 81, 83, 84
@pytest.mark.parametrize("part", [
    lambda x: x[0], lambda x: x[0][0], lambda x: x[0][1], lambda x: x[2][0], lambda x: x[2][0][0],
], ids=["sub-list", "leaf", "strings", "sub-list at depth 2", "leaf at depth 3"])  # fmt: skip
def test_a_part_pickles_small_and_comes_back_shared_and_equal(store, worker, part):
    shared = mori.share([*tree(), [[NUMBERS, [WORDS]]]])
    taken = part(shared)
    data = pickle.dumps(taken)
    assert len(data) < 1000
    assert worker(lambda data: mori.is_shared(pickle.loads(data)), data)
    expected, arrived = mori.materialize(taken), worker(mori.materialize, taken)
    assert type(arrived) is type(expected)
    assert pickle.dumps(arrived) == pickle.dumps(expected)


# R: 76
def test_a_write_below_a_sub_list_leaves_the_region_alone(store, there):
    shared = mori.share(tree())
    name = mori.shared_name(shared)

    def write(x):
        x[0][0][0] = -1.0
        x[0][1][0] = "other"
        return x[0][0][0], x[0][1][0], [*map(mori.is_shared, (x, x[0]))]

    assert there(write, shared) == (-1.0, "other", [False, False])
    fresh = mori.map_shared(name)
    assert (fresh[0][0][0], fresh[0][1][0]) == (0.0, "word 0")


# R: 78
def test_a_sub_list_is_0_and_its_leaf_0_0(store):
    shared = mori.share(tree())
    name = mori.shared_name(shared)
    assert (mori.shared_name(shared[0]), mori.shared_name(shared[0][0])) == (f"{name}[0]", f"{name}[0,0]")


# R: 79
def test_three_levels_round_trip_with_the_middle_still_shared(store, there):
    shared = mori.share([[[NUMBERS]]])
    assert there(lambda x: (mori.is_shared(x[0]), mori.is_shared(x[0][0]), x[0][0][0].sum()), shared) == (
        True,
        True,
        NUMBERS.sum(),
    )


# R: 80, 86
@pytest.mark.parametrize(
    "part", [lambda x: x[0], lambda x: x[0][0], lambda x: x[0][1]], ids=["list", "leaf", "str"]
)
def test_a_part_alone_keeps_the_region_and_its_name_alive(store, there, part):
    shared = mori.share(tree())
    taken = part(shared)
    name, expected = mori.shared_name(taken), mori.materialize(taken)
    del shared
    gc.collect()
    assert mori.shared_name(taken) == name
    assert pickle.dumps(there(mori.materialize, taken)) == pickle.dumps(expected)
    del taken
    gc.collect()
    with pytest.raises(mori.RegionNotFoundError):
        mori.map_shared(name)


# R: 82
def test_a_tuple_nested_in_a_list_is_read_as_a_tuple_on_both_sides(store, there):
    shared = mori.share([(1, "two", NUMBERS), 3])
    assert shared[0][1] == "two"
    assert there(lambda x: (x[0][0], x[0][1], x[0][2][5], hasattr(x[0], "append")), shared) == (
        1,
        "two",
        5,
        False,
    )


# R: 85
@pytest.mark.parametrize("part", [lambda x: x[0], lambda x: x[0][0]], ids=["sub-list", "leaf"])
def test_a_received_part_is_passed_on_and_received_again(store, worker, third, part):
    taken = part(mori.share(tree()))
    again = worker(pickle.dumps, taken)
    assert len(again) < 1000

    def look(data):
        arrived = pickle.loads(data)
        return mori.shared_name(arrived), mori.is_shared(arrived)

    assert third(look, again) == (mori.shared_name(taken), True)
