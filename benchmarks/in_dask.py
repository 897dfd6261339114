"""`make bench-dask`: what mori costs Dask where nothing is shared, and what it saves where something is.

Three parts, each of which can be left out: what small tasks that share nothing cost, without mori and with
it, in instructions (counted by valgrind, where it is installed) and in time; an array given to all workers
of this host; the examples at full size. Prints Markdown. On two cores that have nothing else to do it takes
half an hour, most of it for the first part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Final

import dask
import distributed.scheduler
import numpy as np
import numpy.typing as npt
from distributed import Client, LocalCluster

_EXAMPLES: Final = Path(__file__).parent.parent / "examples"
_BATCH: Final = 100  # tasks that are submitted at once
_COUNTING: Final = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
_KINDS: Final = {
    "plain": "plain",
    "again": "plain, once more",
    "mori": "mori installed",
    "used": "mori, when a region has been there",
}


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    made = LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
    )
    with made, Client(made) as client:
        yield client


# Tasks that share nothing

# What Dask does as time goes by would be counted with the tasks, under valgrind fifty times.
_QUIET: Final = {
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.worker-ttl": None,
    **{
        f"distributed.{key}": "1h"
        for key in (
            *("admin.tick.interval", "admin.system-monitor.interval", "worker.memory.monitor-interval"),
            *("client.heartbeat", "comm.timeouts.connect", "comm.timeouts.tcp"),
        )
    },
}


def _small_task(number: int) -> int:
    return number + 1


def _rounds(seconds: float, least: int = 3) -> Iterator[int]:
    """Count rounds, until a time is over."""
    until = time.monotonic() + seconds
    for number in itertools.count(1):
        yield number
        if number >= least and time.monotonic() > until:
            return


class _Samples:
    """Where the processor is at every tick of its clock, and how often that is in mori's code."""

    def __init__(self) -> None:
        self.all = self.ours = 0
        self._folders = tuple(f"{_EXAMPLES.parent / name}{os.sep}" for name in ("mori", "mori_dask"))

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Take samples inside."""
        signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        self.all += 1
        self.ours += frame is not None and frame.f_code.co_filename.startswith(self._folders)


async def _some_tasks(client: Client, count: int) -> None:
    for _ in range(0, count, _BATCH):
        await client.gather(client.map(_small_task, range(_BATCH), pure=False))
        await asyncio.sleep(0.05)  # the futures' end is part of it


async def _small_tasks(kind: str, count: int, *, counted: bool) -> tuple[float, int, int]:
    """Run small tasks; return the processor's seconds, the samples that were taken, and those in mori."""
    with_mori = kind in ("mori", "used")
    distributed.scheduler.heartbeat_interval = lambda workers: 3600.0  # as `_QUIET`
    if with_mori:
        import mori
        import mori_dask
    cluster = LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,  # and yet all that is sent is serialized
        protocol="tcp://",
        dashboard_address=":0",
        silence_logs=logging.ERROR,
        asynchronous=True,
    )
    async with cluster, Client(cluster, asynchronous=True) as client:
        if with_mori:
            await mori_dask.install(client)
        if kind == "used":
            await client.submit(np.sum, mori.share(np.arange(1000.0)))
        await _some_tasks(client, 2 * _BATCH)  # what is imported late
        gc.collect()
        gc.freeze()
        samples, before = _Samples(), time.process_time()
        with contextlib.nullcontext() if counted else samples.taken():
            await _some_tasks(client, count)
        return time.process_time() - before, samples.all, samples.ours


def _run(kind: str, count: int, *, counted: bool) -> subprocess.CompletedProcess[str]:
    """Run small tasks in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.in_dask", "--run", kind, "--tasks", f"{count}"]
    if counted:
        command = [*_COUNTING, *command, "--counted"]
    # One order of sets, and no threads that wait for work by looking for it.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def _instructions(kind: str, count: int) -> float:
    """Return the processor's instructions for a task: those of many, less those of few."""
    few, many = (
        int(found.group(1).replace(",", ""))
        for tasks in (_BATCH, _BATCH + count)
        if (found := re.search(r"I +refs: +([\d,]+)", _run(kind, tasks, counted=True).stderr))
    )
    return (many - few) / count


