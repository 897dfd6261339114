"""Four processes of eight threads that share, read, pass on and drop at once.

``python -m tests.stressing SECONDS`` prints a line of JSON for each process: what it did, what it found
wrong, and what it had in the end. With ``MORI_POOL``, objects are arrays that are large enough for the pool.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import pickle
import queue
import random
import sys
import threading
import time
import traceback
from collections import Counter
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import pandas as pd

import mori
from mori import settings
from mori.memory import lease, pool
from mori.memory import mapping as mappings
from mori.store.processes import descriptors

PROCESSES = 4
THREADS = 8
_WARMING = 0.25  # of the time; what is allocated once is allocated by then
_KEPT = 6  # by a thread
_SHELF = 4  # objects that all threads of a process replace and read
_WAITING = 16  # messages on their way to a process
_OLD = 40  # references to what may have ended, kept by a process
_LIMIT = 40  # seconds for the others to come to the same point


def make(seed: int) -> Any:
    """Return an object that the seed tells all about."""
    size = 10 + seed * 7919 % 20_000
    kind = seed % 6
    if settings.pool():  # for which they are large enough, and quickly made and checked
        size, kind = size + (1 << 17), (0, 1, 5)[seed % 3]
        size *= 1 + (kind == 5)
    if kind == 0:
        return np.arange(size) + seed
    if kind == 1:
        return {"seed": seed, "x": np.full(size, seed), "in": {"y": [np.full(5, seed), "text"]}}
    if kind == 2:
        return [f"{seed} {i}" for i in range(size // 20)]
    if kind == 3:
        return pd.DataFrame({"a": np.arange(size) + seed, "s": [str(seed)] * size}).convert_dtypes()
    if kind == 4:
        return {f"k{i}": i + seed for i in range(size // 20)}
    return np.full((3, size), seed, "f4").T


def check(found: Any, seed: int) -> None:
    """Read an object, and raise an AssertionError if it is not what was made."""
    made = make(seed)
    assert len(found) == len(made), (seed, found)
    if isinstance(made, pd.DataFrame):
        assert found["a"].dtype == made["a"].dtype, seed
        assert (found["a"] == made["a"]).all(), seed
        assert found["s"].iloc[-1] == str(seed), seed
    elif isinstance(made, np.ndarray):
        np.testing.assert_array_equal(found, made)
    elif "x" in made:
        np.testing.assert_array_equal(found["x"], made["x"])
        assert found["in"]["y"][0].tolist() == [seed] * 5, seed
        assert found["seed"] == seed
    else:
        assert found == made, seed


class Busy:
    """One of the processes."""

    def __init__(self, me: int, inboxes: list[Any], barrier: Barrier) -> None:
        self.inboxes = inboxes
        self.inbox = inboxes[me]
        self.barrier = barrier
        self.random = random.Random(me)
        self.shelf: list[tuple[int, Any] | None] = [None] * _SHELF
        self.old: list[tuple[int, bytes]] = [(0, b"")] * _OLD
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self.stop = 0.0
        self.lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Be busy; then come to rest with all the others, holding nothing."""
        self.stop = time.monotonic() + seconds
        threads = [threading.Thread(target=self.work, args=(self.random.random(),)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.shelf = [None] * _SHELF
        self.barrier.wait(_LIMIT)  # nobody sends any more
        with contextlib.suppress(queue.Empty):
            while True:
                seed, found = self.inbox.get(timeout=0.5)
                if not isinstance(found, bytes):
                    check(found, seed)
                del found
        self.barrier.wait(_LIMIT)  # everything on its way has come
        lease.expire_graces()
        gc.collect()
        self.barrier.wait(_LIMIT)  # nobody holds pages of another's pool
        pool.give_back()

    def work(self, seed: float) -> None:
        choose = random.Random(seed)
        kept: list[tuple[int, Any]] = []
        acts = (self.share, self.share, self.read, self.read, self.send, self.receive, self.receive)
        acts += (self.put, self.look, self.look_up, self.look_back, self.look_back, self.drop)
        done: Counter[str] = Counter()
        try:
            while time.monotonic() < self.stop:
                act = choose.choice(acts)
                act(kept, choose)
                done[act.__name__] += 1
                del kept[_KEPT:]
        except BaseException:
            self.faults.append(traceback.format_exc())
            self.stop = 0
        with self.lock:
            self.done.update(done)

    def share(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        seed = choose.randrange(1 << 30)
        shared = mori.share(make(seed))
        kept.insert(0, (seed, shared))
        with contextlib.suppress(queue.Full):  # as bytes, which hold nothing once their grace is over
            old = seed, pickle.dumps(shared)
            self.old[choose.randrange(_OLD)] = old
            choose.choice(self.inboxes).put_nowait(old)

    def read(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        if kept:
            seed, shared = choose.choice(kept)
            check(shared, seed)

    def send(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        if kept:
            with contextlib.suppress(queue.Full):
                choose.choice(self.inboxes).put_nowait(kept.pop())

    def receive(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        with contextlib.suppress(queue.Empty):
            seed, found = self.inbox.get_nowait()
            if isinstance(found, bytes):
                self.old[choose.randrange(_OLD)] = seed, found
                return
            assert mori.is_shared(found), found
            check(found, seed)
            with self.lock:
                self.done["received"] += 1
            kept.insert(0, (seed, found))

    def put(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        if kept:
            self.shelf[choose.randrange(_SHELF)] = kept.pop()

    def look(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        if (found := self.shelf[choose.randrange(_SHELF)]) is not None:
            seed, shared = found
            check(shared, seed)

    def look_up(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        if (found := self.shelf[choose.randrange(_SHELF)]) is not None:
            seed, shared = found
            check(mori.map_shared(mori.shared_name(shared)), seed)

    def look_back(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        """Open an old reference: it shows what it was made of, or that this has ended, and nothing else."""
        seed, reference = choose.choice(self.old)
        if not reference:
            return
        try:
            shared = pickle.loads(reference)
        except mori.RegionNotFoundError:
            with self.lock:
                self.done["ended"] += 1
            return
        check(shared, seed)
        if choose.random() < 0.2:  # a part holds its region as well as the whole
            kept.insert(0, (seed, shared))

    def drop(self, kept: list[tuple[int, Any]], choose: random.Random) -> None:
        kept.clear()


def _private() -> int:
    """Return the bytes of this process's anonymous pages, without those that malloc keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


def be_busy(me: int, seconds: float, inboxes: list[Any], barrier: Barrier, report: Any) -> None:
    """Run one of the processes, and report."""
    busy = Busy(me, inboxes, barrier)
    try:
        busy.run(seconds * _WARMING)
        warm = _private()
        busy.run(seconds * (1 - _WARMING))
    except BaseException:
        busy.faults.append(traceback.format_exc())
        warm = 0
    report.put(
        {
            "pid": os.getpid(),
            "done": dict(busy.done),
            "faults": busy.faults[:3],
            "grown": _private() - warm,
            "mapped": [str(mapping.name) for mapping in mappings.live()],
            "held": [link for _, link in descriptors(os.getpid()) if "mori_" in link],
            "threads": sorted(each.name for each in threading.enumerate() if "mori" in each.name),
        }
    )


def main(seconds: float) -> None:
    """Start them, and print their reports."""
    os.environ |= {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}  # to see what is in use
    context = multiprocessing.get_context("spawn")
    inboxes: list[Any] = [context.Queue(_WAITING) for _ in range(PROCESSES)]
    barrier, report = context.Barrier(PROCESSES), context.SimpleQueue()
    processes = [
        context.Process(target=be_busy, args=(me, seconds, inboxes, barrier, report))
        for me in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    while not report.empty():  # one that was killed has none
        sys.stdout.write(json.dumps(report.get()) + "\n")
    sys.stdout.write(json.dumps([process.exitcode for process in processes]) + "\n")


if __name__ == "__main__":
    main(float(sys.argv[1]))
