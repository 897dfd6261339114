"""`make bench`: mori beside its peers, in one run on one machine.

A job is one object; in each round every way publishes it from a process of its own and a new process opens
it, one way after the other and in another order each time, so that a change of the machine's speed
hits all alike. Before each publishing the same number of bytes is copied into memory that exists: its
unit. A way that fails or takes too long is named in the table, and the run goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

import numpy as np

import mori
from benchmarks import alone, plots, report, scaling
from benchmarks.entry import Entry, Unit
from benchmarks.jobs import JOBS, Job
from benchmarks.peer import Peer
from benchmarks.peers import PEERS
from benchmarks.results import Results

__all__ = ["main"]

_HERE: Final = Path(__file__).parent
_FEWEST: Final = 2  # rounds, however slow they are
_SHM: Final = Path("/dev/shm")


def _measure(
    job: Job, peers: list[Peer], options: argparse.Namespace, allowance: float, results: Results
) -> None:
    """Run one job: rounds of all ways in turn, for as many seconds as each may take, then memory."""
    with (
        tempfile.TemporaryDirectory(prefix="mori-bench-", dir=_SHM if _SHM.is_dir() else None) as data,
        tempfile.TemporaryDirectory(prefix="mb-") as servers,
    ):
        folders = Path(data), Path(servers)
        entries = [Entry(peer, job, folders, options.scale, options.patience) for peer in peers]
        start = time.monotonic()

        def say(what: str) -> None:
            print(f"{job.name}: {what}, {time.monotonic() - start:.0f} s", file=sys.stderr)

        try:
            for entry in entries:
                entry.begin()
            say("begun")
            payload = max(entry.payload for entry in entries)
            unit = Unit(payload)
            for number in range(options.rounds):
                turn = number % len(entries)
                for entry in entries[turn:] + entries[:turn]:
                    if number < _FEWEST or entry.spent < allowance:
                        entry.round(number, unit)
                say(f"round {number + 1} of {options.rounds}")
            for entry in entries:
                entry.memory()
            say("memory")
        finally:
            for entry in entries:
                entry.end()
    results.payloads[job.name] = payload
    results.jobs[job.name] = {entry.peer.name: entry.cell for entry in entries}


def _machine(options: argparse.Namespace, peers: list[Peer]) -> dict[str, object]:
    """Describe the machine and the libraries as far as they matter."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "mori": mori.__version__,
        "store": mori.store.current().name,
        "rounds": options.rounds,
        "scale": options.scale,
        "load": os.getloadavg()[0],
        "versions": {peer.distribution: peer.version for peer in peers if peer.version},
        "ways": [peer.name for peer in peers],
        "notes": {peer.name: peer.note for peer in peers if peer.note},
    }


def _left(before: set[str]) -> list[str]:
    """Return what a run has left in /dev/shm: its names carry the runner's own mark."""
    return (
        sorted(name for name in {*os.listdir(_SHM)} - before if "mori-bench" in name) if _SHM.is_dir() else []
    )


def _alone(results: Results, options: argparse.Namespace) -> None:
    alone.measure(results, options.rounds, int(200e6 * options.scale))


def _huge(results: Results, options: argparse.Namespace) -> None:
    if options.huge:
        alone.measure_huge_pages(results, options.rounds, int(200e6 * options.scale))


def _scaling(results: Results, options: argparse.Namespace) -> None:
    scaling.measure(results, options.largest, options.most, options.patience, options.minutes * 30)


def _calls(results: Results, options: argparse.Namespace) -> None:
    from benchmarks import calls  # which imports pytest

    results.calls = calls.measure()


_PARTS: Final = {"alone": _alone, "huge": _huge, "scaling": _scaling, "calls": _calls}


def _write(results: Results, out: Path) -> None:
    """Write what there is so far: whatever ends the run, it is not lost."""
    results.save(out / "results.json")
    report.write(results, out)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="at most (5)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=6,
        help="for all jobs together; a slow way has fewer rounds (6)",
    )
    parser.add_argument("--scale", type=float, default=1, help="of the objects' size (1)")
    parser.add_argument("--jobs", nargs="+", choices=[*JOBS], default=[*JOBS], metavar="JOB")
    parser.add_argument("--peers", nargs="+", choices=[*PEERS], default=[*PEERS], metavar="WAY")
    parser.add_argument("--patience", type=float, default=60, help="seconds for one step of one way (60)")
    parser.add_argument("--out", type=Path, default=_HERE, help="where the results go")
    parser.add_argument("--without", nargs="*", choices=[*_PARTS], default=[])
    parser.add_argument("--largest", type=int, default=1 << 30, help="bytes of the largest array (1 GiB)")
    parser.add_argument(
        "--most", type=int, default=10_000_000, help="elements of the largest list (10,000,000)"
    )
    parser.add_argument(
        "--huge", action="store_true", help="give huge pages to shared memory for a moment, as root may"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the jobs and write results.json, RESULTS.md and the plots."""
    options = _options(arguments)
    if options.out != _HERE:
        options.out.mkdir(parents=True, exist_ok=True)
    before = {*os.listdir(_SHM)} if _SHM.is_dir() else set()
    peers = [PEERS[name] for name in options.peers if PEERS[name].is_installed()]
    results = Results(machine=_machine(options, peers))
    for name in options.peers:
        if not PEERS[name].is_installed():
            results.left_out[name] = f"{PEERS[name].module} is not installed"
    cells = sum(name in peer.jobs for name in options.jobs for peer in peers)
    allowance = options.minutes * 60 / max(cells, 1)
    for name in options.jobs:
        if able := [peer for peer in peers if name in peer.jobs]:
            _measure(JOBS[name], able, options, allowance, results)
            _write(results, options.out)
    for name, part in _PARTS.items():
        if name not in options.without:
            try:
                part(results, options)
            except Exception as error:  # what else was measured is not lost
                results.left_out[name] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
            _write(results, options.out)
    if results.scaling:
        if importlib.util.find_spec("matplotlib"):
            plots.draw(results, options.out)
        else:
            print("matplotlib is not installed: the plots are left out", file=sys.stderr)
    print((options.out / "RESULTS.md").read_text(encoding="utf-8"))
    if left := _left(before):
        sys.exit(f"left behind in {_SHM}: {', '.join(left)}")


if __name__ == "__main__":
    main()
