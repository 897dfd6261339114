"""`pool.submit(f, mori.share(x))` with nothing kept: the grace carries it, 200 times out of 200."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker

import mori
from mori import hold
from mori import store as stores
from tests.worker import settings

TIMES = 200


@pytest.fixture(scope="module", autouse=True)
def tracker_of_loky() -> None:
    resource_tracker.ensure_running()


@pytest.fixture(autouse=True)
def grace_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MORI_GRACE")


def _set_up(environment: dict[str, str]) -> None:
    os.environ.pop("MORI_GRACE", None)
    os.environ.update(environment)


def _look(x: Any, number: int) -> tuple[bool, bool, int]:
    return mori.is_shared(x["x"]), bool((x["x"] == number).all()) and x["y"] == [str(number)], len(x["x"])


def _made(number: int) -> tuple[Any, int]:
    return mori.share({"x": np.full(1000, number), "y": [str(number)]}), number


def _multiprocessing() -> Iterator[Any]:
    with multiprocessing.get_context("spawn").Pool(2, _set_up, (settings(),)) as pool:
        tasks = [pool.apply_async(_look, _made(number)) for number in range(TIMES)]
        yield from [task.get(50) for task in tasks]
        pool.close()
        pool.join()


def _futures() -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, _set_up, (settings(),)) as pool:
        tasks = [pool.submit(_look, *_made(number)) for number in range(TIMES)]
        yield from [task.result(50) for task in tasks]


def _joblib() -> Iterator[Any]:
    try:
        yield from joblib.Parallel(2)(joblib.delayed(_look)(*_made(number)) for number in range(TIMES))
    finally:
        get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize("submit", [_multiprocessing, _futures, _joblib], ids=lambda call: call.__name__[1:])
def test_nothing_has_to_be_kept_while_tasks_are_on_their_way(
    store: str, submit: Callable[[], Iterator[Any]]
) -> None:
    assert list(submit()) == [(True, True, 1000)] * TIMES
    hold.expire_graces()
    assert [entry.name for entry in mori.regions() if os.getpid() in (entry.owner, *entry.holders)] == []
    home = stores.current()
    assert home.kind == stores.MEMFD or os.listdir(home.name.partition(":")[2]) == []


def _put(queue: Any) -> None:
    queue.put(mori.share(np.arange(1000)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_process_shares_and_passes_on_as_it_ends_is_lost_with_an_error_that_says_so(
    store: str, method: str
) -> None:
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_put, args=(queue,))
    process.start()
    process.join(50)
    assert process.exitcode == 0
    process.close()
    lost = queue.get(timeout=50)
    with pytest.raises(mori.RegionNotFoundError, match="until it has been received"):
        lost.sum()
    queue.close()
    queue.join_thread()
