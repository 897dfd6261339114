"""What the runner asks of one way to hand an object to another process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Peer", "Published", "nothing"]


def nothing() -> None:
    """Do nothing: there is nothing to take back."""


class Published(NamedTuple):
    """What was published: what makes a message for one reader, and how to take it back."""

    message: Callable[[], bytes]
    release: Callable[[], None] = nothing


@contextmanager
def _no_server(folder: Path) -> Iterator[str]:
    yield ""


@dataclass(frozen=True)
class Peer:
    """One way, and the jobs that it has a fair way for."""

    name: str
    module: str  # it takes part where this can be imported
    jobs: frozenset[str]
    publish: Callable[[Any, Path], Published]
    open: Callable[[bytes], Any]
    distribution: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    serve: Callable[[Path], AbstractContextManager[str]] = (
        _no_server  # what runs meanwhile; gives its address
    )
    connect: Callable[[str], None] = lambda address: None  # once in each process
    detach: Callable[[], None] = nothing  # let go of what a reader keeps open after its objects are gone
    is_fresh: bool = False  # recycles inside of the publishing process, so each round has a new one
    is_passed_once: bool = False  # each reader needs a message of its own for each opening
    note: str = ""

    @property
    def is_served(self) -> bool:
        """Whether a server keeps the memory, so that only the first round finds it untouched."""
        return self.serve is not _no_server

    def is_installed(self) -> bool:
        """Whether its library is there."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The version of its library, empty for Python's own."""
        try:
            return metadata.version(self.distribution) if self.distribution else ""
        except metadata.PackageNotFoundError:
            return ""
