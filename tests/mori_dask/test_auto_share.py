"""Large results are shared by the worker that made them, where that is switched on, and keep their types."""

import asyncio
import os
from collections.abc import Iterator
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from distributed import Client, LocalCluster, get_worker, wait

import mori
from mori_dask import autoshare
from tests.mori_dask.conftest import wait_until
from tests.mori_dask.test_paths import look

LIMIT = 420 << 20
LEAST = 1 << 20


@pytest.fixture(scope="module")
def sharing() -> Iterator[Client]:
    """A client of two workers that share results of a megabyte and more."""
    with (
        dask.config.set({"mori.dask.auto-share": LEAST, "mori.dask.auto-share-fraction": 0.25}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _workers(client: Client) -> list[str]:
    return list(client.nthreads())


async def _asynchronously() -> np.ndarray:
    await asyncio.sleep(0)
    return np.ones(1_000_000)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(1_000_000),
        lambda: pd.DataFrame({"a": np.ones(500_000), "b": np.arange(500_000)}),
        lambda: pd.Series(np.ones(1_000_000), name="x"),
        lambda: pa.table({"a": np.ones(500_000)}),
        lambda: scipy.sparse.random_array((1000, 1000), density=0.5, format="csr", random_state=1),
        _asynchronously,
    ],
    ids=["array", "frame", "series", "table", "sparse", "coroutine"],
)
def test_a_dependent_on_another_worker_maps_what_was_made(sharing: Client, make):
    first, second = _workers(sharing)
    made = sharing.submit(make, workers=[first], pure=False)

    def see(x):
        return mori.is_shared(x.data if scipy.sparse.issparse(x) else x), type(x), x

    shared, cls, value = sharing.submit(see, made, workers=[second], pure=False).result()
    plain = asyncio.run(make()) if make is _asynchronously else make()
    assert shared
    assert issubclass(cls, type(plain))
    if scipy.sparse.issparse(plain):
        assert (value != plain).nnz == 0
    elif isinstance(plain, np.ndarray):
        np.testing.assert_array_equal(value, plain)
    else:
        assert value.equals(plain)


def test_large_parts_of_lists_tuples_and_dicts_are_shared_and_the_rest_is_as_it_was(sharing: Client):
    def make():
        large, small = np.ones(1_000_000), np.ones(10)
        return {"list": [large, small, "text"], "tuple": (large, None), "number": 1, 2: large}

    def see(x):
        parts = [*x["list"], *x["tuple"], x["number"], x[2]]
        return [type(x), type(x["list"]), type(x["tuple"])], [mori.is_shared(part) for part in parts], x

    made = sharing.submit(make, pure=False)
    types, shared, value = sharing.submit(see, made, pure=False).result()
    assert types == [dict, list, tuple]
    assert shared == [True, False, False, True, False, False, True]
    assert list(value) == ["list", "tuple", "number", 2]
    assert value["list"][2] == "text"
    np.testing.assert_array_equal(value[2], np.ones(1_000_000))


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(1000),
        lambda: np.array(["text"] * 1_000_000, dtype=object),
        lambda: pd.DataFrame({"a": pd.Series(["text"] * 1_000_000, dtype=object)}),
        lambda: b"x" * (2 << 20),
        lambda: "x" * (2 << 20),
        lambda: list(range(1_000_000)),
        lambda: SimpleNamespace(x=np.ones(1_000_000)),
        lambda: mori.share(np.ones(1_000_000))[1:],
        lambda: np.asarray(mori.share(np.ones(1_000_000))),
    ],
    ids=["small", "objects", "frame of objects", "bytes", "str", "list", "own class", "view", "plain view"],
)
def test_what_would_not_be_mapped_as_what_it_is_is_left_alone(sharing: Client, make):
    def run(dask_worker):
        result = make()
        return autoshare.shared(result, dask_worker) is result

    assert all(sharing.run(run, workers=_workers(sharing)[:1]).values())


def test_what_a_worker_makes_is_bounded_and_the_rest_can_be_spilled(sharing: Client):
    worker = _workers(sharing)[0]
    made = sharing.map(lambda i: np.full(20 << 20, i, np.uint8), range(10), workers=[worker], pure=False)
    wait(made)
    seen = [sharing.submit(look, one, workers=[worker], pure=False) for one in made]
    shared = [one for one, _, _ in sharing.gather(seen)]
    assert shared.count(True) == 5  # a quarter of 420 MB, by 20 MB
    assert [total for *_, total in sharing.gather(seen)] == [i * (20 << 20) for i in range(10)]
    names = {name for one, name, _ in sharing.gather(seen) if one}
    del made, seen
    wait_until(lambda: not names & {entry.name for entry in mori.regions()})


def test_nothing_is_shared_where_it_is_not_switched_on(sharing: Client):
    def off(dask_worker, value):
        dask.config.set({"mori.dask.auto-share": value})

    def make():
        return np.ones(1_000_000)

    sharing.run(off, value=False)
    assert not sharing.submit(look, sharing.submit(make, pure=False), pure=False).result()[0]
    sharing.run(off, value=LEAST)
    assert sharing.submit(look, sharing.submit(make, pure=False), pure=False).result()[0]


def test_a_result_that_cannot_be_shared_stays_private(sharing: Client):
    """As in a store that is full: MORI_STORE names one that is not there."""

    def make():
        os.environ["MORI_STORE"] = "files:/nowhere/at/all"
        try:
            return autoshare.shared(np.ones(1_000_000), get_worker())
        finally:
            del os.environ["MORI_STORE"]

    made = sharing.submit(lambda: mori.is_shared(make()), pure=False)
    assert made.result() is False
