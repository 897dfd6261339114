"""What a process takes, by what Linux says of it."""

from __future__ import annotations

import ctypes
import gc
from typing import NamedTuple

__all__ = ["Taken", "private_bytes", "settle", "taken"]


class Taken(NamedTuple):
    """Bytes of one process: its anonymous memory, what it alone maps, and its share of all it maps."""

    anon: int
    uss: int
    pss: int

    def above(self, base: Taken) -> Taken:
        """Return what has been taken since."""
        return Taken(*(now - then for now, then in zip(self, base, strict=True)))


def private_bytes(pid: int | str = "self") -> int:
    """Return the anonymous memory of a process that is resident (RssAnon)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def taken() -> Taken:
    """Return what this process takes."""
    found = {"Pss:": 0, "Private_Clean:": 0, "Private_Dirty:": 0}
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        for line in lines:
            field, *rest = line.split()
            if field in found:
                found[field] = int(rest[0]) * 1024
    return Taken(private_bytes(), found["Private_Clean:"] + found["Private_Dirty:"], found["Pss:"])


def settle() -> None:
    """Give back what is free, so that growth is what an object takes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
