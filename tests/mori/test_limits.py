"""At the limits of a process and of the system: a clear error, nothing lost, nothing left behind."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest

import mori
from mori.memory import lease
from tests import stored
from tests.control_group import control_group
from tests.fresh import run_python, run_unshared
from tests.stress import IS_LONG, LIMIT
from tests.users import user_of_its_own

pytestmark = pytest.mark.each_store

_START = """
import ctypes, os, pickle, resource, sys
import numpy as np
import mori

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def fill(limit):
    kept = []
    try:
        while len(kept) < limit:
            kept.append(mori.share(np.full(10, len(kept))))
    except mori.LimitError as error:
        return kept, error
    return kept, None
"""


def run(code: str) -> str:
    return run_python(_START + textwrap.dedent(code))


def test_a_low_soft_limit_of_open_files_is_raised(store: str) -> None:
    run("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
        kept, error = fill(500)
        assert error is None and len(kept) == 500, error
        assert all(x[0] == i for i, x in enumerate(kept))
    """)


def test_no_descriptors_left_is_an_error_that_names_the_limit_and_loses_nothing(store: str) -> None:
    out = run("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        kept, error = fill(500)
        assert 20 < len(kept) < 64 and error is not None
        print(error)
        kept.pop()  # one to look with
        before = descriptors()
        for _ in range(100):
            try:
                more = [mori.share(np.arange(3)) for _ in range(3)]
            except mori.LimitError:
                pass
        assert descriptors() == before
        assert all(x[0] == i for i, x in enumerate(kept))
        del kept[:10]
        assert mori.share(np.arange(3))[2] == 2
    """)
    assert "all of its 64 open files" in out
    assert "ulimit -Hn" in out


def test_a_reference_without_a_descriptor_left_says_so_and_not_that_the_region_is_gone(store: str) -> None:
    shared = mori.share(np.arange(1000))
    name = mori.shared_name(shared)
    out = run(f"""
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        first = mori.share(np.arange(3))
        files = []
        try:
            while True:
                files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            mori.map_shared({name!r})
        except mori.LimitError as error:
            print(error)
        for file in files[:4]:
            os.close(file)
        assert mori.map_shared({name!r}).sum() == 499500
    """)
    assert "all of its 32 open files" in out


def test_too_many_mappings_is_an_error_that_names_the_setting() -> None:
    out = run("""
        most = int(open("/proc/sys/vm/max_map_count").read())
        if most > 1 << 20:
            print("vm.max_map_count", most, "is too high to be reached here")
            sys.exit()
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
        kept = [mori.share(np.arange(3))]
        # Neighbours of different protections are not merged.
        made = []
        while (address := libc.mmap(None, 4096, 1 + 2 * (len(made) % 2), 0x22, -1, 0)) != 2**64 - 1:
            made.append(address)
        before = descriptors()
        try:
            mori.share(np.arange(3))
        except mori.LimitError as error:
            text = str(error)
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        for address in made:
            libc.munmap(address, 4096)
        assert "vm.max_map_count" in text, text
        assert descriptors() == before
        assert kept[0][2] == 2 and mori.share(np.arange(3))[1] == 1
        print(text)
    """)
    assert "vm.max_map_count" in out


def test_too_little_address_space_is_an_error_that_names_the_limit() -> None:
    out = run("""
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        data = np.ones(30 << 17)  # 30 MB
        resource.setrlimit(resource.RLIMIT_AS, (size + (40 << 20), size + (40 << 20)))
        before = descriptors()
        try:
            mori.share(data)
        except mori.LimitError as error:
            print(error)
        assert descriptors() == before
    """)
    assert "RLIMIT_AS" in out


def test_a_reader_without_room_for_the_addresses_says_so_and_goes_on(store: str) -> None:
    shared, small = mori.share(np.ones(30 << 17)), mori.share(np.arange(1000))
    names = mori.shared_name(shared), mori.shared_name(small)
    out = run(f"""
        mori.map_shared({names[1]!r})  # imports what it takes
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20), size + (20 << 20)))
        before = descriptors()
        try:
            mori.map_shared({names[0]!r})
        except mori.LimitError as error:
            print(error)
        assert descriptors() == before
        assert mori.map_shared({names[1]!r}).sum() == 499500
    """)
    assert "RLIMIT_AS" in out


@pytest.mark.parametrize("setting", ["memfd", "files"])
def test_a_limit_of_file_sizes_is_an_error_that_names_it(setting: str) -> None:
    out = run(f"""
        os.environ["MORI_STORE"] = {setting!r}
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        before = descriptors()
        for fill in (lambda: mori.share(np.ones(100_000)), lambda: mori.allocate(100_000)):
            try:
                fill()
            except mori.LimitError as error:
                print(error)
        assert descriptors() == before
        assert mori.share(np.arange(3))[2] == 2
    """)
    assert out.count("RLIMIT_FSIZE") == out.count("ulimit -f unlimited") == 2


def test_what_could_not_be_shared_is_not_kept_by_the_error() -> None:
    out = run("""
        import gc, weakref
        gc.disable()
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        array = np.ones(100_000)
        known = weakref.ref(array)
        try:
            mori.share(array)
        except mori.LimitError:
            del array
        print(known())
    """)
    assert out.strip() == "None"


# what a machine or a container may lack; each in a mount namespace of its own

_ROUND_TRIP = """
import os, subprocess, sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import mori
    kept = [mori.share(np.arange(1000)) for _ in range(3)]
