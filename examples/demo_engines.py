"""What the demo runs on: the task, the meeting at which all workers are measured, and the three engines.

The workers import this module, so it imports no engine at its top.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil

import mori

Means = dict[str, float]
_sent_bytes = 0  # to Dask's sockets


class Report(NamedTuple):
    """What a task sends back."""

    seed: int
    means: Means
    computed: float  # when, on the clock of all processes
    pid: int
    uss: int
    pss: int


class Meeting(NamedTuple):
    """A place where the tasks of one job wait for each other: a file each, in a directory."""

    size: int
    directory: Path

    def arrived(self, stage: str) -> int:
        return sum(1 for _ in self.directory.glob(f"{stage}-*"))

    def wait(self, stage: str, who: int) -> None:
        (self.directory / f"{stage}-{who}").touch()
        deadline = time.monotonic() + 90
        while self.arrived(stage) < self.size:
            if time.monotonic() > deadline or not self.directory.exists():
                raise TimeoutError(f"only {self.arrived(stage)} of {self.size} tasks {stage}")
            time.sleep(0.005)


@contextmanager
def meeting_of(size: int) -> Iterator[Meeting]:
    """Lease a meeting. When its directory goes, no task waits any longer."""
    with tempfile.TemporaryDirectory(prefix="mori-demo-", ignore_cleanup_errors=True) as directory:
        yield Meeting(size, Path(directory))


class Run(NamedTuple):
    """What an engine tells about one job."""

    reports: list[Report]
    began: float
    sent: float  # bytes a task


class Job(NamedTuple):
    """What a task has to do with the frame."""

    seed: int
    rows: int
    meeting: Meeting


def bootstrap(frame: pd.DataFrame, seed: int, rows: int) -> Means:
    """Resample the rows, with replacement, and return the means of the numeric columns."""
    picks = np.random.default_rng(seed).integers(len(frame), size=rows)
    return {name: float(frame[name].iloc[picks].mean()) for name in frame.select_dtypes("number")}


def task(frame: pd.DataFrame, job: Job) -> Report:
    """Compute; then hold the frame until all tasks hold it and all have measured their memory."""
    means = bootstrap(frame, job.seed, job.rows)
    computed = time.monotonic()
    job.meeting.wait("computed", job.seed)
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # so that what is measured is in use
    memory = psutil.Process().memory_full_info()
    job.meeting.wait("measured", job.seed)
    return Report(job.seed, means, computed, os.getpid(), memory.uss, memory.pss)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Lease Ctrl-C back here, and for ever in the processes started inside, which this one will end."""
    resource_tracker.ensure_running()  # its start would unblock them
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Processes:
    """The standard library's process pool; its workers are spawned."""

    name, library = "processes", "concurrent"
    plain = "the frame is an argument of each task"
    counted = "length of the pickle of one task with its arguments"

    def __init__(self, workers: int, nbytes: int) -> None:
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        with interrupts_blocked():
            for _ in range(workers):
                self._pool.submit(os.getpid)

    def run(self, frame: pd.DataFrame, shared: bool, jobs: list[Job]) -> Run:
        began = time.monotonic()
        argument = mori.share(frame) if shared else frame
        futures = [self._pool.submit(task, argument, job) for job in jobs]
        reports = [future.result() for future in as_completed(futures)]
        return Run(reports, began, len(ForkingPickler.dumps((task, argument, jobs[0]))))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class Dask:
    """A LocalCluster with one thread in each worker process."""

    name, library = "Dask", "distributed"
    plain = "client.scatter(frame), and its future is the argument: its warning of large graphs advises it"
    counted = "what client, scheduler and workers write to their sockets, divided by the tasks"

    def __init__(self, workers: int, nbytes: int) -> None:
        from distributed import Client, LocalCluster

        import mori_dask  # noqa: F401  before the cluster starts

        with interrupts_blocked():
            one = {"threads_per_worker": 1, "processes": True, "memory_limit": 0, "dashboard_address": ":0"}
            self._cluster = LocalCluster(n_workers=workers, silence_logs=logging.CRITICAL, **one)
            self._client = Client(self._cluster)
        self._workers = sorted(self._client.nthreads())
        count_sent()
        self._client.run(count_sent)

    def run(self, frame: pd.DataFrame, shared: bool, jobs: list[Job]) -> Run:
        before = sent() + sum(self._client.run(sent).values())
        began = time.monotonic()
        argument = mori.share(frame) if shared else self._client.scatter(frame)
        futures = [
            self._client.submit(task, argument, job, pure=False, workers=[worker])
            for job, worker in zip(jobs, self._workers, strict=True)
        ]
        reports = self._client.gather(futures)
        after = sent() + sum(self._client.run(sent).values())
        return Run(reports, began, (after - before) / len(jobs))

    def close(self) -> None:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # after Ctrl-C it tells of each task
        with interrupts_blocked():
            self._client.close()
            self._cluster.close()
        gc.collect()  # a closed scheduler is a heap of cycles, with the messages it has seen in it


def count_sent() -> None:
    """Count what this process writes to Dask's sockets from now on."""
    from distributed.comm.tcp import TCP

    write = TCP.write

    async def counting(*args: Any, **kwargs: Any) -> Any:
        global _sent_bytes
        nbytes = await write(*args, **kwargs)  # before the sum is read: others write meanwhile
        _sent_bytes += nbytes
        return nbytes

    TCP.write = counting


def sent() -> int:
    return _sent_bytes


class Ray:
    """A local Ray with one actor in each worker process."""

    name, library = "Ray", "ray"
    plain = "ray.put(frame), and its ObjectRef is the argument"
    counted = "serialized size of the arguments of one task"

    def __init__(self, workers: int, nbytes: int) -> None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        import mori_ray  # noqa: F401

        with interrupts_blocked():
            quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.CRITICAL}
            quiet["object_store_memory"] = max(2 * nbytes, 200_000_000)
            ray.init(address="local", num_cpus=workers, **quiet)
        self._ray = ray
        self._actors = [ray.remote(RayWorker).remote() for _ in range(workers)]
        self._measure_arguments()

    def run(self, frame: pd.DataFrame, shared: bool, jobs: list[Job]) -> Run:
        began = time.monotonic()
        argument = mori.share(frame) if shared else self._ray.put(frame)
        self._sizes.clear()
        pending = [actor.run.remote(argument, job) for actor, job in zip(self._actors, jobs, strict=True)]
        nbytes = sum(self._sizes) / len(jobs)
        if not shared:  # an ObjectRef is not serialized: its id is sent, and its owner
            nbytes += len(argument.binary() + argument.owner_address())
        return Run(self._ray.get(pending), began, nbytes)

    def _measure_arguments(self) -> None:
        """Collect the sizes of what Ray serializes here from now on."""
        from ray._private import serialization

        self._sizes, make = [], serialization.MessagePackSerializedObject

        def measuring(*args: Any) -> Any:
            self._sizes.append((made := make(*args)).total_bytes)
            return made

        serialization.MessagePackSerializedObject = measuring

    def close(self) -> None:
        self._ray.shutdown()


class RayWorker:
    def run(self, frame: pd.DataFrame, job: Job) -> Report:
        return task(frame, job)


ENGINES = {engine.name.lower(): engine for engine in (Processes, Dask, Ray)}
