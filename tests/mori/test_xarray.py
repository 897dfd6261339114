"""xarray's objects come back as what they are, with their numpy data and their indexes in the region."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

xr = pytest.importorskip("xarray")

from xarray.testing.strategies import variables  # noqa: E402

import mori  # noqa: E402
from mori.memory import mapping as mappings  # noqa: E402
from tests.mori.test_memory import MB, _name, _run  # noqa: E402


def dataset(n: int = 400) -> Any:
    made = xr.Dataset(
        {
            "a": (("x", "y"), np.arange(10.0 * n).reshape(n, 10), {"units": "m"}),
            "s": ("x", np.array(["ab", "ä"] * (n // 2))),
            "b": ((), True),
            "o": ("y", np.array([{1}, None] * 5, object)),
            "c": ("x", np.arange(n) * 1j),
        },
        coords={
            "x": pd.date_range("2020", periods=n, freq="h"),
            "y": list("abcdefghij"),
            "z": ("x", np.arange(0, n).astype("M8[D]").astype("M8[s]")),
        },
        attrs={"k": [1, "two"], "n": np.float32(1)},
    )
    made["a"].encoding.update(zlib=True, dtype="f4")
    made.encoding["unlimited_dims"] = {"x"}
    return made


OBJECTS = {
    "dataset": dataset,
    "array": lambda: dataset()["a"],
    "coordinate": lambda: dataset()["x"],
    "variable": lambda: dataset()["a"].variable,
    "index variable": lambda: dataset()["x"].variable,
    "levels": lambda: dataset()[["a", "s"]].stack(p=("x", "y")),
    "nameless": lambda: xr.DataArray(np.arange(1000)),
    "strided": lambda: dataset()["a"][::2, ::-1],
    "empty": lambda: xr.Dataset(attrs={"a": np.arange(1000)}),
}


def same(got: Any, expected: Any) -> bool:
    if type(got) is not type(expected) or not got.identical(expected) or got.encoding != expected.encoding:
        return False
    if isinstance(expected, xr.Variable):
        return bool(got.dtype == expected.dtype and got.dims == expected.dims)
    parts = expected.variables if isinstance(expected, xr.Dataset) else expected.coords
    return (
        all(got[name].dtype == expected[name].dtype for name in parts)
        and all(got[name].encoding == expected[name].encoding for name in parts)
        and list(got.xindexes) == list(expected.xindexes)
        and all(type(got.indexes[name]) is type(expected.indexes[name]) for name in expected.indexes)
        and all(got.indexes[name].equals(expected.indexes[name]) for name in expected.indexes)
    )


@pytest.mark.parametrize("name", OBJECTS)
def test_each_comes_back_equal_with_its_class(store: str, name: str, worker: Any) -> None:
    expected = OBJECTS[name]()
    shared = mori.share(expected)
    assert same(shared, expected)
    # A Variable has no room for a weak reference: it is not known as shared, its data are.
    assert mori.share(shared) is shared or isinstance(shared, xr.Variable)
    tree = mori.share({"a": [expected]})
    assert same(tree["a"][0], expected)
    assert worker(lambda tree, expected: tree["a"][0].identical(expected), tree, expected)


def test_data_and_indexes_lie_in_the_region(store: str) -> None:
    shared = mori.share(dataset())
    for name in ("a", "s", "c", "z"):
        assert mori.is_shared(shared[name].variable._data)
    assert mappings.held_by(np.asarray(shared.indexes["x"]._data._ndarray)) is not None
    assert mappings.held_by(shared["a"].values) is not None
    assert mappings.held_by(shared["a"][3:7].values) is not None
    assert not isinstance((shared["a"] + 1).values, mori.SharedArray)
    assert float(shared["a"].mean()) == float(dataset()["a"].mean())


def test_it_pickles_as_references_and_by_value(store: str, worker: Any) -> None:
    shared = mori.share(dataset(40_000))
    assert len(pickle.dumps(shared, 5)) < 4000
    assert worker(lambda ds: mori.is_shared(ds["a"].variable._data), shared)
    with mori.by_value():
        data = pickle.dumps(shared)
    del shared
    gc.collect()
    assert same(pickle.loads(data), dataset(40_000))


def test_a_write_is_local(store: str) -> None:
    shared = mori.share(dataset())
    name = mori.shared_name(shared)
    shared["a"][0, 0] = 77
    shared.attrs["k"] = 2
    again = mori.map_shared(name)
    assert (float(shared["a"][0, 0]), float(again["a"][0, 0])) == (77, 0)
    assert again.attrs["k"] == [1, "two"]
    assert mori.is_shared(shared["c"].variable._data)


def test_a_lazy_array_stays_lazy(store: str) -> None:
    pytest.importorskip("dask.array")
    lazy = dataset()[["a"]].chunk({"x": 100})
    got = mori.share([lazy])[0]
    assert got.chunks == lazy.chunks
    assert got["a"].variable._data.name == lazy["a"].variable._data.name


def test_a_tree_comes_back(store: str) -> None:
    if not hasattr(xr, "DataTree"):
        pytest.skip("this xarray has no DataTree")
    tree = xr.DataTree.from_dict({"/": dataset(), "/q": dataset()[["a"]]})
    shared = mori.share(tree)
    assert type(shared) is xr.DataTree
    assert shared.identical(tree)
    assert mori.is_shared(shared["q"]["a"].variable._data)


_READ = """
import xarray
float(mori.map_shared(sys.argv[1])["a"].sum())
gc.collect(); gc.disable()
before = private()
ds = mori.map_shared(sys.argv[2])
report(total=float(ds["a"].values.sum()), opened=private() - before)
"""


def test_a_reader_of_a_large_dataset_has_no_copy_of_it(store: str) -> None:
    def make(n: int) -> Any:
        return xr.Dataset({"a": ("x", np.ones(n))}, coords={"x": np.arange(n)})

    small, large = mori.share(make(1000)), mori.share(make(5_000_000))
    found = _run(_READ, _name(small), _name(large))
    assert found["total"] == 5_000_000
    assert found["opened"] <= MB


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(variables())
def test_any_variable_comes_back(variable: Any) -> None:
    for expected in (variable, xr.DataArray(variable), xr.Dataset({"v": variable})):
        shared = mori.share([expected, "and more"])[0]
        for got in (shared, pickle.loads(pickle.dumps(mori.share({"x": expected})))["x"]):
            assert type(got) is type(expected)
            assert got.equals(expected)
            np.testing.assert_equal(
                got.attrs, expected.attrs
            )  # `identical` fails on arrays in dicts in attrs
            assert got.sizes == expected.sizes
