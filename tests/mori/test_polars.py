"""polars' frames and series come back as what they are, over the region's memory."""

from __future__ import annotations

import datetime as dt
import gc
import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

pl = pytest.importorskip("polars")

from polars.testing import assert_frame_equal, assert_series_equal  # noqa: E402
from polars.testing.parametric import dataframes  # noqa: E402

import mori  # noqa: E402
from mori.memory import mapping as mappings  # noqa: E402
from tests.mori.test_arrow import buffers_of  # noqa: E402
from tests.mori.test_memory import _name, _run  # noqa: E402

NEWEST = pl.CompatLevel.newest()


def columns() -> dict[str, Any]:
    """Return a series of each dtype, some of it missing."""
    stamp = dt.datetime(2020, 1, 1)
    return {
        "int": pl.Series("x", range(100)),
        "missing": pl.Series("x", [1, None, 3], dtype=pl.Int8),
        "float": pl.Series("x", [1, None, 3.5], dtype=pl.Float32),
        "bool": pl.Series("x", [True, None, False] * 30),
        "string": pl.Series("x", ["a", None, "x" * 40] * 30),
        "binary": pl.Series("x", [b"a", None, b"x" * 40]),
        "categorical": pl.Series("x", ["a", None, "b", "a"], dtype=pl.Categorical),
        "enum": pl.Series("x", ["a", None, "b", "a"], dtype=pl.Enum(["b", "a", "zz"])),
        "decimal": pl.Series("x", [Decimal("1.25"), None], dtype=pl.Decimal(10, 2)),
        "date": pl.Series("x", [dt.date(2020, 1, 1), None]),
        "datetime": pl.Series("x", [stamp, None], dtype=pl.Datetime("ms")),
        "zone": pl.Series("x", [stamp, None]).dt.replace_time_zone("Europe/Paris"),
        "duration": pl.Series("x", [dt.timedelta(1), None], dtype=pl.Duration("ns")),
        "time": pl.Series("x", [dt.time(1, 2, 3), None]),
        "null": pl.Series("x", [None, None]),
        "list": pl.Series("x", [["a", None], None, ["x" * 40]]),
        "array": pl.Series("x", [[[1, 2], [3, 4]], None], dtype=pl.Array(pl.Int32, (2, 2))),
        "struct": pl.Series("x", [{"a": 1, "b": "x"}, None, {"a": 2, "b": None}]),
        "categories": pl.Series("x", [["a", None], None, ["b"]], dtype=pl.List(pl.Categorical)),
        "huge": pl.Series("x", [1, None, 2**100], dtype=pl.Int128),
        "object": pl.Series("x", [{1}, None, 1j], dtype=pl.Object),
        "empty": pl.Series("x", [], dtype=pl.Struct({"a": pl.List(pl.String)})),
        "ascending": pl.Series("x", [1, 2, 3]).set_sorted(),
        "descending": pl.Series("x", [3, 2, 1]).set_sorted(descending=True),
        "chunks": pl.concat([pl.Series("x", ["a", "b"]), pl.Series("x", ["c"])], rechunk=False),
        "slice": pl.Series("x", range(100))[13:17],
        "nameless": pl.Series([1.5]),
    }


COLUMNS = columns()
PICKLED = ("huge", "object")
PARTLY = ("categorical", "categories", "enum", "struct", "empty")  # docs/libraries.md says what of them


def same(got: Any, expected: Any) -> bool:
    if expected.dtype == pl.Object:
        return bool(got.to_list() == expected.to_list() and got.dtype == expected.dtype)
    assert_series_equal(got, expected, check_exact=True)
    return bool(
        type(got) is pl.Series
        and got.flags == expected.flags
        and got.name == expected.name
        and got.n_chunks() == expected.n_chunks()
    )


@pytest.mark.parametrize("name", COLUMNS)
def test_a_series_of_every_dtype_comes_back(store: str, name: str) -> None:
    expected = COLUMNS[name]
    assert same(mori.share(expected), expected)
    got = mori.share({"a": [expected]})["a"][0]
    assert same(got, expected)


@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in PICKLED])
def test_its_buffers_lie_in_the_region(store: str, name: str) -> None:
    shared = mori.share(COLUMNS[name])
    table = shared.to_frame().to_arrow(compat_level=NEWEST)
    mapped = [mappings.mapping_at(buffer.address, buffer.size) is not None for buffer in buffers_of(table)]
    assert all(mapped) or name in PARTLY
    if name == "enum" and not any(mapped) and tuple(map(int, pl.__version__.split(".")[:2])) < (2, 1):
        pytest.skip(f"polars {pl.__version__} copies the codes of an Enum that it is given by Arrow")
    if name in ("struct", "enum", "categories"):
        assert any(mapped)


