"""`regions`: what is alive, how large, how old, whose, and who holds it."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

import numpy as np
import pytest

import mori
from mori.memory import mapping as mappings

pytestmark = [pytest.mark.each_store, pytest.mark.each_start]


def _of(x: Any) -> Any:
    return next((entry for entry in mori.regions() if entry.name == mori.shared_name(x)), None)


def test_a_region_is_listed_with_what_there_is_to_know(store: str, worker: Any) -> None:
    start = time.time()
    x = mori.share(np.arange(1000))
    entry = _of(x)
    mapping = mappings.held_by(x)
    assert mapping is not None
    assert entry.nbytes == mapping.nbytes
    assert entry.owner == os.getpid()
    assert entry.holders == (os.getpid(),)
    assert 0 <= entry.age <= time.time() - start + 1
    y, pid = worker(lambda x: (x, os.getpid()), x)
    assert y.tolist() == x.tolist()
    other = worker(lambda: (mori.share(np.arange(5)),))[0]
    entry = _of(other)
    assert entry.owner == pid
    assert os.getpid() in entry.holders


def test_holders_come_and_go(store: str, worker: Any, wait: Any) -> None:
    x = mori.share(np.arange(1000))

    def keep(x: Any) -> int:
        import sys

        sys.mori_kept = x  # type: ignore[attr-defined]
        return os.getpid()

    def drop() -> None:
        import sys

        del sys.mori_kept  # type: ignore[attr-defined]

    pid = worker(keep, x)
    assert _of(x).holders == tuple(sorted((os.getpid(), pid)))
    worker(drop)
    wait(lambda: gc.collect() is None or _of(x).holders == (os.getpid(),))


def test_what_is_gone_is_not_listed(store: str, wait: Any) -> None:
    x = mori.share(np.arange(1000))
    name = mori.shared_name(x)
    assert name in [entry.name for entry in mori.regions()]
    del x
    wait(lambda: name not in [entry.name for entry in mori.regions()])


def test_they_are_listed_by_age_the_oldest_first(store: str) -> None:
    kept = [mori.share(np.arange(3)) for _ in range(3)]
    assert len(kept) == 3
    ages = [entry.age for entry in mori.regions()]
    assert ages == sorted(ages, reverse=True)
