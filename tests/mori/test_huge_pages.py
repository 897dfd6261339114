"""Huge pages for those who ask: a region is written through a mapping that is gone when it is sealed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori
from mori.memory import mapping as mappings
from mori.memory import mmap
from mori.store import memfd
from mori.store.limits import HUGE
from tests.mori.pandas_versions import str_frame

pytestmark = pytest.mark.each_start

_COUNT = 1_000_000  # of 8 bytes


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system that gives huge pages to who asks for them; this one may refuse, which changes no byte."""
    setting = tmp_path / "shmem_enabled"
    setting.write_text("always within_size [advise] never deny force\n")
    monkeypatch.setattr(memfd, "_HUGE_PAGES", str(setting))
    monkeypatch.setenv("MORI_STORE", "memfd")


def writable_mappings() -> list[str]:
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return [line for line in maps if "/memfd:mori_" in line and line.split()[1] == "rw-s"]


@pytest.mark.usefixtures("advised")
def test_what_is_written_through_huge_pages_is_equal_and_sealed(worker: Any, rng: Any) -> None:
    frame = str_frame({"a": rng.random(_COUNT), "b": rng.integers(0, 9, _COUNT), "c": "text"})
    for data in (rng.random(_COUNT), frame, [str(n) for n in range(_COUNT)]):
        shared = mori.share(data)
        assert writable_mappings() == []
        mapping = next(one for one in mappings.live() if one.shared)
        assert mapping.trusted
        assert mapping.lease is not None
        assert os.fstat(mapping.lease.fd).st_size == mapping.nbytes
        again = os.open(f"/proc/self/fd/{mapping.lease.fd}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
        os.close(again)
        if isinstance(data, list):
            assert list(shared) == data
        elif isinstance(data, pd.DataFrame):
            pd.testing.assert_frame_equal(pd.DataFrame(shared), data)
        else:
            assert worker(lambda x: float(x.sum()), shared) == data.sum()
        del shared, mapping


@pytest.mark.usefixtures("advised")
def test_a_lack_of_memory_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, rng: Any) -> None:
    def refuse(address: int, nbytes: int, advice: int) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "_madvise", refuse)
    with pytest.raises(mori.StoreFullError, match="no room"):
        mori.share(rng.random(_COUNT))
    assert writable_mappings() == []


def test_where_nobody_gets_huge_pages_or_all_do_nobody_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: Any
) -> None:
    monkeypatch.setattr(mmap, "_madvise", None)
    setting = tmp_path / "shmem_enabled"
    monkeypatch.setattr(memfd, "_HUGE_PAGES", str(setting))
    for text in (None, "always within_size advise [never] deny force", "[always] within_size advise never"):
        if text is not None:
            setting.write_text(text)
        data = rng.random(_COUNT)
        assert np.array_equal(mori.share(data), data)


def test_segments_lie_where_huge_pages_fit(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memfd, "_LEAST_SEGMENT", HUGE)
    monkeypatch.setattr(memfd, "_cpus", lambda: 3)
    x = mori.share(rng.random(_COUNT))
    mapping = mappings.held_by(x)
    assert mapping is not None
    assert mapping.header.segment_nbytes % HUGE == 0 == mapping.address % HUGE
