"""Shared pages are charged to no worker that maps them; one that eats memory of its own is ended as ever."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import Client, KilledWorker, LocalCluster

import mori
import mori_dask
from mori_dask import memory
from tests.mori_dask.conftest import wait_until

LIMIT = 320 << 20
REGION = 400 << 20


@pytest.fixture(scope="module")
def small() -> Iterator[Client]:
    """A client of four workers that may take less memory each than the region has."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=4,
            threads_per_worker=1,
            memory_limit=LIMIT,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _read(x: np.ndarray) -> tuple[float, int, int, int]:
    """Read all of it, and stay for a few rounds of the monitors; say what this process has then."""
    total = float(x.sum())
    time.sleep(0.6)
    own = memory.own()
    assert own is not None
    return total, os.getpid(), psutil.Process().memory_info().rss, own


def _statuses(client: Client) -> list[str]:
    """Return what the workers were changed to since they began."""
    events = client.run_on_scheduler(
        lambda dask_scheduler: [
            dict(event)
            for worker in dask_scheduler.workers
            for _, event in dask_scheduler.get_events(worker)
            if event.get("action") == "worker-status-change"
        ]
    )
    return [event["status"] for event in events]


def test_workers_read_a_region_larger_than_their_limit(small: Client):
    array = mori.share(np.ones(REGION // 8))
    before = small.run(os.getpid)
    seen = small.gather([small.submit(_read, array, workers=[w], pure=False) for w in _workers(small)])
    assert {total for total, *_ in seen} == {REGION // 8}
    assert {pid for _, pid, *_ in seen} == {*before.values()}  # all of them worked
    assert all(rss > LIMIT for _, _, rss, _ in seen), "Dask's own measure would have let them live"
    assert all(own < 0.8 * LIMIT for *_, own in seen)
    assert small.run(os.getpid) == before  # none was killed
    assert "paused" not in _statuses(small)
    assert all(w["metrics"]["memory"] < 0.8 * LIMIT for w in _workers(small).values())


def test_a_region_is_counted_once_with_the_workers_that_map_it(small: Client):
    array, other = mori.share(np.ones(1_000_000)), mori.share(np.ones(100_000))
    first, *_ = _workers(small)
    kept = [small.submit(lambda x: x, array, workers=[w], pure=False) for w in _workers(small)]
    kept.append(small.submit(lambda x: x, other, workers=[first], pure=False))
    by_name = {entry.name: entry for entry in mori.regions()}
    entries = [by_name[mori.shared_name(x)] for x in (array, other)]
    expected = [
        (entry.region_id.hex(), entry.nbytes, mori_dask.domain(), os.getpid(), workers)
        for entry, workers in zip(entries, (tuple(sorted(_workers(small))), (first,)), strict=True)
    ]
    wait_until(lambda: mori_dask.regions(small) == expected)
    assert [region.saved for region in mori_dask.regions(small)] == [3 * entries[0].nbytes, 0]
    del kept
    wait_until(lambda: mori_dask.regions(small) == [])


def _workers(client: Client) -> dict[str, dict]:
    return client.sync(client.scheduler.identity, n_workers=-1)["workers"]


def test_a_worker_that_eats_memory_of_its_own_is_ended_and_the_next_one_measures_alike(small: Client):
    array = mori.share(np.ones(REGION // 8))

    before = {*_workers(small)}

    def eat(x):
        x.sum()
        mine = np.ones(LIMIT // 8 + 1)
        time.sleep(20)
        return mine.sum()

    future = small.submit(eat, array, pure=False)
    with pytest.raises(KilledWorker):
        future.result()
    future.release()  # it is in the traceback of its own error
    small.wait_for_workers(4)
    (new,) = {*_workers(small)} - before
    assert small.submit(_read, array, workers=[new], pure=False).result()[0] == REGION // 8


@pytest.mark.parametrize("where", ["memfd", "tmpfs", "disk", "saved"])
def test_pages_of_regions_are_not_a_process_own_whatever_the_store(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    setting = {"tmpfs": "files:/dev/shm", "disk": f"files:{tmp_path}"}.get(where, "memfd")
    monkeypatch.setenv("MORI_STORE", setting)
    own, seen_by_nanny = memory.own(), memory.own(os.getpid())
    if where == "saved":
        mori.save(np.ones(50 << 20, np.uint8), tmp_path / "x.mori")
        array = mori.load(tmp_path / "x.mori")
    else:
        array = mori.share(np.ones(50 << 20, np.uint8))
    me, before = psutil.Process(), psutil.Process().memory_info().rss
    assert array.sum() == 50 << 20
    assert me.memory_info().rss - before > 45 << 20
    for measured, earlier in ((memory.own(), own), (memory.own(os.getpid()), seen_by_nanny)):
        assert measured is not None
        assert earlier is not None
        assert measured - earlier < 10 << 20


def test_it_is_dasks_own_measure_where_that_is_asked_for(small: Client):
    def measures(dask_worker):
        with dask.config.set({"mori.dask.memory-accounting": False}):
            memory.release(dask_worker)
            memory.account(dask_worker)
        dasks = "get_process_memory" not in vars(dask_worker.monitor)
        memory.account(dask_worker)
        return dasks, dask_worker.monitor.get_process_memory() <= psutil.Process().memory_info().rss

    assert {*small.run(measures).values()} == {(True, True)}
