"""Of those who do the same, one at a time does it, and no file is left of that."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from mori.store.locks import exclusive, lock
from tests import stored
from tests.fresh import started_python

Wait = Callable[[Callable[[], object]], None]

_MANY = """
import os, sys
from mori.store.locks import exclusive
shared, inside = sys.argv[1:]
for _ in range(200):
    with exclusive(shared, "this", 50):
        os.mkdir(inside)  # an error if another one is inside
        os.rmdir(inside)
"""

_ONE = """
import sys
from mori.store.locks import exclusive
with exclusive(sys.argv[1], "this", 50):
    print("inside", flush=True)
    sys.stdin.read()
"""


def file(shared: Path) -> Path:
    return stored.home(shared) / "this.lock"


def is_locked(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        return not lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def says_inside(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "inside\n"


def has_open(process: subprocess.Popen[str], path: Path) -> bool:
    fds = Path(f"/proc/{process.pid}/fd")
    return any(os.path.realpath(fd) == str(path) for fd in fds.iterdir())


def test_processes_keep_each_other_out_and_leave_no_file(tmp_path: Path) -> None:
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started_python(_MANY, tmp_path, tmp_path / "inside")) for _ in range(3)
        ]
        assert [process.wait(50) for process in processes] == [0, 0, 0]
    assert os.listdir(stored.home(tmp_path)) == []


def test_who_waited_for_a_file_that_was_unlinked_keeps_the_next_one_out(tmp_path: Path, wait: Wait) -> None:
    with ExitStack() as first, started_python(_ONE, tmp_path) as second:
        first.enter_context(exclusive(str(tmp_path), "this", 0))
        wait(lambda: has_open(second, file(tmp_path)))
        first.close()
        assert says_inside(second)
        assert is_locked(file(tmp_path))
        second.communicate("")
    assert os.listdir(stored.home(tmp_path)) == []


def test_who_has_waited_for_long_enough_goes_on_and_leaves_the_lock_to_its_holder(tmp_path: Path) -> None:
    with started_python(_ONE, tmp_path) as holder:
        assert says_inside(holder)
        begin = time.monotonic()
        with exclusive(str(tmp_path), "this", 0.2):
            assert 0.2 <= time.monotonic() - begin < 5
        assert is_locked(file(tmp_path))
        holder.communicate("")
    assert os.listdir(stored.home(tmp_path)) == []


def test_threads_of_one_process_keep_each_other_out(tmp_path: Path) -> None:
    with exclusive(str(tmp_path), "this", 0):
        begin = time.monotonic()
        with exclusive(str(tmp_path), "this", 0.2):  # a lock of the process's would let it in at once
            assert time.monotonic() - begin >= 0.2
        with exclusive(str(tmp_path), "that", 5):
            assert time.monotonic() - begin < 5


def test_where_no_file_can_be_made_it_is_done_all_the_same(tmp_path: Path) -> None:
    with exclusive(str(tmp_path / "missing"), "this", 5):
        pass
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_goes_with_the_next_use(tmp_path: Path) -> None:
    with started_python(_ONE, tmp_path) as killed:
        assert says_inside(killed)
        killed.kill()
        killed.wait()
        assert file(tmp_path).exists()
        with exclusive(str(tmp_path), "this", 0):
            assert is_locked(file(tmp_path))
    assert os.listdir(stored.home(tmp_path)) == []


def test_an_error_inside_unlocks(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(str(tmp_path), "this", 0):
        raise KeyError
    assert os.listdir(stored.home(tmp_path)) == []


def test_a_file_that_was_removed_meanwhile_is_not_taken_from_the_next_one(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(exclusive(str(tmp_path), "this", 0))
        file(tmp_path).unlink()
        second.enter_context(exclusive(str(tmp_path), "this", 0))
        first.close()
        assert is_locked(file(tmp_path))


def test_a_forked_child_does_not_keep_the_lock_that_its_parent_gives_up(tmp_path: Path, wait: Wait) -> None:
    with started_python(_ONE, tmp_path) as waiting:
        with exclusive(str(tmp_path), "this", 50):
            wait(lambda: has_open(waiting, file(tmp_path)))
            pid = os.fork()
            if not pid:
                signal.pause()
                os._exit(0)
        try:
            assert waiting.stdout is not None
            assert select.select([waiting.stdout], [], [], 10)[0]
            assert says_inside(waiting)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_forked_child_that_leaves_the_block_does_not_unlock_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(exclusive(str(tmp_path), "this", 0))
        pid = os.fork()
        if not pid:
            stack.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert is_locked(file(tmp_path))
