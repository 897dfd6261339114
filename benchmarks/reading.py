"""`make reading`: what reading costs in private memory; writes docs/reading.md.

Each operation runs in a process of its own, forked from one that has opened the object and read all of
it, so that what grows from then on is private: the peak of its resident memory during the operation and
what is left of it afterwards, next to the same for the object in private memory.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import mori
from benchmarks.operations import OPERATIONS, build, evaluate, small
from mori.memory import mapping as mappings

__all__ = ["Reading", "can_measure", "measure"]

DOC = Path(__file__).parents[1] / "docs" / "reading.md"
_MADV_POPULATE_READ = 22
# One arena that gives back what is freed, and no threads with buffers of their own.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class Reading(NamedTuple):
    """What an operation cost; bytes."""

    kind: str
    code: str
    own: int  # of the result, that lie in no region
    plain_peak: int
    plain_kept: int
    peak: int
    kept: int
    is_shared: bool  # the object, under its old name, afterwards
    pickled: int

    @property
    def allowed(self) -> int:
        """What the object in private memory needs, and those bytes of the result that it has already."""
        return self.plain_peak + max(0, self.own - self.plain_kept)


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def can_measure() -> bool:
    """Say whether the kernel lets a process reset the peak of its resident memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return hasattr(os, "fork")


def _settle() -> None:
    """Map every page of every region, and give back what is free."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for mapping in mappings.live():
        if libc.madvise(mapping.address, mapping.nbytes, _MADV_POPULATE_READ):
            int(mapping.bytes()[::4096].sum())  # a kernel before 5.14
    gc.collect()
    libc.malloc_trim(0)


def own_bytes(result: Any) -> int:
    """Return the bytes of a result that lie in no region."""
    if isinstance(result, np.ndarray):
        return 0 if mappings.held_by(result) is not None else result.nbytes
    if isinstance(result, pd.DataFrame):
        columns = (result.iloc[:, i] for i in range(result.shape[1]))
        return sum(map(_own_values, columns)) + own_bytes(result.index)
    if isinstance(result, pd.Series):
        return _own_values(result) + own_bytes(result.index)
    if isinstance(result, pd.Index):
        return 0 if mori.is_shared(result) else result.memory_usage()
    if isinstance(result, list | dict):
        parts = result if isinstance(result, list) else [*result, *result.values()]
        return sys.getsizeof(result) + sum(map(own_bytes, parts))
    return 0 if mori.is_shared(result) else sys.getsizeof(result)


def _own_values(column: Any) -> int:
    return 0 if mori.is_shared(column) else int(column.memory_usage(index=False))


def _serve(pipe: Connection, kind: str, nbytes: int, reference: bytes | None) -> None:
    """Open the object, then run each operation in a fork of this process."""
    tiny = build(kind, 200_000)  # large enough to be opened as the object is
    warm = tiny if reference is None else mori.share(tiny)
    x = build(kind, nbytes) if reference is None else pickle.loads(reference)
    other = build(kind, nbytes)
    combined = small(kind, other)
    gc.collect()
    gc.freeze()  # or each fork would look through all of it
    for code in OPERATIONS[kind]:
        with tempfile.TemporaryFile() as file:
            pid = os.fork()
            if not pid:
                with contextlib.suppress(BaseException):
                    # What the first use imports and maps is not the object's.
                    with contextlib.suppress(IndexError, KeyError):
                        evaluate(code, warm, tiny, small(kind, tiny))
                    found = _measured(code, x, other, combined, reference is not None)
                    os.write(file.fileno(), json.dumps(found).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            file.seek(0)
            pipe.send(json.loads(file.read() or b"null"))
    pipe.close()


def _measured(code: str, x: Any, other: Any, combined: Any, shared: bool) -> dict[str, int]:
    name = mori.shared_name(x)
    _settle()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    result = evaluate(code, x, other, combined)
    after, peak = _status("VmRSS"), _status("VmHWM")
    is_shared = mori.is_shared(x) and mori.shared_name(x) == name
    return {
        "own": own_bytes(result),
        "peak": peak - before,
        "kept": after - before,
        "is_shared": is_shared,
        "pickled": len(pickle.dumps(x, 5)) if shared else 0,
    }


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def measure(kind: str, nbytes: int) -> list[Reading]:
    """Run every operation of a kind on a shared and on a private object of so many bytes."""
    shared = mori.share(build(kind, nbytes))
    plain = _run(kind, nbytes, None)
    ours = _run(kind, nbytes, pickle.dumps(shared, 5))
    found = []
    for code, one, other in zip(OPERATIONS[kind], plain, ours, strict=True):
        if one is None or other is None:
            raise RuntimeError(f"{code} failed on the {'private' if one is None else 'shared'} {kind}")
        found.append(Reading(kind, code, other.pop("own"), one["peak"], one["kept"], **other))
    return found


def _run(kind: str, nbytes: int, reference: bytes | None) -> list[dict[str, Any] | None]:
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, kind, nbytes, reference))
    with _environment():
        process.start()
    theirs.close()
    found = []
    with contextlib.suppress(EOFError):
        found += [pipe.recv() for _ in OPERATIONS[kind]]
    process.join()
    process.close()
    pipe.close()
    return found


def _table(readings: list[Reading]) -> str:
    head = [
        *("operation", "result's own, MB", "peak, private object, MB", "peak, shared, MB"),
        *("kept, shared, MB", "still shared", "pickle, bytes"),
    ]
    rows = ["| " + " | ".join(head) + " |", "|---|---:|---:|---:|---:|---|---:|"]
    for each in readings:
        megabytes = [f"{max(n, 0) / 1e6:.1f}" for n in (each.own, each.plain_peak, each.peak, each.kept)]
        cells = [f"`{each.code}`", *megabytes, "yes" if each.is_shared else "no", f"{each.pickled}"]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


_TEXT = """# Reading never copies

