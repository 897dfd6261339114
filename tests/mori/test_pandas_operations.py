"""What pandas does with a shared frame is what it does with a plain one: equal to the last bit."""

from __future__ import annotations

import datetime as dt
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import pandas as frames

import mori
from tests.mori.pandas_versions import IS_LEGACY, NA_STRINGS, NAN_STRINGS


def base() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "k": pd.Categorical(list("abca") * 25),
            "i": np.arange(100) % 7,
            "f": rng.normal(size=100),
            "g": np.where(np.arange(100) % 5, rng.normal(size=100), np.nan),
            "s": pd.array([f"s{i % 9}" for i in range(100)], NAN_STRINGS),
            "n": pd.array([None, 1, 2, 3] * 25, "Int64"),
            "p": pd.period_range("2020-01", periods=100, freq="M"),
            "q": pd.array([1, None, 3, 4] * 25, "int64[pyarrow]"),
        },
        index=pd.date_range("2024", periods=100, freq="h", name="t"),
    )


def _parquet(x: pd.DataFrame) -> pd.DataFrame:
    file = io.BytesIO()
    x.drop(columns="p").to_parquet(file)
    return pd.read_parquet(io.BytesIO(file.getvalue()))


def _feather(x: pd.DataFrame) -> pd.DataFrame:
    file = io.BytesIO()
    x.drop(columns="p").reset_index().to_feather(file)
    return pd.read_feather(io.BytesIO(file.getvalue()))


OPERATIONS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "groupby": lambda x: x.groupby("k", observed=True)[["i", "f", "g", "n"]].agg(["mean", "sum", "count"]),
    "groupby strings": lambda x: x.groupby("s")["f"].sum(),
    "groupby apply": lambda x: x.groupby("i")["f"].apply(lambda group: group.max() - group.min()),
    "transform": lambda x: x.groupby("i")["f"].transform("mean"),
    "merge": lambda x: x.merge(x[["s", "f"]].groupby("s").max().reset_index(), on="s", suffixes=("", "_max")),
    "join": lambda x: x[["f"]].join(x[["g"]]),
    "query": lambda x: x.query("i > 3 and f < 0"),
    "eval": lambda x: x.eval("f * 2 + i"),
    "pivot": lambda x: x.pivot_table(index="k", columns="i", values="f", aggfunc="sum", observed=True),
    "melt": lambda x: x[["i", "f", "g"]].melt("i"),
    "stack": lambda x: x[["f", "g"]].T.unstack(),
    "resample": lambda x: x[["f", "g"]].resample("6h").mean(),
    "rolling": lambda x: x[["f", "g"]].rolling(5).sum(),
    "ewm": lambda x: x["f"].ewm(span=3).mean(),
    "describe": lambda x: x[["i", "f", "g"]].describe(),
    "corr": lambda x: x[["i", "f", "g"]].corr(),
    "sort": lambda x: x.sort_values(["i", "f"], ascending=[False, True]),
    "concat": lambda x: pd.concat([x, x.iloc[::2]]),
    "concat of columns": lambda x: pd.concat([x["f"], x["g"]], axis=1),
    "rows": lambda x: pd.DataFrame([row._asdict() for row in x.itertuples()]),
    "iteration": lambda x: pd.Series({name: column.iloc[3] for name, column in x.items()}, dtype=object),
    "masks": lambda x: x[(x["f"] > 0) & x["n"].notna()],
    "fillna": lambda x: x["g"].fillna(0),
    "value counts": lambda x: x["s"].value_counts(),
    "cut": lambda x: pd.cut(x["f"], 4).value_counts(sort=False),
    "dummies": lambda x: pd.get_dummies(x["k"]),
    "string methods": lambda x: x["s"].str.upper() + "!",
    "dates": lambda x: x.index.to_series().dt.day_name(),
    "periods": lambda x: x["p"].dt.to_timestamp(),
    "arrow sums": lambda x: x["q"].fillna(0).cumsum(),
    "csv": lambda x: pd.read_csv(io.StringIO(x.to_csv())),
    "json": lambda x: pd.read_json(
        io.StringIO(x[["i", "f"]].reset_index(drop=True).to_json()), convert_axes=False
    ),
    "parquet": _parquet,
    "feather": _feather,
    "numpy": lambda x: pd.DataFrame(np.sqrt(np.abs(x[["f", "g"]]))),
    "arithmetic": lambda x: (x[["f", "g"]] * 2 - x[["f", "g"]].mean()).abs(),
    "shift": lambda x: x.shift(2),
    "reindex": lambda x: x.reindex(x.index[::-3]),
    "astype": lambda x: x.astype({"i": "float32", "k": object}),
    "set index": lambda x: x.set_index(["k", "i"]).sort_index(),
    "quantile": lambda x: x[["f", "g"]].quantile([0.1, 0.9]),
    "duplicates": lambda x: x.drop_duplicates("s"),
    "apply": lambda x: x[["f", "g"]].apply(lambda row: row.sum(), axis=1),
    "copy": lambda x: x.copy(),
    "slice by pickle": lambda x: pickle.loads(pickle.dumps(x.iloc[5:50:3])),
    "groups by pickle": lambda x: pd.concat(pickle.loads(pickle.dumps([g for _, g in x.groupby("i")]))),
}


