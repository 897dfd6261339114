"""A region handed from process to process lives on, whoever of those that had it drops it or ends."""

from __future__ import annotations

import gc
import pickle
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mori
from mori import store as stores
from mori.memory import lease
from mori.memory import mapping as mappings
from tests import stored
from tests.fresh import run_python
from tests.worker import Worker

pytestmark = [pytest.mark.each_store, pytest.mark.each_start]


def _is_gone(name: str | None) -> bool:
    try:
        mori.map_shared(name)
    except mori.RegionNotFoundError:
        return True
    return False


def _keep(x: Any) -> str | None:
    import sys

    sys.mori_kept = x  # type: ignore[attr-defined]
    return mori.shared_name(x)


def _kept() -> Any:
    import sys

    return sys.mori_kept  # type: ignore[attr-defined]


def _drop() -> None:
    import sys

    del sys.mori_kept  # type: ignore[attr-defined]


def test_a_region_outlives_a_creator_that_drops_it_and_its_grace(
    store: str, worker: Worker, wait: Callable[..., None]
) -> None:
    shared = mori.share({"x": np.arange(1000)})
    name = mori.shared_name(shared)
    assert worker(_keep, shared) == name
    del shared
    lease.expire_graces()
    assert [entry.holders for entry in mori.regions() if entry.name == name] == [(worker.process.pid,)]
    assert worker(lambda: int(_kept()["x"].sum())) == 499500
    again = mori.map_shared(name)
    assert again["x"].sum() == 499500
    assert mori.shared_name(worker(_kept)) == name  # and it comes back under its name
    worker(_drop)
    assert again["x"][999] == 999
    del again
    wait(lambda: gc.collect() is not None and lease.expire_graces() is None and _is_gone(name))


@pytest.mark.parametrize("end", ["exits", "is killed"])
def test_a_region_outlives_the_reader_that_passed_it_on(
    store: str, third: Worker, wait: Callable[..., None], end: str
) -> None:
    reader = Worker("spawn")
    creator = Worker("fork")
    try:
        name = creator(lambda: _keep(mori.share({"x": np.arange(1000), "y": ["a"]})))
        assert reader(lambda name: _keep(mori.map_shared(name)), name) == name
    finally:
        creator.kill()
    try:
        data = reader(lambda: pickle.dumps(_kept()["x"][10:]))
        assert third(lambda data: _keep(pickle.loads(data)) is None, data)  # a slice has no name
    finally:
        reader.close() if end == "exits" else reader.kill()
    # The reader has pickled it, so when it exits its exit holder has it for the grace.
    wait(lambda: [e.holders for e in mori.regions() if e.name == name] == [(third.process.pid,)])
    last = pickle.loads(data)  # which says to look in a process that is gone
    assert last.sum() == 499500 - 45
    assert mori.map_shared(name)["y"] == ["a"]
    third(_drop)
    del last
    wait(lambda: gc.collect() is not None and _is_gone(name))


_RING = """
import os, pickle, signal, numpy, mori
size, rounds = 10, 3
pipes, pids, over = [os.pipe() for _ in range(size)], [], os.pipe()
for me in range(size):
    pid = os.fork()
    if pid:
        pids.append(pid)
        continue
    code = 1
    signal.alarm(50)
    try:
        start, end = pipes[me][0], pipes[(me + 1) % size][1]
        if not me:
            made = mori.share({"x": numpy.arange(100_000), "where": ["made"]})
            os.write(end, pickle.dumps(made))
            del made                                   # its creator is the first to drop it
        for turn in range(rounds - (me == 0)):
            found = pickle.loads(os.read(start, 4096))
            assert mori.is_shared(found) and found["x"].sum() == 4999950000 and found["where"] == ["made"]
            if turn < rounds - 1 or me < size - 1:
                os.write(end, pickle.dumps(found))     # on its way, and dropped at once
            else:
                print(mori.shared_name(found), flush=True)
                os.write(over[1], b"." * size)
            del found
        os.read(over[0], 1)                            # its grace would end with it
        code = 0
    finally:
        os._exit(code)
for pipe in (*pipes, over):
    os.close(pipe[0]), os.close(pipe[1])
status = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
assert status == [0] * size, status
"""


def test_a_region_goes_round_a_ring_of_ten_processes_that_each_drop_it(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "30")
    name = run_python(_RING)
    mori.prune_shared()  # they left by os._exit
    assert _is_gone(name)


