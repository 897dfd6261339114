"""Kills the creators of regions in a pool, in Dask and in Ray, and checks every value and every leak.

``python -m tests.killing pool 10000`` kills that many, ``dask`` and ``ray`` the same, with another number for
the seconds after which it ends anyhow. Each round submits tasks that read what they are given, and share
what they return; one of the processes that run them is killed at a random moment. It prints a line of JSON:
how many were killed, how many results were checked, what was wrong, and what was left.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

import mori
from mori import store as stores
from mori.memory import lease
from tests import stored
from tests.stressing import check, make

_TASKS = 6  # of a round
_LONGEST = 0.04  # seconds until one is killed, in a pool
_WORKERS = ("ray::IDLE", "ray::work", "ray::look")  # no raylet lives on without its agents
_SOON = 30  # seconds until all has to be gone
_WAIT = 300  # seconds for the tasks of an engine


def work(seed: int, given: Any) -> tuple[int, Any]:
    """Check what is given, and share something."""
    check(given, seed + 1)
    return os.getpid(), mori.share(make(seed))


def look(seeds: tuple[int, ...], *made: Any) -> tuple[int, ...]:
    """Check what other tasks have shared; maybe their processes are dead."""
    for seed, (_, shared) in zip(seeds, made, strict=True):
        check(shared, seed)
    return seeds


class Killer:
    """What the engines have in common: rounds, what is counted, and the looks for leaks."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.until = most, time.monotonic() + seconds
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self.kept: deque[tuple[int, tuple[int, Any]]] = deque(maxlen=5 * _TASKS)  # by their seeds

    def run(self, opened: Callable[[], AbstractContextManager[Callable[[], object]]], every: int) -> None:
        """Have rounds until as many were killed as were asked for; look for leaks after so many rounds."""
        before = self.left()
        shmem = _shmem()
        with opened() as play:
            while self.done["killed"] < self.most and time.monotonic() < self.until:
                try:
                    play()
                except Exception:
                    self.faults.append(traceback.format_exc())
                    break
                self.done["rounds"] += 1
                if self.done["rounds"] % every == 0:
                    self.settle(before)
        self.settle(before)
        report = {"done": self.done, "faults": self.faults, "shmem_grown": _shmem() - shmem}
        sys.stdout.write(json.dumps({**report, "left": sorted(self.left() - before)}) + "\n")

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.done["killed"] += 1

    def left(self) -> set[str]:
        """Return the regions that this process or one below it holds, and the files of the store."""
        me = psutil.Process()
        family = {me.pid, *(child.pid for child in me.children(recursive=True))}
        held = {entry.name for entry in stores.current().entries() if family & {*entry.holders}}
        return held | {*stored.names()}

    def settle(self, before: set[str]) -> None:
        """Wait until nothing is left; that it is not so in time is a fault."""
        self.kept.clear()
        limit = time.monotonic() + _SOON
        while left := self.left() - before:
            if time.monotonic() > limit:
                self.faults.append(f"left behind: {sorted(left)}")
                return
            gc.collect()
            lease.expire_graces()
            self.done["orphans"] += len(mori.prune_shared())
            time.sleep(0.05)

    def read(self, seeds: list[int], made: list[tuple[int, Any]]) -> None:
        """Check what a round has made, and earlier ones, whose makers may be dead by now; keep it."""
        for seed, (pid, shared) in [*self.kept, *zip(seeds, made, strict=True)]:
            check(shared, seed)
            self.done["checked"] += 1
            self.done["made by the dead"] += not psutil.pid_exists(pid)
        self.kept.extend(zip(seeds, made, strict=True))

    # the engines

    @contextlib.contextmanager
    def pool(self) -> Iterator[Callable[[], object]]:
        yield self.play_pool

    def play_pool(self) -> None:
        """Use an executor until one of its processes is killed, which ends it; read all once it is gone."""
        kept: list[tuple[int, Any]] = []
        seeds = [random.randrange(1 << 30) for _ in range(_TASKS)]
        pool = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
        futures = [pool.submit(work, seed, mori.share(make(seed + 1))) for seed in seeds]
        pids = [*pool._processes]
        time.sleep(random.uniform(0, _LONGEST))
        self.kill(random.choice(pids))
        for seed, future in zip(seeds, futures, strict=True):
            try:
                kept.append((seed, future.result(_SOON)[1]))
            except BrokenProcessPool:
                self.done["lost"] += 1
        for pid in pids:  # one may wait for ever for a lock that the other had
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pool.shutdown()
        for seed, shared in kept:
            try:
                check(shared, seed)
            except mori.RegionNotFoundError:  # it was killed between sending it and its arrival
                self.done["gone"] += 1
                continue
            assert mori.is_shared(shared), seed
            self.done["checked"] += 1

    @contextlib.contextmanager
    def dask(self) -> Iterator[Callable[[], object]]:
        import dask
        from distributed import Client, LocalCluster
        from distributed.utils import get_mp_context

        import mori_dask  # noqa: F401

        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 1_000_000,
                # So long after a worker's end (15 s by default) the cluster closes its nanny for good if that
                # has no worker at this moment, though it may have had one meanwhile. So goes one nanny after
                # the other, and the tasks wait for ever.
                "distributed.deploy.lost-worker-timeout": "1000 days",
                "distributed.worker.multiprocessing-method": "forkserver",  # four times as many workers
            }
        )
        get_mp_context().set_forkserver_preload(["mori_dask", "tests.stressing"])
        options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
        with LocalCluster(n_workers=4, **options) as cluster, Client(cluster) as client:
            yield lambda: self.play_dask(cluster, client)

    def play_dask(self, cluster: Any, client: Any) -> None:
        """Submit tasks that share and others that read what they made; kill some workers meanwhile."""
        from distributed import wait
        from distributed.core import Status

        seeds = [random.randrange(1 << 30) for _ in range(_TASKS)]
        made = [client.submit(work, seed, mori.share(make(seed + 1)), pure=False) for seed in seeds]
        pairs = [*zip(_pairs(seeds), _pairs(made), strict=True)]
        seen = [client.submit(look, two, *results, pure=False) for two, results in pairs]
        for _ in range(random.randint(1, 4)):
            time.sleep(random.expovariate(10))
            processes = [nanny.process for nanny in cluster.workers.values()]
            if pids := [one.pid for one in processes if one.status == Status.running and one.pid is not None]:
                self.kill(random.choice(pids))
        try:
            wait([*seen, *made], timeout=_WAIT)
        except TimeoutError:
            states = {key: str(task.state) for key, task in cluster.scheduler.tasks.items()}
            nannies = {name: str(nanny.status) for name, nanny in cluster.workers.items()}
            raise AssertionError(f"{states}, {nannies}, {[*cluster.scheduler.workers]}") from None
        assert client.gather(seen) == _pairs(seeds)
        self.done["checked"] += 2 * _TASKS
        self.read(seeds, client.gather(made))

    @contextlib.contextmanager
    def ray(self) -> Iterator[Callable[[], object]]:
        from tests.mori_ray import conftest

        conftest.connect()
        try:
            yield self.play_ray
        finally:
            conftest.end()

    def play_ray(self) -> None:
        """Submit tasks that share and others that read what they made; kill a worker meanwhile."""
        import ray

        works, looks = (ray.remote(one).options(max_retries=-1) for one in (work, look))
        seeds = [random.randrange(1 << 30) for _ in range(_TASKS)]
        made = [works.remote(seed, mori.share(make(seed + 1))) for seed in seeds]
        pairs = [*zip(_pairs(seeds), _pairs(made), strict=True)]
        seen = [looks.remote(two, *results) for two, results in pairs]
        time.sleep(random.expovariate(10))
        below = psutil.Process().children(recursive=True)
        if alive := [one.pid for one in below if _title(one).startswith(_WORKERS)]:
            self.kill(random.choice(alive))
        assert ray.get(seen, timeout=_WAIT) == _pairs(seeds)
        self.done["checked"] += 2 * _TASKS
        self.read(seeds, ray.get(made, timeout=_WAIT))


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    """Return each with the one before it, so that what one process has made goes to another."""
    return [(items[number - 1], item) for number, item in enumerate(items)]


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _shmem() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Shmem:"))


def kills(most: int, engine: str) -> None:
    """Kill so many in a process of its own, and fail if a value was wrong or anything is left."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", engine, str(most)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=100 + 3 * most,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert report["faults"] == report["left"] == [], report
    assert report["done"]["killed"] >= most, report
    assert report["done"]["checked"] > most, report


def main(engine: str, most: int, seconds: float = float("inf")) -> None:
    """Kill, and print what came of it."""
    os.environ.setdefault("MORI_GRACE", "0.2")
    killer = Killer(most, seconds)
    killer.run(getattr(killer, engine), {"pool": 50}.get(engine, 100))


if __name__ == "__main__":
    from tests import killing  # by this name workers import it

    killing.main(sys.argv[1], *map(int, sys.argv[2:]))
