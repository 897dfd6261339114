"""One object of every kind that `mori.share` has a way for, and the way it takes through an engine.

For the tests of mori_dask and mori_ray, in a module that their workers can import.
"""

from __future__ import annotations

import array
import collections
import gc
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

import mori
from mori.memory import mapping as mappings
from tests.mori.classes import Fit, Metered, Point

N: Final = 30_000
DATA: Final = 200_000
"""Bytes that the data of every kind have at least."""


class Kind(NamedTuple):
    """How an object is made, from which library, and why it goes by value if it does."""

    make: Callable[[], Any]
    library: str = "numpy"
    by_value: str = ""

    def is_here(self) -> bool:
        return importlib.util.find_spec(self.library) is not None


class Model:
    """An object of a user's class, with arrays."""

    def __init__(self) -> None:
        self.weights = numbers()

    def __eq__(self, other: object) -> bool:
        return type(other) is Model and bool(np.array_equal(self.weights, other.weights))

    __hash__ = None  # type: ignore[assignment]


def numbers() -> Any:
    return np.arange(N, dtype=float)


def allocated() -> Any:
    with mori.allocate((N,), "f8") as array:
        array[:] = numbers()
        return array.share()


def matrix() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of numpy's matrix
        return np.asmatrix(numbers().reshape(100, -1))


def texts() -> list[str]:
    return [f"text {i}" for i in range(N)]


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "f": numbers(),
            "i": np.arange(N),
            "s": pd.array(texts(), dtype=pd.StringDtype("pyarrow", na_value=np.nan)),
            "c": pd.Categorical.from_codes(np.arange(N) % 3, ["x", "y", "z"]),
            "t": pd.date_range("2026-01-01", periods=N, freq="s", tz="UTC"),
            "n": pd.array(np.arange(N), dtype="Int64"),
        },
        index=pd.Index(np.arange(N) * 2, name="at"),
    )


def arrow_frame() -> pd.DataFrame:
    import pyarrow as pa

    lists = pd.array([[i, i + 1] for i in range(N)], dtype=pd.ArrowDtype(pa.list_(pa.int64())))
    return pd.DataFrame(
        {
            "l": lists,
            "i": pd.array(range(N), dtype="int64[pyarrow]"),
            "s": pd.array(texts(), "string[pyarrow]"),
        }
    )


def metered() -> Metered:
    made = Metered({"a": numbers()})
    made.unit = "m"
    return made


def table() -> Any:
    import pyarrow as pa

    return pa.table({"x": numbers(), "s": pa.array(texts())}, metadata={"a": "b"})


def chunked() -> Any:
    import pyarrow as pa

    return pa.chunked_array([numbers(), numbers()])


def polars_frame() -> Any:
    import polars as pl

    return pl.DataFrame({"x": numbers(), "s": texts()})


def sparse(form: str) -> Callable[[], Any]:
    def make() -> Any:
        from scipy import sparse

        return getattr(sparse, form)(np.arange(1.0, N + 1).reshape(30, -1))

    return make


def forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    x = numbers().reshape(-1, 10)
    return RandomForestRegressor(2, random_state=1).fit(x, x[:, 0])


def dataset() -> Any:
    import xarray as xr

    return xr.Dataset({"a": ("x", numbers()), "b": ("x", -numbers())}, coords={"y": ("x", numbers())})


def tensor() -> Any:
    import torch

    return torch.from_numpy(numbers())