_HOPS = """
import os, pickle, signal, sys, numpy, mori
data, last = None, None
def run(data, to):
    # One of ten: maps what it is given, passes on a part, and stays until it is killed.
    x = mori.share([numpy.arange(100_000), "made"]) if data is None else pickle.loads(data)
    assert x[0].sum() == 4999950000 and x[1] == "made"
    os.write(to, pickle.dumps(x))
    signal.pause()
for hop in range(10):
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(50)
        try:
            run(data, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    data = os.read(ours, 4096)
    assert data, f"hop {hop} has lost it"
    os.close(ours)
    if last is not None:
        os.kill(last, signal.SIGKILL)
        os.waitpid(last, 0)
    last = child
x = pickle.loads(data)
print(mori.shared_name(x), x[0].sum())
os.kill(last, signal.SIGKILL)
os.waitpid(last, 0)
assert x[0][99_999] == 99_999
"""


def test_a_region_hops_over_ten_processes_of_which_each_is_killed_when_the_next_has_it(store: str) -> None:
    name, total = run_python(_HOPS).split()
    assert total == "4999950000"
    assert _is_gone(name)
    home = stores.current()
    if home.kind == stores.FILES:  # this process was the last, and ended as it should
        assert stored.names() == []


_CHAIN = """
import multiprocessing, sys, numpy, mori
def pass_on(left, right):
    shared = left.get(timeout=50)
    assert mori.is_shared(shared) and shared["x"].sum() == 4999950000 and shared["where"] == ["made"]
    right.put(shared)
def make(right):
    right.put(mori.share({"x": numpy.arange(100_000), "where": ["made"]}))
context = multiprocessing.get_context("fork")
last = context.Queue()
ends = [context.Process(target=make, args=(last,))]
for _ in range(25):
    queue = context.Queue()
    ends.append(context.Process(target=pass_on, args=(last, queue)))
    last = queue
for process in ends:  # each begins when the one before it has ended
    process.start()
    process.join()
    assert process.exitcode == 0
shared = last.get(timeout=50)
print(mori.shared_name(shared), shared["x"].sum(), *shared["where"])
"""


@pytest.mark.slow
def test_a_region_passes_through_a_chain_of_25_processes_that_each_end_before_the_next_begins(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "8")  # the time that each one's keeper has it: a process starts in that
    name, *found = run_python(_CHAIN).split()
    assert found == ["4999950000", "made"]
    limit = time.monotonic() + 30
    while stored.names() or not _is_gone(name):
        assert time.monotonic() < limit, "an exit holder has it for longer than twice the grace"
        time.sleep(0.1)


def test_a_cycle_holds_its_region_until_it_is_collected(store: str) -> None:
    class Node:
        pass

    gc.collect()
    gc.disable()
    try:
        node: Any = Node()
        node.shared = mori.share({"x": np.arange(10)})
        node.array = node.shared["x"]
        node.me = [node]
        name = mori.shared_name(node.shared)
        del node
        assert not _is_gone(name)
        gc.collect()
        assert _is_gone(name)
    finally:
        gc.enable()


def test_a_weak_reference_sees_the_end_and_does_not_put_it_off(store: str) -> None:
    shared = mori.share(np.arange(10))
    name, ended = mori.shared_name(shared), []
    watched = weakref.ref(shared, lambda _: ended.append(name))
    table = weakref.WeakValueDictionary({"x": shared})
    part = shared[2:4]
    del shared
    assert not _is_gone(name)
    assert part.tolist() == [2, 3]
    del part
    assert ended == [name]
    assert watched() is None
    assert dict(table) == {}
    assert _is_gone(name)


def test_a_mapping_is_not_given_to_another_thread_once_its_pages_are_being_unmapped(store: str) -> None:
    shared = mori.share(np.arange(10))
    number = mappings.held_by(shared).header.number  # type: ignore[union-attr]
    seen: list[list[int]] = []

    def look(frame: Any, event: str, arg: object) -> None:
        # Where another thread may come in: a finalizer has begun.
        if event == "call" and frame.f_code.co_name == "__del__":
            seen.append([mapping.header.number for mapping in mappings.live()])

    sys.setprofile(look)
    try:
        del shared
    finally:
        sys.setprofile(None)
    assert seen  # of the lease: pages have none
    assert all(number not in numbers for numbers in seen)
