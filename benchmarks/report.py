"""The tables of a run, in RESULTS.md.

`python -m benchmarks.report` writes them anew from results.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import alone, check
from benchmarks.jobs import JOBS
from benchmarks.results import FILE, Cell, Results

__all__ = ["scaling_table", "write"]

_DASH: Final = "—"
_HEAD: Final = """# Results

Written by `make bench`: one run. {machine}

Each figure is the median of at most {rounds} rounds (a slow way has fewer, but two), in which every way
has its turn, in another order each time; in brackets the smallest and the largest.

- *Publish*: the time until a reader could be told, in units of a copy of the payload's bytes into memory
  that exists, measured right before it. *Again* is after what was published first was released (for mori
  half a second after: its pool makes pages ready in a thread of its own). Memory that a server keeps is
  touched for the first time in the first round alone.
- *Open*: from the reference to the first value, in a new process that has opened a small object of the
  kind before. *Anew* is the same later in that process, when the object was let go: a first opening where
  the code is warm. *Steady* is one more while the object is open there. Both are the median of fifty (of
  two, where one takes more than 20 ms). *New process* is that small object, with all that is imported for
  it. A message of more than 64 kB has its way through a pipe added.
- *Private* is the growth of RssAnon in a reader that has opened the object; *USS* and *PSS* grow by so
  much in each of two readers that have read all of it. *Peak* is the most that the publisher's RssAnon
  grew by, looked at every millisecond.
- *Pass* reads everything, for the first time in that process.
- A dash: the library has no way for such an object that its users would take.

