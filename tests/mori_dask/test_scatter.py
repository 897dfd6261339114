"""`mori_dask.scatter`: one copy a host, and every worker of it has the data at once."""

import asyncio
import collections
import os
import signal
import time

import distributed.protocol
import numpy as np
import pandas as pd
import pytest
from distributed import Client, Future, LocalCluster, get_client, wait

import mori
import mori_dask
from mori.memory import mapping as mappings
from mori.store import current
from tests.mori_dask.conftest import wait_until


def look(x):
    return mori.shared_name(x), float(np.asarray(x).sum())


def workers_of(client: Client) -> set[str]:
    return set(client.nthreads())


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


def test_every_worker_has_it_and_it_is_there_once(client: Client, wire: list[int]):
    values = np.arange(1_000_000.0)
    before = {entry.name for entry in current().entries()}
    future = mori_dask.scatter(client, values)
    assert isinstance(future, Future)
    assert set(client.who_has(future)[future.key]) == workers_of(client)
    assert sum(wire) < 60_000
    seen = client.run(lambda dask_worker: mori.shared_name(dask_worker.data[future.key]))
    (name,) = set(seen.values())
    new = [
        entry for entry in current().entries() if entry.name not in before and entry.nbytes > values.nbytes
    ]
    assert name in [entry.name for entry in new]
    assert len({entry.name for entry in new if entry.owner == new[0].owner}) == 1
    assert client.submit(look, future).result() == (name, values.sum())


def test_tasks_spread_over_the_workers_at_once(client: Client):
    future = mori_dask.scatter(client, np.arange(1_000_000.0))

    def where(x, i):
        time.sleep(0.2)
        return x.sum(), distributed_address()

    def distributed_address():
        from distributed import get_worker

        return get_worker().address

    seen = client.gather(client.map(where, [future] * 6, range(6), pure=False))
    assert {address for _, address in seen} == workers_of(client)


def test_futures_come_back_in_the_shape_of_the_data(client: Client):
    Pair = collections.namedtuple("Pair", "a b")
    x, frame = np.arange(1000), pd.DataFrame({"a": np.arange(1000)})
    futures = mori_dask.scatter(client, [x, frame, 3, "text"])
    assert type(futures) is list
    assert [type(future) for future in futures] == [Future] * 4
    np.testing.assert_array_equal(futures[0].result(), x)
    pd.testing.assert_frame_equal(futures[1].result(), frame)
    assert client.gather(futures[2:]) == [3, "text"]
    named = mori_dask.scatter(client, {"scattered-x": x, "scattered-n": 1})
    assert {key: future.key for key, future in named.items()} == {key: key for key in named}
    pair = mori_dask.scatter(client, Pair(x, 5))
    assert type(pair) is Pair
    assert pair.b.result() == 5
    assert mori_dask.scatter(client, (1, 2))[1].result() == 2
    assert client.gather(mori_dask.scatter(client, range(3))) == [0, 1, 2]
    assert mori_dask.scatter(client, []) == []
    with pytest.raises(TypeError, match="pass a list"):
        mori_dask.scatter(client, iter([1]))


def test_a_shared_object_is_scattered_under_one_key_whatever_its_size(client: Client):
    shared = mori.share(np.zeros(5_000_000))
    one, two = mori_dask.scatter(client, shared), mori_dask.scatter(client, shared)
    assert one.key == two.key
    assert mori_dask.scatter(client, shared[1:]).key != one.key
    assert mori_dask.scatter(client, shared, hash=False).key != one.key
    assert mori_dask.scatter(client, mori.share(np.zeros(10))).key != one.key
    name = mori.shared_name(shared)
    assert client.submit(look, one).result() == (name, 0)


def test_what_is_scattered_again_and_again_is_there_each_time(client: Client):
    """The scheduler may hear of the release of one future only after the next one is made."""
    shared = mori.share(np.arange(10_000))
    keys = set()
    for _ in range(30):
        future, number = mori_dask.scatter(client, [shared, 7])
        keys.add(future.key)
        assert number.result(timeout=20) == 7
        assert client.submit(np.sum, future, pure=False).result(timeout=20) == 49_995_000
        del future, number
    assert len(keys) == 30