# R: 61
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_what_it_gives_for_the_plain_frame(name: str) -> None:
    plain = base()
    shared = mori.share(plain)
    got, expected = OPERATIONS[name](shared), OPERATIONS[name](plain)
    assert type(got) is type(expected) in (pd.DataFrame, pd.Series)
    if isinstance(expected, pd.DataFrame):
        pdt.assert_frame_equal(got, expected, check_exact=True)
    else:
        pdt.assert_series_equal(got, expected, check_exact=True)
    assert mori.is_shared(shared)
    pdt.assert_frame_equal(shared, plain, check_exact=True)


_columns = st.lists(
    st.sampled_from(["i8", "u1", "f8", "f4", "bool", "M8[ns]", "m8[ns]", "c16"]), min_size=1, max_size=5
).map(lambda kinds: [frames.column(f"c{n}", dtype=np.dtype(kind)) for n, kind in enumerate(kinds)])


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_frame_comes_back_in_parts_and_whole(data: st.DataObject) -> None:
    indexes = frames.range_indexes(max_size=6) | frames.indexes(
        dtype=np.dtype("f8"), max_size=6, unique=False
    )
    frame = data.draw(_columns.flatmap(lambda columns: frames.data_frames(columns, index=indexes)))
    shared = mori.share(frame)
    for made in (shared, pickle.loads(pickle.dumps(shared)), mori.materialize(shared)):
        pdt.assert_frame_equal(made, frame, check_exact=True)
    place = data.draw(st.integers(0, frame.shape[1] - 1))
    start = data.draw(st.integers(0, len(frame)))
    part = pickle.loads(pickle.dumps(shared.iloc[start:, place]))
    pdt.assert_series_equal(part, frame.iloc[start:, place], check_exact=True)


_extensions = {
    "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "UInt8": st.none() | st.integers(0, 255),
    "Float64": st.none() | st.floats(allow_nan=False),
    "boolean": st.none() | st.booleans(),
    "string[python]": st.none() | st.text(max_size=5),
    "category": st.none() | st.sampled_from(["b", "a", "ä", ""]),
    "datetime64[ns, Europe/Berlin]": st.none()
    | st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2100, 1, 1)),
    "period[M]": st.none() | st.integers(1900, 2100).map(lambda year: f"{year}-07"),
    "interval[int64, left]": st.integers(-9, 9).map(lambda start: pd.Interval(start, start + 2, "left")),
    "Sparse[int64, 0]": st.integers(0, 2),
    "int64[pyarrow]": st.none() | st.integers(-(2**63), 2**63 - 1),
    "timestamp[us][pyarrow]": st.none() | st.datetimes(),
    pd.ArrowDtype(pa.list_(pa.string())): st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
    NAN_STRINGS: st.none() | st.text(max_size=5),
    NA_STRINGS: st.none() | st.text(max_size=5),
}


@pytest.mark.filterwarnings("ignore::mori.ObjectColumnWarning")
@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_frame_of_extension_dtypes_comes_back_in_parts_and_whole(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 6))
    columns = {}
    for place, dtype in enumerate(
        data.draw(st.lists(st.sampled_from(list(_extensions)), min_size=1, max_size=4))
    ):
        values = data.draw(st.lists(_extensions[dtype], min_size=rows, max_size=rows))
        columns[f"c{place}"] = pd.array(values, dtype=dtype)
    frame = pd.DataFrame(columns)
    shared = mori.share(frame)
    with mori.by_value():
        carried = pickle.dumps(shared)
    for made in (shared, pickle.loads(pickle.dumps(shared)), pickle.loads(carried), mori.materialize(shared)):
        pdt.assert_frame_equal(made, frame, check_exact=True)
    place = data.draw(st.integers(0, frame.shape[1] - 1))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, rows), st.integers(0, rows))))
    for part in (shared.iloc[start:stop, place], mori.share(frame.iloc[start:stop, place])):
        again = pickle.loads(pickle.dumps(part))
        pdt.assert_series_equal(
            again, frame.iloc[start:stop, place], check_exact=True, check_series_type=False
        )
    if IS_LEGACY and isinstance(frame.dtypes.iloc[place], pd.SparseDtype):
        return  # pandas 2 cannot compare sparse arrays over memory that is read-only
    index = pd.Index(frame.iloc[:, place])
    pdt.assert_index_equal(mori.share(pd.Series(range(rows), index)).index, index, exact=True)


@pytest.fixture(scope="module")
def plt() -> Any:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    pd.Series([1, 2]).plot()
    plt.gcf().canvas.draw()  # it keeps the files of its fonts open
    plt.close("all")
    return plt


@pytest.mark.parametrize("kind", ["line", "bar", "hist", "box", "scatter"])
def test_a_shared_frame_is_plotted_as_a_plain_one(plt: Any, kind: str) -> None:
    def drawn(x: pd.DataFrame) -> bytes:
        ways = {"x": "f", "y": "g"} if kind == "scatter" else {}
        axes = x[["i", "f", "g"]].plot(kind=kind, **ways)
        axes.figure.canvas.draw()
        image = bytes(axes.figure.canvas.buffer_rgba())
        plt.close(axes.figure)
        return image

    plain = base()
    shared = mori.share(plain)
    image = drawn(shared)
    assert image == drawn(plain)
    assert len(set(image)) > 2
    assert mori.is_shared(shared)
