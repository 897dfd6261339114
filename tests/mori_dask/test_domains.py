"""Where the two ends are not in one domain, or it is not known, bytes travel, and the result is right."""

import collections
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dask
import distributed.protocol
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, get_client
from distributed.deploy.subprocess import SubprocessCluster

import mori
import mori_dask
from mori_dask import far
from tests.mori_dask.conftest import wait_until, worker_process
from tests.mori_dask.test_paths import look

_UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def empty_cluster():
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A function that says how many bytes the client and the scheduler in this process have sent."""
    seen: list[int] = []
    plain = distributed.protocol.dumps

    def counted(*args, **kwargs):
        frames = plain(*args, **kwargs)
        seen.append(sum(memoryview(frame).nbytes for frame in frames))
        return frames

    monkeypatch.setattr(distributed.protocol, "dumps", counted)
    return lambda: sum(seen)


def _workers(client: Client) -> int:
    return len(client.nthreads())


@pytest.mark.parametrize("kind", ["memfd", "files"])
def test_a_worker_in_another_pid_namespace_maps_files_and_gets_the_bytes_of_memfds(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
):
    if not _can_unshare():
        pytest.skip("needs unshare with the right to make a pid namespace")
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}" if kind == "files" else kind)
    client = request.getfixturevalue("empty_cluster")
    array = mori.share(np.arange(50_000))
    with worker_process(client.scheduler.address, before=_UNSHARE):
        wait_until(lambda: _workers(client) == 1)
        shared, name, total = client.submit(look, array, pure=False).result()
        assert (shared, total) == (kind == "files", array.sum())
        assert name == (mori.shared_name(array) if shared else None)
        future = client.scatter(array, direct=True)
        assert client.submit(look, future, pure=False).result()[2] == array.sum()
    wait_until(lambda: _workers(client) == 0)


def test_a_worker_that_has_not_said_its_domain_gets_the_bytes_and_the_log_says_so_once(
    empty_cluster: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(far, "_said", set())
    client = empty_cluster
    array = mori.share(np.arange(50_000))
    with worker_process(client.scheduler.address, preload=False):
        wait_until(lambda: _workers(client) == 1)
        # The worker imports mori when it unpickles the first object; its connections have not said so.
        assert client.submit(look, np.arange(50_000), pure=False).result()[2] == array.sum()
        assert _said(caplog) == []
        for _ in range(2):
            shared, _, total = client.submit(look, array, pure=False).result()
            assert (shared, total) == (False, array.sum())
    wait_until(lambda: _workers(client) == 0)
    [said] = _said(caplog)
    assert "the worker at tcp://" in said
    assert "--preload mori_dask" in said


def test_a_scheduler_that_has_not_said_its_domain_gets_the_bytes_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(far, "_said", set())
    preloads = {f"distributed.{kind}.preload": [] for kind in ("scheduler", "worker", "nanny")}
    with (
        dask.config.set(preloads),
        SubprocessCluster(n_workers=1, threads_per_worker=1) as cluster,
        Client(cluster) as client,
    ):
        # So large that the client does not keep it among its last messages.
        array = mori.share(np.arange(500_000))
        for _ in range(2):
            assert client.submit(look, array, pure=False).result()[2] == array.sum()
        [said] = _said(caplog)
        assert "the scheduler at tcp://" in said
        mori_dask.install(client)
        other = mori.share(np.arange(500_000))
        assert client.submit(look, other, pure=False).result() == (True, mori.shared_name(other), other.sum())


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "distributed.mori"]


def test_workers_in_this_process_share_by_identity():
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        array = mori.share(np.arange(1000))
        assert client.submit(look, array).result() == (True, mori.shared_name(array), array.sum())


def test_the_workers_of_a_cluster_started_here_are_asked_to_import_it():
    for key in ("distributed.worker.preload", "distributed.scheduler.preload"):
        assert "mori_dask" in dask.config.get(key)


def _seen_there(x):
    return mori.is_shared(x), mori.shared_name(x), float(np.asarray(x).sum())


def test_a_host_gets_what_is_scattered_once_and_hands_it_on_by_reference(
    empty_cluster: Client, wire: Callable[[], int]
):
    if not _can_unshare():
        pytest.skip("needs unshare with the right to make a pid namespace")
    client = empty_cluster
    values = np.arange(1_000_000.0)
    with (
        worker_process(client.scheduler.address),
        worker_process(client.scheduler.address, before=_UNSHARE, count=2),
    ):
        wait_until(lambda: _workers(client) == 3)
        future = mori_dask.scatter(client, values)
        assert len(client.who_has(future)[future.key]) == 3
        seen = client.run(lambda dask_worker: (mori_dask.domain(), _seen_there(dask_worker.data[future.key])))
        names = collections.defaultdict(set)
        for where, (shared, name, total) in seen.values():
            assert (shared, total) == (True, values.sum())
            names[where].add(name)
        assert len(names) == 2
        assert {len(some) for some in names.values()} == {1}
        # Where it is wanted a second time, by whatever way, the host's copy is found.
        (here,) = mori_dask.gather(client, [future])
        for worker, (where, (_, _, total)) in seen.items():
            again = client.submit(_seen_there, here, workers=[worker], pure=False).result()
            # A pid namespace sees into those below it, and so the copy there.
            known = set().union(*names.values()) if where == mori_dask.domain() else names[where]
            assert again in [(True, name, total) for name in known]
        one = mori_dask.scatter(client, values, broadcast=False)
        assert len(client.who_has(one)[one.key]) == 1
        # What a scheduler passes on: references to the one host, and bytes to the other.
        shared = mori.share(np.arange(1_000_000.0))
        for worker, (where, _) in seen.items():
            future = client.scatter(shared, direct=False, workers=[worker], hash=False)
            is_shared, name, total = client.submit(_seen_there, future, pure=False).result()
            assert (is_shared, total) == (True, values.sum())
            assert name == mori.shared_name(shared) or where != mori_dask.domain()
        assert {total for *_, total in client.run(_seen_there, shared).values()} == {values.sum()}
        client.publish_dataset(shared, name="shared")
        there = next(worker for worker, (where, _) in seen.items() if where != mori_dask.domain())
        read = client.submit(lambda: _seen_there(get_client().get_dataset("shared"))[2], workers=[there])
        assert read.result() == values.sum()
        client.unpublish_dataset("shared")
        # Of a collection, a host gets the chunks that its workers work on.
        sent = wire()
        chunked = mori_dask.from_array(shared, 100_000)
        assert chunked.sum().compute() == values.sum()
        frame = mori_dask.from_pandas(pd.DataFrame({"a": values}), 10)
        assert frame.a.sum().compute() == values.sum()
        assert wire() - sent < 3 * values.nbytes
    wait_until(lambda: _workers(client) == 0)


_FORK = """
import ctypes, os, sys
import mori_dask
here = mori_dask.domain()
if ctypes.CDLL(None).unshare(0x20000000):  # CLONE_NEWPID: what is forked is in another one
    sys.exit(3)
if (pid := os.fork()) == 0:
    os._exit(mori_dask.domain() == here)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_process_that_is_forked_into_another_pid_namespace_says_another_domain():
    if not _can_unshare():
        pytest.skip("needs the right to make a pid namespace")
    # Its parent has been asked for the domain before, and remembers it.
    ended = subprocess.run(
        [sys.executable, "-c", _FORK],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == 0
