"""What multiprocessing sends is held until it has arrived, however long that takes, and no longer.

The graces are over here before anything is received: what arrives has been held for its receipt alone.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Client, Listener
from multiprocessing.reduction import ForkingPickler
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker

import mori
from mori.memory import lease, receipts
from tests.fresh import run_python
from tests.worker import settings

Wait = Callable[[Callable[[], object]], None]
COUNT = 30


@pytest.fixture(scope="module", autouse=True)
def tracker_of_loky() -> None:
    resource_tracker.ensure_running()


def _made(count: int = COUNT) -> Iterator[Any]:
    for number in range(count):
        yield mori.share(np.full(1000, float(number)))


def _sum(x: Any) -> float:
    assert mori.is_shared(x)
    return float(x.sum())


def _all_sums(count: int = COUNT) -> list[float]:
    return [number * 1000.0 for number in range(count)]


def _regions() -> set[str]:
    return {entry.name for entry in mori.regions() if os.getpid() in (entry.owner, *entry.holders)}


class _Gate:
    """Keeps workers from working until all graces are over: a file that they wait for."""

    def __init__(self, path: Any) -> None:
        self.path = str(path)

    def open(self) -> None:
        """Open it as soon as every grace that has begun is over."""
        lease.expire_graces()
        time.sleep(3 * float(os.environ["MORI_GRACE"]))
        lease.expire_graces()
        with open(self.path, "w", encoding="ascii"):
            pass

    def pass_through(self) -> None:
        limit = time.monotonic() + 60
        while not os.path.exists(self.path):
            assert time.monotonic() < limit
            time.sleep(0.01)


@pytest.fixture
def gate(tmp_path: Any) -> _Gate:
    return _Gate(tmp_path / "gate")


def _start(gate: _Gate, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    gate.pass_through()


def _until_sent(count: int = COUNT) -> None:
    limit = time.monotonic() + 30
    while len(receipts._receipts.all()) < count:
        assert time.monotonic() < limit
        time.sleep(0.01)


def _imap(gate: _Gate) -> list[float]:
    with multiprocessing.get_context("spawn").Pool(2, _start, (gate, settings())) as pool:
        found = pool.imap(_sum, _made())
        _until_sent()
        gate.open()
        return [*found]


def _apply_async_to_workers_of_few_tasks(gate: _Gate) -> list[float]:
    context = multiprocessing.get_context("forkserver")
    with context.Pool(2, _start, (gate, settings()), maxtasksperchild=10) as pool:
        found = [pool.apply_async(_sum, (x,)) for x in _made()]
        _until_sent()
        gate.open()
        return [each.get(30) for each in found]


def _submit(gate: _Gate) -> list[float]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, _start, (gate, settings())) as pool:
        found = [pool.submit(_sum, x) for x in _made(4)]  # as many as an executor pickles beforehand
        _until_sent(3)
        gate.open()
        return [each.result(30) for each in found]


def _passed(gate: _Gate, x: Any) -> float:
    gate.pass_through()
    return _sum(x)


def _joblib(gate: _Gate) -> list[float]:
    opener = threading.Timer(1.0, gate.open)
    opener.start()
    try:
        tasks = (joblib.delayed(_passed)(gate, x) for x in _made(8))
        return list(joblib.Parallel(2, pre_dispatch="all", batch_size=1)(tasks))
    finally:
        opener.join()
        get_reusable_executor().shutdown(wait=True)


def _receive(gate: _Gate, read: Callable[[], Any], answer: Any) -> None:
    gate.pass_through()
    answer.send([_sum(read()) for _ in range(COUNT)])


def _through(context: Any, gate: _Gate, read: Any, put: Any) -> list[float]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_receive, args=(gate, read, theirs))
    process.start()
    for x in _made():
        put(x)
    del x
    _until_sent()
    gate.open()
    found: list[float] = ours.recv()
    process.join(30)
    process.close()
    return found


def _queue(gate: _Gate) -> list[float]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    try:
        return _through(context, gate, queue.get, queue.put)
    finally:
        queue.close()
        queue.join_thread()


def _simple_queue(gate: _Gate) -> list[float]:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    try:
        return _through(context, gate, queue.get, queue.put)
    finally:
        queue.close()


def _pipe(gate: _Gate) -> list[float]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with ours, theirs:
        return _through(context, gate, theirs.recv, ours.send)


def _connect(gate: _Gate, address: Any, answer: Any) -> None:
    with Client(address, authkey=b"key") as connection:
        _receive(gate, connection.recv, answer)


def _listener(gate: _Gate) -> list[float]:
    context = multiprocessing.get_context("spawn")  # a fork server has the settings of when it was started
    ours, theirs = context.Pipe(duplex=False)
    with ours, theirs, Listener(authkey=b"key") as listener:
        process = context.Process(target=_connect, args=(gate, listener.address, theirs))
        process.start()
        with listener.accept() as connection:
            for x in _made():
                connection.send(x)
            del x
            _until_sent()
            gate.open()
            found: list[float] = ours.recv()
        process.join(30)
        process.close()
    return found


def _late(slow: Any, answer: Any, *xs: Any) -> None:
    answer.send([_sum(x) for x in xs])


class _Slow:
    """Takes long to unpickle: what is an argument after it is received when the gate is open."""

    def __init__(self, gate: _Gate) -> None:
        self.arguments = gate, settings()

    def __reduce__(self) -> Any:
        return _start, self.arguments


def _arguments(gate: _Gate) -> list[float]:
    found: list[float] = []
    for method in ("spawn", "forkserver"):
        context: Any = multiprocessing.get_context(method)
        ours, theirs = context.Pipe(duplex=False)
        with ours, theirs:
            process = context.Process(target=_late, args=(_Slow(gate), theirs, *_made(COUNT // 2)))
            process.start()
            gate.open()
            found += ours.recv()
            os.unlink(gate.path)
            process.join(30)
            process.close()
    half = _all_sums(COUNT // 2)
    return _all_sums() if found == half * 2 else found


_WAYS = [
    *(_imap, _apply_async_to_workers_of_few_tasks, _submit, _joblib),
    *(_queue, _simple_queue, _pipe, _listener, _arguments),
]


@pytest.mark.parametrize("send", _WAYS, ids=lambda call: call.__name__[1:])
def test_what_waits_longer_than_the_grace_arrives_and_is_gone_then(
    store: str, send: Callable[[_Gate], list[float]], gate: _Gate, wait: Wait
) -> None:
    found = send(gate)
    assert found == _all_sums(len(found))
    assert len(found) in (4, 8, COUNT)
    gc.collect()
    wait(lambda: not receipts._receipts.all() and not _regions())


def test_one_message_has_one_receipt_for_each_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_GRACE", "10")
    whole = mori.share([np.arange(200) for _ in range(100)])
    other = mori.share(np.arange(10))
    data = bytes(ForkingPickler.dumps([[whole[number] for number in range(100)], other]))
    assert len(receipts._receipts.all()) == 2
    pickle.loads(data)
    pickle.loads(data)  # more than once: the first time counts
    receipts.settle()
    assert not receipts._receipts.all()


class _Slowly:
    def __reduce__(self) -> Any:
        time.sleep(5 * float(os.environ["MORI_GRACE"]))
        return int, ()


@pytest.mark.parametrize("also", [(), (_Slowly(),)], ids=["at once", "pickled for longer than the grace"])
def test_what_a_queue_of_one_process_sends_to_itself_arrives(wait: Wait, also: tuple[Any, ...]) -> None:
    queue: Any = multiprocessing.SimpleQueue()
    queue.put([mori.share(np.arange(1000)), *also])
    lease.expire_graces()
    assert queue.get()[0].sum() == 499500
    queue.close()
    wait(lambda: not receipts._receipts.all())


class _Refuses:
    def __reduce__(self) -> Any:
        raise ValueError("not this one")


def test_what_could_not_be_pickled_is_not_waited_for() -> None:
    with pytest.raises(ValueError, match="not this one"):
        ForkingPickler.dumps([mori.share(np.arange(10)), _Refuses()])
    assert not receipts._receipts.all()


def test_bytes_that_go_through_no_pipe_have_a_grace(wait: Wait) -> None:
    ForkingPickler.dumps(mori.share(np.arange(1000)))
    assert receipts._receipts.all()
    wait(lambda: not receipts._receipts.all() and not _regions())


@pytest.mark.parametrize("duplex", [False, True], ids=["pipe", "socket"])
def test_what_is_left_in_a_pipe_is_gone_with_its_last_reader(store: str, wait: Wait, duplex: bool) -> None:
    ours, theirs = multiprocessing.Pipe(duplex)
    for x in _made():
        theirs.send(x)
    del x
    time.sleep(5 * float(os.environ["MORI_GRACE"]))
    assert len(receipts._receipts.all()) == len(_regions()) == COUNT
    ours.close()
    wait(lambda: not receipts._receipts.all() and not _regions())
    theirs.close()


def _stand_still(x: Any) -> None:
    time.sleep(100)


def test_tasks_that_a_terminated_pool_has_not_begun_are_gone_with_it(store: str, wait: Wait) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.imap(_stand_still, _made())
        _until_sent()
    pool.join()
    del pool
    gc.collect()
    wait(lambda: not receipts._receipts.all() and not _regions())


def _die(read: Any) -> None:
    read._recv_bytes()  # and before it is unpickled
    os.kill(os.getpid(), signal.SIGKILL)


def _take(read: Any, count: int, is_taken: Any, is_over: Any) -> None:
    for _ in range(count):
        read.recv()
    is_taken.set()
    is_over.wait(60)


def test_what_a_killed_reader_has_taken_along_is_let_go_where_memory_is_short(wait: Wait) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    killed = context.Process(target=_die, args=(ours,))
    killed.start()
    theirs.send(mori.share(np.arange(1000)))
    killed.join(30)
    is_taken, is_over = context.Event(), context.Event()
    reader = context.Process(target=_take, args=(ours, 1, is_taken, is_over))
    reader.start()
    theirs.send(mori.share(np.arange(1000)))
    assert is_taken.wait(30)
    wait(lambda: len(receipts._receipts.all()) == 1)
    (sent,) = receipts._receipts.all()
    wait(lambda: sent.doubted)  # another process has the pipe, but what was sent later has arrived
    with pytest.warns(mori.StoreWarning, match="memory is short: 1 shared object"):
        wait(lambda: receipts.settle() or not receipts._receipts.all())
    is_over.set()
    reader.join(30)
    ours.close()
    theirs.close()


def _fork_while_on_its_way(answer: Any) -> None:
    answer.send((len(receipts._receipts.all()), _regions_of_this_process()))


def _regions_of_this_process() -> list[str]:
    return [link for link in map(_link, os.listdir("/proc/self/fd")) if "mori_" in link]


def _link(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def test_a_forked_child_holds_nothing_of_what_its_parent_has_sent(store: str) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    for x in _made():
        theirs.send(x)
    del x
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=_fork_while_on_its_way, args=(answer,))
    process.start()
    assert answers.recv() == (0, [])
    process.join(30)
    assert [ours.recv().sum() for _ in range(COUNT)] == _all_sums()
    for end in (ours, theirs, answers, answer):
        end.close()


_FEW_DESCRIPTORS = """
import multiprocessing, os, resource, time, numpy as np, mori

