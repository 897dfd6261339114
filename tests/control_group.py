"""A control group with a limit of memory, of the version that this system has; the kernel's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["control_group"]

_KINDS = (  # of each version: where its groups are, and the file of the limit
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


@contextlib.contextmanager
def control_group(nbytes: int) -> Iterator[Path]:
    """Make a group, and yield the file that a process writes its pid to, to be in it.

    Skips the test where none can be made.
    """
    found = []
    for root, limit in _KINDS:
        group = root / f"mori-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            found.append(str(error))
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(nbytes))
                yield group / "cgroup.procs"
                return
            found.append(f"{group} has no {limit}")
        finally:
            group.rmdir()
    pytest.skip(f"no control group with a limit of memory can be made here: {'; '.join(found)}")
