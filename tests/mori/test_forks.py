"""fork, exec and subprocess: each side holds for itself, whoever is last lets go, nothing is inherited."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mori
from tests import stored
from tests.fresh import run_python

pytestmark = pytest.mark.each_store


def _is_gone(name: str | None) -> bool:
    try:
        mori.map_shared(name)
    except mori.RegionNotFoundError:
        return True
    return False


def _files() -> list[str]:
    """Return what lies in the directory of the store: what nobody has had to prune."""
    return stored.names()


_LAST = """
import gc, multiprocessing, os, sys, numpy, mori
x = mori.share(numpy.arange(1000))
name = mori.shared_name(x)
ours, theirs = multiprocessing.Pipe()
def be_last():
    theirs.recv()
    assert x.sum() == 499500 and mori.map_shared(name)[3] == 3
    if {drops!r}:
        globals().pop("x")
        gc.collect()
if {how!r} == "os.fork":
    pid = os.fork()
    if not pid:
        be_last()
        sys.exit(0)
    join = lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
else:
    child = multiprocessing.get_context("fork").Process(target=be_last)
    child.start()
    join = lambda: child.join() or child.exitcode
del x
ours.send("go on")
assert join() == 0
print(name)
"""


@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
@pytest.mark.parametrize("drops", [True, False], ids=["drops", "ends"])
def test_a_forked_child_that_is_the_last_to_hold_a_region_leaves_nothing(
    store: str, how: str, drops: bool
) -> None:
    name = run_python(_LAST.format(how=how, drops=drops))
    assert name.startswith("/mori_")
    assert _files() == []
    assert _is_gone(name)


def test_when_both_sides_of_a_fork_drop_at_once_nothing_is_left(store: str) -> None:
    for _ in range(20):
        shared = mori.share(np.arange(10))
        name = mori.shared_name(shared)
        start, started = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            with contextlib.suppress(BaseException):
                os.close(started)
                os.read(start, 1)  # the end of the file: the parent drops now
                del shared
                code = 0
            os._exit(code)
        os.close(start)
        os.close(started)
        del shared
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert _files() == []
        assert _is_gone(name)


_THREADS = """
import gc, os, pickle, random, signal, sys, threading, time, numpy, mori
from mori.memory import mapping as mappings
from mori.memory import lease, region
from mori.store.processes import descriptors
kept = mori.share({"x": numpy.arange(1000)})
name, data = mori.shared_name(kept), pickle.dumps(kept)
faults, forked = [], 0

def work(seed):
    mine = mori.share([numpy.full(100, seed)])
    assert pickle.loads(pickle.dumps(mine))[0].sum() == 100 * seed
    assert pickle.loads(data)["x"].sum() == 499500
    del mine
    assert mori.map_shared(name)["x"][7] == 7

def busy():
    try:
        while not done.is_set():
            work(random.randrange(100))
    except BaseException as error:
        faults.append(repr(error))

def fork():
    global forked
    try:
        for seed in range(15):
            pid = os.fork()
            if not pid:
                code = 1
                signal.alarm(20)  # a lock that another thread held would wait for ever
                try:
                    for _ in range(3):
                        work(seed)
                    more = threading.Thread(target=work, args=(seed,))
                    more.start()
                    more.join()
                    code = 0
                finally:
                    os._exit(code)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status:
                faults.append(f"a child ended with {status}")
            forked += 1
    except BaseException as error:
        faults.append(repr(error))

done = threading.Event()
busy = [threading.Thread(target=busy) for _ in range(3)]
forking = [threading.Thread(target=fork) for _ in range(3)]
for thread in busy + forking:
    thread.start()
for thread in forking:
    thread.join()
done.set()
for thread in busy:
    thread.join()