def test_some_workers_are_asked_for(client: Client):
    one, two, *_ = sorted(workers_of(client))
    future = mori_dask.scatter(client, np.arange(10), workers=one)
    assert list(client.who_has(future)[future.key]) == [one]
    future = mori_dask.scatter(client, np.arange(10), workers=[one, two], broadcast=False)
    assert set(client.who_has(future)[future.key]) == {one, two}
    with pytest.raises((TimeoutError, ValueError, KeyError)):
        mori_dask.scatter(client, np.arange(10), workers=["tcp://127.0.0.1:1"], timeout="200ms")


def test_it_works_in_a_task_and_in_an_event_loop(client: Client):
    def task(x):
        inner = get_client()
        future = mori_dask.scatter(inner, x)
        assert mori_dask.gather(inner, future).sum() == x.sum()
        return future.key, len(inner.who_has(future)[future.key])

    key, holders = client.submit(task, np.arange(1000), pure=False).result()
    assert key.startswith("SharedArray-")
    assert holders == len(workers_of(client))

    async def loop():
        async with Client(client.scheduler.address, asynchronous=True) as inner:
            future = await mori_dask.scatter(inner, np.arange(1000))
            return await mori_dask.gather(inner, [future])

    (array,) = asyncio.run(loop())
    assert array.sum() == np.arange(1000).sum()


def test_the_region_goes_with_its_last_future(client: Client):
    future = mori_dask.scatter(client, np.arange(100_000))
    (name,) = set(client.run(lambda dask_worker: mori.shared_name(dask_worker.data[future.key])).values())
    assert name in [entry.name for entry in current().entries()]
    future.release()
    wait_until(lambda: name not in [entry.name for entry in current().entries()])


def test_gather_brings_references(client: Client):
    made = client.submit(lambda: mori.share(np.arange(100_000)), pure=False)
    wait(made)
    results = mori_dask.gather(client, {"a": [made]})
    assert mori.is_shared(results["a"][0])
    failed = client.submit(lambda: 1 / 0, pure=False)
    with pytest.raises(ZeroDivisionError):
        mori_dask.gather(client, failed)
    assert mori_dask.gather(client, [failed, made], errors="skip")[0].sum() == results["a"][0].sum()


def test_what_cannot_be_shared_is_named_and_nothing_is_scattered(client: Client):
    import threading

    before = {mapping.header.region_id for mapping in mappings.live()}  # some are on their way out
    with pytest.raises(mori.NotShareableError, match=r"obj\['a'\]"):
        mori_dask.scatter(client, [{"a": threading.Lock(), "b": np.arange(1000)}])
    assert {mapping.header.region_id for mapping in mappings.live()} <= before


@pytest.mark.parametrize("way", ["mori_dask.scatter", "client.scatter"])
def test_scattered_data_outlive_all_workers_and_go_with_their_future(way: str):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        frame = mori.share(pd.DataFrame({"a": np.arange(100_000.0), "s": ["x"] * 100_000}))
        name, total = mori.shared_name(frame), frame["a"].sum()
        future = mori_dask.scatter(client, frame) if way == "mori_dask.scatter" else client.scatter(frame)
        del frame  # the scheduler keeps it now
        waiting = client.submit(lambda x: float(x["a"].sum()), future, pure=False)
        assert waiting.result() == total
        killed = client.run(os.getpid)
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not killed.keys() & cluster.scheduler.workers.keys())
        again = client.submit(lambda x: (mori.shared_name(x), float(x["a"].sum())), future, pure=False)
        assert again.result(timeout=120) == (name, total)
        assert mori_dask.gather(client, future)["s"].iloc[-1] == "x"
        del waiting, again, future
        wait_until(lambda: name not in [entry.name for entry in current().entries()])
