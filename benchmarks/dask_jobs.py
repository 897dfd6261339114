"""Whole jobs on Dask, plain and with mori: time, processor time and memory, in turns.

Each turn is a process with a cluster of its own, which does every job once; the plain one imports no mori.
Prints a table in Markdown: ``python -m benchmarks.dask_jobs --rounds 3``.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

_WORKERS: Final = 2
_EVERY: Final = 0.1  # seconds between the looks at memory


class Way:
    """The two ways to do a job: what is large is as it is, or shared."""

    def __init__(self, is_shared: bool, client: Any) -> None:
        self.is_shared = is_shared
        self.client = client
        if is_shared:
            import mori
            import mori_dask

            self.give, self.mori_dask = mori.share, mori_dask

    def give(self, obj: Any) -> Any:
        """Return what is passed for an object."""
        return obj

    def scattered(self, obj: Any) -> Any:
        """Return what is passed for an object that many tasks need: as Dask advises, or shared."""
        return self.give(obj) if self.is_shared else self.client.scatter(obj)


@functools.cache
def _matrix(megabytes: int) -> Any:
    return np.random.default_rng(0).random((megabytes * 125_000 // 10, 10))


@functools.cache
def _frame(megabytes: int) -> Any:
    import pandas as pd

    return pd.DataFrame(_matrix(megabytes), columns=list("abcdefghij"))


def _column_sum(x: Any, number: int) -> float:
    return float(np.asarray(x)[:, number % 10].sum())


def search(way: Way) -> float:
    """`GridSearchCV`, 3 candidates, 2 folds, frame of 100 MB, joblib's Dask backend"""
    import joblib
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    frame = _frame(100)
    x, y = way.give(frame), way.give(frame["a"] + frame["b"])
    with joblib.parallel_config("dask"):
        found = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=2).fit(x, y)
    return float(found.cv_results_["mean_test_score"].sum())


def bootstrap(way: Way) -> float:
    """16 draws from a frame of 200 MB"""

    def draw(frame: Any, seed: int) -> float:
        picks = np.random.default_rng(seed).integers(len(frame), size=20_000)
        return float(frame["c"].to_numpy()[picks].mean())

    frame = way.scattered(_frame(200))
    return sum(way.client.gather(way.client.map(draw, [frame] * 16, range(16), pure=False)))


def look_up(way: Way) -> float:
    """`map_partitions` with a dict of 200,000, 16 partitions"""
    import dask.dataframe as dd
    import pandas as pd

    keys = [f"key {number}" for number in range(200_000)]
    table = way.give(dict(zip(keys, range(200_000), strict=True)))
    frame = dd.from_pandas(pd.DataFrame({"key": keys[::40]}), npartitions=16)
    found = frame.map_partitions(
        lambda part, table: part.key.map(lambda key: table[key]), table, meta=("key", "i8")
    )
    return float(found.sum().compute())


def _series() -> Any:
    import dask

    return dask.datasets.timeseries("2000-01-01", "2000-01-08", freq="2s", partition_freq="1D", seed=0)


def merge(way: Way) -> float:
    """`merge` of two dataframes of 12 MB, P2P"""
    left, right = _series()[["id", "x"]], _series()[["id", "y"]].drop_duplicates("id")
    return float(len(left.merge(right, on="id")))


def group(way: Way) -> float:
    """`groupby` and `agg` of 15 MB"""
    return float(_series().groupby("name").agg({"x": "sum", "y": "max"}).y.sum().compute())


def shuffle(way: Way) -> float:
    """P2P shuffle of 15 MB"""
    return float(_series().shuffle("id").map_partitions(len).compute().sum())


def small(way: Way) -> float:
    """2,000 small tasks"""
    return float(sum(way.client.gather(way.client.map(lambda number: number + 1, range(2000), pure=False))))


def publish(way: Way) -> float:
    """Publish 100 MB, 4 tasks get it"""
    from distributed import get_client

    way.client.publish_dataset(way.give(_matrix(100)), name="matrix")
    read = lambda number: _column_sum(get_client().get_dataset("matrix"), number)  # noqa: E731
    found = sum(way.client.gather(way.client.map(read, range(4), pure=False)))
    way.client.unpublish_dataset("matrix")
    return float(found)


