"""What R's mori states in test-api.R: the functions, names and paths."""

import numpy as np
import pandas as pd
import pytest

import mori
from tests.mori.pandas_versions import NAN_STRINGS

pytestmark = [pytest.mark.each_store, pytest.mark.each_start, pytest.mark.usefixtures("nodes")]

WORDS = [f"word {i}" for i in range(500)]
NUMBERS = np.arange(1000.0)
FRAME = pd.DataFrame({"x": np.arange(5), "y": np.linspace(0, 1, 5)})


def tree():
    return [NUMBERS, [NUMBERS + 1, WORDS], FRAME]


def parts(shared) -> list:
    """Return root, numeric leaf, sub-list, and the numeric and the string leaf in that."""
    return [shared, shared[0], shared[1], shared[1][0], shared[1][1]]


def deep(leaf, levels: int):
    for _ in range(levels):
        leaf = [leaf]
    return leaf


def at_depth(shared, levels: int):
    for _ in range(levels):
        shared = shared[0]
    return shared


# R: 1, 3
@pytest.mark.parametrize(
    "obj", [NUMBERS, FRAME, WORDS, pd.Series(WORDS, dtype=NAN_STRINGS), FRAME["x"]], ids=type
)
def test_the_name_is_a_string_and_opens_an_equal_object(store, there, obj):
    shared = mori.share(obj)
    name = mori.shared_name(shared)
    assert isinstance(name, str)
    assert name
    for ours in (mori.map_shared(name), there(mori.materialize, shared)):
        assert len(ours) == len(obj)
        assert np.all(np.asarray(ours) == np.asarray(obj))


# R: 2
def test_is_shared_tells_the_shared_from_the_plain(store):
    for obj in (NUMBERS, FRAME, WORDS):
        assert mori.is_shared(mori.share(obj))
        assert not mori.is_shared(obj)
    for obj in (None, "text", [NUMBERS]):
        assert not mori.is_shared(obj)


# R: 4, 6
def test_what_is_not_shared_has_no_name_and_none_opens_as_none(store):
    name = mori.shared_name(shared := mori.share(NUMBERS))
    for obj in (NUMBERS, FRAME, WORDS, None, "", "text", name, 3, [shared]):
        assert mori.shared_name(obj) is None
        assert mori.map_shared(mori.shared_name(obj)) is None


# R: 5
@pytest.mark.parametrize("name", ["", "junk", None, np.nan, [], ["/mori_1_1", "/mori_1_2"], 42, {"a": 1}])
def test_what_is_no_name_opens_as_none(name):
    assert mori.map_shared(name) is None


# R: 7, 20
@pytest.mark.parametrize("path", ["", "[0]", "[1,2]"])
def test_a_well_formed_name_whose_region_is_not_there_is_an_error(store, path):
    with pytest.raises(mori.RegionNotFoundError, match="not found"):
        mori.map_shared(f"/mori_7fffffff_1{path}")


# R: 8, 9
def test_root_sub_lists_and_leaves_are_shared_on_both_sides(store, there):
    shared = mori.share(tree())
    assert [mori.is_shared(part) for part in parts(shared)] == [True] * 5
    assert there(lambda x: [mori.is_shared(part) for part in parts(x)], shared) == [True] * 5


# R: 10, 13
def test_a_part_is_named_by_its_path_counted_from_0_on_both_sides(store, there):
    shared = mori.share(tree())
    root = mori.shared_name(shared)
    expected = [root, f"{root}[0]", f"{root}[1]", f"{root}[1,0]", f"{root}[1,1]"]
    assert [mori.shared_name(part) for part in parts(shared)] == expected
    assert there(lambda x: [mori.shared_name(part) for part in parts(x)], shared) == expected
    assert {name.partition("[")[0] for name in expected} == {root}


