"""A write to a frame, or to a container, is local to it, copies what it touches, and is never lost."""

import operator
import pickle

import numpy as np
import pandas as pd
import pandas.testing as pdt
import psutil
import pytest

import mori
from tests.mori.pandas_versions import NAN_STRINGS


def base() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i": np.arange(8),
            "f": np.arange(8) / 2,
            "g": [1.5, None, 2, 3, 4, 5, 6, 7],
            "s": pd.array(["a", None, *"cdefgh"], dtype=NAN_STRINGS),
            "c": pd.Categorical(["x", "y"] * 4),
            "n": pd.array([1, None] * 4, dtype="Int64"),
            "t": pd.date_range("2024", periods=8, freq="D"),
        }
    )


FRAME_WRITES = {
    "loc": lambda x: x.loc.__setitem__((0, "f"), 9.5),
    "iloc": lambda x: x.iloc.__setitem__((2, 1), 9.5),
    "at": lambda x: x.at.__setitem__((1, "i"), 9),
    "iat": lambda x: x.iat.__setitem__((1, 0), 9),
    "row": lambda x: x.loc.__setitem__((slice(2, 4), ["f", "g"]), 0.5),
    "mask": lambda x: x.loc.__setitem__((x["i"] > 3, "f"), -1),
    "column": lambda x: x.__setitem__("f", 1),
    "new column": lambda x: x.__setitem__("new", x["f"] * 2),
    "column of strings": lambda x: x.loc.__setitem__((3, "s"), "new"),
    "categories": lambda x: x.loc.__setitem__((0, "c"), "y"),
    "nullable": lambda x: x.loc.__setitem__((1, "n"), 5),
    "times": lambda x: x.loc.__setitem__((1, "t"), pd.Timestamp("2030-01-01")),
    "column +=": lambda x: x.__setitem__("f", x["f"].__iadd__(1)),
    "frame +=": lambda x: x[["i", "f"]].__iadd__(1),
    "fillna": lambda x: x.fillna({"g": 0.0}, inplace=True),
    "replace": lambda x: x.replace({"i": {3: 300}}, inplace=True),
    "drop": lambda x: x.drop(columns="g", inplace=True),
    "insert": lambda x: x.insert(0, "first", 1),
    "pop": lambda x: x.pop("f"),
    "del": lambda x: x.__delitem__("i"),
    "sort": lambda x: x.sort_values("f", ascending=False, inplace=True),
    "rename": lambda x: x.rename(columns={"i": "I"}, inplace=True),
    "columns": lambda x: setattr(x, "columns", list("abcdefg")),
    "index": lambda x: setattr(x, "index", x["s"].fillna("z")),
    "index name": lambda x: setattr(x.index, "name", "rows"),
    "columns name": lambda x: setattr(x.columns, "name", "cols"),
    "attrs": lambda x: x.attrs.update(a=1),
    "flags": lambda x: setattr(x.flags, "allows_duplicate_labels", False),
    "set_index": lambda x: x.set_index("i", inplace=True),
    "reset_index": lambda x: x.reset_index(inplace=True),
    "enlarge": lambda x: x.loc.__setitem__((99, "i"), 1),
    "column += in place": lambda x: operator.setitem(x, "i", operator.iadd(x["i"], 1)),
    "all rows of one column": lambda x: x.loc.__setitem__((slice(None), "i"), 7),
    "all columns": lambda x: x.iloc.__setitem__((1, slice(None)), x.iloc[0].tolist()),
    "two columns": lambda x: x.__setitem__(["i", "f"], 0),
    "mask of a frame": lambda x: x.__setitem__(x == 3, 5),
    "isetitem": lambda x: x.isetitem(1, np.zeros(8)),
    "attribute": lambda x: setattr(x, "f", 2.5),
    "update": lambda x: x.update(pd.DataFrame({"f": [100.0, None]})),
    "eval": lambda x: x.eval("h = i + f", inplace=True),
    "eval of a column": lambda x: x.eval("i = i * 2", inplace=True),
    "interpolate": lambda x: x.__setitem__("g", x["g"].interpolate()),
    "drop rows": lambda x: x.drop(index=[1, 2], inplace=True),
    "dropna": lambda x: x.dropna(inplace=True),
    "drop_duplicates": lambda x: x.drop_duplicates("c", inplace=True),
    "sort_index": lambda x: x.sort_index(ascending=False, inplace=True),
    "rename_axis": lambda x: x.rename_axis("rows", inplace=True),
    "query": lambda x: x.query("i > 3", inplace=True),
    "where": lambda x: x["f"].where(x["f"] > 1, 0, inplace=True),
}