lease.expire_graces()
gc.collect()
assert faults == [], faults
assert forked == 45
assert len(mappings.live()) == 1
held = [link for _, link in descriptors(os.getpid()) if "mori_" in link]
assert len(held) == 1, held
print(name)
"""


def test_a_fork_in_a_thread_while_others_share_and_drop_hangs_and_loses_nothing(store: str) -> None:
    name = run_python(_THREADS)
    assert name.startswith("/mori_")
    mori.prune_shared()  # children that left by os._exit may have been the last to hold something
    assert _files() == []
    assert _is_gone(name)


_IMPORTING = """
import importlib.abc, importlib.machinery, os, signal, sys, threading, time, numpy, mori
reached, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def wait_and_execute(module):
            reached.set()
            forking.wait(30)
            time.sleep(0.3)  # a child that is not waited with is forked now, with half of the module
            execute(module)
        spec.loader.exec_module = wait_and_execute
        return spec
sys.meta_path.insert(0, Slow())
def work():
    {work}
first = threading.Thread(target=work)
first.start()
assert reached.wait(30)
pid = os.fork()
if not pid:
    signal.alarm(45)
    try:
        work()
        more = threading.Thread(target=work)  # a fork within the child waits for none of its parent's
        more.start()
        more.join()
        if not (last := os.fork()):
            work()
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(last, 0)[1]) and 3)
    finally:
        os._exit(2)
first.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
_FRAME = "import pandas; assert mori.share(pandas.DataFrame({'a': [1, 2]}))['a'].sum() == 3"


@pytest.mark.parametrize(
    ("module", "work"),
    [
        ("mori.codecs.pandas", _FRAME),
        ("mori.objects.pandas.names", _FRAME),
        ("mori.objects.masked", "assert mori.share(numpy.ma.array([1, 2], mask=[0, 1])).sum() == 1"),
        ("multiprocessing.reduction", "assert mori.share(numpy.arange(3)).sum() == 3"),
        ("importlib.metadata", "mori.share(type('Thing', (), {'__module__': 'third_party'})())"),
    ],
)
def test_a_child_forked_while_a_thread_imports_what_mori_needs_does_not_wait_for_it(
    module: str, work: str
) -> None:
    assert run_python(_IMPORTING.format(module=module, work=work)) == "0"


_ITS_OWN = """
import importlib.abc, importlib.machinery, os, signal, sys, threading
reached, forked = threading.Event(), threading.Event()
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "of_the_program":
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        reached.set()
        assert forked.wait(30)
sys.meta_path.insert(0, Slow())
importer = threading.Thread(target=__import__, args=("of_the_program",))
importer.start()
assert reached.wait(30)
if not (pid := os.fork()):
    signal.alarm(1)
    import of_the_program
    os._exit(0)
forked.set()
importer.join()
print(-os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_what_the_program_imports_hangs_the_child_without_mori_too() -> None:
    """Python takes the lock of a module along into a child that has not the thread to release it.

    So a fork that waited for every import, as mori's do for its own, would be Python's to have.
    """
    assert run_python(_ITS_OWN) == str(int(signal.SIGALRM))


_WAITING = """
import importlib.abc, importlib.machinery, os, sys, threading, mori
from mori import _imports
_imports._LIMIT = 0.3
reached, forked = threading.Event(), threading.Event()
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "waits_for_the_fork":
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        reached.set()
        assert forked.wait(30)
        if not (pid := os.fork()):  # its own thread is not waited for
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
sys.meta_path.insert(0, Slow())
importer = threading.Thread(target=_imports.load, args=("waits_for_the_fork",))
importer.start()
assert reached.wait(30)
if not (pid := os.fork()):
    os._exit(0)
forked.set()
importer.join()
print(os.waitpid(pid, 0)[1], type(_imports.imported("waits_for_the_fork")).__name__)
"""


def test_a_fork_does_not_wait_for_ever_for_an_import_that_waits_for_it() -> None:
    assert run_python(_WAITING) == "0 module"


_GRACE = """
import os, pickle, signal, sys, time, numpy, mori
x = mori.share(numpy.arange(10))
name = mori.shared_name(x)
pickle.dumps(x)
del x  # what keeps it from now on is the grace
pid = os.fork()
if not pid:
    signal.pause()
