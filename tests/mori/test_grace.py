"""`pool.submit(f, mori.share(x))` with nothing kept: the grace carries it, 200 times out of 200.

What a process passes on as its last act is carried by an exit holder.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait as wait_for_one
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker

import mori
from mori import store as stores
from mori.memory import lease
from mori.store.processes import descriptors
from tests import stored
from tests.fresh import run_python
from tests.users import user_of_its_own
from tests.worker import settings

pytestmark = pytest.mark.each_store

TIMES = 200


@pytest.fixture(scope="module", autouse=True)
def tracker_of_loky() -> None:
    resource_tracker.ensure_running()


@pytest.fixture(autouse=True)
def grace_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than 10 seconds: a machine that runs other tests, too, may take as long to start a process."""
    monkeypatch.setenv("MORI_GRACE", "60")


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
    lease.expire_graces()
    assert [entry.name for entry in mori.regions() if os.getpid() in (entry.owner, *entry.holders)] == []
    assert stored.names() == []


def _put(queue: Any, environment: dict[str, str]) -> None:
    _set_up(environment)
    queue.put(mori.share(np.arange(1000)))


def _passed_on_by_a_process_that_ends(method: str) -> Any:
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_put, args=(queue, settings()))
    process.start()
    assert wait_for_one([process.sentinel], 50)
    process.join(50)
    assert process.exitcode == 0
    process.close()
    found = queue.get(timeout=50)
    queue.close()
    queue.join_thread()
    return found


def _passed_on_by_workers_of_one_task() -> list[Any]:
    context = multiprocessing.get_context("fork")
    with context.Pool(2, _set_up, (settings(),), maxtasksperchild=1) as pool:
        tasks = [pool.apply_async(_made, (number,)) for number in range(60)]
        pool.close()
        pool.join()
        return [task.get(50) for task in tasks]


def test_what_processes_share_and_pass_on_as_they_end_arrives_and_is_gone_after_the_grace(
    store: str, monkeypatch: pytest.MonkeyPatch, wait: Callable[[Callable[[], object]], None]
) -> None:
    monkeypatch.setenv("MORI_GRACE", "5")
    results = _passed_on_by_workers_of_one_task()
    assert [_look(x, number) for x, number in results] == [(True, True, 1000)] * 60
    last = [_passed_on_by_a_process_that_ends(method) for method in ("fork", "spawn", "forkserver")]
    assert [(mori.is_shared(x), x.sum()) for x in last] == [(True, 499500)] * 3
    names = {mori.shared_name(x) for x in last} | {mori.shared_name(x) for x, _ in results}
    results.clear()
    last.clear()
    home = stores.current()
    if home.kind == stores.MEMFD:
        wait(lambda: names.isdisjoint(entry.name for entry in mori.regions()))
    else:
        wait(lambda: stored.names() == [])  # without anybody's pruning


_LEFT = """
import multiprocessing, os, pickle, sys, time, numpy, mori
from multiprocessing.connection import wait
context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe(duplex=False)
mine = mori.share(numpy.arange(10))
pickle.dumps(mine)                                  # the parent's: no child's business
unpickled = []
def put():
    unpickled.append(mori.share(numpy.arange(20)))  # never passed on
    theirs.send(mori.share(numpy.arange(1000)))
    theirs.send((mori.shared_name(unpickled[0]), time.time()))
process = context.Process(target=put)
process.start()
passed_on = ours.recv()
name, end = ours.recv()
assert wait([process.sentinel], 50) and process.join() is None and process.exitcode == 0
took = time.time() - end
theirs.close()
try:
    assert ours.poll(20), "somebody else has the pipe"
    ours.recv()
except EOFError:
    pass
holders = {entry.name: entry.holders for entry in mori.regions()}
assert name not in holders and holders[mori.shared_name(mine)] == (os.getpid(),), holders
print(mori.shared_name(passed_on), took)
"""


