"""Kills children in the middle of what mori does, and looks at what is left.

``python -m tests.injector calls ROUNDS`` kills at each system call of each act, ``large ROUNDS`` the same for
regions in several segments and in pages that are written again, with a second number at every so many calls;
``moments TIMES`` kills as many at any moment.

It runs in a process of its own, without threads, so that a child costs a fork and not an interpreter. It
prints a line of JSON for each child: how it ended, and what was found after it. Beside them lives a holder,
whose region no child may harm.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import util  # noqa: F401  (a region's creator imports it: not in each child)
from typing import Any

import numpy as np

import mori
from mori import store as stores
from mori.memory import pool
from mori.store.processes import descriptors
from tests import stored
from tests.tracing import Ended, can_trace, run_until_call

LENGTH = 20_000
SUM = LENGTH * (LENGTH - 1) / 2
LARGE = 4_200_000  # of 8 bytes: two segments where there are two processors
LARGE_SUM = LARGE * (LARGE - 1) / 2
_kept: list[Any] = []


class Scene:
    """A holder of one region, and the children that are killed beside it."""

    def __init__(self) -> None:
        ours, theirs = os.pipe()
        watched, self.alive = os.pipe()
        self.holder = os.fork()
        if not self.holder:
            os.close(ours)
            os.close(self.alive)
            shared = mori.share(np.arange(float(LENGTH)))
            large = mori.share(np.arange(float(LARGE)))
            with os.fdopen(theirs, "wb") as file:
                names = [mori.shared_name(one) for one in (shared, large)]
                pickle.dump((names, pickle.dumps(shared), pickle.dumps(large)), file)
            os.read(watched, 1)  # until the one that kills is killed itself
            os._exit(1)
        os.close(theirs)
        with os.fdopen(ours, "rb") as file:
            self.names, self.reference, self.large = pickle.load(file)
        self.name = self.names[0]

    def end(self) -> None:
        os.kill(self.holder, signal.SIGKILL)
        os.waitpid(self.holder, 0)

    # what a child does: before the counting, and while it is counted

    def share(self) -> None:
        _kept.append(mori.share({"x": np.arange(float(LENGTH)), "y": ["some", "text"]}))

    def share_large(self) -> None:
        _kept.append(mori.share(np.arange(float(LARGE))))

    def fill_pool(self) -> None:
        os.environ["MORI_POOL"] = "1G"
        self.share_large()
        _kept.clear()
        self.settle()

    def settle(self) -> None:
        home, limit = pool.current(), time.monotonic() + 10
        while home._let_go or home._idle_nbytes() == 0:
            home.tend()
            assert time.monotonic() < limit
            time.sleep(0.001)

    def share_and_drop(self) -> None:
        self.share()
        _kept.clear()

    def map(self) -> None:
        _kept.append(pickle.loads(self.reference))
        assert _kept[-1].sum() == SUM

    def map_large(self) -> None:
        _kept.append(pickle.loads(self.large))
        assert _kept[-1][-1] == LARGE - 1

    def map_and_drop(self) -> None:
        self.map()
        _kept.clear()

    def allocate(self) -> None:
        with mori.allocate(LENGTH) as array:
            array[:] = 1
            _kept.append(array.share())

    def pickle_and_drop(self) -> None:
        data = pickle.dumps(_kept)
        _kept.clear()
        with contextlib.suppress(mori.RegionNotFoundError):  # there is no grace
            _kept.extend(pickle.loads(data))

    def exit(self) -> None:
        atexit._run_exitfuncs()

    def prune(self) -> None:
        mori.prune_shared()

    def anything(self) -> None:
        """Go on for ever; to be killed at any moment."""
        random.seed(os.getpid())
        while True:
            random.choice((self.share, self.map, self.share_and_drop, self.map_and_drop, self.allocate))()
            if len(_kept) > 5:
                del _kept[random.randrange(len(_kept))]
            if random.random() < 0.1:
                self.pickle_and_drop()

    def acts(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        return {
            "share": (lambda: None, self.share),
            "drop": (self.share, _kept.clear),
            "map": (lambda: None, self.map),
            "drop what is mapped": (self.map, _kept.clear),
            "allocate": (lambda: None, self.allocate),
            "exit": (lambda: (self.share(), self.map()), self.exit),
            "prune": (leave_an_orphan, self.prune),
        }

    def large_acts(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        return {
            "share in segments": (lambda: None, self.share_large),
            "drop segments": (self.share_large, _kept.clear),
            "map segments": (lambda: None, self.map_large),
            "share in pages that are written again": (self.fill_pool, self.share_large),
            "drop pages that are written again": (
                lambda: (self.fill_pool(), self.share_large()),
                lambda: (_kept.clear(), self.settle()),
            ),
        }

    # what is found afterwards

    def look(self, ended: Ended, *, opens: bool) -> dict[str, Any]:
        """Say what a child has left, when it is opened first and found by the next `share`, or pruned."""
        own = {name[1:] for name in self.names}
        left = sorted(name for name in _listed() if name not in own)
        found: dict[str, Any] = {"status": ended.status, "calls": len(ended.calls)}
        found["left"] = sorted({"draft" if name.endswith(".draft") else "whole" for name in left})
        found["opened"] = _opened(ended.pid) if opens else []
        pruned = [] if opens else mori.prune_shared()
        found["pruned_exactly"] = opens or sorted(pruned) == sorted(
            {f"/{name.removesuffix('.draft')}" for name in left}
        )
        look_again()
        found["next"] = _in_child(self.use)
        found["kept"] = [name for name in _listed() if name not in own]
        home = stores.current()
        of = home.entries() if home.kind == stores.MEMFD else ()  # of a file, that it is gone says all
        found["held"] = [entry.name for entry in of if entry.owner == ended.pid or ended.pid in entry.holders]
        found["holder"] = float(mori.map_shared(self.name).sum()) == SUM
        return found

    def use(self) -> None:
        """Be the next process: share, map, and leave nothing."""
        mine = mori.share(np.arange(10))
        assert mine.sum() == 45
        other = pickle.loads(self.reference)
        assert other.sum() == SUM
        del mine, other

    def at_each_call(self, act: str, opens: bool, stride: int) -> Iterator[dict[str, Any]]:
        prepare, call = (self.acts() | self.large_acts())[act]
        number, status = 0, -signal.SIGKILL
        while status == -signal.SIGKILL:
            standing: list[str] = []
            ended = run_until_call(call, number, prepare, lambda pid, to=standing: to.extend(_opened(pid)))
            yield {"act": act, "standing": standing, **self.look(ended, opens=opens)}
            number, status, opens = number + stride, ended.status, not opens

    def at_every_call(self, rounds: int, acts: Iterable[str], stride: int) -> Iterator[dict[str, Any]]:
        for number in range(rounds):
            for act in acts:
                yield from self.at_each_call(act, bool(number % 2), stride)

    def at_any_moment(self, times: int) -> Iterator[dict[str, Any]]:
        for number in range(times):
            pid = os.fork()
            if not pid:
                try:
                    self.anything()
                finally:
                    os._exit(1)
            time.sleep(random.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            ended = Ended(pid, (), os.waitstatus_to_exitcode(status))
            yield {"act": "anything", "standing": [], **self.look(ended, opens=bool(number % 2))}


def look_again() -> None:
    """Have the next `share` look for orphans, as if the last look were long ago."""
    stores.current()._pruned = -1e9  # type: ignore[attr-defined]


def leave_an_orphan() -> None:
    """Have a child that is killed leave a region."""
    pid = os.fork()
    if not pid:
        _kept.append(mori.share(np.arange(10)))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    look_again()


def _listed() -> list[str]:
    return stored.names()


def _opened(pid: int) -> list[str]:
    """Open what can be opened of a process, and say what it is: anything but what it writes is damage."""
    found = []
    label = f"mori_{pid:x}_"
    seen = [*_listed(), *(link.removeprefix("/memfd:").partition(".")[0] for _, link in descriptors(pid))]
    names = {f"/{name}" for name in seen if name.startswith(label) and not name.endswith(".draft")}
    for name in sorted(names | {f"/{label}{number}" for number in (2, 3, 4)}):
        try:
            value = mori.materialize(mori.map_shared(name))
        except mori.RegionNotFoundError:
            continue
        if isinstance(value, dict):
            found.append(
                "dict" if value["x"].sum() == SUM and value["y"] == ["some", "text"] else repr(value)
            )
        else:
            found.append("array" if value.sum() in (LENGTH, 45, LARGE_SUM) else repr(value))
    gc.collect()
    return found


def _in_child(call: Callable[[], object]) -> int:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            call()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(when: str, times: int, stride: int = 1) -> None:
    """Print what was found after each child."""
    os.environ["MORI_GRACE"] = "0"  # a region in its grace would be taken for one that is left
    warm = mori.share({"x": np.arange(float(LENGTH)), "y": ["some", "text"]})
    pickle.loads(pickle.dumps(warm))
    del warm
    if when != "moments" and (refused := can_trace()):
        sys.stdout.write(json.dumps({"refused": refused}) + "\n")
        return
    scene = Scene()
    try:
        acts = scene.acts() if when == "calls" else scene.large_acts()
        at_calls = scene.at_every_call(times, acts, stride)
        for found in scene.at_any_moment(times) if when == "moments" else at_calls:
            sys.stdout.write(json.dumps(found) + "\n")
    finally:
        scene.end()
        mori.prune_shared()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
