"""What the files store has in its directory, for tests that look at it."""

from __future__ import annotations

import os
from pathlib import Path

from mori import store as stores


def home(directory: str | Path | None = None) -> Path:
    """Return where this user's regions are in a directory, by default in that of the current store."""
    return Path(directory or stores.current().name.partition(":")[2]) / f"mori-{os.geteuid()}"


def names(directory: str | Path | None = None) -> list[str]:
    """Return the names of its regions and drafts, in order; none for a store without files."""
    if directory is None and stores.current().kind != stores.FILES:
        return []
    try:
        return sorted(name for name in os.listdir(home(directory)) if name.startswith("mori_"))
    except FileNotFoundError:  # there was no region yet
        return []
