"""The Dask examples run, and each way of theirs has the same results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
WAYS = {
    "lookup": ["dask.delayed", "mori_dask.scatter"],
    "bootstrap": ["client.scatter", "mori_dask.scatter", "mori.share"],
    "search": ["plain", "mori.share"],
}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", WAYS)
def test_an_example_runs_and_its_ways_agree(name: str) -> None:
    if name == "search":
        pytest.importorskip("sklearn", reason="scikit-learn is missing")
    command = [sys.executable, str(EXAMPLES / f"dask_{name}.py"), "--megabytes", "2", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^  (\S.*?) +\d+\.\d\d +-?\d+$", done.stdout, re.MULTILINE) == WAYS[name]
    assert "all results equal" in done.stdout
    assert done.stderr == ""