name = mori.shared_name(kept[0])
code = f"import mori; print(mori.map_shared({name!r}).sum())"
other = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
)
assert other.stdout == "499500\\n", other.stderr
print(*(str(each.message) for each in caught), sep="\\n")
from mori import store
print(store.current().name)
del kept
from mori.memory import lease
lease.expire_graces()
from tests import stored
assert stored.names() == []
"""


def test_without_proc_regions_go_to_files_with_one_warning() -> None:
    *warned, used = run_unshared("mount -t tmpfs none /proc", _ROUND_TRIP).splitlines()
    assert used == "files:/dev/shm"
    assert len(warned) == 1
    assert "memfd cannot be used here: regions are found through /proc, which is not mounted" in warned[0]
    assert "MORI_STORE=files" in warned[0]


def test_without_proc_memfd_is_refused_when_it_is_asked_for() -> None:
    code = "import mori, numpy\ntry: mori.share(numpy.ones(9))\nexcept mori.StoreError as error: print(error)"
    said = run_unshared("mount -t tmpfs none /proc && export MORI_STORE=memfd", code)
    assert said.startswith("cannot use the store 'memfd': regions are found through /proc")
    assert "Set MORI_STORE=files" in said


def test_a_read_only_proc_is_enough() -> None:
    said = run_unshared("mount --bind /proc /proc && mount -o remount,bind,ro /proc", _ROUND_TRIP)
    assert said == "memfd"


def test_a_proc_that_hides_the_processes_of_other_users_is_enough() -> None:
    """As a user without privileges; they would see all."""
    without = 'set -- setpriv --ambient-caps=-all --inh-caps=-all "$@"'
    user = ("--map-user=1000", "--map-group=1000", "--keep-caps")
    said = run_unshared(f"mount -o remount,hidepid=2 /proc && {without}", _ROUND_TRIP, "--pid", *user)
    assert said == "memfd"


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        ("mount -t tmpfs -o ro none /dev/shm", "not writable"),
        # /dev cannot be emptied, since what opens /dev/null would fail: it is made anew
        (
            "mount -t tmpfs none /mnt && touch /mnt/null /mnt/urandom && mount --bind /dev/null /mnt/null "
            "&& mount --bind /dev/urandom /mnt/urandom && mount --rbind /mnt /dev",
            "missing",
        ),
    ],
    ids=["read-only", "missing"],
)
def test_without_dev_shm_files_go_elsewhere_with_one_warning(
    prepare: str, found: str, tmp_path: Path
) -> None:
    prepare += f" && export MORI_STORE=files TMPDIR='{tmp_path}'"
    *warned, used = run_unshared(prepare, _ROUND_TRIP).splitlines()
    assert used == f"files:{tmp_path}"
    assert len(warned) == 1
    assert f"/dev/shm is {found}" in warned[0]
    assert "MORI_STORE=files:DIR" in warned[0]
    assert stored.names(tmp_path) == []


def test_a_small_dev_shm_binds_files_and_not_memfds() -> None:
    said = run_unshared(
        "mount -t tmpfs -o size=16m none /dev/shm",
        """
        import os, numpy, mori
        os.environ["MORI_GRACE"] = "0"
        large = mori.share(numpy.ones(4_000_000))
        assert large.sum() == 4_000_000
        os.environ["MORI_STORE"] = "files"
        kept = []
        for step in (4_000_000, 1_000_000, 900_000, 200_000):
            try:
                kept.append(mori.share(numpy.full(step, 2.0)))
            except mori.StoreFullError as error:
                print(step, error)
        assert len(os.listdir("/dev/shm/mori-0")) == len(kept) == 2
        assert all(each.sum() == 2 * each.size for each in kept)
        kept.clear()
        assert os.listdir("/dev/shm/mori-0") == [] and mori.share(numpy.ones(1_500_000)).sum() == 1_500_000
        """,
    )
    first, last = said.splitlines()
    assert first.startswith("4000000 no room for a shared region of 32.0 MB (32000192 bytes)")
    assert "16.8 MB free" in first
    assert "docker run --shm-size=8g" in first
    assert last.startswith("200000 no room")
    assert "1.6 MB free" in last


def test_a_tmpfs_anywhere_is_as_large_as_the_memory_that_it_takes() -> None:
    said = run_unshared(
        "mount -t tmpfs -o size=100t none /mnt",
        """
        import os, mori
        from mori.store import limits
        from mori import store
        os.environ["MORI_STORE"] = "files:/mnt"
        assert store.current().free() < 2 * limits.memory()
        try:
            mori.allocate(1 << 43)
        except mori.StoreFullError as error:
            print(error)
        """,
    )
    assert "raise the container's memory limit" in said


def test_a_store_without_room_for_one_more_file_says_so() -> None:
    said = run_unshared(
        "mount -t tmpfs -o nr_inodes=4 none /dev/shm && touch /dev/shm/a /dev/shm/b",
        """
        import os, numpy, mori
        os.environ["MORI_STORE"] = "files"
        try:
            mori.share(numpy.arange(1000))
        except mori.StoreFullError as error:
            print(error)
        assert sorted(os.listdir("/dev/shm")) == ["a", "b", "mori-0"]
        """,
    )
    assert "not for one more file (df -i)" in said


def test_a_system_that_promises_no_more_than_it_has_refuses_at_once() -> None:
    """The setting is the whole system's, so the process is shown another file in its stead."""
    said = run_unshared(
        "mount -t tmpfs none /mnt && echo 2 > /mnt/two && echo 'MemAvailable: 99999999 kB' > /mnt/info && "
        "echo 'CommitLimit: 4000 kB' >> /mnt/info && echo 'Committed_AS: 1000 kB' >> /mnt/info && "
        "mount --bind /mnt/two /proc/sys/vm/overcommit_memory && mount --bind /mnt/info /proc/meminfo",
        """
        import numpy, mori
        assert mori.share(numpy.ones(250_000)).sum() == 250_000
        try:
            mori.share(numpy.ones(1_000_000))
        except mori.StoreFullError as error:
            print(error)
        """,
    )
    assert "3.1 MB free" in said
    assert "vm.overcommit_memory=2" in said


