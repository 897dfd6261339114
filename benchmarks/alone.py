"""What is measured of mori without peers: its import, its references, `allocate`, and huge pages."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

import mori
from benchmarks.memory import private_bytes, settle
from benchmarks.results import Results

__all__ = ["FIGURES", "HUGE", "measure", "measure_huge_pages"]

HUGE: Final = ("never", "advise", "within_size")
"""To whom the system gives huge pages for shared memory: nobody, who asks, all whose files are as large."""
FIGURES: Final = ("share", "first pass", "pass", "free")
_SETTING: Final = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")

_IMPORT: Final = """
import time
import numpy
start = time.perf_counter()
import mori
print(time.perf_counter() - start)
"""


def _import() -> float:
    """Return the seconds of `import mori` where numpy is imported, in a new process."""
    done = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True)
    return float(done.stdout)


def _segments() -> dict[int, int]:
    """Return the bytes of each memfd that this process has open, by inode."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:"):
                status = os.stat(f"/proc/self/fd/{name}")
                found[status.st_ino] = status.st_blocks * 512
    return found


class _Peak:
    """The most that private memory grew by, looked at by a thread every half a millisecond."""

    def __init__(self) -> None:
        settle()
        self.nbytes = 0
        self._before = private_bytes()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._is_over.wait(0.0005):
            self.nbytes = max(self.nbytes, private_bytes() - self._before)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def measure(results: Results, rounds: int, nbytes: int) -> None:
    """Add the figures of some rounds."""
    import pandas as pd

    def add(figure: str, value: float) -> None:
        results.alone.setdefault(figure, []).append(value)

    source = np.ones(nbytes // 8)
    target = source.copy()
    for _ in range(rounds):
        add("import", _import())
        start = time.perf_counter()
        np.copyto(target, source)
        add("unit", time.perf_counter() - start)
        with mori.allocate(source.shape, "f8") as block:
            block[...] = source
            before = _segments()
            with _Peak() as peak:
                start = time.perf_counter()
                shared = block.share()
                seconds = time.perf_counter() - start
            add("allocate", seconds)
            add("allocate private", peak.nbytes)
            new = sum(nbytes for inode, nbytes in _segments().items() if inode not in before)
            add("allocate shared", new)
        del shared
    array = mori.share(source[:1000])
    frame = mori.share(pd.DataFrame({"a": source[:1000], "b": source[:1000]}))
    listed = mori.share([source[:200]] * 3)
    for what, obj in {
        "an array": array,
        "a slice of an array": array[10:20],
        "a strided slice": array[::3],
        "a frame": frame,
        "a column": frame["a"],
        "a list": listed,
        "an element of a list": listed[1],
    }.items():
        add(f"bytes of {what}", len(pickle.dumps(obj, 5)))


def measure_huge_pages(results: Results, rounds: int, nbytes: int) -> None:
    """Add figures of an array that is written, read twice and freed, with huge pages and without.

    The system's setting, which root alone may change, is as before in the end.
    """
    source = np.ones(nbytes // 8)
    target = source.copy()
    before = _SETTING.read_text(encoding="ascii").partition("[")[2].partition("]")[0]
    try:
        for _ in range(rounds):
            for to in HUGE:
                _SETTING.write_text(to, encoding="ascii")
                for figure, ratio in _life(source, target).items():
                    results.alone.setdefault(f"huge {to}, {figure}", []).append(ratio)
    finally:
        _SETTING.write_text(before, encoding="ascii")


def _life(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return what each step in the life of a shared array takes, in units of a copy."""
    clock = time.perf_counter
    times = [clock()]
    np.copyto(target, source)
    times.append(clock())
    shared = mori.share(source)
    times.append(clock())
    shared.sum()
    times.append(clock())
    shared.sum()
    times.append(clock())
    del shared
    times.append(clock())
    unit, *taken = np.diff(times)
    return {figure: float(each / unit) for figure, each in zip(FIGURES, taken, strict=True)}
