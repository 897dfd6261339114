"""`make bench-dask`: what mori costs Dask where nothing is shared, and what it saves where something is.

Three parts, each of which can be left out: the processor time of small tasks that share nothing, without
mori and with it; an array given to all workers of this host; the examples at full size. Prints Markdown, and
ends within fourteen minutes on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import logging
import os
import platform
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Final

import dask
import distributed
import numpy as np
import numpy.typing as npt
from distributed import Client, LocalCluster
from distributed.protocol.serialize import Serialized, families

_EXAMPLES: Final = Path(__file__).parent.parent / "examples"
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


def _small_task(number: int) -> int:
    return number + 1


def _rounds(seconds: float, least: int = 3) -> Iterator[int]:
    """Count rounds, until a time is over."""
    until = time.monotonic() + seconds
    for number in itertools.count(1):
        yield number
        if number >= least and time.monotonic() > until:
            return


class _Hooks:
    """What mori has replaced in distributed and in a running cluster, to be taken out and put in again."""

    def __init__(self) -> None:
        assert "mori_dask" not in sys.modules, "what is replaced is seen as it is replaced"
        holders = [module for name, module in sys.modules.items() if name.startswith("distributed")]
        holders += [distributed.Client, Serialized, distributed.comm.Comm]
        self._before = [(holder, dict(vars(holder))) for holder in holders]
        self._families = dict(families)
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def found(self, cluster: LocalCluster) -> None:
        """Take down what is there now."""
        for holder, before in self._before:
            now = dict(vars(holder))
            self._replaced += [
                (holder, name, plain, now[name])
                for name, plain in before.items()
                if now.get(name, plain) is not plain
            ]
        self._ours = dict(families)
        self._scheduler = cluster.scheduler
        self._plugin = self._scheduler.plugins["mori"]

    def put(self, kind: str) -> None:
        """Run without mori, as with mori where nothing was shared, or as where everybody has a region."""
        from mori import region

        is_plain = kind in ("plain", "again")
        for holder, name, plain, ours in self._replaced:
            setattr(holder, name, plain if is_plain else ours)
        families.clear()
        families.update(self._families if is_plain else self._ours)
        self._scheduler.plugins.pop("mori", None)
        for stream in (*self._scheduler.stream_comms.values(), *self._scheduler.client_comms.values()):
            stream.recent_message_log = deque(maxlen=stream.recent_message_log.maxlen)
        if not is_plain:
            self._scheduler.plugins["mori"] = self._plugin
            self._plugin.add_client(self._scheduler, "")  # its connection's log is new
        region.used.ever = kind == "used"


class _Samples:
    """Where the processor is at every tick of its clock: how often in mori's code, by kind."""

    def __init__(self) -> None:
        self.all: Counter[str] = Counter()
        self.ours: Counter[str] = Counter()
        self._kind = ""
        self._folders = tuple(f"{_EXAMPLES.parent / name}{os.sep}" for name in ("mori", "mori_dask"))
        signal.signal(signal.SIGPROF, self._tick)

    @contextlib.contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Take samples of a kind."""
        self._kind = kind
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        self.all[self._kind] += 1
        if frame is not None and frame.f_code.co_filename.startswith(self._folders):
            self.ours[self._kind] += 1

    def share(self, kind: str) -> str:
        """Return the share of mori's code, with its standard error."""
        share = self.ours[kind] / self.all[kind]
        return f"{share:.2%} ± {(share * (1 - share) / self.all[kind]) ** 0.5:.2%}"


async def _overhead(tasks: int, seconds: float) -> tuple[dict[str, list[float]], _Samples]:
    hooks, samples = _Hooks(), _Samples()
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
    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    async with cluster, Client(cluster, asynchronous=True) as client:
        await mori_dask.install(client)
        hooks.found(cluster)
        chance = random.Random(1)
        for number in _rounds(seconds):
            for kind in chance.sample([*_KINDS], len(_KINDS)):
                hooks.put(kind)
                gc.collect()
                before = time.process_time()
                with samples.of(kind if number > 1 else ""):
                    await client.gather(client.map(_small_task, range(tasks), pure=False))
                    await asyncio.sleep(0.05)  # the futures' end is part of it
                if number > 1:  # the first ones import, and fill pools
                    found[kind].append(time.process_time() - before)
        hooks.put("mori")
    return found, samples


def _medians_of_samples(ratios: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return medians of samples drawn from the rounds with replacement (bootstrap)."""
    drawn = np.random.default_rng(1).choice(ratios, (10_000, ratios.size))
    return np.asarray(np.median(drawn, axis=1))


def overhead(tasks: int, seconds: float) -> str:
    """Compare one cluster as it is with mori and as it is without, in turns; return a table."""
    found, samples = asyncio.run(_overhead(tasks, seconds))
    plain = (np.array(found["plain"]) + found["again"]) / 2
    rows = []
    for kind, name in _KINDS.items():
        ratios = np.divide(found[kind], plain)
        low, high = np.quantile(_medians_of_samples(ratios), (0.025, 0.975))
        quarter, rest = np.quantile(ratios, (0.25, 0.75))
        rows.append(
            f"| {name} | {median(found[kind]) / tasks * 1e6:,.0f} | {np.median(ratios) - 1:+.1%} "
            f"({low - 1:+.1%} to {high - 1:+.1%}) | {quarter - 1:+.1%} to {rest - 1:+.1%} "
            f"| {samples.share(kind)} |"
        )
    return "\n".join(
        [
            f"## {tasks:,} small tasks, none shares anything, {plain.size} rounds in turns",
            "",
            "Client, scheduler and worker in one process, which speak TCP; compared with the mean of both "
            "plain turns.",
            "",
            "| cluster | processor µs a task | more than plain: median (95 % interval) | middle half "
            "| the processor is in mori's code |",
            "|---|---|---|---|---|",
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
        addresses = list(client.scheduler_info(n_workers=-1)["workers"])

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
    parser.add_argument("--tasks", type=int, default=100, help="a round (100)")
    parser.add_argument("--seconds", type=float, default=480, help="for the rounds of tasks (480)")
    parser.add_argument(
        "--megabytes", type=int, default=200, help="that are scattered, and of examples (200)"
    )
    parser.add_argument("--workers", type=int, default=8, help="that they are scattered to (8)")
    parser.add_argument(
        "--scatters", type=float, default=60, help="seconds for the rounds of scattering (60)"
    )
    parser.add_argument("--out", type=Path, help="a file to write the tables to, too")
    options = parser.parse_args()
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