{count} everyday operations on a shared array, frame, list and dict of {megabytes} MB each, written by
`make reading`. Private memory grows by the operation's result and by the temporaries that the same
operation needs on a private object, and by no more; the object stays shared, and its pickle a reference.
tests/mori/test_reading.py holds every one of them to it, with smaller objects.

*Result's own* are the bytes of the result that do not lie in the region: 0 for a slice, a column, an
element. *Peak* is the most that resident memory grew by during the operation, in a process that had all of
the object mapped, and *kept* what was left with the result still there. The elements of a list are decoded
a block at a time, which takes some MB whatever its length; `sorted(x)` makes strings, which a private list
has already. {machine}

Of some 130 others that were tried, these copy: `argmax`, `argmin`, `idxmax` and `idxmin` of a
*Series* or frame, a column at a time, and `np.interp`, `np.convolve` and `np.correlate` of arrays. numpy asks
for writable memory there, though it only reads, and copies what is read-only. The copy goes with the call,
and the object stays shared.

"""
_TITLES = {
    "array": "An array of float64, 10 columns",
    "frame": "A frame: floats, ints, strings, categories",
    "list": "A list of strings of 200 characters",
    "dict": "A dict of arrays of 400 kB",
}


def main() -> None:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--dry", action="store_true", help="print the tables, write nothing")
    options = parser.parse_args()
    parts = []
    for kind, title in _TITLES.items():
        parts.append(f"## {title}\n\n{_table(measure(kind, options.megabytes * 1_000_000))}\n")
        print(parts[-1])
    count = sum(map(len, OPERATIONS.values()))
    versions = f"numpy {np.__version__}, pandas {pd.__version__}, mori {mori.__version__}, Linux."
    text = _TEXT.format(count=count, megabytes=options.megabytes, machine=versions)
    if not options.dry:
        DOC.write_text(text + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
