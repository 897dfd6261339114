"""How far `share` is, for what takes longer than a second: elements measured, then bytes written.

tqdm is imported where it is installed, when somebody asks. Whoever measures or writes asks for
the meter of the call under way, once, and has none where nobody wants to see it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from mori._imports import load

__all__ = ["Meter", "meter", "shown"]

_DELAY: Final = 1.0  # seconds before anything is shown
_EVERY: Final = 0.2  # seconds between two looks of a line of text

_current: ContextVar[Meter | None] = ContextVar("mori_progress", default=None)


meter: Final[Callable[[], Meter | None]] = _current.get
"""Returns the meter of the call under way, None where nobody wants to see it."""


@contextmanager
def shown(wanted: bool) -> Iterator[Meter | None]:
    """Show how far the work inside is, or nothing, whatever is shown outside."""
    made = Meter() if wanted else None
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)
        if made is not None:
            made.close()


class Meter:
    """The progress of one call; any thread may report to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._make = _maker()
        self._started = time.monotonic()
        self._bar = self._make(desc="mori: measuring", unit=" elements", delay=_DELAY)

    def did(self, count: int) -> None:
        """Add to the elements that were measured, or to the bytes that were written."""
        with self._lock:
            self._bar.update(count)

    def writing(self, nbytes: int) -> None:
        """Switch from measuring to writing so many bytes."""
        with self._lock:
            self._bar.close()
            delay = max(0.0, self._started + _DELAY - time.monotonic())
            self._bar = self._make(desc="mori: writing", unit="B", unit_scale=True, total=nbytes, delay=delay)

    def close(self) -> None:
        """Remove the bar."""
        with self._lock:
            self._bar.close()


def _maker() -> Callable[..., Any]:
    try:
        tqdm = load("tqdm.auto").tqdm
    except ImportError:
        return _Line
    return lambda **options: tqdm(leave=False, **options)


class _Line:
    """A line of text on stderr, where there is no tqdm."""

    def __init__(self, desc: str, unit: str, delay: float, total: int = 0, unit_scale: bool = False) -> None:
        self._desc, self._unit, self._total = desc, unit, total
        self._done = self._width = 0
        self._next = time.monotonic() + delay

    def update(self, count: int) -> None:
        self._done += count
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        of = f" of {self._total:,}" if self._total else ""
        text = f"{self._desc} {self._done:,}{of}{self._unit if self._unit[0] == ' ' else ' ' + self._unit}"
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def close(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
