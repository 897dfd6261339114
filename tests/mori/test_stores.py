"""What the stores promise: sealed or locked, private to their user, found by name, pruned, never half."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mori
from mori import store as stores
from mori.format import writer
from mori.memory import mapping as mappings
from mori.memory import region
from mori.memory.mapping import Mapping
from mori.store import base
from mori.store.base import Where, format_label
from tests import stored
from tests.fresh import run_python, started_python
from tests.users import as_another_user, directory_for_all, user_of_its_own


@pytest.fixture
def memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no memfd_create")
    monkeypatch.setenv("MORI_STORE", "memfd")
    monkeypatch.setenv("MORI_GRACE", "0")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    monkeypatch.setenv("MORI_GRACE", "0")
    home = stored.home(tmp_path)
    home.mkdir(0o700)
    yield home
    for path in home.iterdir():
        path.unlink()


def _mapping(shared: object) -> Mapping:
    mapping = mappings.held_by(shared)  # type: ignore[arg-type]
    assert mapping is not None
    return mapping


def _fd(shared: object) -> int:
    lease = _mapping(shared).lease
    assert lease is not None
    return lease.fd


_HOLD = """
import sys, numpy, mori
x = mori.share(numpy.arange(1000)) if len(sys.argv) == 1 else mori.map_shared(sys.argv[1])
print(mori.shared_name(x), flush=True)
sys.stdin.read()
"""


# memfd

_TRY = """
import errno, mmap, os, sys
fd = int(sys.argv[1])
def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except OSError as error:
        return error.errno == errno.EPERM
    return False
writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
print([
    refused(os.pwrite, writable, b"x", 0),
    refused(os.ftruncate, writable, 10),
    refused(os.ftruncate, writable, 1 << 20),
    refused(mmap.mmap, writable, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
])
"""


@pytest.mark.usefixtures("memfd")
def test_nobody_can_write_or_resize_a_sealed_region() -> None:
    shared = mori.share(np.arange(1000))
    assert fcntl.fcntl(_fd(shared), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    fd = os.open(f"/proc/self/fd/{_fd(shared)}", os.O_RDWR)
    for call in (
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.ftruncate(fd, 10),
        lambda: os.ftruncate(fd, 1 << 20),
        lambda: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    ):
        with pytest.raises(PermissionError) as caught:
            call()
        assert caught.value.errno == errno.EPERM
    other = subprocess.run(
        [sys.executable, "-c", _TRY, str(fd)], pass_fds=[fd], capture_output=True, text=True, check=True
    )
    os.close(fd)
    assert other.stdout.strip() == str([True] * 4)
    assert int(shared[999]) == 999


@pytest.mark.usefixtures("memfd")
def test_a_memfd_is_private_and_not_inherited_by_exec() -> None:
    shared = mori.share(np.arange(10))
    fd = _fd(shared)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert not os.get_inheritable(fd)


@pytest.mark.usefixtures("memfd")
def test_a_memfd_that_is_not_sealed_is_passed_over() -> None:
    shared = mori.share(np.arange(10))
    data, header = bytes(_mapping(shared).bytes()), _mapping(shared).header
    number, region_id = header.number + 1000, os.urandom(16)
    fd = os.memfd_create(f"{format_label(os.getpid(), number)}.{region_id.hex()}", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, base.pack_header(header._replace(region_id=region_id, number=number)) + data[64:])
        where = Where(os.getpid(), number, region_id, os.getpid(), fd)
        assert region.find(where, stores.MEMFD) is None
        fcntl.fcntl(fd, 1033, 0xF)  # F_ADD_SEALS: SEAL, SHRINK, GROW, WRITE
        found = region.find(where, stores.MEMFD)
        assert found is not None
        assert found.header.number == number
    finally:
        os.close(fd)


@pytest.mark.usefixtures("memfd")
def test_a_memfd_that_is_only_called_like_a_region_is_not_listed() -> None:
    shared = mori.share(np.arange(10))
    data, header = bytes(_mapping(shared).bytes()), _mapping(shared).header
    for contents in (b"my results", data):  # a copy of a region is not the one of that name
        name = f"{format_label(os.getpid(), header.number + 1000)}.{header.region_id.hex()}"
        fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, contents)
            fcntl.fcntl(fd, 1033, 0xF)  # F_ADD_SEALS: SEAL, SHRINK, GROW, WRITE
            mine = [entry.name for entry in mori.regions() if entry.owner == os.getpid()]
            assert mine == [mori.shared_name(shared)]
        finally:
            os.close(fd)


@pytest.mark.usefixtures("memfd")
def test_a_reused_descriptor_or_name_never_shows_other_data() -> None:
    shared = mori.share(np.arange(10))
    header = _mapping(shared).header
    assert region.find(Where(header.pid, header.number, os.urandom(16)), stores.MEMFD) is None
    other = Where(header.pid, header.number + 1000, None, os.getpid(), _fd(shared))
    assert region.find(other, stores.MEMFD) is None


# files


def test_a_file_is_private_locked_and_gone_with_its_last_holder(files: Path) -> None:
    shared = mori.share(np.arange(10))
    (path,) = files.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with started_python(_HOLD, mori.shared_name(shared) or "") as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().strip() == mori.shared_name(shared)
        del shared
        assert path.exists()  # the reader holds it
        assert mori.prune_shared() == []
        reader.communicate("")
    assert not path.exists()


def test_a_directory_of_files_stays_where_it_is_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "0")
    here, elsewhere = tmp_path / f"here-{os.getpid()}", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("MORI_STORE", f"files:{here.name}")
        patch.chdir(tmp_path)
        first = mori.share(np.arange(10))
        patch.chdir(elsewhere)
        second = mori.share(np.arange(10))
        assert len(stored.names(here)) == 2
        assert mori.map_shared(mori.shared_name(first))[9] == 9
        del first, second
        assert stored.names(here) == os.listdir(elsewhere) == []


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a store in a directory where all users may make files, as in /dev/shm."""
    with directory_for_all() as directory:
        monkeypatch.setenv("MORI_STORE", f"files:{directory}")
        monkeypatch.setenv("MORI_GRACE", "0")
        yield directory


def test_names_that_another_user_has_planted_cost_nothing(common: Path) -> None:
    shared = mori.share(np.arange(10))
    number = _mapping(shared).header.number

    def plant() -> None:
        for place in range(10_000):
            name = format_label(os.getppid(), number + 1 + place // 2) + (".draft" if place % 2 else "")
            os.close(os.open(common / name, os.O_CREAT | os.O_WRONLY, 0o644))

    as_another_user(plant)
    stores.current()._pruned = -1e9  # type: ignore[attr-defined]
    begin = time.perf_counter()
    again = mori.share(np.arange(10))
    assert mori.prune_shared() == []
    assert {entry.name for entry in mori.regions()} == {mori.shared_name(each) for each in (shared, again)}
    assert time.perf_counter() - begin < 1  # counting through them takes 4
    assert _mapping(again).header.number == number + 1


@pytest.mark.parametrize("kind", ["directory", "link", "file", "link to this user's"])
def test_a_directory_whose_name_another_user_has_taken_is_replaced_by_one_that_all_find(
    common: Path, kind: str, tmp_path: Path
) -> None:
    taken, theirs = stored.home(common), common / "theirs"

    def take() -> None:
        if kind == "file":
            taken.touch()
            return
        directory = taken if kind == "directory" else theirs
        directory.mkdir(0o777)
        if kind != "directory":
            taken.symlink_to(theirs if kind == "link" else tmp_path)

    as_another_user(take)
    first = mori.share(np.arange(1000))
    (home,) = (path for path in common.iterdir() if path.name.startswith(f"{taken.name}-"))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    with started_python(_HOLD) as other, started_python(_HOLD, mori.shared_name(first) or "") as reader:
        assert other.stdout is not None
        assert reader.stdout is not None
        assert reader.stdout.readline().strip() == mori.shared_name(first)
        assert mori.map_shared(other.stdout.readline().strip())[999] == 999
        assert len(os.listdir(home)) == 2
        # Of two processes that began at once, each may have made one.
        (common / f"{taken.name}-{0:016x}").mkdir(0o700)
        with started_python(_HOLD) as late:
            assert late.stdout is not None
            assert mori.map_shared(late.stdout.readline().strip())[999] == 999
            assert len(mori.regions()) == 3
            late.communicate("")
        other.communicate("")
        reader.communicate("")
    assert os.listdir(tmp_path) == []
    assert kind == "file" or os.listdir(taken) == []


@pytest.mark.parametrize("is_taken", [False, True], ids=["free", "taken"])
def test_a_file_system_that_gives_the_users_directory_to_another_is_an_error_that_leaves_nothing(
    is_taken: bool,
) -> None:
    if os.geteuid():
        pytest.skip("only root can make what belongs to another user")
    with directory_for_all() as common, user_of_its_own() as user:
        if is_taken:
            as_another_user(stored.home(common).mkdir)
        before = os.listdir(common)
        said = run_python(f"""
            import ctypes, os, mori, numpy
            os.environ["MORI_STORE"] = "memfd"
            mori.share(numpy.ones(9))  # imports what it takes
            os.environ["MORI_STORE"] = "files:{common}"
            # What it makes belongs to another user from now on, as where a server squashes root.
            ctypes.CDLL(None).setfsuid({user})
            try:
                mori.share(numpy.ones(9))
            except mori.StoreError as error:
                print(error)
        """)
        assert os.listdir(common) == before
    assert said.startswith(f"cannot use the store 'files:{common}': a directory made there for user 0 alone")
    assert f"(mode 700) belongs to user {user} and has mode 700" in said
    assert "Set MORI_STORE=files:DIR" in said


def test_the_umask_does_not_lock_the_user_out_of_his_own_directory() -> None:
    if os.geteuid():
        pytest.skip("only root can become a user whose directory is not there yet")
    with directory_for_all() as common, user_of_its_own() as user:
        said = run_python(f"""
            import os, mori, numpy
            os.environ["MORI_STORE"] = "memfd"
            mori.share(numpy.ones(9))  # imports what it takes
            os.environ["MORI_STORE"] = "files:{common}"
            os.setuid({user})
            os.umask(0o777)
            print(mori.share(numpy.ones(9)).sum())
        """)
        assert said == "9.0"
        assert stat.S_IMODE((common / f"mori-{user}").stat().st_mode) == 0o700


def test_a_file_of_the_users_own_is_never_removed_or_listed_whatever_its_name(files: Path) -> None:
    number = _mapping(mori.share(np.arange(10))).header.number
    data = mori.share(np.arange(10))
    region_of = bytes(_mapping(data).bytes())
    names = ("mori_2024_1", "mori_2024_2.draft", format_label(os.getpid(), number + 2), "mori_2024_3")
    paths = [directory / name for directory in (files, files.parent) for name in names]
    for path in paths:
        path.write_bytes(region_of if path.name == "mori_2024_3" else b"my results")  # a copy is no region
        path.chmod(0o600)
    stores.current()._pruned = -1e9  # type: ignore[attr-defined]
    kept = mori.share(np.arange(10))
    with pytest.raises(mori.CorruptRegionError):
        mori.map_shared("/mori_2024_1")
    assert mori.prune_shared() == []
    assert {entry.name for entry in mori.regions()} == {mori.shared_name(data), mori.shared_name(kept)}
    assert all(path.exists() for path in paths)
    assert paths[0].read_bytes() == b"my results"
    for path in paths[len(names) :]:
        path.unlink()


def test_a_file_is_created_by_this_process_or_not_at_all(files: Path) -> None:
    first = mori.share(np.arange(10))
    number = _mapping(first).header.number
    taken = files / format_label(os.getpid(), number + 1)
    taken.write_bytes(b"somebody else's")
    taken.chmod(0o600)
    dangling = files / f"{format_label(os.getpid(), number + 2)}.draft"
    dangling.symlink_to(files / "target")
    with taken.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        second = mori.share(np.arange(11))
        assert _mapping(second).header.number == number + 3
        assert taken.read_bytes() == b"somebody else's"
    assert not (files / "target").exists()


def test_prune_removes_what_a_killed_process_left_and_nothing_that_lives(files: Path) -> None:
    mine = mori.share(np.arange(10))
    strange = files / "notes.txt"
    strange.write_text("not mori's")
    unsafe = files / "mori_7_7"
    unsafe.write_bytes(b"")
    unsafe.chmod(0o644)
    with started_python(_HOLD) as killed, started_python(_HOLD) as alive:
        assert killed.stdout is not None
        assert alive.stdout is not None
        lost, kept = killed.stdout.readline().strip(), alive.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (files / lost[1:]).exists()
        assert mori.prune_shared() == [lost]
        assert int(mori.map_shared(kept)[999]) == 999
        assert int(mine[9]) == 9
        alive.communicate("")
    assert {path.name for path in files.iterdir()} == {
        strange.name,
        unsafe.name,
        (mori.shared_name(mine) or "")[1:],
    }


_HALF = """
import os, signal, sys, numpy, mori
from mori.format import writer
from mori.store import base
def half(root, header, put):
    put(base.pack_header(header)[: int(sys.argv[1])])
    os.kill(os.getpid(), signal.SIGKILL)
writer.write = half
mori.share(numpy.arange(1000))
"""


@pytest.mark.parametrize("nbytes", [0, 20, 64])
def test_the_draft_of_a_killed_writer_is_no_region_and_is_pruned(files: Path, nbytes: int) -> None:
    with started_python(_HALF, str(nbytes)) as writer:
        assert writer.wait() == -signal.SIGKILL
    (draft,) = files.iterdir()
    assert draft.suffix == ".draft"
    assert list(stores.current().entries()) == []
    with pytest.raises(mori.RegionNotFoundError):
        mori.map_shared(f"/{draft.stem}")
    assert mori.prune_shared() == [f"/{draft.stem}"]
    assert list(files.iterdir()) == []


def test_sharing_prunes_what_killed_processes_left(files: Path) -> None:
    with started_python(_HOLD) as killed:
        assert killed.stdout is not None
        lost = killed.stdout.readline().strip()
    assert (files / lost[1:]).exists()
    with started_python(_HOLD) as sharing:
        assert sharing.stdout is not None
        kept = sharing.stdout.readline().strip()
        assert {path.name for path in files.iterdir()} == {kept[1:]}
        sharing.communicate("")


# a full store

_FILL = """
import numpy, os, pickle, sys, mori
from tests import stored
from tests.fresh import run_python
store = os.environ["MORI_STORE"].partition(":")[2]
kept = mori.share(numpy.ones(100_000))
# more than there is, refused at once; and pieces that each fit, until one does not
piecemeal = [kept]
for step in (1 << 20, 100_000, 100_000, 100_000, 100_000):
    try:
        piecemeal.append(mori.share(numpy.ones(step)))
    except mori.StoreFullError as error:
        print(error.asked > 8 * step, error.free < error.asked, "MORI_STORE=" in error.remedy)
    names = sorted(mori.shared_name(each)[1:] for each in piecemeal)
    assert stored.names(store) == names and all(each.sum() == 100_000 for each in piecemeal)
del kept, piecemeal
print(stored.names(store))
"""


def test_a_full_store_is_an_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("unshare or mount is missing")
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=3m tmpfs "{small}" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace of its own is not permitted here (unshare --mount)")
    done = subprocess.run(
        [*command, sys.executable, "-c", _FILL],
        env={**os.environ, "MORI_STORE": f"files:{small}", "MORI_GRACE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout.splitlines()
    assert said[-1:] == ["[]"], done.stderr
    assert len(said) > 2
    assert set(said[:-1]) == {"True True True"}


@pytest.mark.usefixtures("memfd")
def test_a_region_that_cannot_be_sealed_for_a_moment_is_sealed_after_it() -> None:
    def write(fd: int, header: object) -> None:
        os.ftruncate(fd, mmap.PAGESIZE)
        mapped.append(mmap.mmap(fd, mmap.PAGESIZE))
        timer.start()

    def close() -> None:
        mapped[0].close()

    mapped: list[mmap.mmap] = []
    timer = threading.Timer(0.03, close)
    published = region.publish(region.begin(mmap.PAGESIZE, write, writer.ROOT))
    timer.join()
    assert published is not None