def work(x):
    time.sleep(0.01)
    return float(x.sum())

pool = multiprocessing.get_context("fork").Pool(2)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
found = pool.imap(work, (mori.share(np.full(1000, float(number))) for number in range(300)))
assert [*found] == [number * 1000.0 for number in range(300)]
pool.close()
pool.join()
print("all")
"""


def test_who_has_no_room_waits_for_its_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """More regions than descriptors: each that is received makes room for another, and none is lost."""
    monkeypatch.setenv("MORI_GRACE", "10")
    assert run_python(_FEW_DESCRIPTORS) == "all"


def test_who_has_no_room_and_no_receiver_is_told_after_a_grace() -> None:
    run_python("""
import multiprocessing, resource, numpy as np, mori
ours, theirs = multiprocessing.Pipe(duplex=False)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
try:
    for number in range(100):
        theirs.send(mori.share(np.full(1000, number)))
except mori.LimitError:
    assert number > 20
assert [ours.recv()[0] for _ in range(number)] == [*range(number)]  # and what was sent is there
""")


def _put_while_the_pipe_is_full(queue: Any, started: Any) -> None:
    for _ in range(2):  # the second thread has pickled, and waits for the first one to have written
        threading.Thread(target=queue.put, args=([bytes(100_000), mori.share(np.arange(1000))],)).start()
    _until_sent(2)
    started.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(60)


def test_a_message_that_waits_for_the_lock_of_its_pipe_is_held() -> None:
    context = multiprocessing.get_context("fork")
    queue, started = context.SimpleQueue(), context.Event()
    process = context.Process(target=_put_while_the_pipe_is_full, args=(queue, started))
    process.start()
    assert started.wait(30)
    time.sleep(10 * float(os.environ["MORI_GRACE"]))
    assert [queue.get()[1].sum() for _ in range(2)] == [499500] * 2
    process.join(30)
    queue.close()
