"""What `mori doctor` looks at: whether shared memory works here, what limits it, and what to do about that.

A check tries the thing itself where it can: another process opens a region; a limit is read where the kernel
says it. Changes nothing.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import mmap
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from mori import settings, store
from mori.api import share, shared_name
from mori.errors import MoriError, readable_size
from mori.store import limits
from mori.wire.transport import ADAPTERS

__all__ = ["Check", "examine"]

_LIBRARIES: Final = (
    *("numpy", "pandas", "pyarrow", "polars", "scipy", "xarray", "torch"),
    *("cloudpickle", "joblib", "dask", "distributed", "ray"),
)
_HUGE: Final = "/sys/kernel/mm/transparent_hugepage"
_DOCKERS: Final = 64 << 20
_FEW_FILES: Final = 4096
_TAKES: Final = "one a region, up to eight a large one"
_TRIAL: Final = 64 << 20  # bytes
_ROUNDS: Final = 12
_GAIN: Final = 1.3
_LIMIT: Final = 30  # seconds for another process to open a region


class Check(NamedTuple):
    """One thing that was looked at. `verdict` is ``ok``, ``note``, ``warn`` or ``fail``."""

    what: str
    verdict: str
    found: str
    remedy: str = ""


def examine(*, engines: bool = False) -> list[Check]:
    """Return everything that was looked at, in the order in which a user should read it.

    With `engines`, each engine that is installed is tried with its adapter, too, which takes seconds.
    """
    checks = [*_store()]
    works = checks[0].verdict != "fail"  # else what is wrong is said, once
    for examine_one in (
        *([_other_process, _room, _shm] if works else []),
        *(_files, _mappings, _overcommit),
        *([_namespaces] if works else []),
        _huge_pages,
        *([_engines] if engines else []),
    ):
        try:
            checks += examine_one()
        except Exception as error:  # a doctor who falls over helps nobody
            checks.append(Check(examine_one.__name__[1:], "warn", f"could not be looked at: {error!r}"))
    return [*checks, *_versions()]


def _store() -> Iterator[Check]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            home = store.current()
            grace = settings.grace()
        except MoriError as error:
            yield Check("store", "fail", str(error))
            return
    found = f"{home.name} (MORI_STORE is {settings.store() or 'unset'}), grace {grace:g} s"
    if caught:
        why, _, remedy = str(caught[0].message).partition(". ")
        yield Check("store", "warn", f"{found}; {why}", remedy)
    else:
        yield Check("store", "ok", found)


def _other_process() -> Iterator[Check]:
    """Check that a process that is no forked child can open a region by its name."""
    try:
        shared = share(np.arange(1000))
    except MoriError as error:
        yield Check("other processes", "fail", str(error))
        return
    code = f"import mori; print(int(mori.map_shared({shared_name(shared)!r}).sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if done.returncode == 0 and done.stdout.strip() == "499500":
        yield Check("other processes", "ok", "another process opened a region by its name")
        return
    lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
    yield Check(
        "other processes",
        "fail",
        f"another process could not open a region: {lines[-1]}",
        "Processes of one user must see each other in /proc (no hidepid=, one pid namespace); if they "
        "cannot, let them share a directory: MORI_STORE=files:DIR",
    )


def _room() -> Iterator[Check]:
    home = store.current()
    free = home.free()
    verdict = "ok" if free > (1 << 30) else "warn"
    yield Check(
        "room",
        verdict,
        f"{readable_size(free)} free in {home.name}",
        "" if verdict == "ok" else home.remedy(),
    )


def _shm() -> Iterator[Check]:
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        yield Check("/dev/shm", "note", "not there", "The files store uses the temporary directory instead")
        return
    size = found.f_blocks * found.f_frsize
    used = store.current().name == "files:/dev/shm"
    if size > _DOCKERS:
        yield Check("/dev/shm", "ok", f"{readable_size(size)}{'' if used else ', not used by this store'}")
    else:
        yield Check(
            "/dev/shm",
            "warn" if used else "note",
            f"{readable_size(size)}, as docker makes it{'' if used else '; this store does not need it'}",
            "docker run --shm-size=8g, or MORI_STORE=memfd" if used else "",
        )


def _files() -> Iterator[Check]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "no limit of open files" if hard == resource.RLIM_INFINITY else f"{hard} open files at most"
    if hard == resource.RLIM_INFINITY or hard >= _FEW_FILES:
        yield Check("open files", "ok", f"{most} (now {soft}; raised when needed), {_TAKES}")
    else:
        yield Check(
            "open files",
            "warn",
            f"{most}, {_TAKES} that a process maps",
            "Raise the hard limit (ulimit -Hn, LimitNOFILE=, docker run --ulimit nofile=), or share many "
            "small objects as one",
        )


def _mappings() -> Iterator[Check]:
    mapped, most = limits.mappings()
    if most:
        yield Check("mappings", "ok", f"{mapped} of {most} (vm.max_map_count), {_TAKES}")
    else:
        yield Check("mappings", "note", "the system does not tell how many a process may have")


def _overcommit() -> Iterator[Check]:
    text = _read("/proc/sys/vm/overcommit_memory")
    if text == "2":
        yield Check(
            "overcommit",
            "warn",
            "vm.overcommit_memory is 2: shared pages count against the commit limit",
            "Raise vm.overcommit_ratio, or set vm.overcommit_memory=0",
        )
    elif text:
        yield Check("overcommit", "ok", f"vm.overcommit_memory is {text}")


def _namespaces() -> Iterator[Check]:
    """Check for processes that hold regions and live in another pid namespace."""
    mine = _link("/proc/self/ns/pid")
    if mine is None:
        return
    strangers = set()
    for entry in store.current().entries():
        strangers |= {pid for pid in entry.holders if _link(f"/proc/{pid}/ns/pid") not in (mine, None)}
    if strangers:
        yield Check(
            "pid namespaces",
            "warn",
            f"{len(strangers)} of the processes with regions live in other pid namespaces (containers)",
            "They cannot open regions of the memfd store that were made here: give both a common directory, "
            "MORI_STORE=files:DIR",
        )
    else:
        yield Check(
            "pid namespaces", "ok", "every process with shared regions that can be seen is in this one"
        )


def _huge_pages() -> Iterator[Check]:
    chosen = _chosen(f"{_HUGE}/shmem_enabled")
    if chosen is None:
        yield Check("huge pages", "note", "this kernel has none for shared memory")
        return
    gain = _gain()
    found = f"shmem_enabled is {chosen}; {gain}"
    if chosen in ("always", "within_size", "advise", "force"):
        yield Check("huge pages", "ok", found)
    else:
        yield Check(
            "huge pages",
            "note",
            found,
            f"As root: echo within_size > {_HUGE}/shmem_enabled; or mount a tmpfs with huge=within_size and "
            "set MORI_STORE=files:DIR",
        )


def _gain() -> str:
    """Measure on private memory, which may have huge pages where shared memory may not."""
    if _chosen(f"{_HUGE}/enabled") == "never" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return "their gain cannot be measured here"
    source = np.ones(_TRIAL, np.uint8)
    rounds = [[_fill(source, advice) for advice in _ADVICE] for _ in range(_ROUNDS)]  # both in each
    small, huge = map(min, zip(*rounds, strict=True))
    if small < _GAIN * huge:  # no more exactly, for two runs to say the same
        return "writing fresh memory takes about as long without them"
    return f"writing fresh memory takes more than {_GAIN:g} times as long without them"


_ADVICE: Final = tuple(getattr(mmap, name, 0) for name in ("MADV_NOHUGEPAGE", "MADV_HUGEPAGE"))


def _fill(source: np.ndarray[tuple[int], np.dtype[np.uint8]], advice: int) -> float:
    with mmap.mmap(-1, _TRIAL, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(advice)
        start = time.perf_counter()
        ctypes.memmove(ctypes.addressof(ctypes.c_char.from_buffer(memory)), source.ctypes.data, _TRIAL)
        return time.perf_counter() - start


_LOAD_BOTH: Final = """
import importlib, sys
importlib.import_module(sys.argv[1])
adapter = importlib.import_module(sys.argv[2])
print(*getattr(adapter, "examine", list)(), sep="\\n")
"""


def _engines() -> Iterator[Check]:
    """Import each engine with its adapter, in a process of its own, and have the adapter look around."""
    for engine, adapter in ADAPTERS.items():
        if importlib.util.find_spec(engine) is None:
            continue
        done = subprocess.run(
            [sys.executable, "-c", _LOAD_BOTH, engine, adapter],
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        version = importlib.metadata.version(engine)
        if done.returncode:
            yield Check(
                engine,
                "fail",
                f"{adapter} does not work with {engine} {version}: {done.stderr.strip().splitlines()[-1]}",
                f"Install a supported version: pip install 'mori[{adapter.removeprefix('mori_')}]'; until "
                "then shared objects go by value",
            )
        elif done.stdout.strip():
            yield Check(engine, "fail", done.stdout.strip(), "Correct or remove that key")
        else:
            yield Check(engine, "ok", f"{adapter} works with {engine} {version}")


def _versions() -> Iterator[Check]:
    from mori import __version__

    found = [f"mori {__version__}", f"Python {platform.python_version()}", platform.platform()]
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    yield Check("versions", "ok", ", ".join(found))


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _chosen(path: str) -> str | None:
    """Return the word in brackets, with which the kernel marks what holds."""
    text = _read(path)
    return None if text is None or "[" not in text else text[text.index("[") + 1 : text.index("]")]


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