def test_an_exit_holder_delays_no_exit_and_has_nothing_but_what_was_passed_on(
    store: str, monkeypatch: pytest.MonkeyPatch, wait: Callable[[Callable[[], object]], None]
) -> None:
    def has_what_was_passed_on(pid: int) -> bool:
        opened = [link for _, link in descriptors(pid)]
        return len(opened) == 4 and [link for link in opened if "mori_" not in link] == [os.devnull] * 3

    monkeypatch.setenv("MORI_GRACE", "300")
    name, took = run_python(_LEFT).split()  # to the end of what it writes to, so nobody else has that
    assert float(took) < 10
    (entry,) = [entry for entry in mori.regions() if entry.name == name]
    groups = {os.getpgid(pid) for pid in entry.holders}
    assert len(groups) == 1  # one exit holder, and the parent's end has not made another
    (group,) = groups
    for pid in entry.holders:  # while it starts, it reads its libraries
        wait(lambda pid=pid: has_what_was_passed_on(pid))
    assert os.getsid(group) == group != os.getsid(0)
    os.killpg(group, signal.SIGKILL)
    kept = stores.current().kind == stores.FILES  # nobody was left to unlink it
    limit = time.monotonic() + 20
    while mori.prune_shared() != [name] if kept else name in {entry.name for entry in mori.regions()}:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_grace_longer_than_any_wait_ends_no_other(
    store: str, monkeypatch: pytest.MonkeyPatch, wait: Callable[[Callable[[], object]], None]
) -> None:
    names = []
    for seconds in ("1e12", "0.2"):
        monkeypatch.setenv("MORI_GRACE", seconds)
        shared = mori.share(np.arange(1000))
        names.append(mori.shared_name(shared))
        pickle.dumps(shared)
        del shared
    kept, gone = names
    wait(lambda: gone not in {entry.name for entry in mori.regions()})
    assert mori.map_shared(kept).sum() == 499500


_WITHOUT_THREADS = """
import atexit, ctypes, gc, os, pickle, resource, signal, sys, threading, time, numpy, mori
from mori.memory import lease
from mori.store.processes import descriptors

def limit(most):
    resource.setrlimit(resource.RLIMIT_NPROC, (most, hard))

def can_start():
    try:
        (thread := threading.Thread(target=int)).start()
    except RuntimeError:
        return False
    return thread.join() is None

def held(name):
    return any(name[1:] in link for _, link in descriptors(os.getpid()))

def until_gone(name, event=lambda: None):
    limit = time.monotonic() + 20
    while held(name):
        assert time.monotonic() < limit, "it is held for ever"
        time.sleep(0.02)
        event()

def left():
    "Share, pickle and drop; return the name and the reference."
    x = mori.share(numpy.arange(1000))
    return mori.shared_name(x), pickle.dumps(x)

_, hard = resource.getrlimit(resource.RLIMIT_NPROC)
mori.share(numpy.arange(3))  # what is imported for it is imported before the user changes
if not os.geteuid():  # whom the limit does not bind; a user that has no other process
    directory = os.environ["MORI_STORE"].partition(":")[2]
    try:
        if directory:  # which lies below directories that are closed to that user
            os.environ["MORI_STORE"] = f"files:/proc/self/fd/{os.open(directory, os.O_RDONLY)}"
            os.chmod(directory, 0o777)
        os.setuid(USER)
    except OSError as error:
        sys.exit(f"skipped: {error}")
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is this user's
reader, ours = os.pipe()
theirs, answer = os.pipe()
pid = os.fork()
if not pid:
    signal.alarm(50)
    os.close(ours)
    mine = mori.share(numpy.arange(9))
    os.write(answer, mori.shared_name(mine).encode())
    kept = pickle.loads(os.read(reader, 1000))
    os.write(answer, str(kept.sum()).encode())
    os.read(reader, 1)
    del mine, kept
    os._exit(0)
other = os.read(theirs, 100).decode()
limit(1)
if can_start():
    sys.exit("skipped: a limit of processes does not bind this user")
"""

