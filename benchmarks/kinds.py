"""What sharing costs for each kind of object that people hold, against pickle; writes RESULTS_KINDS.md.

    python -m benchmarks.kinds [--kinds REGEX] [--elements 20000] [--rounds 5] [--out FILE]
    python -m benchmarks.kinds --elements 2000 --rounds 1 --out -        # all kinds in two minutes

Each kind has a process of its own, with readers that were forked from it before it made the object: a
kind that crashes or hangs is a row of the table and not the end. Times are CPU times, of mori and of
pickle in turn in the same rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import pickle
import platform
import random
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

import mori
from benchmarks.catalogue import KINDS, Kind
from benchmarks.memory import settle, taken
from benchmarks.walk import deep_recursion, difference, walk

__all__ = ["Row", "machine", "main", "measure", "report"]

FILE: Final = Path(__file__).parent / "RESULTS_KINDS.md"
_TEN: Final = 10  # elements read when it was opened
_LOOKED_AT: Final = 200  # elements looked at one by one after that
_ENOUGH: Final = 1.0  # seconds, until which a quick kind has more rounds than it was asked for
_fork: Final = multiprocessing.get_context("fork")


@dataclass
class Row:
    """One kind: for each figure the values of all rounds, and what went wrong."""

    kind: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    exact: str | None = None  # "" if it is, else where it is not
    is_instance: bool = False  # one element is of a class of a user or a library, numpy's aside
    failed: str = ""

    def add(self, **figures: float) -> None:
        """Add the figures of one more round."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def value(self, name: str) -> float | None:
        """Return the median of a figure, None where it was not measured."""
        values = self.figures.get(name)
        return median(values) if values else None

    def ratio(self, ours: tuple[str, ...], theirs: tuple[str, ...]) -> float | None:
        """Return the median of the rounds' ratios of two sums of figures."""
        if not all(self.figures.get(name) for name in (*ours, *theirs)):
            return None
        mine = map(sum, zip(*(self.figures[name] for name in ours), strict=False))
        other = map(sum, zip(*(self.figures[name] for name in theirs), strict=False))
        return median(a / b for a, b in zip(mine, other, strict=False))


# -- the processes of a kind --------------------------------------------------------------------------


def _time(do: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU time of a call, and its result, which is freed later."""
    start = time.process_time()
    result = do()
    return time.process_time() - start, result


def _part(kind: Kind, obj: Any, key: Any) -> Any:
    if kind.part is not None:
        return kind.part(obj, key)
    if kind.keys is None and not hasattr(type(obj), "__getitem__"):
        return key in obj
    return obj[key]


def _keys(kind: Kind, obj: Any) -> list[Any]:
    """Choose elements to look at, none twice while there are others."""
    if kind.keys is not None:
        keys = list(kind.keys(obj))
    else:
        keys = list(obj if isinstance(obj, dict | set | frozenset) else range(len(obj)))
    return random.Random(0).sample(keys, min(len(keys), _TEN + _LOOKED_AT))


class _Reader:
    """What a reader does: each method is called by name from the process of its kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._messages: dict[str, bytes] = {}
        self._keys: list[Any] = []
        self._held: Any = None

    def take(self, messages: dict[str, bytes], keys: bytes) -> None:
        """Take what is to be opened, and drop what was."""
        self._held = None
        self._messages, self._keys = messages, pickle.loads(keys)
        gc.collect()

    def _open(self, way: str) -> Any:
        return pickle.loads(self._messages[way])

    def _read(self, way: str) -> Any:
        found = self._open(way)
        walk(found, is_cyclic=self._kind.is_cyclic)
        return found

    def _ten(self, way: str) -> Any:
        found = self._open(way)
        for key in self._keys[:_TEN]:
            walk(_part(self._kind, found, key), is_cyclic=self._kind.is_cyclic)
        return found

    def _look(self, obj: Any) -> float:
        keys, kind = self._keys[_TEN:] or self._keys, self._kind
        start = time.process_time()
        for key in keys:
            _part(kind, obj, key)
        return (time.process_time() - start) / len(keys)

    def times(self, ways: list[str]) -> dict[str, float]:
        """Return the CPU times of one round, in seconds."""
        figures = {}
        for way in ways:
            with deep_recursion():
                figures[f"open {way}"], found = _time(lambda way=way: self._ten(way))
                figures[f"look {way}"] = self._look(found)
                found = None
                gc.collect()
                figures[f"read {way}"], found = _time(lambda way=way: self._read(way))
                found = None
            gc.collect()
        return figures

    def hold(self) -> None:
        """Open and read the shared object, and keep it: its pages are not another reader's alone."""
        with deep_recursion():
            self._held = self._read("mori")

    def private(self, way: str) -> float:
        """Return what the USS of this process grows by when it opens and reads the object."""
        settle()
        before = taken()
        with deep_recursion():
            self._held = self._read(way)
        settle()
        return float(taken().above(before).uss)

    def exact(self) -> str:
        """Say where the opened object differs from what pickle makes of the original."""
        return difference(self._open("mori"), self._open("pickle"))


def _serve(kind: Kind, pipe: Connection, theirs: Connection) -> None:
    theirs.close()  # or this process would not notice when the other ends
    reader = _Reader(kind)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(reader, method)(*arguments)))
        except Exception as error:
            pipe.send((False, f"{method}: {_what(error)}"))