assert mori.map_shared(name).sum() == 45
limit = time.monotonic() + 20
while True:
    try:
        mori.map_shared(name)
    except mori.RegionNotFoundError:
        break
    assert time.monotonic() < limit, "a child holds what its parent's grace held"
    time.sleep(0.02)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""


def test_a_forked_child_does_not_prolong_its_parents_graces(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "0.5")
    run_python(_GRACE)
    assert _files() == []


_FORKSERVER = """
import os, numpy, mori
from tests.worker import Worker
if __name__ == "__main__":
    workers = [Worker("forkserver"), Worker("forkserver")]
    x = mori.share({"x": numpy.arange(1000), "y": ["a", "b"]})
    name = mori.shared_name(x)
    def keep(x):
        import sys
        sys.kept = x
        return mori.shared_name(x), os.getppid()
    (seen, server), (again, other) = [worker(keep, x) for worker in workers]
    assert seen == again == name and server == other != os.getpid()
    del x
    def use():
        import sys
        return sys.kept["x"].sum(), sys.kept
    total, back = workers[0](use)
    assert total == 499500 and mori.shared_name(back) == name and back["y"][1] == "b"
    del back
    made = workers[1](lambda: mori.share(numpy.arange(7)))
    workers[1].close()
    assert made.sum() == 21 and mori.map_shared(name)["x"][9] == 9
    of = f"/proc/{server}/fd/"
    held = [link for link in (os.readlink(of + number) for number in os.listdir(of)) if "mori_" in link]
    assert held == [], held  # the fork server itself holds nothing
    workers[0].close()
    print(name, mori.shared_name(made))
"""


def test_children_of_a_fork_server_hold_and_pass_on_and_the_server_holds_nothing(
    store: str, wait: Callable[[Callable[[], object]], None]
) -> None:
    names = run_python(_FORKSERVER).split()
    assert len(names) == 2
    wait(lambda: _files() == [])  # they have passed both on, so their exit holders have them for the grace
    wait(lambda: all(_is_gone(name) for name in names))


_LIST = """
import os, sys
for number in os.listdir("/proc/self/fd"):
    try:
        link = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        continue
    if "mori_" in link:
        print(number, link)
print("mapped" if "mori_" in open("/proc/self/maps").read() else "nothing mapped", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("close_fds", [True, False])
def test_a_subprocess_inherits_nothing(store: str, close_fds: bool) -> None:
    shared = mori.share(np.arange(1000))
    name = mori.shared_name(shared)
    with _process(sys.executable, "-c", _LIST, close_fds=close_fds) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "nothing mapped\n"
        del shared
        gc.collect()
        assert _files() == []
        assert _is_gone(name)


_EXEC = """
import os, sys, numpy, mori
x = mori.share(numpy.arange(1000))
print(mori.shared_name(x), flush=True)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def test_an_exec_lets_go_of_everything(store: str) -> None:
    with _process(sys.executable, "-c", _EXEC, _LIST) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert child.stdout.readline() == "nothing mapped\n"
        if store != "memfd":  # no Python code runs at an exec: as if it had been killed
            assert _files() == [name[1:]]
            assert mori.prune_shared() == [name]
        assert _files() == []
        assert _is_gone(name)
        assert Path(f"/proc/{child.pid}").exists()  # it is the same process


@pytest.mark.parametrize("holder", ["this thread", "another"])
def test_a_fork_in_the_middle_of_a_list_of_records_leaves_its_lock_usable(holder: str) -> None:
    from mori.objects.containers.tracker import lock

    rows = mori.share([{"a": n, "b": str(n)} for n in range(100)])
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            forked.wait(30)

    def fork() -> int:
        child = os.fork()
        if not child:
            signal.alarm(30)
            return 0
        return child

    if holder == "another":
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(30)
        child = fork()
    else:
        with lock:
            child = fork()
    if not child:
        os._exit(0 if rows[5] == {"a": 5, "b": "5"} else 1)
    forked.set()
    assert os.waitpid(child, 0)[1] == 0
    if holder == "another":
        thread.join()
    assert rows[6] == {"a": 6, "b": "6"}
