"""README.md: every Python block in it runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_readme_has_its_examples() -> None:
    text = "".join(BLOCKS)
    assert all(word in text for word in ("ProcessPoolExecutor", "mori_dask", "mori_ray"))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[number], encoding="utf-8")
    # A Ray of its own, whatever else runs on this machine.
    settings = {
        "RAY_ADDRESS": "local",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=os.environ | settings,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed == re.findall(r"print\(.*\)  # (.*)$", BLOCKS[number], re.MULTILINE)
