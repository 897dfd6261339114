"""The pipeline of results that are shared: it runs, and its two ways give the same results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "dask_pipeline.py"


@pytest.mark.slow
def test_the_pipeline_runs_both_ways_to_equal_results() -> None:
    sizes = ["--megabytes", "4", "--days", "2", "--looks", "4", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *sizes], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\| (plain|auto-share) \| [\d.]+ s \|", done.stdout, re.MULTILINE) == [
        "plain",
        "auto-share",
    ]
    assert "results equal" in done.stdout
    assert done.stderr == ""  # no warning, no log
