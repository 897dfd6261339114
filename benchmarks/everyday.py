"""What everyday operations cost on a shared array or frame, a plain one, and numpy's memmap, in one run.

    python -m benchmarks.everyday [--out benchmarks/RESULTS_EVERYDAY.md] [--rounds 7]

Times are CPU times, the least of the rounds, which are interleaved.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import timeit
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

import mori
from benchmarks.kinds import machine

__all__ = ["main"]

ARRAY: Final = (
    *(
        "x[5]",
        "x[:100]",
        "x[::2]",
        "x.T",
        "x.reshape(10, -1)",
        "for v in x: pass",
        "x.tolist()",
        "x[x > 500]",
    ),
    *("y + y", "y * 2", "np.sqrt(y)", "y > 5", "-y", "y.sum()", "np.sum(y)", "np.max(y)", "np.mean(y)"),
    *("np.concatenate([y, y])", "np.sort(y)", "np.where(y > 5, y, 0)", "np.unique(y)", "y.copy()"),
)
LARGE: Final = ("x[5]", "x[100:200]", "x + 1", "x.sum()", "np.sqrt(x)", "x @ x")
FRAME: Final = (
    *("x['a']", "x[['a', 'b']]", "x.at[5, 'a']", "x.loc[5, 'a']", "x.iloc[5]", "x.iloc[10:20]", "x + 1"),
    *("x['a'].sum()", "x[x['a'] > 500]", "x.groupby('b')['a'].mean()", "x.sort_values('a')", "x.describe()"),
)


Kinds = dict[str, dict[str, Any]]
"""The names in an operation, by the kind of object that they stand for."""


def _times(operation: str, kinds: Kinds, rounds: int) -> dict[str, float]:
    """Return microseconds an operation, by kind of object."""
    timers = {
        kind: timeit.Timer(operation, globals=names, timer=time.process_time) for kind, names in kinds.items()
    }
    number = max(1, timers["plain"].autorange()[0] // 20)
    return {
        kind: min(times) / number * 1e6
        for kind, times in zip(
            timers,
            zip(*([timer.timeit(number) for timer in timers.values()] for _ in range(rounds)), strict=True),
            strict=True,
        )
    }


def _table(
    title: str, operations: tuple[str, ...], kinds: dict[str, dict[str, Any]], rounds: int
) -> list[str]:
    lines = [f"## {title}", "", "| operation | plain, µs | shared | / plain | memmap | / plain |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for operation in operations:
        times = _times(operation, kinds, rounds)
        plain, shared, memmap = times["plain"], times["shared"], times.get("memmap")
        cells = [f"{plain:.3g}", f"{shared:.3g}", f"{shared / plain:.2f}"]
        cells += ["", ""] if memmap is None else [f"{memmap:.3g}", f"{memmap / plain:.2f}"]
        lines.append(f"| `{operation}` | {' | '.join(cells)} |")
    return [*lines, ""]


def _arrays(plain: Any, folder: str) -> Kinds:
    file = Path(folder) / f"{plain.size}.bin"
    plain.tofile(file)
    mapped = np.memmap(file, dtype=plain.dtype, mode="r")
    shared = mori.share(plain)
    pieces = {"plain": plain[:100].copy(), "shared": mori.share(plain[:100].copy()), "memmap": mapped[:100]}
    wholes = {"plain": plain, "shared": shared, "memmap": mapped}
    return {kind: {"x": wholes[kind], "y": pieces[kind], "np": np} for kind in wholes}


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="-")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    frame = pd.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000) % 7})
    lines = ["# Everyday operations", "", __doc__.split("\n\n", 2)[-1].strip(), "", machine(), ""]
    with tempfile.TemporaryDirectory() as folder:
        small, large = _arrays(np.arange(1000.0), folder), _arrays(np.arange(1e6), folder)
        lines += _table("An array x of 1,000, and y of 100", ARRAY, small, options.rounds)
        lines += _table("An array of 1,000,000", LARGE, large, options.rounds)
        frames = {"plain": {"x": frame}, "shared": {"x": mori.share(frame)}}
        lines += _table("A frame of 1,000 rows", FRAME, frames, options.rounds)
    text = "\n".join(lines)
    print(text)
    if options.out != "-":
        Path(options.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
