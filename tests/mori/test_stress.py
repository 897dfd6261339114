"""Endurance: threads and processes share, read, pass on and drop at once, and at the end there is nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mori
from tests import stored
from tests.stress import LIMIT, SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT), pytest.mark.each_store]

_MB = 1 << 20


@pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps_rollup"), reason="/proc/self/smaps_rollup is missing"
)
def test_eight_threads_in_each_of_four_processes_read_what_was_shared_and_leave_nothing(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "10")
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
        for act in ("share", "read", "send", "receive", "received", "put", "look", "look_up", "drop"):
            assert report["done"][act] > SECONDS / 2, report["done"]
    pids = {report["pid"] for report in reports}
    assert [entry.name for entry in mori.regions() if pids & {entry.owner, *entry.holders}] == []
    assert stored.names() == []
