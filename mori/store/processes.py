"""The processes of this user and what they have open, as /proc shows them.

A memfd's link has the name that it was made with, so a process can label itself: it keeps an empty memfd open
whose name says where it is in an engine, for those who list who holds what. What is gone, or cannot be looked
into, is passed over.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Final

from mori.store.base import Owner, is_out_of_descriptors, new_memfd

__all__ = ["announce", "descriptors", "process_labels", "processes", "readers"]

_LABEL_PREFIX: Final = "mori-at:"
_LABEL_LINK: Final = re.compile(r"/memfd:mori-at:([a-z]{1,20}:[\w.-]{1,120}) \(deleted\)", re.ASCII)


def processes() -> Iterator[int]:
    """Yield the processes of this user, this one last: it has looked in its own cache."""
    me, uid = os.getpid(), os.geteuid()
    try:
        entries = [entry for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError as error:
        if is_out_of_descriptors(error):
            raise
        return
    for entry in entries:
        try:
            if int(entry.name) != me and entry.stat().st_uid == uid:
                yield int(entry.name)
        except OSError:
            continue
    yield me


def descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """Yield number and link of each descriptor of a process; nothing if it cannot be looked into."""
    directory = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(directory)
    except OSError as error:
        if is_out_of_descriptors(error):
            raise  # not "there is nothing"
        return
    for number in numbers:
        try:
            yield number, os.readlink(f"{directory}/{number}")
        except OSError:
            continue


def readers(pipes: set[int]) -> dict[int, set[int]] | None:
    """Return which processes can read from pipes, by their inodes; None where that cannot be told.

    A pipe that none can read from is missing.
    """
    if not os.path.isdir("/proc/self/fd"):
        return None
    found: dict[int, set[int]] = {}
    wanted = {f"pipe:[{inode}]": inode for inode in pipes}
    for pid in processes() if wanted else ():
        for number, link in descriptors(pid):
            if (inode := wanted.get(link)) is None:
                continue
            try:
                if os.lstat(f"/proc/{pid}/fd/{number}").st_mode & 0o400:  # the way it was opened
                    found.setdefault(inode, set()).add(pid)
            except OSError:
                continue
    return found


def announce(engine: str, place: str) -> Owner | None:
    """Label this process with its place in an engine; return what closes the descriptor that has the label.

    None where there can be no such descriptor.
    """
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        return new_memfd(f"{_LABEL_PREFIX}{engine}:{place}", os.MFD_CLOEXEC)
    return None


def process_labels(pid: int) -> list[str]:
    """Return what a process says, ``"ray:5499f3dc..."``; nothing for one that cannot be looked into."""
    return sorted({found[1] for _, link in descriptors(pid) if (found := _LABEL_LINK.fullmatch(link))})