# R: 60
@pytest.mark.filterwarnings("ignore::pandas.errors.ChainedAssignmentError")
@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.filterwarnings("ignore:A value is trying to be set on a copy:FutureWarning")
@pytest.mark.parametrize("how", FRAME_WRITES)
def test_a_write_to_a_frame_is_what_travels_and_changes_no_other(store, worker, how):
    plain, expected = base(), base()
    shared = mori.share(plain)
    name, other = mori.shared_name(shared), pickle.loads(pickle.dumps(shared))
    FRAME_WRITES[how](shared)
    FRAME_WRITES[how](expected)
    for made in (
        shared,
        pickle.loads(pickle.dumps(shared)),
        worker(lambda x: x, shared),
        mori.materialize(shared),
    ):
        pdt.assert_frame_equal(made, expected)
        assert made.attrs == expected.attrs
        assert made.flags == expected.flags
    for untouched in (other, mori.map_shared(name)):
        pdt.assert_frame_equal(untouched, plain)
        assert untouched.attrs == {}


TAKEN = {
    **{f"column {name}": operator.itemgetter(name) for name in "ifsctn"},
    "head": lambda x: x.head(4),
    "rows": lambda x: x.iloc[2:6],
    "columns": lambda x: x[["f", "i"]],
    "column by loc": lambda x: x.loc[:, "f"],
    "row": lambda x: x.iloc[3],
}


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
def test_what_was_taken_from_a_frame_that_is_gone_may_be_written_to(store, take):
    shared = mori.share(base())
    name, keep = mori.shared_name(shared), pickle.loads(pickle.dumps(shared))
    taken, expected = take(shared), take(base())
    del shared
    for one in (taken, expected):
        one.iloc[1] = one.iloc[0]
    assert taken.equals(expected)
    pdt.assert_frame_equal(keep, base())
    pdt.assert_frame_equal(mori.map_shared(name), base())


def test_a_series_may_be_written_to(store, worker):
    shared = mori.share(pd.Series([1.0, 2, None], name="s"))
    other = pickle.loads(pickle.dumps(shared))
    shared.fillna(0, inplace=True)
    shared[0] = 9
    shared += 1
    assert shared.tolist() == [10, 3, 1]
    assert worker(lambda x: x.tolist(), shared) == [10, 3, 1]
    assert other[0] == 1


def test_a_write_copies_the_touched_column_and_no_other():
    count, size = 50, 100_000
    frame = pd.DataFrame({f"c{i}": np.arange(size) + i for i in range(count)})
    shared = mori.share(frame)
    column = size * 8
    before = psutil.Process().memory_full_info().uss
    shared.loc[3, "c7"] = -1
    grown = psutil.Process().memory_full_info().uss - before
    assert grown < 3 * column
    assert (shared["c7"][3], shared["c8"][3]) == (-1, 11)
    assert mori.is_shared(shared["c8"])
    assert not mori.is_shared(shared["c7"])