_KEPT = """
os.environ["MORI_GRACE"] = "300"
name, data = left()
for _ in range(3):
    left()
    gc.collect()
    mori.map_shared(name)
time.sleep(0.1)
os.write(ours, data)
assert os.read(theirs, 100) == b"499500"  # on its way, with nothing kept
assert held(name)
os.environ["MORI_GRACE"] = "0.3"
for event in (
    lambda: mori.share(numpy.arange(3)),
    lambda: mori.map_shared(other),
    left,
    gc.collect,
    lambda: [[] for _ in range(3000)],  # Python collects by itself
):
    gone, _ = left()
    assert held(gone)
    until_gone(gone, event)
assert held(name), "what was not due was let go"
gone, _ = left()
limit(hard)
mori.share(numpy.arange(3))  # a thread can be started again, and nothing more is needed
until_gone(gone)
assert held(name)
limit(1)
os.write(ours, b".")
assert os.waitpid(pid, 0)[1] == 0
print(*left())  # and at the end of the process
"""


def _run_without_threads(code: str) -> str:
    with user_of_its_own() as user:
        code = _WITHOUT_THREADS.replace("USER", str(user)) + code
        said = run_python(f"""
import subprocess, sys
done = subprocess.run([sys.executable, "-c", {code!r}], capture_output=True, text=True)
print(done.stderr if done.stderr.startswith("skipped") else done.stdout)
sys.exit(done.stderr if done.returncode and not done.stderr.startswith("skipped") else 0)
""")
    if said.startswith("skipped"):
        pytest.skip(f"no limit of processes can be had: {said}")
    return said


def test_where_no_thread_can_be_started_graces_last_as_long_and_are_over_at_the_next_event(
    store: str,
) -> None:
    name = _run_without_threads(_KEPT).split()[0]
    assert name.startswith("/mori_")
    assert stored.names() == []


_SUBINTERPRETER = """
import _xxsubinterpreters as interpreters, sys
print(*sorted(name for name in ("numpy", "mori") if name in sys.modules))
inner = interpreters.create()
interpreters.run_string(inner, '''
import sys, warnings
warnings.simplefilter("ignore")  # numpy's
try:
    import numpy
except ImportError as error:
    print("refused", error)
    numpy = None
if numpy is not None:
    import os, pickle, time, mori
    x = mori.share({"x": numpy.arange(1000)})
    name, data = mori.shared_name(x), pickle.dumps(x)
    del x
    assert pickle.loads(data)["x"].sum() == 499500
    limit = time.monotonic() + 20
    while name in [entry.name for entry in mori.regions()]:
        assert time.monotonic() < limit, "its grace has no end"
        mori.share([1])
        time.sleep(0.02)
    print("gone")
''')
interpreters.destroy(inner)
"""


def test_a_subinterpreter_that_is_the_first_to_load_numpy_shares_and_its_graces_end(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("_xxsubinterpreters")
    monkeypatch.setenv("MORI_GRACE", "0.3")
    said = run_python(_SUBINTERPRETER)
    if said.startswith("refused"):
        pytest.skip(f"numpy does not load here: {said}")
    assert said == "gone"


_REFUSED = """
import concurrent.interpreters as interpreters, os, numpy as np, mori
inner = interpreters.create()
try:
    inner.exec("import mori, numpy as np; assert mori.share(np.arange(1000)).sum() == 499500")
except interpreters.ExecutionFailed as error:
    assert error.excinfo.type.__name__ == "ImportError", error
    assert "subinterpreters" in str(error), error
inner.close()
assert mori.share(np.arange(1000)).sum() == 499500
if not (pid := os.fork()):
    os._exit(int(mori.share(np.arange(4)).sum()))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_subinterpreter_shares_or_is_refused_by_an_import_error_and_the_main_one_goes_on(
    store: str,
) -> None:
    pytest.importorskip("concurrent.interpreters")
    assert run_python(_REFUSED) == "6"
