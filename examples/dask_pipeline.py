"""A pipeline in Dask, plain and with results that are shared by the worker that made them.

Days of measurements are made, each a frame; then many tasks look at each of them, on whatever worker is free.
Plain Dask sends a copy of the day to every worker that looks at it, or lets the others wait. With
``mori.dask.auto-share`` they map what the first one made; no task knows of it.
``python examples/dask_pipeline.py --megabytes 200 --days 4``
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import dask
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster

import mori_dask  # noqa: F401  before the cluster is made: its workers are asked to import it

COLUMNS = ("load", "pressure", "temperature", "wind")


class Row(NamedTuple):
    """What one way took."""

    way: str
    seconds: float
    processor: float  # seconds of all workers together
    peak: float  # bytes of all workers together, shared pages once
    results: list[dict[str, float]]


def measure_day(day: int, rows: int) -> pd.DataFrame:
    """Make the measurements of a day: whole numbers, whose sums do not depend on their order."""
    random = np.random.default_rng(day)
    return pd.DataFrame({name: random.integers(0, 1000, rows).astype(float) for name in COLUMNS})


def look(frame: pd.DataFrame, hour: int) -> dict[str, float]:
    """Return something that is known only when all of a day has been read."""
    column = frame[COLUMNS[hour % len(COLUMNS)]].to_numpy()
    return {"mean": float(column.mean()), "above": float((column > 40 * hour).mean())}


def join(parts: list[dict[str, float]]) -> dict[str, float]:
    """Put a day's parts together."""
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


def run(client: Client, days: int, rows: int, looks: int) -> list[dict[str, float]]:
    """Run the pipeline: a frame a day, many looks at each, one result a day."""
    joined = []
    for day in range(days):
        frame = client.submit(measure_day, day, rows, pure=False)
        parts = [client.submit(look, frame, hour, pure=False) for hour in range(looks)]
        joined.append(client.submit(join, parts, pure=False))
    return client.gather(joined)


def pss(pid: int) -> int:
    """Return the memory of a process in bytes, where a shared page counts in parts."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    except OSError:
        return 0


@contextmanager
def watched(pids: list[int]) -> Iterator[list[int]]:
    """Sample the memory of processes while something runs."""
    samples, stop = [sum(map(pss, pids))], threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            samples.append(sum(map(pss, pids)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def measure(way: str, setting: str | bool, options: argparse.Namespace) -> Row:
    """Run the pipeline on a cluster of its own."""
    with (
        dask.config.set({"mori.dask.auto-share": setting}),
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,  # of connections that are closed while the cluster is
        ) as cluster,
        Client(cluster) as client,
    ):
        rows = int(options.megabytes * 1e6) // (8 * len(COLUMNS))
        run(client, options.workers, 100, 4)  # so that every worker has imported what it needs
        pids = [worker.pid for worker in cluster.scheduler.workers.values()]
        with watched(pids) as samples:
            before = sum(client.run(time.process_time).values())
            start = time.perf_counter()
            results = run(client, options.days, rows, options.looks)
            seconds = time.perf_counter() - start
            processor = sum(client.run(time.process_time).values()) - before
    return Row(way, seconds, processor, max(samples) - samples[0], results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=200, help="of a day (200)")
    parser.add_argument("--days", type=int, default=4, help="how many (4)")
    parser.add_argument("--looks", type=int, default=24, help="tasks that look at each day (24)")
    parser.add_argument("--workers", type=int, default=4, help="processes (4)")
    options = parser.parse_args()
    least = max(1, int(options.megabytes * 1e6) // 10)
    ways = (("plain", False), ("auto-share", f"{least} B"))
    rows = [measure(way, setting, options) for way, setting in ways]
    print("| results | time | processor time | memory beyond the idle workers' |")
    print("|---|---|---|---|")
    for row in rows:
        print(f"| {row.way} | {row.seconds:.2f} s | {row.processor:.2f} s | {row.peak / 1e6:.0f} MB |")
    if rows[0].results != rows[1].results:
        raise SystemExit("The results differ.")
    print(f"{options.days} days of {options.megabytes:g} MB, {options.looks} looks at each: results equal.")


if __name__ == "__main__":
    main()
