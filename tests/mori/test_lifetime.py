"""A region lives as long as a process holds it or a part of it, and no longer than the grace after that."""

import concurrent.futures
import contextlib
import fcntl
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pandas as pd
import pytest

import mori
from mori import store as stores
from mori.memory.lease import Lease
from tests import stored
from tests.mori.pandas_versions import NAN_STRINGS
from tests.worker import settings

pytestmark = [pytest.mark.each_store, pytest.mark.each_start]

SHARE = """
import mori, numpy, sys, pandas
shared = mori.share({"x": numpy.arange(1000), "f": pandas.DataFrame({"a": range(10)})})
print(mori.shared_name(shared), flush=True)
sys.stdin.read()
"""
READ = """
import mori, sys
shared = mori.map_shared(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(shared["x"].sum(), shared["f"]["a"].sum(), mori.shared_name(shared), flush=True)
sys.stdin.read()
"""


def is_gone(name: str) -> bool:
    try:
        mori.map_shared(name)
    except mori.RegionNotFoundError:
        return True
    return False


@contextlib.contextmanager
def process(code: str, *args: str):
    with subprocess.Popen(
        [sys.executable, "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_a_region_outlives_its_creator_while_a_reader_holds_it(store, wait, how):
    with process(SHARE) as creator:
        name = creator.stdout.readline().strip()
        with process(READ, name) as reader:
            assert reader.stdout.readline() == "ready\n"
            if how == "exits":
                creator.stdin.close()
            else:
                creator.send_signal(signal.SIGKILL)
            creator.wait()
            reader.stdin.write("\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == f"499500 45 {name}\n"
            ours = mori.map_shared(name)  # from the reader, as the creator is gone
            assert ours["x"][3] == 3
    assert ours["x"].sum() == 499500
    del ours
    wait(lambda: is_gone(name))


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_a_region_whose_only_holder_ends_is_gone(store, wait, how):
    with process(SHARE) as creator:
        name = creator.stdout.readline().strip()
        if how == "exits":
            creator.stdin.close()
        else:
            creator.send_signal(signal.SIGKILL)
        creator.wait()
    if how == "is killed":
        mori.prune_shared()
    assert is_gone(name)


def test_what_a_killed_process_left_is_pruned_and_what_lives_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    mine = mori.share(np.arange(10))
    with process(SHARE) as creator, process(SHARE) as living:
        name, alive = creator.stdout.readline().strip(), living.stdout.readline().strip()
        creator.kill()
        creator.wait()
        (stored.home() / "mori_1_1.draft").touch(0o600)  # half a region of a process that was killed
        assert sorted(mori.prune_shared()) == sorted([name, "/mori_1_1"])
        assert mori.prune_shared() == []
        assert {*stored.names()} == {mori.shared_name(mine)[1:], alive[1:]}
        assert mori.map_shared(alive)["x"][5] == 5
        living.kill()
        living.wait()
        stores.current()._pruned = -1e9  # as if the last look were long ago
        other = mori.share(np.arange(3))
        assert {*stored.names()} == {mori.shared_name(mine)[1:], mori.shared_name(other)[1:]}


def test_files_that_are_removed_from_outside_stay_readable_and_are_lost_to_others(
    tmp_path, monkeypatch, worker
):
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    shared = mori.share(np.arange(1000))
    (path,) = stored.home().iterdir()
    path.unlink()
    assert shared.sum() == pickle.loads(pickle.dumps(shared)).sum() == 499500
    with pytest.raises(mori.RegionNotFoundError):
        worker(repr, shared)
    assert mori.prune_shared() == []
    path.touch(0o600)  # by now somebody else's, of the same name
    with path.open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_SH)
        with pytest.raises(mori.CorruptRegionError):
            worker(repr, shared)
        del shared
        assert path.exists()
    path.unlink()
    assert mori.share(np.arange(10)).sum() == 45


def test_nothing_needs_to_be_kept_while_a_task_is_on_its_way(store):
    begin = {"mp_context": multiprocessing.get_context("spawn")}
    with concurrent.futures.ProcessPoolExecutor(1, **begin) as pool:
        pool.submit(os.getpid).result()
        tasks = [pool.submit(np.sum, mori.share(np.full(100, i))) for i in range(100)]
        assert [task.result() for task in tasks] == [100 * i for i in range(100)]


def test_a_result_is_not_lost_with_the_variables_of_its_worker(store, worker):
    for i in range(20):
        made = worker(lambda i: mori.share({"a": np.full(10, i)})["a"], i)
        assert made.tolist() == [i] * 10


def test_a_region_is_gone_after_the_grace_and_not_before(store, wait, monkeypatch):
    monkeypatch.setenv("MORI_GRACE", "1")
    shared = mori.share(np.arange(10))
    name, data = mori.shared_name(shared), pickle.dumps(shared)
    start = time.monotonic()
    del shared
    assert pickle.loads(data).sum() == 45
    if time.monotonic() - start < 0.9:
        assert not is_gone(name)
    wait(lambda: is_gone(name))
    assert time.monotonic() - start >= 0.9


@pytest.mark.parametrize("grace", ["0", "0.0"])
def test_a_grace_of_nothing_ends_at_once(store, monkeypatch, grace):
    monkeypatch.setenv("MORI_GRACE", grace)
    shared = mori.share(np.arange(10))
    name = mori.shared_name(shared)
    pickle.dumps(shared)
    del shared
    assert is_gone(name)


@pytest.mark.parametrize("grace", ["-1", "soon", "nan", "inf", ""])
def test_a_grace_that_is_none_is_refused_by_name(store, monkeypatch, grace):
    monkeypatch.setenv("MORI_GRACE", grace)
    with pytest.raises(mori.SettingError, match="MORI_GRACE"):
        mori.share(np.arange(10))


def test_what_was_never_pickled_is_gone_with_its_last_use(store):
    shared = mori.share([np.arange(10)])
    name = mori.shared_name(shared)
    gone = weakref.ref(shared)
    del shared
    assert gone() is None
    assert is_gone(name)


PARTS = {
    "element": lambda x: x["l"][0],
    "slice": lambda x: x["l"][0][2:5],
    "plain view": lambda x: np.asarray(x["l"][0]),
    "row": lambda x: x["l"][0].reshape(2, 500)[1],
    "list": lambda x: x["l"],
    "frame": lambda x: x["f"],
    "column": lambda x: x["f"]["a"],
    "rows": lambda x: x["f"].iloc[1:3],
    "strings": lambda x: x["f"]["s"],
    "values": lambda x: x["f"]["a"].to_numpy(),
    "index": lambda x: x["f"].index,
    "iterator": lambda x: iter(x["l"]),
    "memoryview": lambda x: memoryview(x["l"][0]),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_keeps_its_region_alive(store, part):
    frame = pd.DataFrame(
        {"a": range(5), "s": pd.array([*"abcde"], dtype=NAN_STRINGS)}, index=pd.Index([5, 6, 7, 8, 9])
    )
    shared = mori.share({"l": [np.arange(1000), 2], "f": frame})
    name, kept = mori.shared_name(shared), PARTS[part](shared)
    del shared
    gc.collect()
    assert not is_gone(name)
    assert len(repr(kept)) > 0
    del kept
    gc.collect()
    assert is_gone(name)


@pytest.mark.parametrize("first", ["parent", "child"])
def test_after_a_fork_each_side_holds_the_region_for_itself(store, first):
    shared = mori.share({"x": np.arange(1000)})
    name = mori.shared_name(shared)
    ours, theirs = multiprocessing.Pipe()
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            if first == "parent":
                theirs.recv()
                code = int(shared["x"].sum() != 499500 or mori.map_shared(name)["x"][3] != 3)
            del shared
            gc.collect()
        os._exit(code)
    if first == "child":
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 1)
        assert not is_gone(name)
        assert shared["x"].sum() == 499500
        assert mori.map_shared(name)["x"][3] == 3
        del shared
    else:
        del shared
        gc.collect()
        assert not is_gone(name)
        ours.send("go on")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gc.collect()
    for end in (ours, theirs):
        end.close()
    mori.prune_shared()  # the child left by os._exit
    assert is_gone(name)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_leaves_nothing_when_it_ends(store, method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=share_and_say, args=(theirs, settings()))
    child.start()
    name = ours.recv()
    child.join()
    child.close()
    ours.close()
    theirs.close()
    assert is_gone(name)


kept = []


def share_and_say(connection, environment) -> None:
    os.environ.update(environment)
    kept.append(mori.share(np.arange(10)))
    connection.send(mori.shared_name(kept[0]))


def test_a_hold_that_an_interrupt_kept_from_beginning_goes_without_a_word(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    Lease.__new__(Lease)
    assert said == []
