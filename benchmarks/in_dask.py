"""`make bench-dask`: what mori costs Dask where nothing is shared, and what it saves where something is.

Three parts, each of which can be left out: the processor time of small tasks that share nothing, plain and
with mori; an array given to all workers of this host; the examples at full size. Prints Markdown, and ends
within eleven minutes on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import dask
import numpy as np
import numpy.typing as npt
from distributed import Client, LocalCluster, wait

_EXAMPLES: Final = Path(__file__).parent.parent / "examples"
_KINDS: Final = {
    "plain": "plain",
    "again": "plain, once more",
    "mori": "mori installed",
    "used": "mori, when all processes have a region",
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


def _processor(client: Client) -> float:
    """Return the processor time of client and scheduler, which are in this process, and of all workers."""
    return time.process_time() + sum(client.run(time.process_time).values())


def serve(kind: str) -> None:
    """Be one of the clusters that are compared: run as many tasks as is said, and tell what they took."""
    if kind in ("mori", "used"):
        import mori
        import mori_dask

    with _cluster(1) as client:
        if kind in ("mori", "used"):
            mori_dask.install(client)
        kept: list[Any] = []
        if kind == "used":
            kept += [mori.share(np.arange(1000.0))]
            kept += [client.submit(lambda x: x, kept[0])]
            wait(kept[1:])
        print("ready", flush=True)
        for line in sys.stdin:
            before = _processor(client)
            client.gather(client.map(_small_task, range(int(line)), pure=False))
            print(_processor(client) - before, flush=True)


def _rounds(seconds: float, least: int = 3) -> Iterator[int]:
    """Count rounds, until a time is over."""
    until = time.monotonic() + seconds
    for number in itertools.count(1):
        yield number
        if number >= least and time.monotonic() > until:
            return


def _medians_of_samples(ratios: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return medians of samples drawn from the rounds with replacement (bootstrap)."""
    drawn = np.random.default_rng(1).choice(ratios, (10_000, ratios.size))
    return np.asarray(np.median(drawn, axis=1))


def overhead(tasks: int, seconds: float) -> str:
    """Compare clusters that run in turns, the others idle; return a table."""
    children = {
        kind: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.in_dask", "--serve", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in _KINDS
    }

    def ask(kind: str) -> float:
        pipe = children[kind]
        assert pipe.stdin is not None
        assert pipe.stdout is not None
        pipe.stdin.write(f"{tasks}\n")
        pipe.stdin.flush()
        return float(pipe.stdout.readline())

    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for child in children.values():
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for kind in [*_KINDS] * 2:  # the first ones import, and fill pools
        ask(kind)
    for number in _rounds(seconds):
        for kind in list(_KINDS) if number % 2 else reversed(_KINDS):
            found[kind].append(ask(kind))
    for child in children.values():
        child.communicate()
    rounds = len(found["plain"])
    rows = []
    for kind, name in _KINDS.items():
        ratios = np.divide(found[kind], found["plain"])
        low, high = np.quantile(_medians_of_samples(ratios), (0.025, 0.975))
        quarter, rest = np.quantile(ratios, (0.25, 0.75))
        rows.append(
            f"| {name} | {median(found[kind]):.3f} | {np.median(ratios) - 1:+.1%} ({low - 1:+.1%} to "
            f"{high - 1:+.1%}) | {quarter - 1:+.1%} to {rest - 1:+.1%} |"
        )
    return "\n".join(
        [
            f"## {tasks:,} small tasks, none shares anything, {rounds} rounds in turns",
            "",
            "| cluster of one worker | processor s | more than plain: median (95 % interval) | middle half |",
            "|---|---|---|---|",
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
    parser.add_argument("--serve", choices=_KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--parts", nargs="*", default=["overhead", "scatter", "examples"])
    parser.add_argument("--tasks", type=int, default=200, help="a round (200)")
    parser.add_argument("--seconds", type=float, default=300, help="for the rounds of tasks (300)")
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
    if options.serve:
        serve(options.serve)
        return
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
