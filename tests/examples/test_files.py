"""The examples of files run, and say what they are to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "needs", "said", "times"),
    [
        ("files_web", "mori", "answered 999,999; opened 1,000,000 entries in", 4),
        ("files_loader", "torch", "20,000 samples, and their sum is right: True", 1),
        ("files_dask", "distributed", "1,000,000 orders, and their sum is right: True", 1),
    ],
)
def test_an_example_runs(name: str, needs: str, said: str, times: int) -> None:
    pytest.importorskip(needs)
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(said) == times