def frame() -> Any:
    return pl.DataFrame(
        {
            "i": range(10),
            "s": [f"{i}" * 20 for i in range(10)],
            "h": pl.Series([2**100 + i for i in range(10)], dtype=pl.Int128),
            "e": pl.Series(["a", "b"] * 5, dtype=pl.Enum(["b", "a"])),
            "o": pl.Series([{i} for i in range(10)], dtype=pl.Object),
            "f": [0.5] * 10,
        }
    )


def test_a_frame_keeps_its_columns_in_their_order(store: str, third: Any) -> None:
    # A fork of a process whose polars has run hangs in polars' threads, shared or not.
    expected = frame()
    shared = mori.share(expected)
    assert type(shared) is pl.DataFrame
    assert shared.schema == expected.schema
    assert_frame_equal(shared.drop("o"), expected.drop("o"))
    assert shared["o"].to_list() == expected["o"].to_list()
    assert mori.is_shared(shared)
    assert mori.share(shared) is shared
    assert (
        third(lambda tree: tree["f"].drop("o").rows(), mori.share({"f": expected}))
        == expected.drop("o").rows()
    )
    name = mori.shared_name(shared)
    assert third(lambda name: mori.map_shared(name)["s"].to_list(), name) == expected["s"].to_list()


@pytest.mark.parametrize(
    "expected",
    [
        pl.DataFrame(),
        pl.DataFrame(schema={"a": pl.Int8, "b": pl.String}),
        pl.concat([pl.DataFrame({"a": [1], "b": ["x"]})] * 3, rechunk=False),
        pl.DataFrame({"": [1.5], "column_0": ["x"], "o": pl.Series([{1}], dtype=pl.Object)}).select(
            "", "column_0"
        ),
        pl.DataFrame({"a": [1, 2]}).select("a").filter(pl.col("a") > 5),
    ],
)
def test_frames_without_rows_or_columns_or_with_chunks_come_back(store: str, expected: Any) -> None:
    shared = mori.share(expected)
    assert_frame_equal(shared, expected)
    assert shared.shape == expected.shape
    assert shared.n_chunks("all") == expected.n_chunks("all")


def test_a_lazy_frame_goes_by_pickle(store: str) -> None:
    lazy = pl.LazyFrame({"a": [1, 2, 3]}).filter(pl.col("a") > 1)
    got = mori.share([lazy])[0]
    assert type(got) is pl.LazyFrame
    assert_frame_equal(got.collect(), lazy.collect())


def test_a_write_is_local(store: str) -> None:
    shared = mori.share(pl.Series("x", range(1000)))
    name = mori.shared_name(shared)
    shared[0] = 77
    assert shared[0] == 77
    assert mori.map_shared(name)[0] == 0


def test_a_materialized_frame_has_memory_of_its_own(store: str) -> None:
    shared = mori.share({"f": frame()})
    copy = mori.materialize(shared)["f"]
    assert not mori.is_shared(copy)
    del shared
    gc.collect()
    assert mappings.live() == []
    assert_frame_equal(copy.drop("o"), frame().drop("o"))
    assert copy["o"].to_list() == frame()["o"].to_list()


def test_an_object_that_does_not_pickle_is_named(store: str) -> None:
    bad = pl.DataFrame({"a": [1], "o": pl.Series([(x for x in "a")], dtype=pl.Object)})
    with pytest.raises(mori.NotShareableError) as caught:
        mori.share({"k": bad})
    assert caught.value.path.startswith("obj['k']['o']")
    assert mappings.live() == []


def test_a_column_outlives_its_frame_and_by_value_everything_travels(store: str) -> None:
    tree = mori.share({"f": frame()})
    column = tree["f"]["s"]
    with mori.by_value():
        data = pickle.dumps(tree)
    del tree
    gc.collect()
    assert column.to_list() == frame()["s"].to_list()
    del column
    gc.collect()
    assert_frame_equal(pickle.loads(data)["f"].drop("o"), frame().drop("o"))


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(dataframes(max_cols=4, max_size=20, excluded_dtypes=[pl.Categorical]))
def test_any_frame_comes_back(expected: Any) -> None:
    shared = mori.share(expected)
    assert shared.schema == expected.schema
    assert_frame_equal(shared, expected, check_exact=True)


_READ = """
import polars as pl
mori.map_shared(sys.argv[1])["x"].sum()
gc.collect(); gc.disable()
before = private()
frame = mori.map_shared(sys.argv[2])
opened = private()
report(total=int(frame["x"].sum()), last=len(frame["s"][-1]), opened=opened - before)
"""


def test_a_reader_of_a_large_frame_has_no_copy_of_it(store: str) -> None:
    rows = 1_000_000

    def make(rows: int) -> Any:
        return pl.DataFrame({"x": range(rows), "s": ["some text of its own"] * rows})

    small, large = mori.share(make(10)), mori.share(make(rows))
    found = _run(_READ, _name(small), _name(large))
    assert (found["total"], found["last"]) == (rows * (rows - 1) // 2, 20)
    assert found["opened"] <= 4 << 20
