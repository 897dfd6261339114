"""Dask's arrays and frames over shared objects: equal to the plain ones, with small graphs and no copies."""

import dask
import dask.array as da
import dask.dataframe as dd
import distributed.protocol
import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
from distributed import Client, futures_of, wait

import mori
import mori_dask
from mori.memory import mapping as mappings

VALUES = np.random.default_rng(1).random((600, 400))
FRAME = pd.DataFrame(
    {
        "group": np.arange(60_000) % 7,
        "value": np.random.default_rng(2).random(60_000),
        "text": ["x", "y", "zz"] * 20_000,
        "when": pd.date_range("2024-01-01", periods=60_000, freq="min", tz="Europe/Berlin"),
    }
)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each message that the client or the scheduler, which is in this process, makes."""
    seen: list[int] = []
    plain = distributed.protocol.dumps

    def counted(*args, **kwargs):
        frames = plain(*args, **kwargs)
        seen.append(sum(memoryview(frame).nbytes for frame in frames))
        return frames

    monkeypatch.setattr(distributed.protocol, "dumps", counted)
    return seen


def test_an_array_computes_what_the_plain_one_does(client: Client, wire: list[int]):
    x = mori_dask.from_array(VALUES, chunks=(200, 150))
    plain = da.from_array(VALUES, chunks=(200, 150))
    assert (x.chunks, x.dtype, x.shape) == (plain.chunks, plain.dtype, plain.shape)
    assert type(x._meta) is np.ndarray
    for compute in (
        lambda x: x.sum(axis=0),
        lambda x: (x.T @ x).std(),
        lambda x: x[5:300:7, ::-1] * 2,
        lambda x: x[np.array([3, 1, 599]), :],
        lambda x: da.concatenate([x, x + 1]).mean(axis=1),
    ):
        np.testing.assert_allclose(
            np.asarray(compute(x)), np.asarray(compute(plain).compute(scheduler="sync"))
        )
    assert max(wire) < 200_000 < VALUES.nbytes  # the largest result


@pytest.mark.parametrize(
    "values", [np.array(3.0), np.zeros((0, 4)), np.asfortranarray(VALUES[:5]), VALUES[::9, ::-3]]
)
def test_arrays_of_any_shape_and_order_come_back(values):
    x = mori_dask.from_array(mori.share(values), chunks=2)
    np.testing.assert_array_equal(np.asarray(x.compute(scheduler="sync")), values)


def test_chunks_are_views_of_the_region(client: Client):
    shared = mori.share(VALUES)
    x = mori_dask.from_array(shared, chunks=(300, 400)).persist()
    wait(x)
    name = mappings.held_by(np.asarray(shared)).name

    def where(chunk):
        return mappings.held_by(np.asarray(chunk)).name

    for future in futures_of(x):
        assert client.submit(where, future).result() == name
    assert np.shares_memory(
        mori_dask.from_array(shared, chunks=100).compute(scheduler="sync").base or shared, shared
    )


def test_the_same_array_cut_alike_is_the_same_collection():
    shared = mori.share(VALUES)
    assert mori_dask.from_array(shared, 100).name == mori_dask.from_array(shared, 100).name
    assert mori_dask.from_array(shared, 100).name != mori_dask.from_array(shared, 200).name
    assert mori_dask.from_array(shared, 100, name="mine").name == "mine"


def test_chunks_of_every_cut_cross_to_workers(client: Client):
    shared = mori.share(VALUES)
    for chunks in (((250, 0, 350), (1, 399)), {0: 150, 1: -1}, "1 MiB", -1, (600, "auto")):
        x, plain = mori_dask.from_array(shared, chunks), da.from_array(VALUES, chunks)
        assert x.chunks == plain.chunks
        np.testing.assert_array_equal(x.map_blocks(lambda block: block * 2).compute(), VALUES * 2)
        np.testing.assert_array_equal(x.blocks[-1, -1], plain.blocks[-1, -1].compute(scheduler="sync"))


@pytest.mark.parametrize(
    ("x", "named"),
    [
        (np.array([{}, "a"], dtype=object), "dtype object: "),
        (np.zeros(9, [("a", object), ("b", "i4")]), r"dtype \[\('a', 'O'\), \('b', '<i4'\)\]: "),
        (np.array(["a", "b"], dtype=np.dtypes.StringDType()), r"dtype StringDType\(\): "),
        (np.ma.masked_less(np.arange(9), 3), "not a MaskedArray"),
        ({"a": 1}, "not a dict"),
        (b"x" * 5000, "not a bytes"),
    ],
)
def test_what_from_array_cannot_take_is_named_with_a_remedy(x, named):
    with pytest.raises(TypeError, match=f"{named}.*or use dask.array.from_array"):
        mori_dask.from_array(x)


def test_a_frame_computes_what_the_plain_one_does(client: Client, wire: list[int]):
    shared = mori.share(FRAME)
    x, plain = mori_dask.from_pandas(shared, 6), dd.from_pandas(FRAME, 6)
    assert (x.divisions, list(x.dtypes)) == (plain.divisions, list(plain.dtypes))
    pdt.assert_frame_equal(x[["group", "when"]].compute(), FRAME[["group", "when"]])
    wire.clear()
    for compute in (
        lambda x: x.groupby("group").value.mean(),
        lambda x: x[x.text == "x"].value.describe(),
        lambda x: x.loc[10:20],
        lambda x: x.assign(more=x.value * 2).drop(columns="text").nlargest(5, "more"),
    ):
        one, other = compute(x).compute(), compute(plain).compute(scheduler="sync")
        (pdt.assert_series_equal if isinstance(one, pd.Series) else pdt.assert_frame_equal)(one, other)
    assert max(wire) < 60_000


def test_frames_keep_their_order_and_index():
    unsorted = FRAME.set_index("group").iloc[:1000]
    x = mori_dask.from_pandas(unsorted, 4)
    assert (x.npartitions, x.known_divisions) == (4, False)
    with dask.config.set({"dataframe.convert-string": False}):  # or Dask changes the dtype of text
        pdt.assert_frame_equal(mori_dask.from_pandas(unsorted, 4).compute(scheduler="sync"), unsorted)
    twice = pd.Series(range(10), index=[0, 0, 0, 1, 1, 2, 2, 2, 2, 5], name="n")
    parts = mori_dask.from_pandas(twice, chunksize=4)
    assert parts.divisions == dd.from_pandas(twice, chunksize=4).divisions
    pdt.assert_series_equal(parts.compute(scheduler="sync"), twice)
    empty = FRAME[["value", "when"]][:0]
    pdt.assert_frame_equal(mori_dask.from_pandas(empty, 3).compute(scheduler="sync"), empty)
    with pytest.raises(ValueError, match="pass one"):
        mori_dask.from_pandas(FRAME, 3, chunksize=3)
    with pytest.raises(TypeError, match="not a list"):
        mori_dask.from_pandas([1])


def test_an_index_of_several_levels_is_refused_as_by_dask(client: Client):
    sorted_levels = pd.MultiIndex.from_product([range(100), range(10)], names=["x", "y"])
    frame = FRAME[:1000].set_index(sorted_levels)
    for deep in (frame, frame[::-1], frame[:0], frame.value):
        with pytest.raises(NotImplementedError):
            dd.from_pandas(deep, 3)
        with pytest.raises(NotImplementedError, match=r"MultiIndex \['x', 'y'\].* frame.reset_index\(\)"):
            mori_dask.from_pandas(mori.share(deep), 3)
    flat = mori_dask.from_pandas(mori.share(frame.reset_index()), 3)
    pdt.assert_series_equal(flat.groupby(["x", "y"]).value.sum().compute(), frame.value)


def test_the_parts_of_any_collection_are_shared_by_who_made_them(client: Client):
    x = mori_dask.shared(da.ones((400, 100), chunks=(100, 100)) + 1).persist()
    assert [client.submit(mori.is_shared, future).result() for future in futures_of(x)] == [True] * 4
    assert x.sum().compute() == 80_000
    numbers = FRAME[["group", "value"]]
    frame = mori_dask.from_pandas(numbers, 3)
    some = mori_dask.shared(frame[frame.group < 3]).persist()
    assert [client.submit(mori.is_shared, future).result() for future in futures_of(some)] == [True] * 3
    pdt.assert_frame_equal(some.compute(), numbers[numbers.group < 3])
    with pytest.raises(TypeError, match="not a list"):
        mori_dask.shared([1])
