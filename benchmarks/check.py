"""`make bench-check`: the newest results beside what they have to be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.results import FILE, Results

__all__ = ["TARGETS", "Target", "main", "table"]

Measured = Callable[[Results], float | None]

_MORI: Final = "mori"
_POOL: Final = "mori, MORI_POOL=1G"
_PICKLE: Final = "pickle over a pipe"


@dataclass(frozen=True)
class Target:
    """A figure and the most that it may be, in a unit."""

    what: str
    limit: float
    unit: str
    measured: Measured


def _memcpy(job: str, figure: str, unit: str, way: str = _MORI) -> Measured:
    def measured(results: Results) -> float | None:
        cell = results.cell(job, way)
        return cell.ratio(figure, cell, unit)

    return measured


def _dumps(job: str) -> Measured:
    return lambda results: results.cell(job, _MORI).ratio("first", results.cell(job, _PICKLE), "first")


def _figure(job: str, figure: str, unit: float) -> Measured:
    def measured(results: Results) -> float | None:
        value = results.cell(job, _MORI).median(figure)
        return None if value is None else value / unit

    return measured


def _peak(job: str) -> Measured:
    def measured(results: Results) -> float | None:
        value, payload = results.cell(job, _MORI).median("peak"), results.payloads.get(job)
        return None if value is None or not payload else value / payload

    return measured


def _largest_peak(results: Results) -> float | None:
    peaks = [
        point["peak"]
        for point in results.scaling.get("size", [])
        if point["way"] == _MORI and "peak" in point
    ]
    return max(peaks) / 1e6 if peaks else None


def _largest_open(results: Results) -> float | None:
    times = [
        point["open"]
        for point in results.scaling.get("size", [])
        if point["way"] == _MORI and "open" in point
    ]
    return max(times) * 1e3 if times else None


def _alone(figure: str, unit: float) -> Measured:
    return lambda results: median(results.alone[figure]) / unit if figure in results.alone else None


def _of_the_usual(figure: str) -> Measured:
    """Return what huge pages leave of the time of a figure."""

    def measured(results: Results) -> float | None:
        huge, usual = (results.alone.get(f"huge {to}, {figure}") for to in ("within_size", "never"))
        return median(huge) / median(usual) if huge and usual else None

    return measured


def _references(results: Results) -> float | None:
    sizes = [cell.median("bytes") for _, cell in results.cells(_MORI)]
    return max((size for size in sizes if size is not None), default=None)


def _opening(what: str, limit: float, job: str) -> tuple[Target, Target]:
    """Return the targets of a first opening, where mori's code has hardly run yet and where it has."""
    return (
        Target(f"{what}, first, in a new process", limit, "ms", _figure(job, "open", 1e-3)),
        Target(f"{what}, first, in a warm process", limit, "ms", _figure(job, "anew", 1e-3)),
    )


