"""A large region of the memfd store stands in segments, which are written side by side and mapped as one."""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import signal
import threading
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori
from mori import store as stores
from mori.format import writer
from mori.format.plan import measure
from mori.memory import mapping as mappings
from mori.memory import parallel_write, region
from mori.memory.mapping import Mapping
from mori.store import base, memfd
from mori.store.base import Where, format_label
from mori.wire import reference
from tests.mori.pandas_versions import str_frame
from tests.mori.test_landing import dropped, received, sent

pytestmark = pytest.mark.each_start

PAGE = os.sysconf("SC_PAGE_SIZE")


class _InterruptedError(Exception):
    pass


def _interrupt(*_: object) -> None:
    raise _InterruptedError


@pytest.fixture(autouse=True)
def many_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small regions stand in segments, on a machine of three processors."""
    monkeypatch.setenv("MORI_STORE", "memfd")
    monkeypatch.setenv("MORI_GRACE", "0.2")
    monkeypatch.setattr(memfd, "HUGE", PAGE)
    monkeypatch.setattr(memfd, "_LEAST_SEGMENT", 4 * PAGE)
    monkeypatch.setattr(memfd, "_cpus", lambda: 3)


def mapping_of(x: Any) -> Mapping:
    mapping = mappings.held_by(x)
    assert mapping is not None
    return mapping


def fds_of(x: Any) -> tuple[int, ...]:
    lease = mapping_of(x).lease
    assert lease is not None
    return lease.held.fds


def test_a_large_region_stands_in_a_segment_a_processor_and_a_small_one_does_not(rng: Any) -> None:
    x = mori.share(rng.random(100_000))
    header = mapping_of(x).header
    assert len(fds_of(x)) == 3
    sizes = [os.fstat(fd).st_size for fd in fds_of(x)]
    assert sizes == [header.segment_nbytes] * 2 + [header.nbytes - 2 * header.segment_nbytes]
    assert header.segment_nbytes % PAGE == 0
    assert len(fds_of(mori.share(np.arange(100)))) == 1


def test_on_a_large_machine_the_number_of_segments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memfd, "_cpus", lambda: 128)
    assert len(fds_of(mori.share(np.arange(1_000_000)))) == 8


def test_what_people_have_comes_back_equal_out_of_segments(worker: Any, rng: Any) -> None:
    array = rng.random((300, 400))
    frame = str_frame(
        {"a": rng.random(40_000), "b": rng.integers(0, 9, 40_000), "c": [f"row {n}" for n in range(40_000)]}
    )
    tree = {
        "strided": array[::2, ::-1],  # copied block by block
        "f": np.asfortranarray(array),
        "many": [rng.random(n) for n in range(0, 300, 7)],
        "text": [str(n) for n in range(30_000)],
        "frame": frame,
    }
    shared = mori.share(tree)
    assert mapping_of(shared["f"]).header.segment_nbytes

    def check(got: Any, wanted: Any) -> None:
        import numpy as np

        for key in ("strided", "f"):
            np.testing.assert_array_equal(got[key], wanted[key])
        assert all(np.array_equal(a, b) for a, b in zip(got["many"], wanted["many"], strict=True))
        assert list(got["text"]) == wanted["text"]
        pd.testing.assert_frame_equal(pd.DataFrame(got["frame"]), wanted["frame"])

    check(shared, tree)
    worker(check, shared, tree)


def test_nobody_can_write_to_any_segment(rng: Any) -> None:
    x = mori.share(rng.random(100_000))
    for fd in fds_of(x):
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(again, 0)
        os.close(again)


def test_it_is_found_when_the_descriptors_of_its_segments_do_not_follow(worker: Any, rng: Any) -> None:
    x = mori.share(rng.random(100_000))
    reordered = [os.dup(fd) for fd in reversed(fds_of(x))]
    header = mapping_of(x).header
    payload = region_reference(header, os.getpid(), reordered[-1])
    others = fds_of(x)[1:]
    for fd in others:  # where a segment stands beside the first one, there is something else
        with open(os.devnull, "rb") as null:
            os.dup2(null.fileno(), fd, inheritable=False)

    def total(payload: bytes) -> float:
        from mori.wire import reference

        return float(reference.load(payload).sum())

    assert worker(total, payload) == x.sum()
    del x  # it closes what is still its own
    for fd in (*reordered, *others):
        os.close(fd)


def region_reference(header: base.Header, holder: int, fd: int) -> bytes:
    return reference._FIXED.pack(
        stores.MEMFD, header.region_id, header.pid, header.number, holder, fd, writer.ROOT
    )


def test_a_reader_holds_all_of_it_and_passes_it_on(worker: Any, third: Any, rng: Any, wait: Any) -> None:
    x = mori.share(rng.random(100_000))
    name, total = mori.shared_name(x), x.sum()

    def keep(x: Any) -> None:
        import sys

        sys.mori_kept = x  # type: ignore[attr-defined]

    def drop() -> None:
        import sys

        del sys.mori_kept  # type: ignore[attr-defined]

    worker(keep, x)
    del x
    wait(lambda: not [one for one in mappings.live() if one.shared])
    assert third(lambda name: float(mori.map_shared(name).sum()), name) == total
    (entry,) = [entry for entry in mori.regions() if entry.name == name]
    assert entry.nbytes > 800_000
    worker(drop)
    wait(lambda: name not in [entry.name for entry in mori.regions()])


def test_a_process_that_holds_only_a_part_of_it_is_passed_over(rng: Any) -> None:
    x = mori.share(rng.random(100_000))
    header = mapping_of(x).header
    first = os.dup(fds_of(x)[0])
    where = Where(header.pid, header.number, header.region_id, os.getpid(), first)
    del x
    assert region.find(where, stores.MEMFD) is None
    os.close(first)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"segment_nbytes": 0}, "segments of 0 bytes"),
        ({"segment_nbytes": PAGE + 1}, f"segments of {PAGE + 1} bytes"),
        ({"segment_nbytes": PAGE}, f"segments of {PAGE} bytes"),
        ({"nbytes": 1 << 40}, f"says {1 << 40} bytes"),
    ],
)
def test_segments_that_are_not_what_the_header_says_are_refused(fields: Any, found: str) -> None:
    plan = measure(np.arange(10_000))
    header = base.Header(bytes(16), writer.region_nbytes(plan), writer.ROOT, os.getpid(), 999_999, 8 * PAGE)
    data = bytes(writer.to_bytes(plan, header._replace(**fields)))
    assert 8 * PAGE < len(data) <= 16 * PAGE + 4 * PAGE
    pieces = [data[: 8 * PAGE], data[8 * PAGE : 16 * PAGE], data[16 * PAGE :]]
    name = f"{format_label(os.getpid(), 999_999)}.{bytes(16).hex()}"
    fds = [os.memfd_create(f"{name}.{n}.3", os.MFD_ALLOW_SEALING) for n in range(3)]
    try:
        for fd, piece in zip(fds, pieces, strict=True):
            os.write(fd, piece)
            fcntl.fcntl(fd, 1033, 0xF)  # F_ADD_SEALS: SEAL, SHRINK, GROW, WRITE
        with pytest.raises(mori.CorruptRegionError, match=found):
            region.find(Where(os.getpid(), 999_999, None, os.getpid(), fds[0]), stores.MEMFD)
    finally:
        for fd in fds:
            os.close(fd)


def test_private_copies_of_its_pages_reach_over_segments(rng: Any) -> None:
    x = mori.share(rng.integers(0, 255, 800_000, dtype=np.uint8))
    plain = np.array(x)
    mine = mappings.writable(np.asarray(x)[5000:790_000])
    assert np.array_equal(mine, plain[5000:790_000])
    mine[:] = 7
    assert np.array_equal(x, plain)


def test_by_value_it_lands_in_a_store_of_one_piece(worker: Any, rng: Any) -> None:
    x = mori.share(rng.random(100_000))
    message, name = sent(x), mori.shared_name(x)
    assert worker(received, message) == (name, reference.identity(x), float(x.sum()))
    worker(dropped)
    total = float(x.sum())
    del x
    landed = worker(received, message)
    assert landed[2] == total
    worker(dropped)


def test_a_failure_in_one_segment_is_the_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write = parallel_write._write

    def fail(fd: int, view: memoryview, position: int, meter: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").partition(" ")[0].endswith(".2.3"):
            raise OSError(28, "No space left on device")
        return write(fd, view, position, meter)

    monkeypatch.setattr(parallel_write, "_write", fail)
    with pytest.raises(mori.StoreFullError, match="no room"):
        mori.share(np.arange(100_000))
    assert not [thread for thread in threading.enumerate() if thread.name == "mori-writing"]


def test_where_no_thread_can_be_started_one_writes_all(monkeypatch: pytest.MonkeyPatch, rng: Any) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    array = rng.random(100_000)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        x = mori.share(array)
    assert len(fds_of(x)) == 3
    assert np.array_equal(x, array)


def test_an_interrupt_waits_for_the_threads(monkeypatch: pytest.MonkeyPatch, rng: Any) -> None:
    write, main = parallel_write._write, threading.main_thread().ident
    assert main is not None
    sent: list[int] = []
    after: list[int] = []

    def interrupt_and_write(fd: int, view: memoryview, position: int, meter: Any) -> int:
        if not sent:
            sent.append(fd)
            signal.pthread_kill(main, signal.SIGALRM)
        time.sleep(0.01)  # it is on its way, and this thread still writes
        after.append(fd)
        return write(fd, view, position, meter)

    monkeypatch.setattr(parallel_write, "_write", interrupt_and_write)
    before = signal.signal(signal.SIGALRM, _interrupt)
    try:
        with pytest.raises(_InterruptedError):
            mori.share(rng.random(100_000))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert after
    assert "mori-writing" not in [thread.name for thread in threading.enumerate()]


def test_a_thread_that_is_not_waited_for_keeps_its_file_to_itself(
    monkeypatch: pytest.MonkeyPatch, rng: Any, wait: Any
) -> None:
    write, go = parallel_write._write, threading.Event()

    def wait_and_write(fd: int, view: memoryview, position: int, meter: Any) -> int:
        go.wait(10)
        return write(fd, view, position, meter)

    def refuse(self: parallel_write._SegmentWriter) -> None:
        raise _InterruptedError

    monkeypatch.setattr(parallel_write, "_write", wait_and_write)
    monkeypatch.setattr(parallel_write._SegmentWriter, "join", refuse)
    with pytest.raises(_InterruptedError):
        mori.share(rng.random(100_000))
    with open(os.devnull, "rb") as null:  # under the numbers of the region's descriptors
        others = [os.dup(null.fileno()) for _ in range(6)]
    kinds = [os.fstat(fd).st_ino for fd in others]
    go.set()
    monkeypatch.undo()
    for lanes in [one for one in gc.get_objects() if isinstance(one, parallel_write._SegmentWriter)]:
        lanes.join()
    wait(lambda: "mori-writing" not in [thread.name for thread in threading.enumerate()])
    assert [os.fstat(fd).st_ino for fd in others] == kinds
    for fd in others:
        os.close(fd)


def test_an_interrupt_while_the_threads_start_leaves_none(
    monkeypatch: pytest.MonkeyPatch, rng: Any, wait: Any
) -> None:
    start = threading.Thread.start

    def start_and_interrupt(self: threading.Thread) -> None:
        start(self)
        if self.name == "mori-writing":
            raise _InterruptedError

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    with pytest.raises(_InterruptedError):
        mori.share(rng.random(100_000))
    wait(lambda: "mori-writing" not in [thread.name for thread in threading.enumerate()])


def test_a_reference_is_as_short_as_any(rng: Any) -> None:
    x = mori.share(rng.random(100_000))
    assert len(pickle.dumps(x, 5)) <= 100
    assert np.array_equal(pickle.loads(pickle.dumps(x[10:20], 5)), x[10:20])
