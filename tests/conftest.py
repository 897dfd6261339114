"""Fixtures of all tests: the stores, worker processes, and the check that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing.forkserver
import os
import signal
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

from mori.memory import lease
from mori.memory import mapping as mappings
from tests import sizes, stored
from tests.worker import Worker

collect_ignore = ["compat"]  # `make compat`: other libraries, and other libraries' tests

GRACE = 0.2
_LIMIT = 10  # seconds until what is on its way out has to be gone

# The fixtures that can vary: the marker of the tests that run with every value, and the values.
_VARIED = {"store": ("each_store", ("memfd", "files")), "worker": ("each_start", ("spawn", "fork"))}

_failed = pytest.StashKey[bool]()
_seconds_left = pytest.StashKey[float]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test its store and the start method of its worker.

    Tests that are marked `each_store` or `each_start` run with all of them. The others run in memfd, and with
    a spawned worker, which knows nothing of what this process has imported; they have a second variant, with
    the last values, that is `slow`.
    """
    varied = {name: _VARIED[name] for name in _VARIED if name in metafunc.fixturenames}
    if varied:
        marked = metafunc.definition.get_closest_marker
        variants: list[Any] = [
            *itertools.product(*(values if marked(mark) else values[:1] for mark, values in varied.values()))
        ]
        last = tuple(values[-1] for _, values in varied.values())
        if last not in variants:
            variants.append(pytest.param(*last, marks=pytest.mark.slow))
        metafunc.parametrize([*varied], variants, indirect=True)


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


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_collected() -> None:
    """Collect what a module's tests make, and nothing older: what is imported takes a tenth of a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


def _timed(item: pytest.Item) -> Iterator[None]:
    """Let the clock of pytest-timeout run, and stop it at the end of one phase of a test.

    Its alarm raises wherever the main thread is. In a phase, pytest makes a failed test of that. Between two,
    while a report is made or sent, nothing catches it, and the whole run would end with an internal error.
    """
    left = item.stash.get(_seconds_left, 0.0)
    if left and signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:  # it is default after a failure
        signal.setitimer(signal.ITIMER_REAL, left)
    try:
        return (yield)
    finally:
        item.stash[_seconds_left] = signal.setitimer(signal.ITIMER_REAL, 0)[0]


pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = pytest.hookimpl(
    wrapper=True, tryfirst=True
)(_timed)


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
    found = {f"mapped: {mapping.name}" for mapping in mappings.live()}
    found |= {f"{thread.name} ({thread.ident})" for thread in threading.enumerate()}
    found |= {*_links(os.getpid())}
    for pid in _children():
        found.add(f"child {pid}")
        found |= {link for link in _links(pid) if "mori_" in link}
    return found | {*stored.names()}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _workers: dict[str, Worker]
) -> Iterator[None]:
    """Fail a test that leaves a region, a file in the store, a descriptor, a thread or a child."""
    monkeypatch.setenv("MORI_GRACE", str(GRACE))
    monkeypatch.delenv("MORI_STORE", raising=False)
    for name in ("store", "worker", "third"):  # what they make stays for the next test, or goes with tmp_path
        if name in request.fixturenames:
            request.getfixturevalue(name)
    before = _what_there_is()
    yield
    request.node.funcargs.clear()
    if request.node.stash.get(_failed, False):
        return  # its traceback holds what it had
    limit = time.monotonic() + _LIMIT
    for look in itertools.count():
        lease.expire_graces()
        for worker in _workers.values():
            worker.expire_graces(collect=look > 0)
        left = _what_there_is() - before
        if not left:
            return
        if time.monotonic() > limit:
            pytest.fail(f"the test left behind: {', '.join(sorted(left))}")
        gc.collect()
        time.sleep(0.01)


@pytest.fixture
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Run the test in a store; the setting is inherited by child processes."""
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


@pytest.fixture
def worker(request: pytest.FixtureRequest, _workers: dict[str, Worker]) -> Worker:
    """Return another process; call it with a function and arguments."""
    return _started(_workers, request.param, request.param)


@pytest.fixture
def third(_workers: dict[str, Worker]) -> Worker:
    """Return a third process."""
    return _started(_workers, "third", "spawn")


def _started(workers: dict[str, Worker], name: str, method: str) -> Worker:
    if name not in workers or workers[name].is_ended:  # one that did not answer in time is ended
        workers[name] = Worker(method)
    return workers[name]


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


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every container that is shared here a large one, for tests of what large ones do."""
    sizes.write_views(monkeypatch)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every container inside another a node of its own, for tests of what large ones do."""
    sizes.write_nodes(monkeypatch)