def test_a_control_group_leaves_what_its_limit_says_its_cached_files_included() -> None:
    """In files that stand where the kernel has those of this process's groups."""
    said = run_unshared(
        "mount -t tmpfs none /sys/fs/cgroup",
        """
        import os, numpy, mori
        from mori.store import limits
        before = limits.memory()
        with open("/proc/self/cgroup") as lines:
            groups = [line.strip().split(":", 2) for line in lines]
        _, controllers, path = next(group for group in groups if group[1] in ("memory", ""))
        root = "/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup"
        names = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        def say(place, most, used, cached):
            os.makedirs(place, exist_ok=True)
            for name, text in zip(names, (most, used)):
                with open(f"{place}/memory.{name}", "w") as file:
                    file.write(f"{text}\\n")
            with open(f"{place}/memory.stat", "w") as file:
                file.write(f"anon 5\\nactive_file {cached}\\ninactive_file {cached}\\n")
        say(root, "9223372036854771712" if controllers else "max", 10, 0)
        assert before // 2 < limits.memory() < before * 2
        say(root, 50 << 20, 48 << 20, 3 << 20)
        assert limits.memory() == 8 << 20, limits.memory()
        say(root + path, 40 << 20, 38 << 20, 0)
        assert limits.memory() == 2 << 20, limits.memory()
        try:
            mori.share(numpy.ones(1_000_000))
        except mori.StoreFullError as error:
            print(error)
        """,
    )
    assert "2.1 MB free" in said
    assert "raise the container's memory limit" in said


