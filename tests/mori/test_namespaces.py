"""Pids that mean nothing here, or another process: pid namespaces over one directory, and pids used again."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import mori
from mori import store as stores
from mori.memory import receipts
from tests import stored
from tests.fresh import run_unshared

pytestmark = pytest.mark.each_store

_UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture(scope="module", autouse=True)
def unshare() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is missing")
    if subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a pid namespace of its own is not permitted here (unshare --pid)")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    return tmp_path


@contextmanager
def _process(code: str, *arguments: str, apart: bool = True) -> Iterator[subprocess.Popen[str]]:
    """Run code, in a pid namespace of its own, where it is the first process."""
    command = [*(_UNSHARE if apart else []), sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def _kill(child: subprocess.Popen[str]) -> None:
    child.kill()  # and unshare sees to it that what it started goes, too
    child.wait()
    assert child.stdout is not None
    assert child.stdout.read() == ""  # it is gone: nobody has the other end


_SHARE = """
import os, sys, numpy, mori
mine = mori.share(numpy.full(1000, int(sys.argv[1])))
print(mori.shared_name(mine), os.getpid(), flush=True)
sys.stdin.read()
"""
_PRUNE = """
import sys, numpy, mori
print(mori.prune_shared(), mori.map_shared(sys.argv[1]).sum(), flush=True)
"""


_RECEIVE = """
import pickle, sys, mori
print(pickle.loads(bytes.fromhex(sys.stdin.readline())).sum(), flush=True)
"""


def test_a_receipt_reaches_a_sender_in_another_pid_namespace(
    files: Path, wait: Callable[[Callable[[], object]], None]
) -> None:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    theirs.send(mori.share(np.full(1000, 3)))
    with _process(_RECEIVE) as apart:
        assert apart.stdin is not None
        apart.stdin.write(ours.recv_bytes().hex() + "\n")
        apart.stdin.flush()
        assert _line(apart) == "3000"
        wait(lambda: not receipts._receipts.all())
    ours.close()
    theirs.close()


def test_pruning_across_pid_namespaces_removes_exactly_what_nobody_holds(files: Path) -> None:
    shared = mori.share(np.full(1000, 1))
    mine = mori.shared_name(shared)
    assert mine is not None
    with _process(_SHARE, "2", apart=False) as killed, _process(_SHARE, "3") as apart:
        orphan, living = _line(killed).split()[0], _line(apart).split()[0]
        _kill(killed)
        with _process(_PRUNE, mine) as pruning:  # which sees neither of our processes
            assert _line(pruning) == f"['{orphan}'] 1000"
        assert mori.prune_shared() == []  # its pid is none of ours
        theirs = mori.map_shared(living)
        _kill(apart)
        assert mori.prune_shared() == []  # it is ours now
        with _process(_PRUNE, living) as pruning:
            assert _line(pruning) == "[] 3000"
        assert theirs.sum() == 3000
        del theirs
    assert stored.names(files) == [mine[1:]]
    assert shared.sum() == 1000


def test_the_same_pid_in_two_namespaces_never_meets_the_others_regions(files: Path) -> None:
    with _process(_SHARE, "1") as first, _process(_SHARE, "2") as second:
        names = [_line(first), _line(second)]
        assert [name.split()[1] for name in names] == ["1", "1"]
        one, two = (name.split()[0] for name in names)
        assert {one, two} == {"/mori_1_1", "/mori_1_2"}
        assert (mori.map_shared(one).sum(), mori.map_shared(two).sum()) == (1000, 2000)
        kept = mori.map_shared(one)
        _kill(first)
        _kill(second)
        with _process(_SHARE, "3") as third:  # finds an orphan, and a live region of its own pid
            assert _line(third) == f"{two} 1"
            assert kept.sum() == mori.map_shared(one).sum() == 1000
            assert mori.map_shared(two).sum() == 3000
            del kept
            assert stored.names(files) == [two[1:]]
            assert third.stdin is not None
            third.stdin.close()
            third.wait()
    assert stored.names(files) == []


_AGAIN = """
import os, pickle, signal, sys, numpy, mori

def child(number):
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(40)
        x = mori.share(numpy.full(1000, number))
        os.write(theirs, pickle.dumps((mori.shared_name(x), pickle.dumps(x))))
        signal.pause()
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        return pid, *pickle.load(file)

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def read(data):
    try:
        return pickle.loads(data)
    except mori.RegionNotFoundError:
        return "gone"

def again(pid, number):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    found = child(number)
    assert found[0] == pid, found
    return found

pid, name, data = child(1)
kill(pid)
_, other, _ = again(pid, 2)          # the same pid, the same number, the same descriptor
print(name == other, read(data), mori.map_shared(other).sum())
kill(pid)

pid, name, data = child(3)
kept = pickle.loads(data)
kill(pid)
_, other, fresh = again(pid, 4)
first, second = pickle.loads(data), pickle.loads(fresh)
print(first.sum(), second.sum(), kept.sum(), mori.shared_name(first) == name)
del first, second, kept
kill(pid)                            # it had inherited what was kept
mori.prune_shared()
print(read(data), read(fresh))
"""


def test_a_pid_that_comes_again_brings_no_other_data_and_harms_no_live_region(store: str) -> None:
    with _process(_AGAIN) as child:
        out, _ = child.communicate(timeout=50)
    assert child.returncode == 0
    one, two, three = out.splitlines()
    assert one == "True gone 2000"
    assert two == "3000 4000 3000 True"
    assert three == "gone gone"
    home = stores.current()
    if home.kind == stores.FILES:
        assert stored.names() == []


_FIRST = """
import multiprocessing, os, time, numpy, mori

assert os.getpid() == 1
context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe(duplex=False)
def children():
    return set(open("/proc/1/task/1/children").read().split())
before = children()
def put():
    theirs.send(mori.share(numpy.arange(1000)))
for _ in range(3):
    process = context.Process(target=put)
    process.start()
    process.join()
    assert ours.recv().sum() == 499500
program = os.fork()                                  # an ordinary child, over and not waited for
if not program:
    os._exit(7)
def over():
    found = set()
    for child in children() - before:
        if " Z " in open(f"/proc/{child}/stat").read():
            found.add(int(child))
    return found
limit = time.monotonic() + 40
while len(over()) < 4:
    assert time.monotonic() < limit, over()
    time.sleep(0.01)
while over() != {program}:
    assert time.monotonic() < limit, over()
    mori.share(numpy.arange(10))
    time.sleep(0.05)
assert os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]) == 7
print("reaped")
"""


def test_the_first_process_of_a_container_reaps_the_exit_holders_that_it_adopts_and_nobody_else(
    store: str,
) -> None:
    assert run_unshared("true", _FIRST, "--pid") == "reaped"
