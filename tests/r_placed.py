"""Regions of R's for tests: those that R wrote (`r_regions/README.md`), put where R puts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

DIRECTORY = Path(__file__).parent / "r_regions"
NAMES = sorted(path.stem for path in DIRECTORY.glob("*.bin"))
SHM = Path("/dev/shm")


def data_of(name: str) -> bytes:
    """Return the bytes of a region that R wrote."""
    return (DIRECTORY / f"{name}.bin").read_bytes()


@contextlib.contextmanager
def placed(data: bytes, mode: int = 0o600) -> Iterator[str]:
    """Put bytes where R puts a region of this process's, and return the name; it goes at the end."""
    name = f"mori_{os.getpid():x}_{int.from_bytes(os.urandom(4)) or 1:x}"
    path = SHM / name
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)
    path.chmod(mode)
    try:
        yield f"/{name}"
    finally:
        path.unlink(missing_ok=True)
