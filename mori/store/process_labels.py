"""Signs: what a process says of where it is in an engine, for those who list who holds what.

A sign is the name of an empty anonymous file that the process keeps open: it is seen in ``/proc``, and goes
with the process, whatever way that ends. Other systems have none.
"""

from __future__ import annotations

import os
import re
from typing import Final

from mori.store.processes import descriptors

__all__ = ["announce", "process_labels"]

_PREFIX: Final = "mori-at:"
_SIGN: Final = re.compile(r"/memfd:mori-at:([a-z]{1,20}:[\w.-]{1,120}) \(deleted\)", re.ASCII)
_NOEXEC: Final = 0x8  # MFD_NOEXEC_SEAL, which some systems demand and old ones do not know


def announce(engine: str, place: str) -> int | None:
    """Say that this process is at a place of an engine's; return the descriptor that says it.

    It is said until that is closed. None where it cannot be said.
    """
    create = getattr(os, "memfd_create", None)
    if create is None:
        return None
    for flags in (os.MFD_CLOEXEC | _NOEXEC, os.MFD_CLOEXEC):
        try:
            fd: int = create(f"{_PREFIX}{engine}:{place}", flags)
            return fd
        except OSError:
            continue
    return None


def process_labels(pid: int) -> list[str]:
    """Return what a process says, ``"ray:5499f3dc..."``; nothing for one that cannot be looked into."""
    return sorted({found[1] for _, link in descriptors(pid) if (found := _SIGN.fullmatch(link))})
