"""What the system lets one process have: memory, open files, mappings, addresses.

A region costs its process one descriptor and one mapping. What runs short is said by its own name: the
system's answer to too many mappings reads like a lack of memory.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from typing import Final

from mori.errors import LimitError

if sys.platform != "win32":  # at once: see mori._imports
    import resource

__all__ = [
    "HUGE",
    "descriptors_error",
    "file_size_error",
    "is_in_memory",
    "is_overcommit_strict",
    "mapping_error",
    "mappings",
    "memory",
    "memory_remedy",
    "raise_descriptors",
]

HUGE: Final = 1 << 21
"""The size of a huge page on most machines; elsewhere it is as good as any."""

_MOST_DESCRIPTORS: Final = 1 << 20
_MARGIN: Final = 16  # mappings that come and go while they are counted


def raise_descriptors() -> bool:
    """Raise the soft limit of open files to the hard one; say whether there was anything to raise."""
    if sys.platform == "win32":
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):  # macOS allows less than it says
        return False
    return True


def descriptors_error(error: OSError) -> LimitError:
    """Return the error for a process that has no descriptor left, its soft limit raised already."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    of = f"this process has all of its {soft} open files in use"
    if error.errno == errno.ENFILE:
        of = "this system has all of its open files in use (fs.file-max)"
    return LimitError(
        asked="open one more shared region",
        found=f"{of}, and each region that a process maps takes one",
        remedy="Share many small objects as one (a list or a dict of them is one region), drop those that "
        "are not needed, or raise the hard limit (ulimit -Hn, LimitNOFILE=, docker run --ulimit nofile=)",
    )


def file_size_error(nbytes: int) -> LimitError:
    """Return the error for a region that is larger than files of this process may be."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return LimitError(
        asked=f"make a shared region of {nbytes} bytes",
        found=f"this process may write files of {soft} bytes (RLIMIT_FSIZE), and a region is one",
        remedy="Raise that limit (ulimit -f unlimited, LimitFSIZE=infinity), or share smaller objects",
    )


def memory() -> int:
    """Return the bytes that can be had without swapping: the machine's, or what a limit leaves of them.

    Limits are those of the control groups that this process is in, and of the system where it promises
    no more memory than it has (vm.overcommit_memory=2).
    """
    sizes = {}
    for line in _lines("/proc/meminfo"):
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    free = sizes.get("MemAvailable", 1 << 62)
    if is_overcommit_strict() and "CommitLimit" in sizes:
        free = min(free, max(0, sizes["CommitLimit"] - sizes.get("Committed_AS", 0)))
    for most, used, place in _groups():
        if most - used < free:
            free = min(free, max(0, most - used + _cached(place)))
    return free


def is_overcommit_strict() -> bool:
    """Return whether the system promises no more memory than it has."""
    return _lines("/proc/sys/vm/overcommit_memory") == ["2"]


def memory_remedy() -> str:
    """Return what a user may do where there is too little memory for a region."""
    if is_overcommit_strict():
        return (
            "This system promises no more memory than its commit limit (vm.overcommit_memory=2; see "
            "CommitLimit in /proc/meminfo), however much is free: raise vm.overcommit_ratio, or set "
            "MORI_STORE=files:DIR to a directory on disk"
        )
    return (
        "Free memory or raise the container's memory limit, or let mori use a directory on disk "
        "with MORI_STORE=files:DIR"
    )


def is_in_memory(directory: str) -> bool:
    """Return whether what is written to a directory takes memory, and not room on a disk."""
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _lines("/proc/self/mountinfo"):
        fields = line.split()
        if fields[2] == number:
            return fields[fields.index("-") + 1] in _IN_MEMORY
    return False


_IN_MEMORY: Final = ("tmpfs", "ramfs", "devtmpfs")


def _cached(place: str) -> int:
    """Return the bytes of files in memory that a group is charged for, and that the system drops at need."""
    counts = dict(line.split()[:2] for line in _lines(os.path.join(place, "memory.stat")) if " " in line)
    # The old kind of groups has those of the groups below apart.
    return sum(
        int(counts.get(f"total_{name}", counts.get(name, "0"))) for name in ("active_file", "inactive_file")
    )


def _groups() -> Iterator[tuple[int, int, str]]:
    """Yield limit, use and place of each control group that has charge of this process's memory."""
    for line in _lines("/proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers not in ("", "memory"):
            continue
        root, limit, use = _GROUP_FILES[controllers]
        # A limit may stand above. In a container, the path is the host's, and only the root can be seen.
        while True:
            place = os.path.normpath(root + path)
            most, used = _lines(os.path.join(place, limit)), _lines(os.path.join(place, use))
            if most and used and most[0].isdigit() and used[0].isdigit():
                yield int(most[0]), int(used[0]), place
            if path in ("", "/"):
                break
            path = os.path.dirname(path)


_GROUP_FILES: Final = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current"),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb", buffering=0) as file:  # one is read at the first opening: a few calls less
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def mapping_error(nbytes: int, number: int) -> LimitError:
    """Return the error for a region that could not be mapped, with what is short as far as can be told."""
    mapped, most = mappings()
    asked = f"map a shared region of {nbytes} bytes"
    if number == errno.ENOMEM and most and mapped >= most - _MARGIN:
        return LimitError(
            asked=asked,
            found=f"this process has {mapped} mappings, and the system allows it {most} (vm.max_map_count)",
            remedy="Share many small objects as one (a list or a dict of them is one region), drop those "
            "that are not needed, or raise it: sysctl -w vm.max_map_count=1048576",
        )
    space = _address_space()
    found = f"the system refused ({errno.errorcode.get(number, number)})"
    remedy = "Map less at once, or free memory"
    if number == errno.ENOMEM and space is not None:
        found = f"this process may have {space} bytes of addresses (RLIMIT_AS), mapped ones included"
        remedy = "Raise that limit (ulimit -v); shared pages count in it, though they cost no memory twice"
    return LimitError(asked=asked, found=found, remedy=remedy)


def mappings() -> tuple[int, int]:
    """Return how many mappings this process has and may have; 0 and 0 where the system does not tell."""
    try:
        # As bytes: text may import the module of its encoding, which takes the memory that there is not.
        with open("/proc/sys/vm/max_map_count", "rb") as file:
            most = int(file.read())
        with open("/proc/self/maps", "rb") as lines:
            return sum(1 for _ in lines), most
    except (OSError, ValueError):
        return 0, 0


def _address_space() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