KINDS: Final[dict[str, Kind]] = {
    "an array": Kind(numbers),
    "an allocated array": Kind(allocated),
    "a structured array": Kind(lambda: np.zeros(N, [("a", "f8"), ("b", "i4")])),
    "records": Kind(lambda: np.rec.fromarrays([numbers(), np.arange(N)], names="x,y")),
    "a matrix": Kind(matrix),
    "a masked array": Kind(lambda: np.ma.array(numbers(), mask=np.arange(N) % 2 == 0, fill_value=-1.0)),
    "an array of objects": Kind(lambda: np.array(texts(), dtype=object)),
    "bytes": Kind(lambda: bytes(range(256)) * 1000),
    "a bytearray": Kind(lambda: bytearray(range(256)) * 1000),
    "a list": Kind(lambda: [numbers(), 1, "two"]),
    "a tuple": Kind(lambda: (numbers(), None)),
    "a dict": Kind(lambda: {"a": numbers(), 2: ["b"]}),
    "a set": Kind(lambda: set(texts())),
    "a frozenset": Kind(lambda: frozenset(range(N))),
    "a list of strings": Kind(texts),
    "a list of numbers": Kind(lambda: list(range(N))),
    "a namedtuple": Kind(lambda: Point(numbers(), "y")),
    "a dataclass": Kind(lambda: Fit("fit", numbers())),
    "an object of a class": Kind(Model),
    "a frame": Kind(frame, "pandas"),
    "a frame of Arrow's types": Kind(arrow_frame, "pyarrow"),
    "a frame of a class": Kind(metered, "pandas"),
    "a series of categories": Kind(
        lambda: pd.Series(pd.Categorical.from_codes(np.arange(3 * N) % 3, ["x", "y", "z"]), name="c"),
        "pandas",
    ),
    "a series of strings": Kind(lambda: frame()["s"], "pandas"),
    "an index": Kind(lambda: pd.Index(numbers(), name="at"), "pandas"),
    "an index of categories": Kind(
        lambda: pd.CategoricalIndex(frame()["c"].cat.add_categories(texts())), "pandas"
    ),
    "an index of levels": Kind(lambda: pd.MultiIndex.from_product([range(1000), range(300)]), "pandas"),
    "a table": Kind(table, "pyarrow"),
    "a record batch": Kind(lambda: table().to_batches()[0], "pyarrow"),
    "an array of Arrow's": Kind(lambda: table()["s"].chunk(0), "pyarrow"),
    "a chunked array": Kind(chunked, "pyarrow"),
    "a polars frame": Kind(polars_frame, "polars"),
    "a polars series": Kind(lambda: polars_frame()["x"], "polars"),
    "a polars frame in a dict": Kind(lambda: {"f": polars_frame()}, "polars"),
    "a sparse matrix": Kind(sparse("csr_matrix"), "scipy"),
    "a sparse array": Kind(sparse("coo_array"), "scipy"),
    "a forest": Kind(forest, "sklearn"),
    "a counter": Kind(lambda: collections.Counter(texts())),
    "an ordered dict": Kind(lambda: collections.OrderedDict.fromkeys(texts(), 1)),
    "a deque": Kind(lambda: collections.deque(texts())),
    "an array of numbers": Kind(lambda: array.array("d", range(N))),
    "a dataset": Kind(dataset, "xarray"),
    "a tensor": Kind(tensor, "torch"),
    "a tensor in a list": Kind(lambda: [tensor()], "torch"),
}


def same(one: Any, other: Any) -> bool:
    """Say whether two private objects are of one type and equal in every value."""
    if type(one) is not type(other):
        return False
    library = type(one).__module__.partition(".")[0]
    if isinstance(one, np.ma.MaskedArray):
        parts = (one.data, np.ma.getmaskarray(one), one.fill_value, one.hardmask)
        return same(parts, (other.data, np.ma.getmaskarray(other), other.fill_value, other.hardmask))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Fit):
        return same(vars(one), vars(other))
    if isinstance(one, Metered) and one.unit != other.unit:
        return False
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
        return True
    if isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other)
        return True
    if isinstance(one, pd.Index):
        pd.testing.assert_index_equal(one, other, exact=True)
        return True
    if library == "polars":
        return bool(one.equals(other, null_equal=True))
    if library == "pyarrow":
        return bool(one.equals(other))
    if library == "scipy":
        return one.shape == other.shape and one.dtype == other.dtype and not (one != other).nnz
    if library == "xarray":
        return bool(one.identical(other))
    if library == "sklearn":
        x = numbers().reshape(-1, 10)
        return bool(np.array_equal(one.predict(x), other.predict(x)))
    if library == "torch":
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    return bool(one == other)


def shared(name: str) -> Any:
    """Return a shared object of a kind, and leave nothing to a later garbage collection."""
    x = mori.share(KINDS[name].make())
    gc.collect()
    return x


def is_equal(name: str, x: Any) -> bool:
    """Say whether what arrived equals what is made here, with all types."""
    return same(mori.materialize(x), mori.materialize(KINDS[name].make()))


def look(name: str, x: Any) -> tuple[str, bool, bool]:
    """Return what a task sees of a kind: its type, whether a region is mapped, whether it is equal."""
    seen = type(x).__name__, any(mapping.shared for mapping in mappings.live()), is_equal(name, x)
    gc.collect()
    return seen
