"""What the Dask examples have in common: a cluster, and two ways of one job side by side."""

from __future__ import annotations

import argparse
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil
from distributed import Client, LocalCluster

import mori_dask  # noqa: F401  before the cluster is made: its workers are asked to import it


class Row(NamedTuple):
    """What one way took."""

    way: str
    seconds: float
    workers: float  # the most that all workers took more than before, in MB; shared pages once
    result: Any


def options(description: str | None, megabytes: int) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--megabytes", type=float, default=megabytes, help="of the data")
    parser.add_argument("--workers", type=int, default=4)
    return parser.parse_args()


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Start worker processes on this machine."""
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
        ) as made,
        Client(made) as client,
    ):
        yield client


def measured(client: Client, way: str, job: Callable[[], Any]) -> Row:
    """Run a job, and watch the workers' memory meanwhile."""
    pids = list(client.run(os.getpid).values())
    samples = [_pss(pids)]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            samples.append(_pss(pids))

    watching = threading.Thread(target=watch)
    watching.start()
    start = time.perf_counter()
    try:
        result = job()
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watching.join()
    samples.append(_pss(pids))
    return Row(way, seconds, (max(samples) - samples[0]) / 1e6, result)


def _pss(pids: list[int]) -> int:
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


def report(title: str, rows: list[Row], is_same: Callable[[Any, Any], bool]) -> None:
    """Print the rows; end with an error if their results differ."""
    print(title)
    print(f"  {'way':24} {'seconds':>8} {'workers, MB more':>17}")
    for row in rows:
        print(f"  {row.way:24} {row.seconds:8.2f} {row.workers:17.0f}")
    if not all(is_same(row.result, rows[0].result) for row in rows):
        raise SystemExit("  the results differ")
    print("  all results equal")
