"""What attacks/README.md says of each abuse is what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_ROWS = [
    line
    for line in (_ROOT / "attacks" / "README.md").read_text("utf-8").splitlines()
    if line.startswith("| ")
]


def _rows_of(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", f"attacks.{script}"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("script", ["write_to_shared", "be_another_user", "plant_names", "send_bytes"])
def test_every_abuse_comes_to_what_its_row_says(script: str) -> None:
    if script == "be_another_user" and os.geteuid():
        pytest.skip("only root can become two other users")
    rows = _rows_of(script)
    start = _ROWS.index(rows[0])
    said = _ROWS[start : start + len(rows)]
    if os.geteuid():  # only root can plant devices
        said = [row for row in _ROWS[start : start + len(rows) + 2] if "the device" not in row][: len(rows)]
    assert rows == said


def test_every_row_belongs_to_a_script() -> None:
    scripts = "".join(path.read_text("utf-8") for path in (_ROOT / "attacks").glob("*.py"))
    heads = {"abuse", "what lies under the name", "bytes"}
    for row in _ROWS:
        what = row.split(" | ")[0].removeprefix("| ")
        assert what in heads or what.removeprefix("root: ").removeprefix("another user: ") in scripts
