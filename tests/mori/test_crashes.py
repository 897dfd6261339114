"""However a process ends: the dead hold nothing, what is half written cannot be opened, the next works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mori
from tests import stored
from tests.fresh import run_python, started_python
from tests.killing import kills
from tests.stress import IS_LONG, LIMIT

pytestmark = [pytest.mark.timeout(LIMIT), pytest.mark.each_store]


def _inject(*arguments: str) -> list[dict[str, Any]]:
    """Kill children, and return what was found after each of them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.injector", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MORI_GRACE": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT - 5,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if "refused" in found[0]:
        pytest.skip(found[0]["refused"])
    return found


def _assert_nothing_is_lost_or_left(found: dict[str, Any]) -> None:
    assert {*found["standing"], *found["opened"]} <= {"dict", "array"}, found  # what opens is whole
    assert found["pruned_exactly"], found
    assert found["kept"] == [], found
    assert found["held"] == [], found
    assert found["next"] == 0, found
    assert found["holder"], found


def test_a_process_killed_at_any_system_call_leaves_nothing_half_and_harms_nobody(store: str) -> None:
    ends = _inject("calls", "4" if IS_LONG else "1")
    for found in ends:
        _assert_nothing_is_lost_or_left(found)
        assert found["status"] in (0, -signal.SIGKILL), found
    # It was killed before, in the middle of, and after all that there is to interrupt.
    by_act: dict[str, list[dict[str, Any]]] = {}
    for found in ends:
        by_act.setdefault(found["act"], []).append(found)
    assert all(of[-1]["status"] == 0 and of[0]["calls"] == 1 for of in by_act.values())
    assert len(by_act) == 7
    for act in ("share", "allocate"):
        assert [] in [found["standing"] for found in by_act[act]]
        assert by_act[act][-2]["standing"] != []  # published, and its creator still there
    if store == "memfd":
        assert all(found["left"] == [] for found in ends)
        return
    left = [found["left"] for found in by_act["share"]]
    assert all(state in left for state in ([], ["draft"], ["draft", "whole"], ["whole"]))
    left = [found["left"] for found in by_act["drop"]]
    assert all(state in left for state in ([], ["whole"]))
    assert len([found for found in ends if found["left"]]) > 20


def test_a_process_killed_among_segments_and_recycled_pages_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MORI_STORE", "memfd")
    ends = _inject("large", "1", *(() if IS_LONG else ("7",)))
    by_act: dict[str, list[dict[str, Any]]] = {}
    for found in ends:
        _assert_nothing_is_lost_or_left(found)
        assert found["left"] == [], found
        by_act.setdefault(found["act"], []).append(found)
    assert len(by_act) == 5
    assert all(of[-1]["status"] == 0 and of[0]["calls"] == 1 for of in by_act.values())
    for act in ("share in segments", "share in pages that are written again"):
        assert ["array"] in [found["standing"] for found in by_act[act]]  # published, its creator still there


def test_processes_killed_at_any_moment_leave_nothing_and_harm_nobody(store: str) -> None:
    ends = _inject("moments", "1000" if IS_LONG else "60")
    for found in ends:
        _assert_nothing_is_lost_or_left(found)
        assert found["status"] == -signal.SIGKILL, found
    assert any(found["left"] for found in ends) == (store != "memfd")


_HOLD = """
import os, pickle, resource, signal, sys, numpy, mori
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
theirs = mori.map_shared(sys.argv[1])
mine = mori.share({"x": numpy.arange(1000)})
print(mori.shared_name(mine), flush=True)
if sys.argv[2] == "os._exit":
    os._exit(7)
while True:  # the signal comes in the middle of this
    passing = mori.share([numpy.arange(1000)])
    pickle.loads(pickle.dumps(passing))
    assert theirs.sum() == 499500
"""
_ENDS = {
    "SIGTERM": -signal.SIGTERM,
    "SIGHUP": -signal.SIGHUP,
    "SIGINT": -signal.SIGINT,
    "SIGABRT": -signal.SIGABRT,
    "SIGSEGV": -signal.SIGSEGV,
    "os._exit": 7,
}


@pytest.mark.parametrize("end", _ENDS)
def test_whatever_ends_a_process_its_regions_end_and_those_of_others_do_not(store: str, end: str) -> None:
    shared = mori.share(np.arange(1000))
    mine = mori.shared_name(shared)
    assert mine is not None
    with started_python(_HOLD, mine, end) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        if end != "os._exit":
            time.sleep(0.05)  # whatever it is doing then
            child.send_signal(getattr(signal, end))
            while end == "SIGINT" and child.poll() is None:  # Python drops one that comes in a finalizer
                with suppress(subprocess.TimeoutExpired):
                    child.wait(1)
                child.send_signal(signal.SIGINT)
        assert child.wait() == _ENDS[end]
    if store != "memfd":
        left = {f"/{name.removesuffix('.draft')}" for name in stored.names()} - {mine}
        # An interrupt is an exception, after which files are let go; one that was half made may stay.
        assert name in left or end == "SIGINT"
        assert {*mori.prune_shared()} == left
        assert stored.names() == [mine[1:]]
    assert [entry.name for entry in mori.regions() if child.pid in (entry.owner, *entry.holders)] == []
    with pytest.raises(mori.RegionNotFoundError):
        mori.map_shared(name)
    assert shared.sum() == mori.map_shared(mine).sum() == 499500


