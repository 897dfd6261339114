"""Fixtures of all tests: the stores, worker processes, and the check that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing.forkserver
import os
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # noqa: F401  (what it opens and starts is no test's)
import psutil
import pytest

from mori.memory import lease, region
from tests import stored
from tests.worker import Worker

collect_ignore = ["compat"]  # `make compat`: other libraries, and other libraries' tests

GRACE = 0.2
_LIMIT = 10  # seconds until what is on its way out has to be gone

_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with Ray's tests, the longest: one process would work on them at the end, and the others wait."""
    items.sort(key=lambda item: "mori_ray" not in item.path.parts)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests in one process where pytest-xdist spreads them, and all of Ray's."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if "/mori_ray/" in file else file

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """Have the collections of tests look at what tests make: modules alone take a tenth of a second each."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture(scope="session", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start what multiprocessing starts once and keeps, so that no test is blamed for it."""
    resource_tracker.ensure_running()
    multiprocessing.forkserver.ensure_running()


def _children() -> list[int]:
    """Return this process's children and theirs, by what the kernel lists: psutil reads every process."""
    found, pending = [], [os.getpid()]
    try:
        while pending:
            pid = pending.pop()
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                    below = [int(child) for child in file.read().split()]
                found += below
                pending += below
    except OSError:  # one has just ended, or the kernel was built without
        return [child.pid for child in psutil.Process().children(recursive=True)]
    return found


def _links(pid: int) -> Iterator[str]:
    """Yield what the descriptors of a process are."""
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield f"fd {number} of {pid}: {os.readlink(f'/proc/{pid}/fd/{number}')}"


def _what_there_is() -> set[str]:
    """Return regions, descriptors, threads, children, and the files of the store."""
    found = {f"mapped: {mapping.name}" for mapping in region.live()}
    found |= {f"{thread.name} ({thread.ident})" for thread in threading.enumerate()}
    found |= {*_links(os.getpid())}
    for pid in _children():
        found.add(f"child {pid}")
        found |= {link for link in _links(pid) if "mori_" in link}
    return found | {*stored.names()}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a region, a file in the store, a descriptor, a thread or a child."""
    monkeypatch.setenv("MORI_GRACE", str(GRACE))
    monkeypatch.delenv("MORI_STORE", raising=False)
    if "store" in request.fixturenames:
        request.getfixturevalue("store")
    before = _what_there_is()
    yield
    request.node.funcargs.clear()
    if request.node.stash.get(_failed, False):
        return  # its traceback holds what it had
    limit = time.monotonic() + _LIMIT
    while True:
        lease.expire_graces()
        left = _what_there_is() - before
        if not left:
            return
        if time.monotonic() > limit:
            pytest.fail(f"the test left behind: {', '.join(sorted(left))}")
        gc.collect()
        time.sleep(0.01)


@pytest.fixture(params=["memfd", "files"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Run the test on each store; the setting is inherited by child processes."""
    setting: str = request.param
    if setting == "files":
        (tmp_path / "store").mkdir()
        setting = f"files:{tmp_path / 'store'}"
    monkeypatch.setenv("MORI_STORE", setting)
    return setting


@pytest.fixture(scope="session")
def _workers() -> Iterator[dict[str, Worker]]:
    workers: dict[str, Worker] = {}
    yield workers
    for worker in workers.values():
        worker.close()


@pytest.fixture(scope="session", params=["fork", "spawn"])
def worker(request: pytest.FixtureRequest, _workers: dict[str, Worker]) -> Worker:
    """Return another process, started by fork and by spawn; call it with a function and arguments."""
    method: str = request.param
    if method not in _workers:
        _workers[method] = Worker(method)
    return _workers[method]


@pytest.fixture(scope="session")
def third(_workers: dict[str, Worker]) -> Worker:
    """Return a third process."""
    if "third" not in _workers:
        _workers["third"] = Worker("spawn")
    return _workers["third"]


@pytest.fixture
def wait() -> Callable[[Callable[[], object]], None]:
    """Return a function that waits for a condition, with a limit."""

    def until(condition: Callable[[], object]) -> None:
        limit = time.monotonic() + _LIMIT
        while not condition():
            assert time.monotonic() < limit, "it did not come about in time"
            time.sleep(0.005)

    return until


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)
