"""Tasks and actors for the tests, and what they find out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.metrics import Metric

import mori
from mori.memory import mapping as mappings
from mori.store.base import format_name


@ray.remote
def call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@ray.remote(max_calls=1)
def call_once(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@ray.remote(num_returns="streaming")
def generate(function: Callable[..., Any], *args: Any) -> Iterator[Any]:
    yield function(*args)


@ray.remote
def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


@ray.remote
class Keeper:
    """Keeps an object, and does with it what it is told."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    def keep(self, kept: Any) -> None:
        self.kept = kept

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self.kept, *args)


@ray.remote
class AsyncKeeper:
    """The same, on an event loop."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def mapped() -> set[str]:
    """Return the regions of a store that this process has mapped."""
    return {format_name(mapping.name) for mapping in mappings.live()}


def place_of(array: Any) -> str:
    """Return the file in which an array's memory lies; nothing for private memory."""
    address = np.asarray(array).__array_interface__["data"][0]
    with open("/proc/self/maps") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            start, _, end = fields[0].partition("-")
            if int(start, 16) <= address < int(end, 16):
                return fields[5].strip() if len(fields) == 6 else ""
    return ""


def private_kb() -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def die_once(x: Any, path: Path) -> float:
    """Kill this worker the first time."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), 9)
    return float(x.sum())


def name_of(x: Any) -> str | None:
    return mori.shared_name(x)


_recorded: list[tuple[str, float, dict[str, str]]] = []


def watch_metrics(*_: Any) -> None:
    """Note what this process records with Ray's metrics from now on, which records it all the same."""
    plain = Metric._record
    if getattr(plain, "_is_watched", False):
        return

    def record(self: Any, value: float, tags: dict[str, str] | None = None) -> None:
        plain(self, value, tags)
        _recorded.append((self.info["name"], value, tags or {}))

    record._is_watched = True  # type: ignore[attr-defined]
    Metric._record = record


def watched_metrics(*_: Any) -> list[tuple[str, float, dict[str, str]]]:
    """Return what has been recorded since the last time."""
    found, _recorded[:] = _recorded[:], []
    return found
