"""Real clusters for the tests of mori_dask: a scheduler, nannies and worker processes."""

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.core import Status
from distributed.scheduler import WorkerState
from distributed.stealing import WorkStealing

import mori_dask  # noqa: F401  before any cluster: workers inherit the preload
from mori import store
from mori.memory import lease


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of three worker processes on this host."""
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def _held() -> dict[str, tuple[int, ...]]:
    """Return the regions that this process or one of its children holds, and who holds them."""
    me = psutil.Process()
    family = {me.pid, *(child.pid for child in me.children(recursive=True))}
    return {entry.name: entry.holders for entry in store.current().entries() if family & {*entry.holders}}


def _forget_heartbeats() -> None:
    """Drop what the last heartbeat of a worker that is gone said that it was at.

    distributed keeps that, and with it the task and its arguments, as long as the closed scheduler is there,
    and tasks that failed, for how long they take is not known.
    """
    for obj in gc.get_objects():
        if type(obj) is WorkerState and obj.status == Status.closed:
            obj.executing.clear()
        elif type(obj) is WorkStealing and obj.scheduler.status == Status.closed:
            obj.unknown_durations.clear()


def _record_without_frames(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """Make a log record that keeps its text alone, and nothing that its arguments and traceback hold."""
    record = logging.LogRecord(*args, **kwargs)
    record.msg, record.args = record.getMessage(), ()
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
    return record


@pytest.fixture(scope="module", autouse=True)
def no_region_outlives_its_cluster() -> Iterator[None]:
    """Fail a module that leaves a region behind when its clusters are closed."""
    before = _held()
    # pytest keeps the records it captures, and in the traceback of a broken connection stands its buffer.
    plain = logging.getLogRecordFactory()
    logging.setLogRecordFactory(_record_without_frames)
    yield
    logging.setLogRecordFactory(plain)
    limit = time.monotonic() + 20
    while True:
        _forget_heartbeats()
        lease.expire_graces()
        left = {name: holders for name, holders in _held().items() if name not in before}
        if not left:
            return
        assert time.monotonic() < limit, f"left behind by {os.getpid()}: {left}"
        gc.collect()
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the place of the check after each test: a running cluster has threads and connections.

    A scheduler keeps the last messages it sent, and with them their arguments, while it lives.
    """
    monkeypatch.setenv("MORI_GRACE", "0.2")
    yield
    request.node.funcargs.clear()  # pytest keeps them until after the module's last teardown


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition; fail after a limit."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"still not so after {seconds} s"
        time.sleep(0.02)
        gc.collect()


@contextmanager
def worker_process(
    address: str, *, before: list[str] | None = None, preload: bool = True, count: int = 1
) -> Iterator[int]:
    """A worker of its own making, or several, such as those in another pid namespace."""
    command = [*(before or []), sys.executable, "-m", "distributed.cli.dask_worker", address]
    command += ["--nthreads", "1", "--no-dashboard", "--name", "other"]
    command += ["--no-nanny"] if count == 1 else ["--nworkers", str(count)]
    if preload:
        command += ["--preload", "mori_dask"]
    process = subprocess.Popen(
        command,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "DASK_LOGGING__DISTRIBUTED": "error",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