TARGETS: Final = (
    Target(
        "share 200 MB of float64, first, one segment",
        4.5,
        "x memcpy",
        _memcpy("array", "first", "first unit"),
    ),
    Target(
        "the same, striped over segments on two cores",
        2.5,
        "x memcpy",
        _memcpy("array", "first", "first unit"),
    ),
    Target(
        "the same, a region of that size was freed, MORI_POOL=1G",
        1.3,
        "x memcpy",
        _memcpy("array", "again", "unit", _POOL),
    ),
    Target("a frame of 200 MB, first", 2.5, "x memcpy", _memcpy("frame", "first", "first unit")),
    Target(
        "a frame of 200 MB, again, MORI_POOL=1G", 1.3, "x memcpy", _memcpy("frame", "again", "unit", _POOL)
    ),
    Target(
        "share 200 MB of float64, first, with huge pages for all",
        2,
        "x memcpy",
        _alone("huge within_size, share", 1),
    ),
    Target("its first pass, with huge pages", 0.5, "of the usual", _of_the_usual("first pass")),
    Target("allocate … share(): private memory", 1, "MB", _alone("allocate private", 1e6)),
    Target("allocate … share(): new shared memory", 1, "MB", _alone("allocate shared", 1e6)),
    *_opening("array: reference to first element", 0.25, "array"),
    Target("the same of whatever size, in a new process, the slowest", 0.25, "ms", _largest_open),
    Target("array: reference to first element, steady", 25, "µs", _figure("array", "steady", 1e-6)),
    *_opening("frame of 5 columns: reference to first value", 0.5, "frame"),
    Target(
        "frame of 5 columns: reference to first value, steady", 0.15, "ms", _figure("frame", "steady", 1e-3)
    ),
    Target("the longest reference to a whole object", 100, "bytes", _references),
    Target("a slice", 160, "bytes", _alone("bytes of a slice of an array", 1)),
    Target("private memory of a reader of 200 MB", 64, "KB", _figure("array", "anon read", 1e3)),
    Target("list of 1M str: share", 4, "x pickle.dumps", _dumps("strings")),
    *_opening("list of 1M str: open and read 10", 0.3, "strings"),
    Target("dict of 1M str to int: share", 8, "x pickle.dumps", _dumps("dict")),
    Target("dict of 1M int to int: share", 8, "x pickle.dumps", _dumps("int dict")),
    *_opening("dict of 1M str to int: open and read 10", 0.5, "dict"),
    Target("the same: private memory", 100, "KB", _figure("dict", "anon opened", 1e3)),
    Target("dict of 1M str to int: a lookup", 5, "µs", _figure("dict", "lookup", 1e-6)),
    Target("dict of 1M int to int: a lookup", 5, "µs", _figure("int dict", "lookup", 1e-6)),
    *_opening("dict of 100k small arrays: open and read 3", 0.5, "arrays"),
    Target("the same: private memory", 100, "KB", _figure("arrays", "anon opened", 1e3)),
    Target("peak while sharing an array of whatever size", 64, "MB", _largest_peak),
    Target("peak while sharing a frame of 200 MB", 64, "MB", _figure("frame", "peak", 1e6)),
    Target("peak while sharing a frame with str columns", 64, "MB", _figure("text frame", "peak", 1e6)),
    Target("peak while sharing a list of 1M str", 1.5, "x payload", _peak("strings")),
    Target("peak while sharing a dict of 1M str to int", 1.5, "x payload", _peak("dict")),
    Target("peak while sharing a dict of 1M int to int", 1.5, "x payload", _peak("int dict")),
    Target("peak while sharing a dict of 100k small arrays", 1.5, "x payload", _peak("arrays")),
    Target("peak while sharing 300k records", 1.5, "x payload", _peak("records")),
    Target("import mori, beyond numpy", 0.1, "s", _alone("import", 1)),
)


def _verdict(target: Target, results: Results) -> tuple[str, bool]:
    value = target.measured(results)
    if value is None:
        return "not measured | |", False
    measured = f"{max(value, 0):,.3g} {target.unit}"
    if value <= target.limit:
        return f"{measured} | holds |", True
    return f"{measured} | **falls short**, {value / target.limit:.2f} x the target |", False


def table(results: Results) -> str:
    """Return the table of targets in Markdown."""
    lines = ["| what | target | measured | |", "|---|---:|---:|---|"]
    lines += [
        f"| {each.what} | ≤ {each.limit:g} {each.unit} | {_verdict(each, results)[0]}" for each in TARGETS
    ]
    return "\n".join(lines) + "\n"


def main(file: Path = FILE) -> int:
    """Print the table; 1 if something falls short or was not measured."""
    results = Results.load(file)
    print(table(results))
    if results.machine["scale"] != 1:
        print(f"The objects have {results.machine['scale']:g} of their full size: this says little.")
    return 0 if all(_verdict(target, results)[1] for target in TARGETS) else 1


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
