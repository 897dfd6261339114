"""Code in a fresh interpreter: what it prints; a failed test with its traceback if it fails."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

__all__ = ["run_python"]

_LIMIT = 55  # seconds


def run_python(code: str, *options: str) -> str:
    """Run code in another process, started anew; options are the interpreter's."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()