def test_untouched_columns_of_a_written_frame_still_travel_as_references(store, worker):
    size = 10_000
    frame = pd.DataFrame(
        {"a": np.arange(size), "s": pd.array(["x" * 20] * size, dtype=NAN_STRINGS), "f": np.ones(size)}
    )
    frame["t"] = pd.date_range("2024", periods=size, freq="s")
    shared = mori.share(frame)
    assert len(pickle.dumps(shared)) <= 100
    shared["new"] = np.int8(1)
    assert len(pickle.dumps(shared)) < size + 4000
    shared.loc[0, "f"] = 5
    assert len(pickle.dumps(shared)) < 9 * size + 4000
    names = [name for name in shared if worker(mori.is_shared, shared[name])]
    assert names == ["a", "s", "t"]
    assert worker(lambda x: [name for name in x if mori.is_shared(x[name])], shared) == ["a", "s", "t"]


def test_writes_to_elements_of_a_shared_dict_or_list_are_not_lost(store, worker):
    shared = mori.share(
        {"x": np.arange(5), "deep": [(np.ones(3), {"k": 1})], "frame": base(), "far": np.zeros(10_000)}
    )
    again = mori.map_shared(mori.shared_name(shared))
    shared["x"][0] = 100
    shared["deep"][0][1]["k"] = 2
    shared["deep"][0][0][1] = 7
    shared["frame"].loc[0, "f"] = 9.5
    for made in (
        shared,
        pickle.loads(pickle.dumps(shared)),
        worker(lambda x: x, shared),
        mori.materialize(shared),
    ):
        assert made["x"].tolist() == [100, 1, 2, 3, 4]
        assert made["deep"][0][1] == {"k": 2}
        assert made["deep"][0][0].tolist() == [1, 7, 1]
        assert made["frame"].loc[0, "f"] == 9.5
    assert len(pickle.dumps(shared)) < 8000
    assert worker(lambda x: mori.is_shared(x["far"]), shared)
    assert again["x"][0] == 0
    assert again["deep"][0][1] == {"k": 1}
    assert again["frame"].loc[0, "f"] == 0


def test_a_change_of_structure_is_this_view_s_alone(store, worker):
    shared = mori.share({"l": [1, np.arange(1000)], "n": 1})
    other = mori.map_shared(mori.shared_name(shared))
    shared["l"].append("more")
    shared["l"].insert(0, "first")
    del shared["n"]
    shared["new"] = {"k": 1}
    expected = {"l": 4, "new": {"k": 1}}
    sent = worker(lambda x: (type(x), x), shared)
    assert sent[0] is dict
    for made in (shared, sent[1], pickle.loads(pickle.dumps(shared))):
        assert [*made] == [*expected]
        assert made["new"] == {"k": 1}
        assert [made["l"][i] for i in (0, 1, 3)] == ["first", 1, "more"]
        assert mori.is_shared(made["l"][2])
    assert not mori.is_shared(shared)
    assert other["l"][0] == 1
    assert len(other["l"]) == 2
    assert other["n"] == 1


def test_a_shared_tuple_cannot_be_changed(store):
    shared = mori.share((1, [2]))
    with pytest.raises(TypeError):
        shared[0] = 2
    assert not hasattr(shared, "append")
    shared[1].append(3)
    assert shared == (1, [2, 3])
    assert pickle.loads(pickle.dumps(shared)) == (1, [2, 3])


@pytest.mark.filterwarnings("ignore::mori.ObjectColumnWarning")
@pytest.mark.parametrize("place", ["frame", "series", "dict", "list"])
def test_a_write_to_an_object_in_a_column_is_kept_and_travels(store, worker, place):
    def column(x):
        inner = x["f"] if place == "dict" else x[7] if place == "list" else x
        return inner if place == "series" else inner["o"]

    frame = pd.DataFrame({"x": np.arange(100.0), "o": [[number] for number in range(100)]})
    plain = {
        "frame": frame,
        "series": frame["o"],
        "dict": {"f": frame, "g": list(range(1000))},
        "list": [frame.copy() for _ in range(100)],
    }[place]
    shared = mori.share(plain)
    assert mori.is_shared(shared)
    assert worker(lambda x: column(x).iloc[5], shared) == [5]
    column(shared).iloc[5].append("new")
    assert worker(lambda x: column(x).iloc[5], shared) == [5, "new"]
    assert not mori.is_shared(shared)
