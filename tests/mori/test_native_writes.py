"""Native code that ignores numpy's read-only flag writes to this process's own pages, and ends no process."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import pytest

import mori
from mori.memory import mapping as mappings
from tests.fresh import run_python
from tests.worker import Worker

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is missing on this system")
CALLS = [
    *(
        "inv(a, overwrite_a=True)",
        "solve(a, np.ones(60), overwrite_a=True)",
        "lu_factor(a, overwrite_a=True)",
    ),
    *("cholesky(s, overwrite_a=True)", "eigh(s, overwrite_a=True)", "svd(a, overwrite_a=True)"),
    "qr(a, overwrite_a=True)",
]


def _permissions(array: np.ndarray[Any, Any]) -> str:
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps", encoding="ascii", errors="replace") as lines:
        for line in lines:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                return line.split()[1]
    raise AssertionError("not mapped")


@pytest.mark.each_store
@pytest.mark.parametrize("call", CALLS)
def test_scipy_may_overwrite_what_it_was_told_to(store: str, worker: Worker, call: str) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(60, 60)))
    plain = x, np.asfortranarray(x @ x.T + np.eye(60))
    shared = mori.share(plain[0]), mori.share(plain[1])
    before = [array.copy() for array in plain]
    assert worker(lambda x: x.sum(), shared[0]) == before[0].sum()
    expected = eval(call, vars(linalg), {"np": np, "a": plain[0].copy("F"), "s": plain[1].copy("F")})
    got = eval(call, vars(linalg), {"np": np, "a": shared[0], "s": shared[1]})
    for one, other in zip(*(x if isinstance(x, tuple) else [x] for x in (got, expected)), strict=True):
        np.testing.assert_allclose(one, other)
    for array, old in zip(shared, before, strict=True):
        assert not array.flags.writeable
        assert np.array_equal(worker(np.array, array), old)


@pytest.mark.each_store
def test_what_native_code_writes_is_seen_by_this_process_alone(store: str, worker: Worker) -> None:
    shared = mori.share(np.arange(10_000))
    name = mori.shared_name(shared)
    ctypes.memset(shared.__array_interface__["data"][0], 0xFF, 16)
    assert shared[:3].tolist() == [-1, -1, 2]
    assert worker(lambda name: mori.map_shared(name)[:3].tolist(), name) == [0, 1, 2]
    assert worker(lambda x: x[:3].tolist(), shared) == [0, 1, 2]


@linux
def test_under_strict_overcommit_pages_are_mapped_read_only(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _permissions(mori.share(np.arange(10_000))) == "rw-p"
    monkeypatch.setattr(mappings, "_is_strict", lambda: True)
    shared = mori.share(np.arange(10_000))
    assert _permissions(shared) == "r--s"
    assert int(shared.sum()) == 49_995_000


@linux
def test_where_writable_pages_are_refused_they_are_read_only(store: str) -> None:
    shared = mori.share(np.arange(20_000_000))
    out = run_python(f"""
        import resource
        import mori
        resource.setrlimit(resource.RLIMIT_DATA, (128 << 20, 128 << 20))
        x = mori.map_shared({mori.shared_name(shared)!r})
        print(int(x.sum()))
    """)
    assert int(out) == sum(range(20_000_000))
