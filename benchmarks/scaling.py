"""Time and memory against the bytes of an array, the elements of a list and a dict, and the readers."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.entry import Entry, Unit
from benchmarks.jobs import JOBS
from benchmarks.peer import Peer
from benchmarks.peers import PEERS
from benchmarks.results import Cell, Results

__all__ = ["measure"]

Point = dict[str, Any]

_SIZES: Final = (*(10**6 * n for n in (1, 4, 16, 64, 256)), 1 << 30, 2 << 30, 4 << 30, 8 << 30)
_COUNTS: Final = (1, 100, 10_000, 100_000, 1_000_000, 10_000_000)
_READERS: Final = (1, 2, 4, 8, 16)
_WAYS: Final = ("mori", "pickle over a pipe")
_LARGE: Final = 500_000_000  # bytes from which one round is enough, and a pickle is left out
_MANY: Final = 2_000_000  # the same in elements


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _way(name: str) -> Peer:
    """Return a way whose publishing process stays for all rounds; what is quoted is published again."""
    return replace(PEERS[name], is_fresh=False)


def measure(results: Results, largest: int, most: int, patience: float, seconds: float) -> None:
    """Add the figures of arrays up to a size, and of lists and dicts up to a number of elements.

    Of each kind, what is larger is left out after so many seconds.
    """
    largest = min(largest, int(_available() / 2.2))  # the source, the region, and what the unit takes
    with tempfile.TemporaryDirectory(prefix="mb-") as folder:
        folders = Path(folder), Path(folder)

        def entry(way: str, job: str, scale: float) -> Entry:
            return Entry(_way(way), JOBS[job], folders, scale, patience)

        for way in _WAYS:
            points = _many(entry(way, "array", min(1, largest / 200e6)))
            results.scaling.setdefault("readers", []).extend(points)
        for job, full, sizes, upper, many in (
            ("array", 200e6, _SIZES, largest, _LARGE),
            ("strings", 1e6, _COUNTS, most, _MANY),
            ("dict", 1e6, _COUNTS, most, _MANY),
        ):
            points = results.scaling.setdefault("size" if job == "array" else job, [])
            limit = time.monotonic() + seconds
            for x, way in itertools.product(sizes, _WAYS):
                if x > upper or (x > many and way != "mori"):
                    continue
                if time.monotonic() > limit:
                    results.left_out[f"scaling, {job}, {x:,}, {way}"] = "the time was over"
                    continue
                points.append(_point(entry(way, job, x / full), x, rounds=1 if x > many else 2))


def _point(entry: Entry, x: int, rounds: int) -> Point:
    """Return the medians of some rounds of one way at one size."""
    entry.begin()
    try:
        unit = Unit(entry.payload)
        for number in range(rounds):
            entry.round(number, unit)
        entry.memory(1)
    finally:
        entry.end()
    print(f"{entry.peer.name}, {entry.job.name}: {x:,}", file=sys.stderr)
    return _medians(entry, x)


def _many(entry: Entry) -> list[Point]:
    """Return what any number of readers of one object take."""
    found = []
    entry.begin()
    try:
        for count in _READERS:
            entry.cell = Cell(failed=entry.cell.failed)
            entry.memory(count)
            total = sum(entry.cell.figures.get("pss read", []))
            found.append({**_medians(entry, count), "pss of all": total})
    finally:
        entry.end()
    return found


def _medians(entry: Entry, x: int) -> Point:
    figures: Point = {figure: median(values) for figure, values in entry.cell.figures.items()}
    return {"way": entry.peer.name, "x": x, "payload": entry.payload, "failed": entry.cell.failed, **figures}