_INTERRUPTED = """
import os, pickle, sys, numpy, mori
from mori.store.processes import descriptors

def act():
    shared = mori.share([numpy.ones(1000), "text"])
    pickle.dumps(shared)

def held():
    "Return how many descriptors of regions are open, and how many regions are mapped."
    with open("/proc/self/maps") as maps:
        mapped = sum("mori_" in line for line in maps)
    return sum("mori_" in link for _, link in descriptors(os.getpid())), mapped

def interrupted_at(line):
    "Return the function that had come to that line of mori's, none if there are fewer."
    left, where = line, None
    def trace(frame, event, _):
        nonlocal left, where
        if not frame.f_code.co_filename.startswith(root):
            return None
        if event in ("call", "line"):  # before the first line, too
            left -= 1
            if not left:
                where = frame.f_code.co_name
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return where

root = os.path.dirname(mori.__file__)
sys.unraisablehook = lambda what: None  # Python drops what a finalizer raises
act()
lines, leaking = 0, set()
before = held()
while where := interrupted_at(lines := lines + 1):
    if (now := held()) != before:
        leaking.add(where)
        before = now
print(lines, *leaking)
"""


def test_an_interrupt_at_any_line_leaves_no_descriptor_and_nothing_mapped(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each line of mori's that `share`, `dumps` and a drop come to, as a signal's handler raises it."""
    monkeypatch.setenv("MORI_GRACE", "0")
    lines, *leaking = run_python(_INTERRUPTED).split()
    assert int(lines) > 200
    assert leaking == []
    mori.prune_shared()  # a release that is interrupted lets go of its file, and leaves it to the next look


_INTERRUPTED_BY_SIGNALS = """
import itertools, os, pickle, signal, sys, numpy, mori
from mori.store.processes import descriptors

def held():
    with open("/proc/self/maps") as maps:
        mapped = sum("mori_" in line for line in maps)
    return sum("mori_" in link for _, link in descriptors(os.getpid())), mapped

def interrupt(number, frame):
    if is_acting:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
sys.unraisablehook = lambda what: None
is_acting, interrupted = False, 0
mori.share(numpy.arange(1000))
before = held()
for microseconds in itertools.islice(itertools.cycle(range(20, 520, 7)), COUNT):
    try:
        is_acting = True
        signal.setitimer(signal.ITIMER_REAL, microseconds * 1e-6)
        for _ in range(20):
            pickle.loads(pickle.dumps(mori.share(numpy.arange(1000))))
        is_acting = False
    except KeyboardInterrupt:
        is_acting = False
        interrupted += 1
    assert held() == before, (interrupted, held(), before)
print(interrupted)
"""


def test_an_interrupt_at_any_moment_leaves_no_descriptor_and_nothing_mapped(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "0")
    count = 4000 if IS_LONG else 400
    code = _INTERRUPTED_BY_SIGNALS.replace("COUNT", str(count))
    assert int(run_python(code)) > count // 2
    mori.prune_shared()


_SHARED_BY_A_HANDLER = """
import faulthandler, itertools, os, pickle, signal, numpy, mori
from multiprocessing.reduction import ForkingPickler
from mori.memory import lease, pool
from mori.store.processes import descriptors
faulthandler.dump_traceback_later(50, exit=True)  # a lock that its own thread waits for

def held():
    lease.expire_graces()
    pool.give_back()
    with open("/proc/self/maps") as maps:
        mapped = sum("mori_" in line for line in maps)
    return sum("mori_" in link for _, link in descriptors(os.getpid())), mapped

def act(number):
    shared = mori.share({"x": numpy.full(SIZE, number), "y": [str(number)]})
    again = pickle.loads(pickle.dumps(shared["x"][1:]))
    assert again[-1] == number and shared["y"] == [str(number)], number
    assert mori.map_shared(mori.shared_name(shared))["x"][0] == number
    assert pickle.loads(ForkingPickler.dumps(shared))["x"][0] == number

def handle(_, frame):
    global inside
    while frame is not None and not frame.f_code.co_filename.startswith(root):
        frame = frame.f_back
    inside += frame is not None
    act(-1)

root = os.path.dirname(mori.__file__)
inside = 0
act(0)
before = held()
signal.signal(signal.SIGALRM, handle)
for number, microseconds in enumerate(itertools.islice(itertools.cycle(range(20, STOP, 7)), COUNT)):
    signal.setitimer(signal.ITIMER_REAL, microseconds * 1e-6)
    act(number)
    signal.setitimer(signal.ITIMER_REAL, 0)
assert held() == before, (held(), before)
print(inside)
"""


@pytest.mark.parametrize("recycling", ["0", "100M"], ids=["", "in the pool"])
def test_a_signals_handler_shares_whatever_it_interrupts(
    store: str, monkeypatch: pytest.MonkeyPatch, recycling: str
) -> None:
    monkeypatch.setenv("MORI_GRACE", "0")
    monkeypatch.setenv("MORI_POOL", recycling)
    count = 4000 if IS_LONG else 400
    size, stop = ("1000", "620") if recycling == "0" else ("200_000", "3020")
    code = _SHARED_BY_A_HANDLER.replace("SIZE", size).replace("STOP", stop).replace("COUNT", str(count))
    assert int(run_python(code)) > count // 10
    mori.prune_shared()


@pytest.mark.slow
def test_the_creators_of_regions_are_killed_in_a_pool_and_every_value_that_arrives_is_right(
    store: str,
) -> None:
    kills(10_000 if IS_LONG else 10, "pool")