@pytest.mark.parametrize("setting", ["memfd", "files:/dev/shm"])
def test_a_control_group_of_the_kernel_refuses_what_it_would_kill_for(setting: str) -> None:
    with control_group(300 << 20) as processes:
        out = run(f"""
            os.environ["MORI_STORE"] = {setting!r}
            os.environ["MORI_GRACE"] = "300"
            import pandas as pd
            frame = pd.DataFrame({{"x": np.ones(40 << 20)}})  # whose memory is that of the group before
            open({str(processes)!r}, "w").write(str(os.getpid()))
            kept = mori.share(np.full(10 << 20, 7.0))  # 80 MB, and its source is gone again
            before = descriptors()
            for large in (None, np.broadcast_to(1.0, 40 << 20), frame):
                try:
                    mori.allocate(40 << 20) if large is None else mori.share(large)
                except mori.StoreFullError as error:
                    print(error)
            assert descriptors() == before and kept.sum() == 7 * (10 << 20)
            # What only its grace keeps makes room for what needs it.
            kept = pickle.dumps(kept) and None
            assert mori.allocate(20 << 20).share().sum() == 0
        """)
    assert out.count("no room for a shared region of 335.5 MB") == 3
    assert out.count("raise the container's memory limit") == 3


_REFUSED = """
import ctypes, os, platform, struct
number, machine = {"x86_64": (319, 0xC000003E), "aarch64": (279, 0xC00000B7)}.get(platform.machine(), (0, 0))
# Load the machine, the number of the call, its flags; refuse memfd_create with one of these, allow all else.
code = [(0x20, 0, 0, 4), (0x15, 0, 5, machine), (0x20, 0, 0, 0), (0x15, 0, 3, number)]
code += [(0x20, 0, 0, 24), (0x45, 0, 1, FLAGS)]
code += [(0x06, 0, 0, 0x50000 | REFUSAL), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
libc = ctypes.CDLL(None, use_errno=True)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
# PR_SET_NO_NEW_PRIVS, and PR_SET_SECCOMP with a filter
if not number or libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
    print("skipped: no filter of system calls on", platform.machine(), os.strerror(ctypes.get_errno()))
    raise SystemExit
try:
    os.close(os.memfd_create("mori", FLAGS & 9))
except OSError as error:
    assert error.errno == REFUSAL
else:
    raise AssertionError("it is not refused")
"""


def refusing(number: int, flags: int = 0xFFFFFFFF) -> str:
    """Return code after which memfd_create with one of some flags is refused with an error's number."""
    return _REFUSED.replace("REFUSAL", str(number)).replace("FLAGS", str(flags))


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS], ids=["forbidden", "unknown"])
def test_where_the_system_refuses_memfds_regions_go_to_files_with_one_warning(number: int) -> None:
    refused = refusing(number)
    said = run_python(refused + _ROUND_TRIP)
    if said.startswith("skipped"):
        pytest.skip(said)
    *warned, used = said.splitlines()
    assert used == "files:/dev/shm"
    assert len(warned) == 1
    assert f"the system refuses to make anonymous files ({os.strerror(number)})" in warned[0]
    code = "import mori, numpy\ntry: mori.share(numpy.ones(9))\nexcept mori.StoreError as error: print(error)"
    said = run_python(f"{refused}\nos.environ['MORI_STORE'] = 'memfd'\n{code}")
    assert said.startswith("cannot use the store 'memfd': the system refuses")