class Table:
    """An actor with a large state."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def total(self, number: int) -> float:
        return _column_sum(self.x, number)


def act(way: Way) -> float:
    """2 actors with a state of 100 MB, 20 calls"""
    x = way.scattered(_matrix(100))
    actors = [way.client.submit(Table, x, actor=True, pure=False).result() for _ in range(2)]
    return sum(actors[number % 2].total(number).result() for number in range(20))


def run(way: Way) -> float:
    """`client.run` with an argument of 100 MB"""
    return float(sum(way.client.run(_column_sum, way.give(_matrix(100)), 3).values()))


def asynchronous(way: Way) -> float:
    """An asynchronous client, 8 tasks on 100 MB"""

    async def main() -> float:
        from distributed import Client

        async with Client(way.client.scheduler.address, asynchronous=True, set_as_default=False) as client:
            x = way.give(_matrix(100)) if way.is_shared else await client.scatter(_matrix(100))
            return float(sum(await client.gather(client.map(_column_sum, [x] * 8, range(8), pure=False))))

    return asyncio.run(main())


def labelled(way: Way) -> float:
    """xarray: the mean of 100 MB in chunks"""
    import dask.array as da
    import xarray as xr

    x = _matrix(100)
    chunked = way.mori_dask.from_array(x, 100_000) if way.is_shared else da.from_array(x, 100_000)
    return float(xr.DataArray(chunked, dims=("row", "column")).mean("row").sum().compute())


def boost(way: Way) -> float:
    """`xgboost.dask.train`, 5 rounds, frame of 40 MB"""
    import dask.dataframe as dd
    from xgboost import dask as dxgb

    frame = _frame(40)
    parts = way.mori_dask.from_pandas(frame, 4) if way.is_shared else dd.from_pandas(frame, 4)
    data = dxgb.DaskDMatrix(way.client, parts[list("bcdefghij")], parts["a"])
    trained = dxgb.train(way.client, {"tree_method": "hist", "nthread": 1}, data, 5, evals=[(data, "train")])
    return round(float(trained["history"]["train"]["rmse"][-1]), 6)


def encrypted(way: Way) -> float:
    """TLS: 8 tasks on 100 MB"""
    from distributed import Client, LocalCluster
    from distributed.security import Security

    with (
        LocalCluster(
            _WORKERS, threads_per_worker=1, security=Security.temporary(), dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        there = Way(way.is_shared, client)
        x = there.scattered(_matrix(100))
        return float(sum(client.gather(client.map(_column_sum, [x] * 8, range(8), pure=False))))


JOBS: Final[dict[str, Callable[[Way], float]]] = {
    job.__name__: job
    for job in (
        *(search, bootstrap, look_up, merge, group, shuffle, small, publish, act, run, asynchronous),
        *(labelled, boost, encrypted),
    )
}


_WARM: Final = frozenset({"merge", "group", "shuffle", "small", "labelled", "boost"})
"""What is done once before it is measured: its first time is that of the imports in the workers."""


def _family() -> list[int]:
    """Return this process and all below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _pss_and_seconds() -> tuple[float, float]:
    """Return the PSS of this process and all below it in MB, and the processor time they have taken."""
    pss = ticks = 0
    for pid in _family():
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                pss += int(line.split()[1]) if line.startswith("Pss:") else 0
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
        except OSError:
            continue
    return pss / 1000, ticks / os.sysconf("SC_CLK_TCK")


def _measured(job: Callable[[Way], float], way: Way) -> dict[str, Any]:
    peak, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(_EVERY):
            peak[0] = max(peak[0], _pss_and_seconds()[0])

    before, processor = _pss_and_seconds()
    thread = threading.Thread(target=look)
    thread.start()
    began = time.perf_counter()
    try:
        result: Any = job(way)
    except ImportError as error:
        return {"missing": error.name or "a library"}
    finally:
        seconds = time.perf_counter() - began
        over.set()
        thread.join()
    after, until = _pss_and_seconds()
    grown = max(peak[0], after) - before
    return {"result": result, "seconds": seconds, "processor": until - processor, "pss": grown}


def turn(is_shared: bool, names: list[str]) -> None:
    """Do every job once, in a cluster of its own, and print what was measured."""
    if is_shared:
        import mori_dask  # noqa: F401  before the cluster
    from distributed import Client, LocalCluster

    for build in (
        functools.partial(_frame, 300),
        functools.partial(_matrix, 100),
        functools.partial(_frame, 200),
    ):
        build()
    with (
        LocalCluster(_WORKERS, threads_per_worker=1, dashboard_address=":0", memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(np.sqrt, range(10)))
        for name in names:
            if name in _WARM:
                _measured(JOBS[name], Way(is_shared, client))
            print(json.dumps([name, _measured(JOBS[name], Way(is_shared, client))]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--turn", choices=["plain", "shared"], help="do one turn, in this process")
    chosen = parser.parse_args()
    names = chosen.jobs.split(",")
    if chosen.turn:
        turn(chosen.turn == "shared", names)
        return
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {"plain": [], "shared": []} for name in names}
    for number in range(chosen.rounds):
        for way in ("plain", "shared") if number % 2 else ("shared", "plain"):
            command = [sys.executable, "-m", "benchmarks.dask_jobs", "--turn", way, "--jobs", chosen.jobs]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            for line in done.stdout.splitlines():
                name, measured = json.loads(line)
                found[name][way].append(measured)
    print("| job | seconds, plain / mori | processor seconds | PSS grows by, MB | |\n|---|---|---|---|---|")
    for name, ways in found.items():
        if missing := next(
            (one["missing"] for ways_ in ways.values() for one in ways_ if "missing" in one), None
        ):
            print(f"| {JOBS[name].__doc__} | {missing} is not installed | | | |")
            continue
        cells = [
            " / ".join(f"{median(one[what] for one in ways[way]):,.{digits}f}" for way in ("plain", "shared"))
            for what, digits in (("seconds", 2), ("processor", 2), ("pss", 0))
        ]
        results = [one["result"] for way in ways.values() for one in way]
        same = "equal" if np.allclose(results, results[0], rtol=1e-12) else f"DIFFER: {results}"
        print(f"| {JOBS[name].__doc__} | {' | '.join(cells)} | {same} |")


if __name__ == "__main__":
    main()
