"""What the system lets one process have: open files, mappings, addresses.

Imports errors. A region costs its process one descriptor and one mapping. What runs short is said by
its own name: the system's answer to too many mappings reads like a lack of memory.
"""

from __future__ import annotations

import errno
import sys
from typing import Final

from mori.errors import LimitError

__all__ = ["descriptors_error", "is_out_of_descriptors", "mapping_error", "mappings", "raise_descriptors"]

_MOST_DESCRIPTORS: Final = 1 << 20
_MARGIN: Final = 16  # mappings that come and go while they are counted


def is_out_of_descriptors(error: OSError) -> bool:
    """Say whether the process, or the system, has no descriptor left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def raise_descriptors() -> bool:
    """Raise the soft limit of open files to the hard one; say whether there was anything to raise."""
    if sys.platform == "win32":
        return False
    import resource

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
    import resource

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
        with open("/proc/sys/vm/max_map_count", encoding="ascii") as file:
            most = int(file.read())
        with open("/proc/self/maps", "rb") as lines:
            return sum(1 for _ in lines), most
    except (OSError, ValueError):
        return 0, 0


def _address_space() -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