class _Ask:
    """A reader's process, seen from that of its kind."""

    def __init__(self, kind: Kind) -> None:
        self._pipe, theirs = _fork.Pipe()
        self._process = _fork.Process(target=_serve, args=(kind, theirs, self._pipe), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        try:
            is_done, result = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise _ReaderError(f"{method}: the reader ended with {self._process.exitcode}") from None
        if not is_done:
            raise _ReaderError(result)
        return result


class _ReaderError(Exception):
    """What went wrong in a reader; the text says where."""


def _what(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, _ReaderError) else f"{type(error).__name__}: {text}"


def _own_regions() -> int:
    """Return the bytes of the regions that this process has written."""
    return sum(entry.nbytes for entry in mori.regions() if entry.owner == os.getpid())


def _share(obj: Any) -> tuple[Any, bytes]:
    shared = mori.share(obj)
    return shared, bytes(ForkingPickler.dumps(shared, 5))


def _run(kind: Kind, options: argparse.Namespace, tell: Callable[..., None]) -> None:
    """Measure one kind, in a process of its own, and tell each figure as it is found."""
    reader, alone = _Ask(kind), {way: _Ask(kind) for way in ("mori", "pickle")}
    count = max(int(options.elements * kind.share), 2)
    stage = "a small one"
    warnings.simplefilter("ignore", mori.ObjectColumnWarning)
    try:
        small = kind.make(max(count // 100, 2))
        shared, message = _share(small)
        packed = pickle.dumps(small, 5)
        for process in (reader, *alone.values()):  # imports, and the first of all calls
            process("take", {"mori": message, "pickle": packed}, pickle.dumps(_keys(kind, small), 5))
        reader("times", ["pickle", "mori"])
        for way, process in alone.items():
            process("private", way)
        for process in (reader, *alone.values()):
            process("take", {}, pickle.dumps([], 5))
        del small, shared
        gc.collect()

        stage = "make"
        obj = kind.make(count)
        packed, keys = pickle.dumps(obj, 5), pickle.dumps(_keys(kind, obj), 5)
        tell("figures", {"pickled": float(len(packed))})
        module = type(_part(kind, obj, _keys(kind, obj)[0])).__module__.partition(".")[0]
        tell("is_instance", module not in {*sys.stdlib_module_names, "numpy"})
        spent, number = 0.0, 0
        while True:
            stage = "share"
            gc.collect()
            before = _own_regions()
            figures, start = {}, time.monotonic()
            ways = ["pickle", "mori"] if number % 2 else ["mori", "pickle"]
            for way in ways:
                if way == "mori":
                    figures["share mori"], (shared, message) = _time(lambda: _share(obj))
                else:
                    figures["share pickle"] = _time(lambda: pickle.dumps(obj, 5))[0]
            figures |= {"region": float(_own_regions() - before), "message": float(len(message))}
            tell("figures", figures)
            stage = "open"
            reader("take", {"mori": message, "pickle": packed}, keys)
            tell("figures", reader("times", ways))
            number, spent = number + 1, spent + time.monotonic() - start
            is_quick = spent < _ENOUGH and options.rounds < number < 10 * options.rounds
            if spent > options.seconds or (
                number >= options.rounds and (options.rounds == 1 or not is_quick)
            ):
                break
            del shared
        stage = "private memory"
        reader("hold")
        for way, process in alone.items():
            process("take", {way: message if way == "mori" else packed}, keys)
            tell("figures", {f"private {way}": process("private", way)})
        stage = "exact"
        tell("exact", reader("exact"))
    except Exception as error:
        tell("failed", f"{stage}: {_what(error)}")


def _begin(kind: Kind, options: argparse.Namespace, pipe: Connection) -> None:
    os.setsid()  # so that a kind that hangs is ended with its readers
    _run(kind, options, lambda *what: pipe.send(what))


def measure(kind: Kind, options: argparse.Namespace) -> Row:
    """Return one kind's row."""
    row, stop = Row(kind.name), time.monotonic() + options.patience
    pipe, theirs = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_begin, args=(kind, options, theirs))
    process.start()
    theirs.close()
    try:
        while pipe.poll(max(stop - time.monotonic(), 0)):
            what, value = pipe.recv()
            if what == "figures":
                row.add(**value)
            else:
                setattr(row, what, value)
        row.failed = f"not done after {options.patience:.0f} s"
    except EOFError:
        process.join(10)
        if process.exitcode:
            row.failed = f"the process ended with {process.exitcode}"
    finally:
        if process.pid:
            with contextlib.suppress(ProcessLookupError):  # all have ended, or it is no session yet
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        process.close()
        pipe.close()
    return row


# -- the table ----------------------------------------------------------------------------------------

_SHARE: Final = ("share mori",), ("share pickle",)
_OPEN: Final = ("open mori",), ("open pickle",)
_READ: Final = ("read mori",), ("read pickle",)
_WHOLE: Final = ("share mori", "read mori"), ("share pickle", "read pickle")
_HEAD: Final = (
    "| kind | bytes | share | open + 10 | read all | one, µs | *whole* | private | reference | exact |"
)
_EXPLAINED: Final = """- *bytes*: region and message (by value: the object) against the pickle.
- *share*: `mori.share` and pickling what it returns, against `pickle.dumps`.
- *open + 10*: opening it in another process, where it is not open, and reading ten elements, against
  `pickle.loads` and the same.
- *read all*: opening it and a walk through everything in it, against `pickle.loads` and the same walk.
- *one*: one element after the other in a random order, of one just opened.
- *whole*: share and read all, against the same with pickle: what a job pays that reads everything once.
- *private*: what the USS of a process grows by that opens it, reads it all and still has it, against the
  same with pickle.
- *reference*: bytes of the message that another process gets.
- *exact*: equal in value, of the same types at every depth, and one object where pickle gives one.
"""


def _number(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return "—"
    value /= unit
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _private(row: Row) -> float | None:
    ours, theirs = row.value("private mori"), row.value("private pickle")
    return None if ours is None or theirs is None else max(ours, 0) / max(theirs, 4096)


def _look(row: Row) -> float | None:
    seconds = row.value("look mori")
    return None if seconds is None else seconds * 1e6


def _bytes(row: Row) -> float | None:
    region, message, pickled = (row.value(name) for name in ("region", "message", "pickled"))
    return None if region is None or not pickled else (region + (message or 0)) / pickled


def _line(row: Row) -> str:
    ours = row.value("private mori")
    private, size = _private(row), "" if ours is None else f" ({_number(max(ours, 0), 1000)} kB)"
    exact = "—" if row.exact is None else row.exact or "yes"
    if row.failed:
        exact = f"**{row.failed.replace('|', '/')[:120]}**"
    cells = (
        row.kind,
        _number(_bytes(row)),
        *(_number(row.ratio(*figures)) for figures in (_SHARE, _OPEN, _READ)),
        _number(row.value("look mori"), 1e-6),
        _number(row.ratio(*_WHOLE)),
        "—" if private is None else f"{private:.0%}{size}",
        _number(row.value("message")),
        exact.replace("|", "/"),
    )
    return "| " + " | ".join(cells) + " |"


def _over(
    rows: list[Row], what: str, value: Callable[[Row], float | None], limit: float, unit: str = " x"
) -> str:
    found = [(number, row.kind) for row in rows if (number := value(row)) is not None]
    worse = sorted((pair for pair in found if pair[0] > limit), reverse=True)
    names = ", ".join(f"{kind} {_number(number)}" for number, kind in worse[:10])
    middle = _number(median(number for number, _ in found)) if found else "—"
    return f"| {what} ≤ {limit:g}{unit} | {len(worse)} of {len(found)} | {middle} | {names} |"


def report(rows: list[Row], left_out: list[str], title: str, about: str) -> str:
    """Return the page: what it is, the summary, the table."""
    failed = [f"{row.kind} ({row.failed})" for row in rows if row.failed]
    inexact = [row.kind for row in rows if row.exact]
    summary = (
        "| target | kinds that miss it | median | the worst |",
        "|---|---:|---:|---|",
        _over(rows, "*whole*", lambda row: row.ratio(*_WHOLE), 2),
        _over(rows, "share", lambda row: row.ratio(*_SHARE), 1.5),
        _over(rows, "open + 10", lambda row: row.ratio(*_OPEN), 0.1),
        _over(rows, "read all", lambda row: row.ratio(*_READ), 2),
        _over([row for row in rows if not row.is_instance], "one element", _look, 5, " µs"),
        _over([row for row in rows if row.is_instance], "one instance, frame or the like", _look, 25, " µs"),
        _over(rows, "private memory", _private, 0.05),
        _over(rows, "bytes", _bytes, 1.5),
        f"| exact | {len(inexact)} of {len(rows)} | | {', '.join(inexact)} |",
        f"| done | {len(failed)} of {len(rows)} | | {', '.join(failed)} |",
    )
    table = (_HEAD, "|---|" + "---:|" * 8 + "---|", *map(_line, rows))
    parts = (
        f"# {title}",
        about,
        _EXPLAINED,
        "## Summary",
        "\n".join(summary),
        "## All kinds",
        "\n".join(table),
    )
    text = "\n\n".join(part.strip() for part in parts)
    return text + (f"\n\nLeft out, for want of a library: {', '.join(left_out)}.\n" if left_out else "\n")


def machine() -> str:
    """Return what the figures were measured on."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) / 1e6
    return (
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, {platform.system()} "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"mori {mori.__version__}. Load average at the start: {os.getloadavg()[0]:.1f}."
    )


def _about(options: argparse.Namespace) -> str:
    return (
        f"Written by `python -m benchmarks.kinds`: {options.elements:,} elements a kind (large elements are "
        f"fewer), CPU time, medians of the rounds' ratios: {options.rounds} rounds of each kind (quick kinds "
        f"more), but no further one after {options.seconds:g} s, so slow kinds have fewer, at least one. "
        f"{machine()}"
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", default="", metavar="REGEX", help="of their names (all)")
    parser.add_argument("--elements", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5, help="at least, within --seconds (5)")
    parser.add_argument("--seconds", type=float, default=20, help="for the rounds of one kind (20)")
    parser.add_argument("--patience", type=float, default=120, help="seconds for one kind at all (120)")
    parser.add_argument("--title", default="Kinds of objects, against pickle")
    parser.add_argument("--out", default=str(FILE), help="the file; - for none")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure the kinds, print the rows as they come, write the page."""
    options = _options(arguments)
    os.environ["MORI_GRACE"] = "0"  # or what every round has pickled would stay
    chosen = [kind for kind in KINDS if re.search(options.kinds, kind.name)]
    left_out = [f"{kind.name} ({kind.needs})" for kind in chosen if not kind.is_here()]
    about, rows, text = _about(options), list[Row](), ""
    print(_HEAD)
    for kind in chosen:
        if kind.is_here():
            rows.append(measure(kind, options))
            print(_line(rows[-1]), flush=True)
            text = report(rows, left_out, options.title, about)
            if options.out != "-":  # kind by kind: a run that is ended has told what it found
                Path(options.out).write_text(text, encoding="utf-8")
    print(text.partition("## All kinds")[0].partition("## Summary")[2])
    return rows


if __name__ == "__main__":
    sys.exit(not main())
