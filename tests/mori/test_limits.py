"""At the limits of a process and of the system: a clear error, nothing lost, nothing left behind."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

import mori
from tests.fresh import run_python

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


@pytest.mark.slow
def test_ten_thousand_regions_at_once_can_be_read_and_go_again() -> None:
    run("""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == resource.RLIM_INFINITY or hard > 11_000, f"a hard limit of {hard} open files"
        before = descriptors()
        kept, error = fill(10_000)
        assert error is None, error
        assert [x[3] for x in kept] == list(range(10_000))
        del kept
        assert descriptors() == before
    """)