"""


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join(lines) + "\n"


def _ratio(cell: Cell, figure: str, other: Cell, unit: str) -> str:
    pairs = list(zip(cell.figures.get(figure, []), other.figures.get(unit, []), strict=False))
    if not pairs:
        return _DASH
    ratios = [mine / theirs for mine, theirs in pairs]
    spread = f" ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{median(ratios):.2f}{spread}"


def _of(cell: Cell, figure: str, unit: float, digits: int) -> str:
    value = cell.median(figure)
    return _DASH if value is None else f"{max(value, 0) / unit:,.{digits}f}"


_COLUMNS: Final = {
    "open, ms": ("open", 1e-3, 3),
    "anew, ms": ("anew", 1e-3, 3),
    "steady, ms": ("steady", 1e-3, 3),
    "new process, ms": ("cold", 1e-3, 1),
    "reference, bytes": ("bytes", 1, 0),
    "private, MB": ("anon opened", 1e6, 2),
    "USS, MB": ("uss read", 1e6, 2),
    "PSS, MB": ("pss read", 1e6, 2),
    "peak, MB": ("peak", 1e6, 1),
    "pass, ms": ("scan", 1e-3, 1),
}


def _job(name: str, results: Results) -> str:
    job = JOBS[name]
    pickled = results.cell(name, "pickle over a pipe")
    columns = dict(_COLUMNS) | ({"a lookup, µs": ("lookup", 1e-6, 1)} if job.look_up else {})
    is_numeric = name in ("array", "frame")
    head = ["way", "publish, x memcpy", "again, x memcpy"]
    head += [] if is_numeric else ["publish, x pickle.dumps"]
    rows = []
    for way in results.machine["ways"]:
        cell = results.cell(name, way)
        row = [way, _ratio(cell, "first", cell, "first unit"), _ratio(cell, "again", cell, "unit")]
        row += [] if is_numeric else [_ratio(cell, "again", pickled, "again")]
        row += [_of(cell, *column) for column in columns.values()]
        if cell.failed:
            row[0] += f" **failed: {cell.failed}**"
        rows.append(row)
    payload = results.payloads.get(name, 0)
    return (
        f"## {job.title}\n\nA payload of {payload / 1e6:,.1f} MB; a reader reads {job.reads}.\n\n"
        + _table([*head, *columns], rows)
    )


def _alone(results: Results) -> str:
    found = {figure: median(values) for figure, values in results.alone.items()}
    references = [
        [figure.removeprefix("bytes of "), f"{value:.0f}"]
        for figure, value in found.items()
        if figure.startswith("bytes of ")
    ]
    megabytes = results.machine["scale"] * 200
    return (
        f"## mori alone\n\n`import mori` takes {found['import'] * 1e3:.0f} ms where numpy is imported. "
        f"`allocate(...).share()` of {megabytes:.0f} MB takes {found['allocate'] * 1e3:.1f} ms, in which the "
        "kernel takes the pages out of the writable mapping, and "
        f"{found['allocate private'] / 1e6:.1f} MB of private and "
        f"{found['allocate shared'] / 1e6:.1f} MB of new shared memory; a memcpy of as much takes "
        f"{found['unit'] * 1e3:.1f} ms.\n\n" + _table(["pickle of", "bytes"], references)
    )


def _huge(results: Results) -> str:
    rows = [
        [f"`{to}`", *(f"{median(results.alone[f'huge {to}, {figure}']):.2f}" for figure in alone.FIGURES)]
        for to in alone.HUGE
    ]
    return (
        "## mori with huge pages\n\nAn array of the same size, in units of a warm memcpy, by what "
        "`/sys/kernel/mm/transparent_hugepage/shmem_enabled` is.\n\n"
        + _table(["huge pages", *alone.FIGURES], rows)
    )


def _time(seconds: float) -> str:
    unit, name = next(
        (unit, name) for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (0, "")) if seconds >= unit
    )
    return f"{seconds / (unit or 1):.3g} {name}"


def _calls(results: Results) -> str:
    rows = [[each["name"], _time(each["median"]), _time(each["iqr"])] for each in results.calls]
    return "## Single calls\n\npytest-benchmark.\n\n" + _table(
        ["call", "median", "interquartile range"], rows
    )


def scaling_table(results: Results) -> str:
    """Return the pictures and the table of scaling."""
    rows = []
    for kind, points in results.scaling.items():
        what = "readers of the array" if kind == "readers" else f"{kind}, bytes" if kind == "size" else kind
        for point in points:
            cell = Cell({k: [v] for k, v in point.items() if isinstance(v, float | int)})
            rows.append(
                [
                    f"{what}, {point['way']}"
                    + (f" **failed: {point['failed']}**" if point["failed"] else ""),
                    f"{point['x']:,}",
                    _of(cell, "again", 1e-3, 2),
                    _of(cell, "unit", 1e-3, 2),
                    _of(cell, "open", 1e-3, 3),
                    _of(cell, "anon opened", 1e6, 2),
                    _of(cell, "peak", 1e6, 1),
                    _of(cell, "pss of all", 1e6, 0),
                ]
            )
    head = ["what", "how many", "publish, ms", "memcpy, ms", "open, ms", "private of a reader, MB"]
    pictures = "".join(f"![{name}](plots/{name}.png)\n\n" for name in ("size", "elements", "readers"))
    return (
        "## Scaling\n\n"
        + pictures
        + _table([*head, "peak while publishing, MB", "PSS of all readers, MB"], rows)
    )


def write(results: Results, folder: Path) -> None:
    """Write RESULTS.md into a folder."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    text = _HEAD.format(
        rounds=machine["rounds"],
        machine=(
            f"{machine['cores']} cores, {machine['memory'] / 1e9:.0f} GB, {machine['system']}, "
            f"Python {machine['python']}, numpy {machine['numpy']}, "
            f"mori {machine['mori']} with its store {machine['store']}; {versions}. "
            f"Load average at the start: {machine['load']:.1f}."
        ),
    )
    if machine["scale"] != 1:
        text += f"**The objects have {machine['scale']:g} of their full size.**\n\n"
    left_out = [f"{name} ({why})" for name, why in results.left_out.items()]
    text += f"Left out: {', '.join(left_out) or 'none'}.\n\n"
    text += "".join(f"- {name}: {note}\n" for name, note in machine["notes"].items()) + "\n"
    text += "## The targets\n\n`make bench-check` prints this table.\n\n" + check.table(results) + "\n"
    text += "\n".join(_job(name, results) for name in results.jobs)
    if "import" in results.alone:
        text += "\n" + _alone(results)
    if f"huge {alone.HUGE[0]}, share" in results.alone:
        text += "\n" + _huge(results)
    if results.scaling:
        text += "\n" + scaling_table(results)
    if results.calls:
        text += "\n" + _calls(results)
    (folder / "RESULTS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Results.load(), FILE.parent)
