"""`make bench-ray`: what an object costs a task of Ray, by `ray.put`, by `mori_ray.put`, and shared.

Each task gets the object and reads three of its elements; an actor that has opened a small object of the same
kind gets it and keeps it, and its private memory grows by so much. Prints a table in Markdown, with three
figures a cell: `ray.put`, `mori_ray.put`, `mori.share`.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final, NamedTuple

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import numpy as np
import pandas as pd
import polars as pl
import ray

import mori
import mori_ray

Read = Callable[[Any], object]


class Kind(NamedTuple):
    """A kind of object: what makes one of about so many rows, and what a task reads of it."""

    name: str
    make: Callable[[int], Any]
    read: Read


def _words(rows: int) -> list[str]:
    return [f"word number {i}" for i in range(rows)]


def _object_columns(rows: int) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(_words(rows), dtype=object) for name in "abc"})


def _elements(x: Any) -> object:
    return [x[i] for i in (0, len(x) // 2, len(x) - 1)]


def _entries(x: Any) -> object:
    return [x[f"word number {i}"] for i in (0, len(x) // 2, len(x) - 1)]


KINDS: Final = (
    Kind("float64 array", lambda rows: np.arange(25.0 * rows), _elements),
    Kind(
        "frame of 5 float64 columns",
        lambda rows: pd.DataFrame(np.random.default_rng(0).random((5 * rows, 5)), columns=list("abcde")),
        lambda x: x["c"].iloc[7],
    ),
    Kind("frame of 3 columns of objects", _object_columns, lambda x: x["c"].iloc[7]),
    Kind("list of str", _words, _elements),
    Kind("dict of str to int", lambda rows: dict(zip(_words(rows), range(rows), strict=True)), _entries),
    Kind(
        "dict of small arrays",
        lambda rows: {f"word number {i}": np.full(64, i) for i in range(rows // 10)},
        _entries,
    ),
    Kind("list of small dicts", lambda rows: [{"id": i, "x": i / 2} for i in range(rows // 5)], _elements),
    Kind(
        "polars frame of 3 str columns",
        lambda rows: pl.DataFrame({name: _words(rows) for name in "abc"}),
        lambda x: x["c"][7],
    ),
    Kind("bytes", lambda rows: bytes(200 * rows), _elements),
)


def _private() -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@ray.remote
def read_in_task(read: Read, x: Any) -> None:
    read(x)


@ray.remote
class Keeper:
    def keep(self, read: Read, x: Any) -> None:
        self.kept = x
        read(x)

    def private(self) -> int:
        return _private()


class Row(NamedTuple):
    way: str
    publish: float
    task: float
    private: int


def _argument(obj: Any) -> Any:
    return mori.share(obj)


WAYS: Final[tuple[tuple[str, Callable[[Any], Any]], ...]] = (
    ("ray.put", ray.put),
    ("mori_ray.put", mori_ray.put),
    ("mori.share", _argument),
)


def measure(kind: Kind, rows: int, tasks: int) -> list[Row]:
    """Return what an object of a kind costs, each way."""
    obj, small = kind.make(rows), kind.make(100)
    found = []
    for way, publish in WAYS:
        start = time.perf_counter()
        sent = publish(obj)
        seconds = time.perf_counter() - start
        times = []
        for _ in range(tasks + 2):
            start = time.perf_counter()
            ray.get(read_in_task.remote(kind.read, sent))
            times.append(time.perf_counter() - start)
        keeper = Keeper.remote()
        ray.get(keeper.keep.remote(kind.read, publish(small)))
        before = ray.get(keeper.private.remote())
        ray.get(keeper.keep.remote(kind.read, sent))
        found.append(Row(way, seconds, median(times[2:]), ray.get(keeper.private.remote()) - before))
        del sent
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="200 MB of numbers have a million (1000000)"
    )
    parser.add_argument("--tasks", type=int, default=15)
    parser.add_argument("--kinds", nargs="*", default=[kind.name for kind in KINDS], help="some of them")
    parser.add_argument("--store", type=int, default=2000, help="MB of Ray's object store (2000)")
    options = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=options.store << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    print(
        f"{options.rows} rows, medians of {options.tasks} tasks; {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, Ray {ray.__version__}, mori {mori.__version__}\n"
    )
    print("| object | to put or share, s | a task, ms | private memory of a worker, MB |")
    print("|---|---|---|---|")
    nothing = Kind("None", lambda rows: None, lambda x: None)
    for kind in (nothing, *(kind for kind in KINDS if kind.name in options.kinds)):
        rows = measure(kind, options.rows, options.tasks)
        columns = (
            " / ".join(f"{row.publish:.3f}" for row in rows),
            " / ".join(f"{row.task * 1e3:.1f}" for row in rows),
            " / ".join(f"{row.private / 1e6:.1f}" for row in rows),
        )
        print(f"| {kind.name} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
