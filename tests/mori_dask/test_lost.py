"""What is gone or damaged fails the task that uses it, with its own error; the cluster goes on."""

import os
import pickle
import signal
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
from distributed import Client, Worker, wait, worker

import mori
import mori_dask
from mori import adapters
from mori.memory import lease
from mori.wire import reference
from mori.wire.lost import Lost
from mori.wire.transport import use_transport
from tests.killing import kills
from tests.mori_dask.conftest import wait_until


class Late:
    """Pickles as a reference that is read where it arrives."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __reduce__(self):
        return reference.load, (self.payload,)


@pytest.fixture
def gone() -> Late:
    shared = mori.share(np.arange(1000))
    with use_transport("reference"):
        _, (payload,) = shared.__reduce_ex__(5)
    del shared
    lease.expire_graces()
    return Late(payload)


def test_a_task_whose_region_is_gone_fails_with_its_name_and_the_next_one_runs(client: Client, gone: Late):
    future = client.submit(np.sum, gone, pure=False, retries=0)
    with pytest.raises(mori.RegionNotFoundError, match=r"shared region /mori_\w+ not found"):
        future.result(timeout=30)
    assert client.submit(np.sum, mori.share(np.arange(1000))).result(timeout=30) == 499500


def test_a_task_that_leaves_it_alone_succeeds(client: Client, gone: Late):
    assert client.submit(lambda x: repr(type(x)), gone).result(timeout=30) == repr(Lost)


class Unpickled:
    """Is what was pickled where it arrives."""

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled

    def __reduce__(self):
        return pickle.loads, (self.pickled,)


def test_a_column_whose_region_is_gone_fails_its_task_alone(client: Client):
    """A plain Series, which pandas rebuilds of its parts: that raises where the graph is unpickled."""
    frame = mori.share(pd.DataFrame({"a": np.arange(1000.0)}))
    late = Unpickled(pickle.dumps(frame["a"]))
    del frame
    lease.expire_graces()
    with pytest.raises((mori.RegionNotFoundError, RuntimeError), match=r"not found|deserialization"):
        client.submit(len, late, pure=False, retries=0).result(timeout=30)
    assert client.submit(len, [1, 2]).result(timeout=30) == 2


def test_a_damaged_reference_and_bytes_that_are_no_region_fail_the_task(client: Client):
    for payload in (b"", b"x" * 41, struct.pack("<B16sIIIIQ", 7, bytes(16), 1, 1, 1, 1, 64)):
        with pytest.raises(mori.CorruptRegionError):
            client.submit(len, Late(payload), pure=False).result(timeout=30)


def test_a_result_that_is_gone_arrives_and_says_so_at_its_use(client: Client, gone: Late):
    got = client.submit(Late, gone.payload).result(timeout=30)
    assert isinstance(got, Late | Lost)
    with pytest.raises(mori.RegionNotFoundError):
        pickle.loads(pickle.dumps(got))


def test_a_task_that_reads_what_is_gone_from_a_file_fails_there(client: Client, gone: Late, tmp_path: Path):
    """It is the task that reads, and no deserializer of Dask's; the same for the function itself."""
    data = pickle.dumps(gone)
    (tmp_path / "x").write_bytes(data)
    for future in (
        client.submit(pd.read_pickle, tmp_path / "x"),
        client.submit(joblib.load, tmp_path / "x"),
        client.submit(pickle.loads, data),
    ):
        with pytest.raises(mori.RegionNotFoundError):
            future.result(timeout=30)


def test_a_task_that_writes_a_file_writes_the_data(client: Client, tmp_path: Path):
    def write(x: Any, path: Path) -> None:
        joblib.dump({"x": x}, path / "joblib")
        with (path / "pickle").open("wb") as file:
            pickle.dump(x, file)

    x = mori.share(np.arange(1000))
    client.submit(write, x, tmp_path).result(timeout=30)
    assert client.submit(joblib.dump, x, tmp_path / "at once").result(timeout=30)
    del x
    assert joblib.load(tmp_path / "joblib")["x"].sum() == 499500
    assert pd.read_pickle(tmp_path / "pickle").sum() == 499500
    assert not mori.is_shared(joblib.load(tmp_path / "at once"))


class Killing:
    """Kills the process that has pickled it as it is unpickled elsewhere, the first time."""

    def __init__(self, killed: Path) -> None:
        self.killed = killed

    def __reduce__(self):
        return _kill, (os.getpid(), self.killed)


def _kill(pid: int, killed: Path) -> Killing:
    if not killed.exists():
        killed.touch()
        os.kill(pid, signal.SIGKILL)
        _wait_for_end(pid)
    return Killing(killed)


def _wait_for_end(pid: int) -> None:
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def _make_killing(killed: Path) -> tuple[np.ndarray, Killing, np.ndarray]:
    return mori.share(np.ones(1000)), Killing(killed), mori.share(np.arange(1000))


_logged: list[OSError] = []  # Dask's log keeps errors, and what their frames have


async def _is_missing(key: str, address: str, dask_worker: Worker) -> bool:
    """Say whether Dask takes a key for missing, as when a connection breaks, and nothing is kept of it."""
    try:
        await worker.get_data_from_worker(rpc=dask_worker.rpc, keys=[key], worker=address)
    except OSError as error:
        _logged.append(error)
        return not adapters.live_regions()  # that came before the one that is gone
    return False


def test_a_result_whose_worker_is_killed_before_it_is_opened_is_computed_again(
    client: Client, tmp_path: Path
):
    first, second, *_ = client.ncores()
    made = [
        client.submit(_make_killing, tmp_path / name, pure=False, workers=[first], allow_other_workers=True)
        for name in ("by another", "by the client")
    ]
    wait(made, timeout=30)
    assert client.run(_is_missing, made[0].key, first, workers=[second]) == {second: True}
    assert [result[2].sum() for result in mori_dask.gather(client, made)] == [499500, 499500]
    assert {*os.listdir(tmp_path)} == {"by another", "by the client"}
    client.wait_for_workers(3, timeout=60)


class Asked:
    """Says when it is being pickled, which takes a while."""

    def __init__(self, asked: Path) -> None:
        self.asked = asked

    def __reduce__(self):
        self.asked.touch()
        time.sleep(0.3)
        return Asked, (self.asked,)


def test_a_result_whose_worker_is_killed_before_the_scheduler_has_its_region_is_computed_again(
    client: Client, tmp_path: Path
):
    def make() -> tuple[Asked, np.ndarray]:
        return Asked(tmp_path / "asked"), mori.share(np.arange(1000))

    def kill() -> None:
        """Keep the scheduler from reading until the worker has sent it all, and is dead."""
        time.sleep(1)
        os.kill(pid, signal.SIGKILL)
        _wait_for_end(pid)

    made = client.submit(make, pure=False)
    wait(made, timeout=30)
    (pid,) = client.run(os.getpid, workers=list(client.who_has(made)[made.key])).values()
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(client.gather, made, direct=False)
        wait_until((tmp_path / "asked").exists)
        client.loop.add_callback(kill)
        assert got.result(60)[1].sum() == 499500
    client.wait_for_workers(3, timeout=60)


@pytest.mark.slow
def test_workers_are_killed_at_random_and_every_value_is_right():
    kills(20, "dask")