# R: 11, 12
def test_the_name_of_a_part_opens_that_part(store, there):
    shared = mori.share(tree())
    assert there(lambda x: x[1][:3], shared[1]) == WORDS[:3]
    assert there(lambda x: float(x[0][5]), shared[1]) == 6.0
    assert there(lambda x: x[7], shared[1][1]) == "word 7"
    for part in parts(shared):
        opened = mori.map_shared(mori.shared_name(part))
        assert type(opened) is type(part)
        assert mori.shared_name(opened) == mori.shared_name(part)
    np.testing.assert_array_equal(there(np.array, shared[1][0]), NUMBERS + 1)
    assert there(list, shared[1][1]) == WORDS


# R: 14
def test_paths_go_four_levels_deep(store, there):
    leaf = at_depth(mori.share(deep(NUMBERS, 4)), 4)
    assert mori.shared_name(leaf).endswith("[0,0,0,0]")
    np.testing.assert_array_equal(there(np.array, leaf), NUMBERS)


# R: 15
@pytest.mark.parametrize("name", [
    "/other_4d1b_1", "/mori_4d1b", "/mori_4d1b_", "/mori__1", "/mori_xyz_1", "/mori_4D1B_1", "/mori-4d1b-1",
    "/mori_4d1b/1",
])  # fmt: skip
def test_a_name_that_misses_the_grammar_opens_as_none(name):
    assert mori.map_shared(name) is None


# R: 16
@pytest.mark.parametrize("path", [
    "[]", "[-1]", "[,1]", "[1,]", "[1,,2]", "[a]", "[01]", "[2147483648]", "[ 1]", "[1 ]", "[1]x", "[1",
    "[1.5]", "[" + ",".join("1" * 65) + "]",
])  # fmt: skip
def test_a_path_that_misses_the_grammar_opens_as_none(store, path):
    root = mori.shared_name(shared := mori.share(tree()))
    assert mori.map_shared(root + path) is None
    assert mori.map_shared(f"{root}[0]") is not None  # 0 is where a path begins here
    del shared


# R: 17, 18
@pytest.mark.parametrize("path", ["[3]", "[1,2]", "[9,0]", "[1,9,0]"])
def test_an_index_past_the_end_is_an_error(store, path):
    root = mori.shared_name(shared := mori.share(tree()))
    with pytest.raises(mori.PartNotFoundError, match="out of bounds"):
        mori.map_shared(root + path)
    del shared


# R: 19
@pytest.mark.parametrize("path", ["[0,0]", "[1,0,0]"])
def test_a_path_into_what_is_no_container_is_an_error(store, path):
    root = mori.shared_name(shared := mori.share(tree()))
    with pytest.raises(mori.PartNotFoundError, match="not a container"):
        mori.map_shared(root + path)
    del shared


# R: 21
def test_sharing_what_is_shared_gives_that_very_thing(store):
    shared = mori.share(tree())
    mapped = mori.map_shared(mori.shared_name(shared))
    for thing in (
        *parts(shared),
        mapped,
        mapped[1],
        mori.share(NUMBERS),
        mori.share(WORDS),
        mori.share(FRAME),
    ):
        name = mori.shared_name(thing)
        assert mori.share(thing) is thing
        assert mori.shared_name(thing) == name


# R: 22
def test_what_was_written_to_is_shared_no_more_and_has_no_name(store):
    array, words = mori.share(NUMBERS), mori.share(WORDS)
    array[0], words[0] = -1.0, "other"
    for written in (array, words):
        assert not mori.is_shared(written)
        assert mori.shared_name(written) is None


# R: 23
@pytest.mark.parametrize("leaf", [NUMBERS, WORDS, [NUMBERS]], ids=["array", "strings", "list"])
def test_what_lies_deeper_than_64_levels_is_shared_and_has_no_name(store, leaf):
    shared = mori.share(deep(leaf, 65))
    assert mori.shared_name(at_depth(shared, 64)) is not None
    part = at_depth(shared, 65)
    assert mori.is_shared(part)
    assert mori.shared_name(part) is None


# R: 24
def test_a_lazy_object_of_the_language_is_not_taken_for_a_shared_one():
    for lazy in (range(5), (i for i in range(5)), memoryview(b"abc"), pd.RangeIndex(5)):
        assert not mori.is_shared(lazy)
        assert mori.shared_name(lazy) is None
