"""A region lives for as long as a task, a future or a file can still need it, and no second longer."""

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, wait
from distributed.comm import CommClosedError, connect, listen
from distributed.protocol import to_serialize

import mori
from tests.mori_dask.conftest import wait_until
from tests.mori_dask.test_paths import look

SOON = 4.0  # seconds: it takes a tenth of one, on a machine that does nothing else; a grace is ten


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """A client of two workers that have the usual grace of ten seconds and the usual log of messages."""
    assert dask.config.get("distributed.admin.low-level-log-length") >= 100
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, env={"MORI_GRACE": "10"}, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def usual_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client's process keep what it has pickled as long as it does in everybody's hands."""
    monkeypatch.setenv("MORI_GRACE", "10")


def _alive() -> set[str]:
    return {entry.name for entry in mori.regions()}


def _holders(name: str) -> set[int]:
    return {pid for entry in mori.regions() if entry.name == name for pid in entry.holders}


def _array() -> tuple[np.ndarray, str, float]:
    array = mori.share(np.random.default_rng(1).random(100_000))
    name = mori.shared_name(array)
    assert name is not None
    return array, name, float(array.sum())


def test_what_is_submitted_and_dropped_at_once_is_served_and_freed_with_the_last_future(cluster: Client):
    futures, expected, names = [], [], []
    for number in range(20):
        array, name, total = _array()
        given = array if number % 2 else {"in": [array]}
        see = look if number % 2 else lambda x: look(x["in"][0])
        futures.append(cluster.submit(see, given, pure=False))
        expected.append((True, name, total))
        names.append(name)
        del array, given
    assert cluster.gather(futures) == expected
    del futures
    wait_until(lambda: not _alive() & {*names}, SOON)


def test_a_task_that_waits_is_served_long_after_its_argument_was_dropped(cluster: Client):
    array, name, total = _array()
    slow = [cluster.submit(time.sleep, 1.5, pure=False) for _ in range(2)]
    future = cluster.submit(lambda x, _: look(x), array, slow, pure=False)
    del array
    time.sleep(0.5)
    assert name in _alive()
    assert future.result() == (True, name, total)
    del future, slow
    wait_until(lambda: name not in _alive(), SOON)


def _kill_once(x: np.ndarray, marker: Path) -> tuple[bool, str | None, float]:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return look(x)


def test_a_task_is_served_again_after_its_worker_was_killed(cluster: Client, tmp_path: Path):
    array, name, total = _array()
    future = cluster.submit(_kill_once, array, tmp_path / "killed", pure=False)
    del array
    assert future.result(timeout=30) == (True, name, total)
    assert (tmp_path / "killed").exists()
    del future
    wait_until(lambda: name not in _alive(), SOON)
    cluster.wait_for_workers(2)


def test_what_a_client_has_published_is_served_when_it_is_gone(cluster: Client):
    with Client(cluster.scheduler.address, set_as_default=False) as other:
        (array, name, total), (late, _, late_total) = _array(), _array()
        made = other.submit(lambda: mori.share(np.ones(50_000)), pure=False)
        given = other.submit(lambda x: x, array, pure=False)
        waiting = other.submit(lambda x, _: look(x), late, other.submit(time.sleep, 0.5, pure=False))
        other.publish_dataset(made=made, given=given, waiting=waiting)
        wait([made, given])
        del array, late
    time.sleep(0.3)
    assert name in _alive()
    made, given, waiting = (cluster.get_dataset(one) for one in ("made", "given", "waiting"))
    assert waiting.result()[::2] == (True, late_total)
    assert cluster.submit(look, given, pure=False).result() == (True, name, total)
    shared, other_name, ones = cluster.submit(look, made, pure=False).result()
    assert (shared, ones) == (True, 50_000)
    for one in ("made", "given", "waiting"):
        cluster.unpublish_dataset(one)
    del made, given, waiting
    wait_until(lambda: not _alive() & {name, other_name}, SOON)


def test_a_result_is_freed_everywhere_with_its_last_future(cluster: Client):
    """It was sent from worker to worker meanwhile, whose grace is ten seconds."""
    made = cluster.submit(lambda: mori.share(np.ones(50_000)), pure=False)
    workers = cluster.nthreads()
    seen = cluster.gather([cluster.submit(look, made, workers=[w], pure=False) for w in workers])
    (name,) = {one[1] for one in seen}
    assert [one[0] for one in seen] == [True, True]
    cluster.replicate(made)
    del made
    wait_until(lambda: name not in _alive(), SOON)


class _Error(Exception):
    pass


def _fail() -> None:
    raise _Error(mori.share(np.arange(100_000)))


def test_what_an_exception_refers_to_is_there_until_its_last_future_goes(cluster: Client):
    """Also when the worker that raised it is gone, with all that it kept, and for who asks later."""
    failed = cluster.submit(_fail, pure=False)
    wait(failed)
    first = failed.exception()
    name, total = mori.shared_name(first.args[0]), first.args[0].sum()
    cluster.publish_dataset(failed, name="failed")
    key = failed.key
    workers = [*cluster.run(os.getpid).values()]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    del failed, first
    wait_until(lambda: key not in cluster.futures)
    wait_until(lambda: not _holders(name) & {*workers})
    with Client(cluster.scheduler.address, set_as_default=False) as other:
        late = other.get_dataset("failed").exception()
        assert (mori.shared_name(late.args[0]), late.args[0].sum()) == (name, total)
        del late
    cluster.unpublish_dataset("failed")
    wait_until(lambda: name not in _alive(), SOON)
    cluster.wait_for_workers(2)


def test_the_argument_of_a_task_that_has_failed_is_freed_with_its_future(cluster: Client):
    array, name, _ = _array()

    def fail(x):
        raise _Error(x.shape)

    failed = cluster.submit(fail, array, pure=False)
    wait(failed)
    del array, failed
    wait_until(lambda: name not in _alive(), SOON)


def test_an_exception_of_a_worker_that_lives_on_is_kept_by_nobody(cluster: Client):
    names = []
    for _ in range(3):
        failed = cluster.submit(_fail, pure=False)
        with pytest.raises(_Error) as caught:
            failed.result()
        names.append(mori.shared_name(caught.value.args[0]))
        caught.value.__traceback__ = None
        del failed, caught
    # It was sent by a worker, whose grace of ten seconds begins with that.
    wait_until(lambda: not _alive() & {*names}, 15)


def test_what_was_being_sent_as_a_connection_broke_is_kept_by_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MORI_GRACE", "0.2")  # that of a message to a peer begins when it is pickled

    async def break_off(comm: Any) -> None:
        """Reset the connection, as the kernel does for a process that is killed."""
        comm.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        comm.abort()
        broken.set()

    async def send() -> str | None:
        async with listen("tcp://127.0.0.1:0", break_off) as listener:
            comm = await connect(listener.contact_address)
            await broken.wait()
            shared, name, _ = _array()
            await comm.write(
                {"op": "compute-task", "argument": to_serialize(shared)}
            )  # before it looks for an end
            assert comm.stream.error is not None, "it was reset after the message, or its end was seen before"
            with pytest.raises(CommClosedError):
                await comm.read()
            return name

    broken = asyncio.Event()
    name = asyncio.run(send())
    wait_until(lambda: name not in _alive(), SOON)


@pytest.mark.parametrize("mode", ["reference", "value"])
def test_a_spilled_object_leaves_a_reference_and_its_region_or_its_bytes(cluster: Client, mode: str):
    def make():
        frame = pd.DataFrame({"a": np.arange(50_000.0), "b": np.arange(50_000)})
        return {"frame": mori.share(frame), "array": mori.share(np.arange(100_000)), "text": "x" * 1000}

    def names_in(x):
        return [mori.shared_name(x["frame"]), mori.shared_name(x["array"])]

    made = cluster.submit(make, pure=False)
    before = cluster.submit(names_in, made, pure=False).result()
    (worker,) = cluster.who_has(made)[made.key]

    def spill(dask_worker):
        with dask.config.set({"mori.dask.spill": mode}):
            while dask_worker.data.memory:
                assert dask_worker.data.evict() > 0
        assert made_key in dask_worker.data.disk
        return dask_worker.data.spilled_total.disk

    made_key = made.key
    disk = cluster.run(spill, workers=[worker])[worker]
    if mode == "reference":
        assert disk < 5000
    else:
        assert disk > 500_000

    def see(x):
        frame, array = x["frame"], x["array"]
        right = (frame["a"] == np.arange(50_000.0)).all() and (array == np.arange(100_000)).all()
        return bool(right), names_in(x), x["text"]

    right, names, text = cluster.submit(see, made, workers=[worker], pure=False).result()
    assert (right, text) == (True, "x" * 1000)
    assert (names == before) == (mode == "reference")
    # It is spilled again, and forgotten where it lies.
    cluster.run(spill, workers=[worker])
    del made
    if mode == "reference":
        wait_until(lambda: not _alive() & {*names}, SOON)


def test_replicas_of_shared_objects_are_left_alone_and_others_are_dropped(cluster: Client):
    shared = cluster.submit(lambda: mori.share(np.ones(50_000)), pure=False)
    frame = cluster.submit(lambda: mori.share(pd.DataFrame({"a": np.ones(50_000)})), pure=False)
    plain = cluster.submit(lambda: np.ones(50_000), pure=False)
    futures = [shared, frame, plain]
    wait(futures)
    cluster.replicate(futures)

    def replicas() -> list[int]:
        return [len(cluster.who_has(future)[future.key]) for future in futures]

    wait_until(lambda: cluster.amm.run_once() or replicas()[2] == 1)
    assert replicas() == [2, 2, 1]
    policies = cluster.run_on_scheduler(
        lambda dask_scheduler: repr(dask_scheduler.extensions["amm"].policies)
    )
    assert policies == "{ReduceReplicas()}"  # as Dask's log names what it has run