def _compared(values: list[float], plain: npt.NDArray[np.float64], scale: float) -> str:
    ratios = np.divide(values, plain)
    low, high = np.quantile(_medians_of_samples(ratios), (0.025, 0.975))
    return f"{median(values) * scale:,.2f} | {np.median(ratios) - 1:+.2%} ({low - 1:+.2%} to {high - 1:+.2%})"


def _medians_of_samples(ratios: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return medians of samples drawn from the rounds with replacement (bootstrap)."""
    drawn = np.random.default_rng(1).choice(ratios, (10_000, ratios.size))
    return np.asarray(np.median(drawn, axis=1))


def overhead(count: int, seconds: float) -> str:
    """Compare a cluster with mori and one without: instructions, time and samples; return a table."""
    times, instructions = (defaultdict[str, list[float]](list) for _ in range(2))
    samples, ours = Counter[str](), Counter[str]()
    counted = shutil.which("valgrind") is not None
    chance = random.Random(1)
    _run("used", _BATCH, counted=False)  # compiles
    for _ in _rounds(seconds):
        for kind in chance.sample([*_KINDS], len(_KINDS)):
            if counted:
                instructions[kind].append(_instructions(kind, count))
            spent, every, in_ours = json.loads(_run(kind, count, counted=False).stdout)
            times[kind].append(spent / count)
            samples[kind] += every
            ours[kind] += in_ours
    rows = []
    for kind, name in _KINDS.items():
        row = [name]
        for found, scale in ((instructions, 1e-6), (times, 1e6)):
            plain = (np.array(found["plain"]) + found["again"]) / 2
            row.append(_compared(found[kind], plain, scale) if plain.size else "— | —")
        row.append(f"{ours[kind] / samples[kind]:.2%} of {samples[kind]:,}")
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(
        [
            f"## {count:,} small tasks, none shares anything, {len(times['plain'])} rounds in turns",
            "",
            "Client, scheduler and worker in one process, which speak TCP; compared with the mean of both "
            "plain turns: median and its 95 % interval.",
            *([] if counted else ["There is no valgrind here, which counts the instructions."]),
            "",
            "| cluster | million instructions a task | more than plain | processor µs a task "
            "| more than plain | samples in mori's code |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


# An array for all workers


def _private_and_parts(pid: int | None = None) -> int:
    with open(f"/proc/{pid or 'self'}/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def _memory(client: Client) -> int:
    return _private_and_parts() + sum(client.run(_private_and_parts).values())


def given_to_all(megabytes: int, workers: int, budget: float) -> str:
    """Compare the ways to give an array to all workers; return a table."""
    import mori
    import mori_dask

    ways: dict[str, Callable[[Client, Any], Any]] = {
        "`client.scatter(x, broadcast=True)`": lambda client, x: client.scatter(
            x, broadcast=True, hash=False
        ),
        "the same, `direct=True`": lambda client, x: client.scatter(
            x, broadcast=True, direct=True, hash=False
        ),
        "`mori_dask.scatter(client, x)`": mori_dask.scatter,
        "`mori_dask.scatter`, shared before": mori_dask.scatter,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    copies: dict[str, list[float]] = {way: [] for way in ways}
    with _cluster(workers) as client:
        addresses = list(client.nthreads())

        def read(future: Any) -> None:
            seen = [client.submit(np.sum, future, workers=[one], pure=False) for one in addresses]
            assert len({*client.gather(seen)}) == 1

        def once(way: str, values: Any) -> None:
            before = _memory(client)
            start = time.perf_counter()
            future = ways[way](client, values)
            seconds[way].append(time.perf_counter() - start)
            read(future)
            copies[way].append((_memory(client) - before) / values.nbytes)
            del future
            wait_until_free(before + values.nbytes // 2)

        def wait_until_free(most: float) -> None:
            limit = time.monotonic() + 20
            while _memory(client) > most and time.monotonic() < limit:
                time.sleep(0.2)

        read(mori_dask.scatter(client, np.arange(1000.0)))  # imports
        values = np.random.default_rng(1).random(megabytes * 125_000)
        for _ in _rounds(budget):
            for way in ways:
                once(way, mori.share(values) if "before" in way else values)
    first = next(iter(ways))
    rounds = len(seconds[first])
    rows = []
    for way in ways:
        ratios = sorted(a / b for a, b in zip(seconds[first], seconds[way], strict=True))
        rows.append(
            f"| {way} | {median(seconds[way]):.3f} ({min(seconds[way]):.3f}-{max(seconds[way]):.3f}) "
            f"| {median(ratios):.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f}) | {median(copies[way]):.2f} |"
        )
    return "\n".join(
        [
            f"## {megabytes} MB of float64 to {workers} workers of this host, {rounds} rounds in turns",
            "",
            "| way | seconds, median (range) | x faster than the first | copies, when all have read |",
            "|---|---|---|---|",
            *rows,
        ]
    )


# The examples


def examples(sizes: dict[str, list[str]]) -> str:
    """Run the examples; return what they print."""
    found = ["## Examples", ""]
    for name, arguments in sizes.items():
        command = [sys.executable, str(_EXAMPLES / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found += [f"`{name} {' '.join(arguments)}`", "", "```", done.stdout.rstrip(), "```", ""]
        if done.returncode:
            found += ["It failed:", "", "```", done.stderr.strip()[-1000:], "```", ""]
    return "\n".join(found).rstrip()


def _machine() -> str:
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) / 1e6
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GB, {system}; Python {platform.python_version()}, "
        f"distributed {dask.__version__}; load when it began: {load:.1f}"
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="*", default=["overhead", "scatter", "examples"])
    parser.add_argument("--tasks", type=int, default=500, help="a round (500)")
    parser.add_argument("--seconds", type=float, default=600, help="for the rounds of tasks (600)")
    parser.add_argument("--run", choices=_KINDS, help=argparse.SUPPRESS)  # the tasks, in this process
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)  # under valgrind
    parser.add_argument(
        "--megabytes", type=int, default=200, help="that are scattered, and of examples (200)"
    )
    parser.add_argument("--workers", type=int, default=8, help="that they are scattered to (8)")
    parser.add_argument(
        "--scatters", type=float, default=60, help="seconds for the rounds of scattering (60)"
    )
    parser.add_argument("--out", type=Path, help="a file to write the tables to, too")
    options = parser.parse_args()
    if options.run is not None:
        with dask.config.set(_QUIET):
            print(json.dumps(asyncio.run(_small_tasks(options.run, options.tasks, counted=options.counted))))
        return
    warnings.filterwarnings("ignore", "Sending large graph")
    size = options.megabytes
    sizes = {
        "dask_bootstrap.py": ["--megabytes", f"{size}", "--workers", "4"],
        "dask_lookup.py": ["--megabytes", f"{size / 10:g}", "--workers", "2"],
        "dask_pipeline.py": ["--megabytes", f"{size}", "--days", "4", "--workers", "4"],
        "dask_search.py": ["--megabytes", f"{size / 5:g}", "--workers", "2"],
    }
    parts: dict[str, Callable[[], str]] = {
        "overhead": lambda: overhead(options.tasks, options.seconds),
        "scatter": lambda: given_to_all(size, options.workers, options.scatters),
        "examples": lambda: examples(sizes),
    }
    texts = [f"# Results in Dask\n\n`make bench-dask`. {_machine()}."]
    print(texts[0], flush=True)
    for part in options.parts:
        texts.append(parts[part]())
        print(f"\n{texts[-1]}", flush=True)
    if options.out is not None:
        options.out.write_text("\n\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
