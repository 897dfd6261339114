"""Endurance: threads and processes share, read, pass on and drop at once, and at the end there is nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mori
from tests import stored
from tests.stress import LIMIT, SECONDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(LIMIT),
    pytest.mark.each_store,
    pytest.mark.skipif(
        not os.path.exists("/proc/self/smaps_rollup"), reason="/proc/self/smaps_rollup is missing"
    ),
]

_MB = 1 << 20
_ACTS = ("share", "read", "send", "receive", "received", "put", "look", "look_up", "look_back", "drop")


def test_eight_threads_in_each_of_four_processes_read_what_was_shared_and_leave_nothing(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "10")
    _be_busy()


def test_who_opens_an_old_reference_never_sees_what_was_written_to_its_pages_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MORI_STORE", "memfd")
    monkeypatch.setenv("MORI_POOL", "300M")
    monkeypatch.setenv("MORI_GRACE", "0.5")
    for report in _be_busy():
        assert report["done"]["ended"] > SECONDS / 2, report["done"]


def _be_busy() -> list[dict[str, Any]]:
    """Let the processes be busy; return their reports, which are as they should be."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.stressing", str(SECONDS)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT - 5,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *reports, codes = map(json.loads, done.stdout.splitlines())
    assert codes == [0, 0, 0, 0], reports  # none was ended by a signal
    assert len(reports) == 4
    for report in reports:
        assert report["faults"] == [], report["faults"][0]
        assert report["mapped"] == report["held"] == []
        assert report["grown"] < 4 * _MB, report
        for act in (
            "share",
            "read",
            "send",
            "receive",
            "received",
            "put",
            "look",
            "look_up",
            "look_back",
            "drop",
        ):
            assert report["done"][act] > SECONDS / 2, report["done"]
    pids = {report["pid"] for report in reports}
    assert [entry.name for entry in mori.regions() if pids & {entry.owner, *entry.holders}] == []
    assert stored.names() == []
    return reports