_MADE = """
import os, subprocess, sys, warnings, numpy, mori
from mori.memory import mapping as mappings
from mori.memory import region
warnings.simplefilter("error")
os.environ["MORI_STORE"] = "memfd"
x = mori.share(numpy.arange(200_000))
said = f"import mori; print(mori.map_shared({mori.shared_name(x)!r})[-1])"
print(subprocess.run([sys.executable, "-c", said], check=True, capture_output=True, text=True).stdout.strip())
print(os.readlink(f"/proc/self/fd/{mappings.held_by(x).lease.fd}"))
"""


@pytest.mark.parametrize(("pool", "link"), [("0", "/memfd:mori_"), ("100M", "/memfd:mori_recycled")])
def test_a_system_that_does_not_know_the_newest_flag_of_memfds_makes_them_without_it(
    pool: str, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_POOL", pool)
    said = run_python(refusing(errno.EINVAL, 0x8) + _MADE)  # MFD_NOEXEC_SEAL, as before Linux 6.3
    if said.startswith("skipped"):
        pytest.skip(said)
    last, made = said.splitlines()
    assert last == "199999"
    assert made.startswith(link)


@pytest.mark.parametrize(("pool", "link"), [("0", "/memfd:mori_"), ("100M", "/memfd:mori_recycled")])
def test_a_system_that_demands_that_flag_gets_it(pool: str, link: str) -> None:
    prepare = f"echo 2 > /proc/sys/vm/memfd_noexec && export MORI_POOL={pool}"
    last, made = run_unshared(prepare, _MADE, "--pid").splitlines()
    assert last == "199999"
    assert made.startswith(link)


def test_a_system_without_it_makes_memfds_after_a_lack_of_descriptors() -> None:
    said = run_python(
        f"{refusing(errno.EINVAL, 0x8)}\n"
        """if True:
        import resource, numpy, mori
        os.environ["MORI_STORE"] = "files"
        mori.share(numpy.ones(3))  # imports what it takes
        os.environ["MORI_STORE"] = "memfd"
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        try:
            mori.share(numpy.ones(3))
        except mori.LimitError:
            print("limit", end=" ")
        for fd in taken:
            os.close(fd)
        print(mori.share(numpy.ones(3)).sum())
        """
    )
    if said.startswith("skipped"):
        pytest.skip(said)
    assert said == "limit 3.0"


_CLOSED = """
import ctypes, os, pickle, sys, warnings, numpy, mori
import multiprocessing.reduction
if not os.geteuid():
    os.setuid(USER)  # as a server that drops its privileges
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE, which that does, too
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    kept = mori.share(numpy.arange(1000))
data = pickle.dumps(kept)
reader, writer = os.pipe()
pid = os.fork()
if not pid:
    del kept
    os.write(writer, str(pickle.loads(data).sum()).encode())
    os._exit(0)
print(os.read(reader, 100).decode(), os.waitpid(pid, 0)[1])
print(*(str(each.message) for each in caught), sep="\\n")
"""


def test_a_process_that_others_may_not_look_into_shares_by_files_with_one_warning() -> None:
    with user_of_its_own() as user:
        said, *warned = run_python(_CLOSED.replace("USER", str(user))).splitlines()
    assert said == "499500 0"
    assert len(warned) == 1
    assert "other processes of this user may not look into this one" in warned[0]
    assert warned[0].startswith("shared regions go to files in /dev/shm")


@pytest.mark.parametrize("scope", [1, 2])
def test_a_system_that_forbids_programs_in_memory_shares_all_the_same(scope: int) -> None:
    said = run_unshared(f"echo {scope} > /proc/sys/vm/memfd_noexec", _ROUND_TRIP, "--pid")
    assert said == "memfd"


def test_a_store_whose_directory_has_gone_is_an_error_and_keeps_what_is_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("MORI_STORE", f"files:{place}")
        kept = mori.share(np.arange(1000))
        shutil.rmtree(place)
        for nbytes in (3, 1_000_000):
            with pytest.raises(mori.StoreError, match="there no more"):
                mori.share(np.ones(nbytes))
        with pytest.raises(mori.RegionNotFoundError):
            mori.map_shared("/mori_7_7")
        assert kept.sum() == 499500
        assert mori.regions() == []
        del kept


def test_a_store_that_becomes_read_only_is_an_error() -> None:
    said = run_unshared(
        "mount -t tmpfs none /mnt",
        """
        import os, subprocess, numpy, mori
        os.environ["MORI_STORE"] = "files:/mnt"
        os.environ["MORI_GRACE"] = "0"
        assert mori.share(numpy.arange(1000)).sum() == 499500
        subprocess.run(["mount", "-o", "remount,ro", "/mnt"], check=True)
        try:
            mori.share(numpy.arange(3))
        except mori.StoreError as error:
            print(error)
        subprocess.run(["mount", "-o", "remount,rw", "/mnt"], check=True)
        assert mori.share(numpy.arange(3)).sum() == 3
        """,
    )
    assert (
        said == "cannot use the store 'files:/mnt': the directory is not writable. Set MORI_STORE=files:DIR"
    )


@pytest.mark.slow
def test_fifteen_thousand_regions_at_once_can_be_read_and_go_again() -> None:
    run("""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == resource.RLIM_INFINITY or hard > 16_000, f"a hard limit of {hard} open files"
        os.environ["MORI_GRACE"] = "0"
        before = descriptors()
        kept, error = fill(15_000)
        assert error is None, error
        assert [x[3] for x in pickle.loads(pickle.dumps(kept))] == list(range(15_000))
        del kept
        assert descriptors() == before
    """)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
def test_many_references_to_parts_leave_nothing() -> None:
    """Half of them to elements, half to slices: one by one, and in one pickle."""
    out = run(f"""
        import gc
        def private():
            ctypes.CDLL(None).malloc_trim(0)
            with open("/proc/self/smaps_rollup") as lines:
                return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
        shared = mori.share([np.arange(n, n + 50) for n in range(1000)])
        whole = mori.share(np.arange(2000))
        part = lambda n: shared[n % 1000] if n % 2 else whole[n % 1000 :]
        def pass_on(count):
            for n in range(count):
                assert pickle.loads(pickle.dumps(part(n)))[0] == n % 1000
            parts = pickle.loads(pickle.dumps([part(n) for n in range(count)]))
            assert all(x[0] == n % 1000 for n, x in enumerate(parts))
        pass_on(2000)
        gc.collect()
        before, was = descriptors(), private()
        pass_on({200_000 if IS_LONG else 5_000})
        gc.collect()
        assert descriptors() == before
        print(private() - was)
    """)
    assert int(out) < 8_000  # kB


@pytest.mark.skipif("MORI_LARGE" not in os.environ, reason="takes 10 GB of memory: make large")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("setting", ["memfd", "files:/dev/shm"])
@pytest.mark.parametrize("how", ["share", "allocate"])
def test_a_region_of_ten_gigabytes_is_read_by_another_process_and_goes_again(
    monkeypatch: pytest.MonkeyPatch, setting: str, how: str
) -> None:
    with monkeypatch.context() as patch:  # not for the look at the end, since others use /dev/shm, too
        patch.setenv("MORI_STORE", setting)
        patch.setenv("MORI_GRACE", "300")
        rows, columns = 1250, 1_000_000
        if how == "share":
            shared = mori.share(np.broadcast_to(np.arange(columns, dtype=float), (rows, columns)))
        else:
            with mori.allocate((rows, columns), float) as array:
                array[:] = np.arange(columns)
                shared = array.share()
        assert shared.nbytes == 10_000_000_000
        data, half = pickle.dumps(shared, 5), pickle.dumps(shared[rows // 2 :, ::2], 5)
        assert len(data) <= 100
        assert len(half) <= 160
        out = run(f"""
            import pickle
            whole, half = pickle.loads({data!r}), pickle.loads({half!r})
            assert whole.shape == ({rows}, {columns}) and half.shape == ({rows} // 2, {columns} // 2)
            assert whole[-1, -1] == {columns} - 1 and half[3, 4] == 8 and whole[700, 123] == 123
            assert np.shares_memory(whole, half)
            private = [line.split() for line in open("/proc/self/smaps_rollup") if line.startswith("Private")]
            print(sum(int(words[1]) for words in private))
        """)
        assert int(out) < 200_000, "a reader has the region in private memory"  # kB
        name = mori.shared_name(shared)
        del shared
        if how == "allocate":
            del array
        lease.expire_graces()
        with pytest.raises(mori.RegionNotFoundError):
            mori.map_shared(name)
