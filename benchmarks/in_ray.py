"""`make bench-ray`: `ray.put`, `mori_ray.put` and `mori.share` in one run; writes benchmarks/RESULTS_RAY.md.

Each task gets the object and reads three of its elements. An actor that has opened a small object of the
same kind gets it and keeps it: that is a worker's first use, by which its private memory grows. The ways
take turns, round after round. Then whole jobs, from the object to the results (benchmarks/ray_jobs.py).
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import pandas as pd
import polars as pl
import ray

import mori
from benchmarks import ray_jobs
from benchmarks.ray_jobs import WAYS, connect

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


class Costs(NamedTuple):
    """What an object costs in one round, one way."""

    publish: float
    task: float
    first: float
    private: float


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(kind: Kind, obj: Any, publish: Callable[[Any], Any], tasks: int) -> Costs:
    """Return what an object costs, one way."""
    small = publish(kind.make(100))
    start = time.perf_counter()
    sent = publish(obj)
    seconds = time.perf_counter() - start
    times = [_seconds(lambda: ray.get(read_in_task.remote(kind.read, sent))) for _ in range(tasks + 1)]
    keeper = Keeper.remote()
    ray.get(keeper.keep.remote(kind.read, small))
    before = ray.get(keeper.private.remote())
    first = _seconds(lambda: ray.get(keeper.keep.remote(kind.read, sent)))
    private = ray.get(keeper.private.remote()) - before
    return Costs(seconds, median(times[1:]), first, private)


def row(kind: Kind, rows: int, tasks: int, rounds: int) -> str:
    """Measure a kind of object; return its line of the table."""
    obj = kind.make(rows)
    found: dict[str, list[Costs]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, publish in WAYS.items():
            found[way].append(measure(kind, obj, publish, tasks))
            gc.collect()  # and not in the midst of the next
    cells = [
        " / ".join(f"{median(costs[i] for costs in found[way]) * unit:.{digits}f}" for way in WAYS)
        for i, unit, digits in ((0, 1, 3), (1, 1e3, 1), (2, 1e3, 1), (3, 1e-6, 1))
    ]
    own, theirs = found["ray.put"], found["mori.share"]
    times = [a.task / b.task for a, b in zip(own, theirs, strict=True)]
    return f"| {' | '.join([kind.name, *cells])} | {median(times):.1f} ({min(times):.1f}-{max(times):.1f}) |"


_TEXT: Final = """# Results in Ray

`make bench-ray`: medians of {rounds} interleaved rounds. {machine}.

## Objects

{rows:,} rows: 200 MB of numbers have a million, lists and dicts that many elements, the dict
of arrays a tenth, the list of dicts a fifth. In each cell: {ways}.
A round's time for a task is the median of {tasks}. A worker's first use is the first task of a new
process that gets the object, whose imports are made; private memory is the growth of RssAnon by it. The last
column is the ratio of ray.put to mori.share, with the range over the rounds.

| object | to put or share, s | a task, ms | a worker's first use, ms | a worker's private MB | a task, x |
|---|---|---|---|---|---|
{objects}

{jobs}"""


def _machine() -> str:
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) / 1e6
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    versions = f"Python {platform.python_version()}, Ray {ray.__version__}, mori {mori.__version__}"
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {system}; {versions}"


def main() -> None:
    """Measure all, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=[kind.name for kind in KINDS], help="some of them")
    parser.add_argument("--store", type=int, default=2000, help="MB of Ray's object store (2000)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS_RAY.md"))
    options = parser.parse_args()
    warnings.simplefilter("ignore", mori.ObjectColumnWarning)  # the table says it
    nothing = Kind("None", lambda rows: None, lambda x: None)
    lines = []
    connect(options.store)
    for kind in (nothing, *(kind for kind in KINDS if kind.name in options.kinds)):
        lines.append(row(kind, options.rows, options.tasks, options.rounds))
        print(lines[-1], flush=True)
    ray.shutdown()
    text = _TEXT.format(
        rounds=options.rounds,
        tasks=options.tasks,
        rows=options.rows,
        machine=_machine(),
        ways=", ".join(WAYS),
        objects="\n".join(lines),
        jobs=ray_jobs.report(options.rows, options.rounds, options.store),
    )
    options.out.write_text(text)
    print(f"\n{text}\nwritten to {options.out}")


if __name__ == "__main__":
    main()
