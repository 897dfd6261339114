"""Frames of every shape, subclasses, parts and pandas' other objects: what comes back, and what travels."""

from __future__ import annotations

import copyreg
import pickle
import warnings
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from mori import adapters
from mori.codecs.pandas.frames import FrameCodec
from mori.memory import lease
from tests.fresh import run_python
from tests.mori.pandas_versions import NAN_STRINGS


class Field(pd.DataFrame):
    """A frame as a user derives one: with an attribute that pandas hands on, and a method."""

    _metadata: ClassVar = ["unit", "origin"]

    @property
    def _constructor(self) -> type[Field]:
        return Field

    @property
    def _constructor_sliced(self) -> type[Ray]:
        return Ray

    def total(self) -> float:
        return float(self.to_numpy().sum())


class Ray(pd.Series):
    _metadata: ClassVar = ["_name", "unit"]

    @property
    def _constructor(self) -> type[Ray]:
        return Ray

    @property
    def _constructor_expanddim(self) -> type[Field]:
        return Field


class Sealed(pd.DataFrame):
    """One with a way of its own to be pickled."""

    def __reduce__(self) -> Any:
        return Sealed, (self.to_dict(),)


class Counted(Field):
    """One that makes something of its own when it is unpickled."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        object.__setattr__(self, "rows", len(self))


def field() -> Field:
    made = Field({"a": np.arange(1000.0), "b": np.arange(1000), "c": np.ones(1000)})
    made.unit, made.origin = "m", {"x": 1}
    made.attrs["k"] = 1
    return made


def describe(shared: Any) -> Any:
    return (
        type(shared),
        type(shared + 1),
        shared.unit,
        shared.origin,
        shared.total(),
        shared.attrs,
    )


def test_a_frame_and_a_series_are_of_pandas_own_class_and_a_reference_of_100_bytes(store, worker):
    plain = field()
    for made in (pd.DataFrame(plain), plain["a"].set_axis(plain["b"]).pipe(pd.Series)):
        shared = mori.share(made)
        assert type(shared) is type(made)
        assert len(pickle.dumps(shared)) <= 100
        assert worker(lambda x: (type(x).__module__, type(x).__name__, mori.is_shared(x)), shared) == (
            *(type(made).__module__, type(made).__name__),
            True,
        )


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_private_frame_pickles_as_it_did_before_one_was_shared(protocol):
    made = """
        import hashlib, mori, pandas as pd, pickle
        if {share}:
            mori.share(pd.DataFrame({{"a": range(1000)}})), mori.share(pd.Series(range(1000)))
        frame = pd.DataFrame({{"a": [1, 2], "b": ["x", "y"]}})
        for obj in (frame, frame["a"]):
            print(hashlib.md5(pickle.dumps(obj, {protocol})).hexdigest())
    """
    assert run_python(made.format(share=True, protocol=protocol)) == run_python(
        made.format(share=False, protocol=protocol)
    )


@pytest.mark.parametrize("protocol", [0, 1])
def test_a_private_frame_comes_back_under_old_protocols(protocol):
    mori.share(field())
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    pdt.assert_frame_equal(pickle.loads(pickle.dumps(frame, protocol)), frame)


def test_a_reducer_of_the_users_own_stays_in_use(monkeypatch):
    class Told(pd.DataFrame):
        pass

    monkeypatch.setitem(copyreg.dispatch_table, Told, lambda frame: (str, ("told",)))
    shared = mori.share(Told({"a": np.arange(1000.0)}))
    assert pickle.loads(pickle.dumps(shared)).equals(shared)
    shared.loc[0, "a"] = 7.0
    assert pickle.loads(pickle.dumps(shared)) == "told"


def test_a_subclass_of_a_frame_comes_back_as_one(store, worker):
    plain = field()
    shared = mori.share(plain)
    expected = (Field, Field, "m", {"x": 1}, plain.total(), {"k": 1})
    assert mori.is_shared(shared)
    assert len(pickle.dumps(shared)) <= 100
    for made in (
        shared,
        mori.share([plain])[0],
        pickle.loads(pickle.dumps(shared)),
        mori.materialize(shared),
    ):
        assert describe(made) == expected
        pdt.assert_frame_equal(pd.DataFrame(made), pd.DataFrame(plain))
    assert worker(describe, shared) == expected
    assert type(mori.materialize(shared)) is Field
    assert type(shared["a"]) is Ray
    assert type(shared[["a", "b"]]) is Field
    assert mori.is_shared(shared["a"])
    assert mori.share(shared) is shared


def test_a_write_to_a_subclass_is_local_and_keeps_the_class(store, worker):
    shared = mori.share(field())
    other = pickle.loads(pickle.dumps(shared))
    shared.loc[0, "a"] = 7.0
    shared.unit = "km"
    assert not mori.is_shared(shared)
    for made in (shared, pickle.loads(pickle.dumps(shared)), worker(lambda x: x, shared)):
        assert type(made) is Field
        assert (made.loc[0, "a"], made.unit, made.origin) == (7.0, "km", {"x": 1})
        assert mori.is_shared(made["b"])
    assert (other.loc[0, "a"], other.unit) == (0.0, "m")


def test_a_subclass_whose_attribute_was_changed_alone_is_what_travels(store, worker):
    shared = mori.share(field())
    shared.origin = {"x": 2}
    assert worker(lambda x: x.origin, shared) == {"x": 2}


def test_a_subclass_of_a_series_comes_back_as_one(store, worker):
    series = Ray([1.5, 2], name="r", index=["x", "y"])
    series.unit = "s"
    shared = mori.share(series)
    for made in (shared, worker(lambda x: x, shared), mori.materialize(shared)):
        assert type(made) is Ray
        assert (made.unit, made.name, made.tolist(), made.index.tolist()) == ("s", "r", [1.5, 2], ["x", "y"])


def test_a_subclass_is_told_its_state_whenever_it_is_opened(store, worker):
    shared = mori.share(Counted({"a": [1.5, 2, 3]}))
    opened = [pickle.loads(pickle.dumps(shared)) for _ in range(2)]
    assert [made.rows for made in (shared, *opened)] == [3, 3, 3]
    assert [worker(lambda x: x.rows, shared) for _ in range(2)] == [3, 3]
    shared.loc[0, "a"] = 7.0
    assert [made.loc[0, "a"] for made in (shared, *opened)] == [7.0, 1.5, 1.5]


def test_arrays_in_the_attrs_stay_in_the_region_and_travel(store, worker):
    plain = pd.DataFrame({"a": np.arange(1000.0)})
    plain.attrs["weights"] = np.arange(5000.0)
    shared = mori.share(plain)
    assert mori.is_shared(shared.attrs["weights"])
    assert len(pickle.dumps(shared)) < 5000
    assert pickle.loads(pickle.dumps(shared)).attrs["weights"].sum() == plain.attrs["weights"].sum()
    assert worker(lambda x: x.attrs["weights"].sum(), shared) == plain.attrs["weights"].sum()


def test_a_subclass_that_pickles_its_own_way_goes_that_way(store):
    made = mori.share([Sealed({"a": [1, 2]})])[0]
    assert type(made) is Sealed
    assert made["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "scalar",
    [
        pd.Timestamp("2024-01-01"),
        pd.Timestamp("2024-01-01", tz="Europe/Berlin").as_unit("s"),
        pd.Timedelta("3h"),
        pd.Period("2024-01", "M"),
        pd.Interval(1, 2, closed="both"),
        pd.Interval(pd.Timestamp("2024"), pd.Timestamp("2025")),
        pd.NaT,
        pd.NA,
        pd.offsets.BusinessDay(3),
        pd.Grouper(key="a", freq="D"),
        pd.CategoricalDtype(["a", "b"], ordered=True),
        pd.ArrowDtype,
    ],
    ids=repr,
)
def test_the_small_things_of_pandas_keep_their_type_and_value(store, scalar):
    (made,) = mori.share([scalar])
    assert type(made) is type(scalar)
    if scalar is pd.NaT or scalar is pd.NA:
        assert made is scalar
    elif not isinstance(scalar, pd.Grouper):
        assert made == scalar
        assert getattr(made, "unit", None) == getattr(scalar, "unit", None)
    else:
        assert (made.key, made.freq) == (scalar.key, scalar.freq)


def groups(x: Any) -> dict[Any, int]:
    return x.sum()["v"].to_dict()


def test_a_groupby_goes_where_it_is_sent(store, worker):
    frame = mori.share(pd.DataFrame({"k": [1, 2] * 5000, "v": np.arange(10_000)}))
    grouped = frame.groupby("k")
    assert len(pickle.dumps(grouped)) < 100_000
    assert worker(groups, grouped) == groups(grouped)
    assert groups(mori.share([grouped])[0]) == groups(grouped)


def test_axes_of_mixed_and_repeated_labels_come_back(store, worker):
    columns = pd.Index(["a", 1, None, 2.5, ("t", 1), "a", pd.Timestamp("2024"), True], dtype=object)
    index = pd.MultiIndex.from_tuples([("a", 1, None), ("a", 1, None), ("b", 2, 0.5)], names=["x", None, "x"])
    frame = pd.DataFrame(np.arange(24.0).reshape(3, 8), index, columns)
    shared = mori.share(frame)
    for made in (shared, worker(lambda x: x, shared), mori.materialize(shared)):
        pdt.assert_frame_equal(made, frame, check_exact=True)
        assert [type(label) for label in made.columns] == [type(label) for label in columns]
        assert list(made.index.names) == ["x", None, "x"]
    two = pd.DataFrame(np.eye(3), index, index)
    pdt.assert_frame_equal(mori.share(two), two)


def test_columns_of_objects_are_named_with_their_path_wherever_they_are(store):
    inner = pd.DataFrame({"n": [1, 2], "mixed": pd.Series(["a", 2], dtype=object)})
    with pytest.warns(
        mori.ObjectColumnWarning, match=r"'mixed' of obj\['x'\]\[1\]; 's' of obj\['y'\]"
    ) as caught:
        mori.share({"x": [0, inner], "y": pd.Series([1, "b"], name="s", dtype=object)})
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_strings_arrow_reaches_nested_frames_and_subclasses(store):
    def strings() -> pd.Series:
        return pd.Series(["a", "b", None], dtype=object, name="s")

    nested = Field({"n": [1, 2, 3], "s": strings()})
    nested.unit = "m"
    given = {"x": [pd.DataFrame({"n": [1, 2, 3], "s": strings()})], "y": strings(), "z": nested}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared = mori.share(given, strings="arrow")
    for made in (shared["x"][0]["s"], shared["y"], shared["z"]["s"]):
        assert made.dtype == NAN_STRINGS
        assert mori.is_shared(made)
        assert made.tolist()[:2] == ["a", "b"]
    assert shared["z"].unit == "m"
    assert given["x"][0]["s"].dtype == given["y"].dtype == given["z"]["s"].dtype == object


SIZE = 4_000
LONG_INDEXES = {
    "int": pd.Index(np.arange(SIZE)[::-1]),
    "times": pd.date_range("2024", periods=SIZE, freq="s", tz="UTC"),
    "periods": pd.period_range("2000", periods=SIZE, freq="h", name="p"),
    "strings": pd.Index([str(i) for i in range(SIZE)], dtype=NAN_STRINGS),
    "nullable": pd.Index(pd.array(range(SIZE), dtype="Int64")),
    "categories": pd.CategoricalIndex(np.arange(SIZE) % 7),
    "intervals": pd.IntervalIndex.from_breaks(range(SIZE + 1), closed="left"),
    "levels": pd.MultiIndex.from_product([range(SIZE // 10), range(10)]),
    "arrow": pd.Index(pd.array(range(SIZE), dtype="int64[pyarrow]")),
}


@pytest.mark.parametrize("kind", LONG_INDEXES)
def test_a_column_and_rows_carry_their_index_by_reference(store, worker, kind):
    plain = pd.DataFrame({"a": np.arange(SIZE), "b": np.ones(SIZE)}, LONG_INDEXES[kind])
    shared = mori.share(plain)
    for part, expected in ((shared["a"], plain["a"]), (shared.iloc[10:-10], plain.iloc[10:-10])):
        assert mori.is_shared(part)
        assert len(pickle.dumps(part)) < 2500
        back = worker(lambda x: (mori.is_shared(x), x), part)
        assert back[0]
        for made in (pickle.loads(pickle.dumps(part)), back[1]):
            (pdt.assert_series_equal if made.ndim == 1 else pdt.assert_frame_equal)(made, expected)
            assert len(pickle.dumps(made)) < 2500
    assert mori.is_shared(shared.index)


def test_a_part_of_a_frame_is_shared_as_long_as_its_columns_lie_there(store):
    shared = mori.share(
        pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1, 2], "s": pd.array(["x"] * 3, NAN_STRINGS)})
    )
    rows = shared.iloc[:2]
    assert mori.is_shared(rows)
    assert mori.shared_name(rows) is None
    assert mori.share(rows) is rows
    assert not mori.is_shared(shared[shared["a"] > 1])
    rows = rows.copy()
    assert not mori.is_shared(rows)


@pytest.mark.parametrize("kind", LONG_INDEXES)
def test_an_index_of_its_own_comes_back_as_pandas_index(store, worker, kind):
    index = LONG_INDEXES[kind]
    shared = mori.share(index)
    assert type(shared) is type(index)
    assert mori.is_shared(shared)
    pdt.assert_index_equal(shared, index, exact=True)
    pdt.assert_index_equal(worker(lambda x: x, shared), index, exact=True)


@pytest.mark.parametrize("kind", LONG_INDEXES)
def test_an_index_that_was_received_goes_on_as_a_reference_with_its_slices(store, worker, kind):
    index = LONG_INDEXES[kind]
    received = pickle.loads(pickle.dumps(mori.share(index)))
    again = pickle.loads(pickle.dumps(received))
    for made, expected in ((received, index), (again, index), (again[10:-10], index[10:-10])):
        assert mori.is_shared(made)
        assert len(pickle.dumps(made)) < 2500
        pdt.assert_index_equal(worker(lambda x: x, made), expected, exact=True)
    with mori.by_value():
        alone = pickle.loads(pickle.dumps(again))
    assert not mori.is_shared(alone)
    pdt.assert_index_equal(alone, index, exact=True)


def _columns() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "a": np.arange(1000.0),
            "b": np.arange(1000.0),
            "s": pd.array([f"{n}" for n in range(1000)], dtype=NAN_STRINGS),
            "c": pd.Categorical(["x", "y"] * 500),
            "m": pd.array([1, None] * 500, dtype="Int64"),
            "t": pd.date_range("2024", periods=1000),
            "i": pd.interval_range(0, 1000),
        }
    )
    return frame.set_axis(pd.Index(range(5, 1005), name="row"))


@pytest.mark.parametrize("name", _columns())
def test_a_column_is_a_reference_to_its_frame_and_its_place(store, worker, name):
    plain = _columns()
    shared = mori.share(plain)
    assert len(pickle.dumps(shared[name])) < 200
    assert len(ForkingPickler.dumps(shared[name])) < 200
    made = pickle.loads(pickle.dumps(shared[name]))
    pdt.assert_series_equal(made, plain[name])
    assert len(pickle.dumps(made)) < 200
    pdt.assert_series_equal(worker(lambda x: x, shared[name]), plain[name])
    with mori.by_value():
        pdt.assert_series_equal(pickle.loads(pickle.dumps(shared[name])), plain[name])


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame["a"].rename("b"),
        lambda frame: frame["a"].rename_axis("other"),
        lambda frame: frame["a"].set_axis(range(1000)),
        lambda frame: frame["a"].iloc[::2],
        lambda frame: frame["a"].set_flags(allows_duplicate_labels=False),
        lambda frame: _changed(frame["a"], lambda x: x.attrs.update(k=1)),
        lambda frame: _changed(frame["a"], lambda x: setattr(x.index, "name", "other")),
        lambda frame: _changed(frame["a"], lambda x: x.__setitem__(5, 7)),
        lambda frame: _changed(frame["s"], lambda x: x.__setitem__(5, "new")),
        lambda frame: _changed(frame, lambda x: x.__delitem__("a"))["b"],
        lambda frame: _changed(frame, lambda x: x.insert(0, "new", 1.0))["a"],
        lambda frame: _changed(frame, lambda x: x.__setitem__("a", 2.0))["a"],
        lambda frame: _changed(frame, lambda x: setattr(x, "columns", [*"bascmti"]))["a"],
        lambda frame: _changed(frame, lambda x: setattr(x, "index", range(1000)))["a"],
    ],
)
def test_a_column_that_is_no_longer_that_of_its_frame_travels_as_it_is(worker, change):
    changed, plain = change(mori.share(_columns())), change(_columns())
    for made in (pickle.loads(pickle.dumps(changed)), worker(lambda x: x, changed)):
        pdt.assert_series_equal(made, plain)
        assert made.attrs == plain.attrs
        assert made.flags.allows_duplicate_labels == plain.flags.allows_duplicate_labels


def _changed(obj: Any, change: Any) -> Any:
    with warnings.catch_warnings():  # of pandas 2, which does not know whether to write to the frame, too
        warnings.simplefilter("ignore")
        change(obj)
    return obj


def test_a_column_whose_region_is_gone_is_an_error_of_its_own():
    pickled = pickle.dumps(mori.share(_columns())["a"])
    lease.expire_graces()
    with pytest.raises(mori.RegionNotFoundError):
        pickle.loads(pickled)
    with adapters.use_lost_objects():
        lost = pickle.loads(pickled)
    with pytest.raises(mori.RegionNotFoundError):
        lost.sum()


def test_one_of_many_frames_is_opened_without_the_others(monkeypatch):
    opened: list[int] = []
    decode = FrameCodec.decode
    monkeypatch.setattr(FrameCodec, "decode", lambda *args: (opened.append(1), decode(*args))[1])
    shared = mori.share({f"k{n}": pd.DataFrame({"a": np.arange(1000.0) + n}) for n in range(200)})
    column = pickle.loads(pickle.dumps(shared))["k7"]["a"]
    assert (column[1], len(opened)) == (8.0, 1)
    assert len(pickle.dumps(column)) < 200
