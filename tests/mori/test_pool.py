"""`MORI_POOL`: freed pages are written again, and nobody ever reads the new data for the old."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import mori
from mori import store as stores
from mori.format import writer
from mori.format.plan import measure
from mori.memory import mapping as mappings
from mori.memory import parallel_write, pool, region
from mori.memory.lease import expire_graces
from mori.store import base
from mori.store.base import Where, format_name, parse_name

pytestmark = pytest.mark.each_start

_COUNT = 400_000  # of 8 bytes


@pytest.fixture(autouse=True)
def pooled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep freed pages for an hour, and give them back after the test."""
    monkeypatch.setenv("MORI_STORE", "memfd")
    monkeypatch.setenv("MORI_POOL", "100M")
    monkeypatch.setenv("MORI_POOL_SECONDS", "3600")
    monkeypatch.setenv("MORI_GRACE", "0")
    yield
    pool.give_back()
    monkeypatch.setenv("MORI_POOL_SECONDS", "0")
    pool.current().tend()


def file_of(x: Any) -> int:
    """Return the inode of the file that a shared array lies in."""
    mapping = mappings.held_by(x)
    assert mapping is not None
    assert mapping.lease is not None
    return os.fstat(mapping.lease.fd).st_ino


def recycled() -> list[str]:
    """Return what this process has open or mapped of pages that are written again."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return [one for one in (*links, *maps) if "mori_recycled" in one]


def settle(wait: Callable[[Callable[[], object]], None]) -> None:
    """Wait until all that was let go can be written again."""
    store = pool.current()
    wait(lambda: store.tend() is None and not store._let_go)


def test_the_pages_of_a_freed_region_are_written_again(worker: Any, wait: Any, rng: Any) -> None:
    first = mori.share(rng.random(_COUNT))
    file, name = file_of(first), mori.shared_name(first)
    del first
    settle(wait)
    data = rng.random(_COUNT)
    second = mori.share(data)
    assert file_of(second) == file
    assert mori.shared_name(second) != name
    assert np.array_equal(second, data)
    assert worker(lambda x: float(x.sum()), second) == data.sum()
    assert (
        worker(lambda name: float(__import__("mori").map_shared(name).sum()), mori.shared_name(second))
        == data.sum()
    )


def test_what_is_smaller_or_a_little_larger_fits_and_what_would_waste_them_does_not(
    wait: Any, rng: Any
) -> None:
    first = mori.share(rng.random(_COUNT))
    file = file_of(first)
    del first
    for count in (_COUNT - 90_000, _COUNT + 1000, _COUNT):
        settle(wait)
        data = rng.random(count)
        x = mori.share(data)
        assert file_of(x) == file
        assert np.array_equal(x, data)
        del x
    settle(wait)
    assert file_of(mori.share(rng.random(_COUNT // 3))) != file
    assert file_of(mori.share(rng.random(_COUNT * 2))) != file


def test_in_segments_they_are_written_again_too(
    monkeypatch: pytest.MonkeyPatch, worker: Any, wait: Any, rng: Any
) -> None:
    from mori.store import memfd

    monkeypatch.setattr(memfd, "HUGE", os.sysconf("SC_PAGE_SIZE"))
    monkeypatch.setattr(memfd, "_LEAST_SEGMENT", 1 << 16)
    monkeypatch.setattr(memfd, "_cpus", lambda: 3)
    files = set()
    for count in (_COUNT, _COUNT - 1000, _COUNT // 2 + 60_000, _COUNT):
        data = rng.random(count)
        x = mori.share(data)
        mapping = mappings.held_by(x)
        assert mapping is not None
        assert mapping.lease is not None
        assert len(mapping.lease.held.fds) == 3
        files.add(file_of(x))
        assert np.array_equal(x, data)
        assert worker(lambda x: float(x.sum()), x) == data.sum()
        del x, mapping
        settle(wait)
    assert len(files) == 1


@pytest.mark.parametrize("then", ["free", "written again"])
def test_an_old_reference_or_name_never_opens_what_is_written_later(
    then: str, worker: Any, wait: Any, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mori.share(rng.random(_COUNT))
    old, name, file = pickle.dumps(first), mori.shared_name(first), file_of(first)
    del first
    settle(wait)
    second = mori.share(rng.random(_COUNT)) if then == "written again" else None
    assert second is None or file_of(second) == file

    def tries(old: bytes, name: str) -> list[str]:
        import pickle

        import mori

        said = []
        for attempt in (lambda: pickle.loads(old).sum(), lambda: mori.map_shared(name)):
            try:
                said.append(str(attempt()))
            except mori.RegionNotFoundError:
                said.append("not found")
        return said

    assert worker(tries, old, name) == tries(old, name or "") == ["not found"] * 2


def test_pages_that_another_process_has_mapped_are_left_to_it(worker: Any, wait: Any, rng: Any) -> None:
    data = rng.random(_COUNT)
    x = mori.share(data)
    file, name = file_of(x), mori.shared_name(x)

    def keep(x: Any) -> None:
        import sys

        sys.mori_kept = x  # type: ignore[attr-defined]

    def total() -> float:
        import sys

        return float(sys.mori_kept.sum())  # type: ignore[attr-defined]

    def drop() -> None:
        import sys

        del sys.mori_kept  # type: ignore[attr-defined]

    worker(keep, x)
    del x
    pool.current().tend()
    others = [mori.share(rng.random(_COUNT)) for _ in range(3)]
    assert file not in {file_of(other) for other in others}
    assert worker(total) == data.sum()
    assert [entry for entry in mori.regions() if entry.name == name]
    worker(drop)
    settle(wait)
    assert not [entry for entry in mori.regions() if entry.name == name]
    assert file_of(mori.share(rng.random(_COUNT))) == file


def test_a_mapping_without_its_descriptor_is_still_a_holder(wait: Any, rng: Any) -> None:
    code = """if True:
        import os, sys, pickle, mori
        x = pickle.loads(sys.stdin.buffer.read(int(sys.argv[1])))
        os.closerange(3, 200)
        print(x[0], flush=True)
        sys.stdin.buffer.read(1)
        print(float(x.sum()), flush=True)
    """
    data = rng.random(_COUNT)
    x = mori.share(data)
    file, message = file_of(x), pickle.dumps(x)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(len(message))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(message)
        child.stdin.flush()
        assert float(child.stdout.readline()) == data[0]
        del x
        pool.current().tend()
        assert file_of(mori.share(rng.random(_COUNT))) != file
        child.stdin.write(b".")
        child.stdin.close()
        assert float(child.stdout.readline()) == data.sum()


def test_a_forked_child_keeps_what_it_has_inherited_and_cannot_write_to_it(wait: Any, rng: Any) -> None:
    data = rng.random(_COUNT)
    x = mori.share(data)
    file = file_of(x)
    go, went = os.pipe()
    answer, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(went)
        os.read(go, 1)
        with open("/proc/self/maps", encoding="utf-8") as maps:
            writable = [line for line in maps if "mori_recycled" in line and line.split()[1] == "rw-s"]
        os.write(tell, repr((float(x.sum()), writable)).encode())
        os._exit(0)
    del x
    pool.current().tend()
    other = mori.share(rng.random(_COUNT))
    assert file_of(other) != file
    os.write(went, b".")
    os.close(tell)
    assert os.read(answer, 10_000).decode() == repr((float(data.sum()), []))
    os.waitpid(child, 0)
    for fd in (go, went, answer):
        os.close(fd)
    del other
    settle(wait)
    assert file_of(mori.share(rng.random(_COUNT))) == file


def test_a_child_that_is_forked_in_the_middle_of_it_has_a_pool_of_its_own(wait: Any, rng: Any) -> None:
    first = mori.share(rng.random(_COUNT))
    file = file_of(first)
    del first
    settle(wait)
    pool.call_later(pool.current().tend, 3600)  # the child inherits it
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with pool.current()._lock:
            held.set()
            forked.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(30)
        code = 1
        try:
            data = rng.random(_COUNT)
            for _ in range(3):
                x = mori.share(data)
                same = bool((x == data).all()) and file_of(x) != file
                del x
                pool.current().tend()
            code = 0 if same else 2
        finally:
            os._exit(code)
    forked.set()
    thread.join()
    wait(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG))
    assert os.waitpid(child, 0)[1] == 0
    expire_graces()
    settle(wait)
    assert file_of(mori.share(rng.random(_COUNT))) == file


def test_a_signals_handler_that_shares_takes_no_pages_that_are_being_taken_in(
    rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, data = pool._Pages.open_to_writes, rng.random(_COUNT)
    shared: list[Any] = []

    def interrupted(self: Any) -> bool:
        opened = plain(self)
        if not shared:
            shared.append(None)
            shared.append(mori.share(data))
        return opened

    first = mori.share(rng.random(_COUNT))
    with monkeypatch.context() as patch:
        patch.setattr(pool._Pages, "open_to_writes", interrupted)
        del first
        later = mori.share(-data)
    assert np.array_equal(shared[1], data)
    assert np.array_equal(later, -data)
    assert file_of(later) != file_of(shared[1])


def test_a_part_of_it_keeps_its_pages(wait: Any, rng: Any) -> None:
    data = rng.random(_COUNT)
    x = mori.share(data)
    file, part = file_of(x), np.asarray(x)[5:10]
    del x
    pool.current().tend()
    assert file_of(mori.share(rng.random(_COUNT))) != file
    assert np.array_equal(part, data[5:10])


def test_nobody_can_write_to_it_and_its_owner_would_have_to_undo_a_protection(rng: Any) -> None:
    x = mori.share(rng.random(_COUNT))
    mapping = mappings.held_by(x)
    assert mapping is not None
    assert mapping.lease is not None
    fd = os.open(f"/proc/self/fd/{mapping.lease.fd}", os.O_RDWR)
    for call in (
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.ftruncate(fd, 10),
        lambda: os.ftruncate(fd, 1 << 30),
        lambda: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    ):
        with pytest.raises(PermissionError):
            call()
    os.close(fd)
    permissions = {line.split()[1] for line in recycled() if " " in line and "-" in line.split()[0]}
    assert permissions == {"r--s", "rw-p"}  # the owner's mapping for the next region, and that of a reader
    before = x[0]
    child = os.fork()
    if not child:
        faulthandler.disable()
        ctypes.memset(x.__array_interface__["data"][0], 1, 8)
        os._exit(int(x[0] == before))
    assert os.waitpid(child, 0)[1] == 0
    assert x[0] == before


def test_no_more_than_was_asked_for_is_kept_and_the_oldest_goes_first(
    wait: Any, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_POOL", "8M")
    kept = [mori.share(rng.random(_COUNT)) for _ in range(4)]
    files = [file_of(x) for x in kept]
    while kept:
        del kept[0]
        settle(wait)
    assert pool.current()._idle_nbytes() <= 8_000_000
    again = [mori.share(rng.random(_COUNT)) for _ in range(3)]
    assert {file_of(x) for x in again} & set(files) == set(files[2:])


def test_what_is_larger_than_the_pool_or_small_does_not_come_into_it(
    rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_POOL", "2M")
    kept = [mori.share(rng.random(_COUNT)), mori.share(rng.random(1000))]
    assert len(kept) == 2
    assert recycled() == []


def test_after_a_while_they_are_given_back(wait: Any, rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = mori.share(rng.random(_COUNT))
    assert recycled()
    monkeypatch.setenv("MORI_POOL_SECONDS", "0.5")
    del x
    wait(lambda: recycled() == [])


def test_they_are_given_back_where_the_room_is_needed(
    wait: Any, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = mori.share(rng.random(_COUNT))
    del x
    settle(wait)
    assert recycled()
    with pytest.raises(mori.StoreFullError):
        mori.allocate(1 << 50, "u1")
    assert recycled() == []


def test_they_are_given_back_where_memory_is_short(
    wait: Any, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = mori.share(rng.random(_COUNT))
    monkeypatch.setattr(pool.limits, "memory", lambda: 1000)
    del x
    wait(lambda: pool.current().tend() is None and recycled() == [])


def test_half_of_it_written_is_no_region(wait: Any, rng: Any) -> None:
    """Its writer may be killed, and its lock is gone then."""
    x = mori.share(rng.random(_COUNT))
    del x
    settle(wait)
    data = rng.random(_COUNT)
    plan = measure(data)
    name, seen = None, []

    def half(header: base.Header, put: Any) -> None:
        nonlocal name
        name = format_name(mori.store.base.Name(header.pid, header.number))
        put(base.pack_header(header))
        put(bytes(1 << 21))
        store = pool.current()
        for pages in store._all.values():
            pages.unlock()  # as the system does when it ends
        where = Where(header.pid, header.number, header.region_id)
        seen.append(region.find(where, stores.MEMFD))
        seen.append(region.find(Where(header.pid, header.number), stores.MEMFD))
        raise RuntimeError("ends")

    with pytest.raises(RuntimeError, match="ends"):
        region.create(writer.region_nbytes(plan), half, writer.ROOT)
    assert seen == [None, None]
    assert parse_name(name) is not None


def test_they_are_listed_while_they_hold_a_region_and_not_when_they_are_free(
    worker: Any, wait: Any, rng: Any
) -> None:
    x = mori.share(rng.random(_COUNT))
    name = mori.shared_name(x)
    (entry,) = [entry for entry in mori.regions() if entry.name == name]
    mapping = mappings.held_by(x)
    assert mapping is not None
    assert (entry.nbytes, entry.owner, entry.holders, entry.region_id) == (
        mapping.nbytes,
        os.getpid(),
        (os.getpid(),),
        mapping.header.region_id,
    )
    del x, mapping
    settle(wait)
    assert name not in [entry.name for entry in mori.regions()]
    start = time.time()
    x = mori.share(rng.random(_COUNT))
    (entry,) = [entry for entry in mori.regions() if entry.name == mori.shared_name(x)]
    assert entry.age <= time.time() - start + 1


@pytest.mark.parametrize("text", ["many", "-1", "1 elephant", "2G2"])
def test_a_size_that_cannot_be_used_is_an_error_that_names_the_variable(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_POOL", text)
    with pytest.raises(mori.SettingError, match="MORI_POOL"):
        mori.share(np.arange(10))


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("0", 0), ("512M", 512_000_000), ("1.5 GiB", 3 << 29), ("70000", 70_000), ("2k", 2000)],
)
def test_sizes_are_said_as_people_say_them(text: str, nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from mori import settings

    monkeypatch.setenv("MORI_POOL", text)
    assert settings.pool() == nbytes


def test_threads_and_processes_that_share_and_drop_at_once_read_what_was_shared(
    worker: Any, third: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "0.05")
    wrong: list[object] = []
    counted = [0]
    until = time.monotonic() + 6
    turns = threading.Lock()

    def use(number: int) -> None:
        rng = np.random.default_rng(number)
        kept: list[tuple[Any, int]] = []
        try:
            while time.monotonic() < until:
                value = int(rng.integers(1, 1 << 60))
                x = mori.share(np.full(int(rng.integers(150_000, 500_000)), value))
                kept.append((x, value))
                if rng.random() < 0.2:
                    with turns:
                        other = (worker, third)[number % 2]
                        first, last, same = other(
                            lambda x: (int(x[0]), int(x[-1]), bool((x == x[0]).all())), x
                        )
                    if (first, last, same) != (value, value, True):
                        wrong.append((first, last, value))
                if len(kept) > 4:
                    x, value = kept.pop(int(rng.integers(len(kept))))
                    if not (x == value).all():
                        wrong.append(value)
                counted[0] += 1
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert counted[0] > len(threads)


@pytest.mark.parametrize("nbytes", [0, 1, (1 << 25) - 1, 1 << 25, (1 << 25) + 7, 3 << 24])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_bytes_are_copied_by_several_threads(nbytes: int, threads: int, rng: Any) -> None:
    source, target = rng.integers(0, 256, nbytes, np.uint8), np.zeros(nbytes + 2, np.uint8)
    parallel_write._copy(target[1:-1], source, threads)
    assert np.array_equal(target[1:-1], source)
    assert target[0] == target[-1] == 0


def test_where_no_thread_can_be_started_one_copies_all(monkeypatch: pytest.MonkeyPatch, rng: Any) -> None:
    source, target = rng.integers(0, 256, 1 << 25, np.uint8), np.zeros(1 << 25, np.uint8)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    parallel_write._copy(target, source, 2)
    assert np.array_equal(target, source)


def test_interrupts_wait_for_the_threads_that_copy(monkeypatch: pytest.MonkeyPatch, rng: Any) -> None:
    source, target = rng.integers(0, 256, 1 << 25, np.uint8), np.zeros(1 << 25, np.uint8)
    copy, main = parallel_write._Piece.copy, threading.main_thread()
    ended = threading.Event()

    def copy_late(self: parallel_write._Piece) -> None:
        if threading.current_thread() is main:
            copy(self)
            return
        self._is_begun = True
        for _ in range(3):
            time.sleep(0.1)
            signal.pthread_kill(main.ident or 0, signal.SIGINT)
        time.sleep(0.1)
        ended.set()
        copy(self)

    monkeypatch.setattr(parallel_write._Piece, "copy", copy_late)
    with pytest.raises(KeyboardInterrupt):
        parallel_write._copy(target, source, 2)
    assert ended.is_set()  # or it would write to what is unmapped by now


def test_a_thread_that_begins_after_an_interrupt_copies_nothing(
    monkeypatch: pytest.MonkeyPatch, rng: Any
) -> None:
    source, target = rng.integers(0, 256, 1 << 25, np.uint8), np.zeros(1 << 25, np.uint8)
    late: list[Any] = []

    def begin_later(self: threading.Thread) -> None:
        late.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", begin_later)
    with pytest.raises(KeyboardInterrupt):
        parallel_write._copy(target, source, 2)
    monkeypatch.undo()
    for thread in late:
        thread.start()
        thread.join()
    assert len(late) == 1
    assert not target.any()
