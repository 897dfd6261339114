"""What happens to a cluster, and what is shared stays: restarts, scaling, `dask worker`, a second client."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

import mori
import mori_dask
from mori.store import current
from tests.mori_dask.conftest import wait_until
from tests.mori_dask.test_paths import look


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster of its own, with one worker."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


@contextmanager
def dask_worker(address: str, *options: str) -> Iterator[None]:
    """A worker with a nanny, started as from a shell."""
    command = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-dashboard"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [*command, *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _is_there(name: str | None) -> bool:
    return name in [entry.name for entry in current().entries()]


def _look_when(go: Path, x: Any) -> tuple[bool, str | None, float]:
    while not go.exists():
        time.sleep(0.01)
    return look(x)


def test_after_a_restart_references_travel_and_nothing_is_kept(cluster: LocalCluster):
    with Client(cluster) as client:
        array = mori.share(np.arange(300_000.0))
        name, total = mori.shared_name(array), array.sum()
        future = mori_dask.scatter(client, array)
        assert client.submit(look, future, pure=False).result() == (True, name, total)
        client.restart()
        assert future.cancelled()
        assert client.submit(look, array, pure=False).result() == (True, name, total)
        again = mori_dask.scatter(client, array)
        assert again.key != future.key
        assert client.submit(look, again, pure=False).result() == (True, name, total)
        del array, future, again
        wait_until(lambda: not _is_there(name))


def test_workers_that_come_and_go_with_the_load_map_what_is_there(cluster: LocalCluster, tmp_path: Path):
    with Client(cluster) as client:
        array = mori.share(np.arange(300_000.0))
        name, total = mori.shared_name(array), array.sum()
        future = mori_dask.scatter(client, array)
        del array
        cluster.adapt(minimum=1, maximum=3, interval="100ms", wait_count=2, target_duration="1ms")
        go = tmp_path / "go"
        waiting = [client.submit(_look_when, go, future, pure=False) for _ in range(30)]
        wait_until(lambda: len(client.nthreads()) == 3, 60)
        go.touch()
        assert client.gather(waiting) == [(True, name, total)] * 30
        del waiting
        wait_until(lambda: len(client.nthreads()) == 1, 60)
        assert client.submit(look, future, pure=False).result() == (True, name, total)
        cluster.adapt(minimum=1, maximum=1)


@pytest.mark.parametrize("preload", [True, False], ids=["with --preload", "without"])
def test_dask_worker_gets_references_with_preload_and_from_install_on_without(preload: bool):
    options = ("--preload", "mori_dask", "--preload-nanny", "mori_dask") if preload else ()
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster) as client:
        array = mori.share(np.arange(50_000.0))
        whole = True, mori.shared_name(array), array.sum()
        with dask_worker(cluster.scheduler_address, *options):
            client.wait_for_workers(1)
            first = client.submit(look, array, pure=False).result()
            assert first == (whole if preload else (False, None, array.sum()))
            mori_dask.install(client)
            assert client.submit(look, array, pure=False).result() == whole
            ((address, pid),) = client.run(os.getpid).items()
            os.kill(pid, signal.SIGKILL)  # its nanny starts another one
            wait_until(lambda: client.nthreads() and address not in client.nthreads(), 60)
            assert client.submit(look, array, pure=False).result() == whole
        wait_until(lambda: not client.nthreads())


def test_a_second_client_goes_on_when_the_first_has_gone(cluster: LocalCluster):
    array = mori.share(np.arange(300_000.0))
    name, total = mori.shared_name(array), array.sum()
    with Client(cluster, set_as_default=False) as first:
        future = mori_dask.scatter(first, array)
        assert first.submit(look, future, pure=False).result() == (True, name, total)
        first.publish_dataset(future, name="scattered")
        first.publish_dataset(array, name="whole")
        del future, array
    with Client(cluster) as second:
        future, array = second.get_dataset("scattered"), second.get_dataset("whole")
        assert look(array) == (True, name, total)
        assert second.submit(look, future, pure=False).result() == (True, name, total)
        assert second.submit(look, array, pure=False).result() == (True, name, total)
        for dataset in second.list_datasets():
            second.unpublish_dataset(dataset)
        del future, array
        wait_until(lambda: not _is_there(name))
