"""What travels on each path of Dask: a reference where the receiver opens it in this domain, else bytes."""

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, wait

import mori


def look(x):
    """Return what a task sees: whether it is shared, under which name, and its sum."""
    total = float(np.asarray(x).sum()) if not isinstance(x, pd.DataFrame) else float(x.to_numpy().sum())
    return mori.is_shared(x), mori.shared_name(x), total


@pytest.fixture
def array():
    return mori.share(np.arange(200_000, dtype=float))


@pytest.fixture
def frame():
    return mori.share(pd.DataFrame({"a": np.arange(50_000.0), "b": 1.0, "c": np.arange(50_000)}))


def test_submit_maps_the_region_in_the_worker(client: Client, array):
    assert client.submit(look, array).result() == (True, mori.shared_name(array), array.sum())


def test_map_maps_one_region_in_every_worker(client: Client, array):
    seen = client.gather(client.map(lambda x, i: look(x), [array] * 6, range(6), pure=False))
    assert seen == [(True, mori.shared_name(array), array.sum())] * 6


def test_delayed_maps_the_region(client: Client, array):
    (seen,) = dask.compute(dask.delayed(look)(array))
    assert seen == (True, mori.shared_name(array), array.sum())


def test_a_frame_arrives_as_a_shared_frame(client: Client, frame):
    assert client.submit(look, frame).result()[:2] == (True, mori.shared_name(frame))


def test_parts_arrive_as_parts_of_the_region(client: Client, array, frame):
    assert client.submit(look, frame["c"]).result()[:2] == (True, mori.shared_name(frame["c"]))
    assert client.submit(look, array[10:20]).result() == (True, None, array[10:20].sum())
    assert client.submit(mori.is_shared, frame.iloc[10:20]["a"]).result()


def test_shared_objects_inside_others_travel_as_references(client: Client, array, frame):
    nested = {"list": [array, {"frame": frame}], "number": 1}

    def see(x):
        return look(x["list"][0]), look(x["list"][1]["frame"])

    assert [seen[0] for seen in client.submit(see, nested).result()] == [True, True]
    assert client.submit(lambda: look(array)).result()[0]  # captured by a function


def test_a_shared_container_is_neither_walked_nor_read(client: Client):
    shared = mori.share({"a": [1, 2, {"b": np.arange(3)}], "b": "text"})

    def see(x):
        return type(x).__name__, x["a"][2]["b"].tolist(), mori.shared_name(x)

    assert client.submit(see, shared).result() == ("SharedDict", [0, 1, 2], mori.shared_name(shared))


def test_one_worker_hands_it_to_another_by_reference(client: Client):
    made = client.submit(lambda: mori.share(np.ones(100_000)), pure=False)
    wait(made)
    (owner,) = client.who_has(made)[made.key]
    for worker in client.scheduler_info()["workers"]:
        shared, _, total = client.submit(look, made, workers=[worker], pure=False).result()
        assert (shared, total) == (True, 100_000)
        assert worker == owner or worker in client.who_has(made)[made.key]


def test_scatter_to_the_workers_directly_sends_references(client: Client, array):
    future = client.scatter(array, direct=True)
    assert client.submit(look, future).result() == (True, mori.shared_name(array), array.sum())


def test_scatter_through_the_scheduler_sends_the_bytes(client: Client, array):
    """The scheduler only passes frames on: whom to, the client cannot know."""
    shared, name, total = client.submit(look, client.scatter(array, direct=False)).result()
    assert (shared, name, total) == (False, None, array.sum())


def test_a_result_that_the_scheduler_passes_on_comes_as_bytes_and_is_equal(client: Client):
    result = client.submit(lambda: mori.share({"x": np.arange(1000), "y": [1, "two"]}), pure=False).result()
    assert isinstance(result, mori.SharedDict)
    assert not mori.is_shared(result)
    np.testing.assert_array_equal(result["x"], np.arange(1000))
    assert result["y"] == [1, "two"]


def test_a_result_that_is_gathered_directly_comes_as_a_reference(client: Client):
    future = client.submit(lambda: mori.share(np.arange(1000)), pure=False)
    assert mori.is_shared(client.gather(future, direct=True))


def test_an_array_that_was_written_to_travels_with_its_new_values(client: Client, array):
    array[0] = -1
    assert client.submit(lambda x: (mori.is_shared(x), x[0], x[1]), array).result() == (False, -1, 1)


def test_the_graph_of_a_shared_object_is_small(client: Client, array):
    from dask._expr import HLGExpr
    from dask._task_spec import Task
    from dask.highlevelgraph import HighLevelGraph
    from distributed.protocol.serialize import serialize, to_serialize

    graph = HLGExpr(HighLevelGraph.from_collections("x", {"x": Task("x", look, array)}))
    _, frames = serialize(to_serialize(graph), on_error="raise")
    assert sum(len(frame) for frame in frames) < 3000 < array.nbytes
