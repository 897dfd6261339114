"""The example of a DataLoader runs, and its workers read the same from shared parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_loader.py"


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_workers_read_the_same(start: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--records", "3000", "--start", start],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the results are equal" in done.stdout
