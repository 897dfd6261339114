"""Code in a fresh interpreter: what it prints; a failed test with its traceback if it fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["run_python", "run_unshared", "started_python"]

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


@contextmanager
def started_python(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run code in another process, with pipes for its input and output; it is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_unshared(prepare: str, code: str, *options: str) -> str:
    """Run code where the shell's commands `prepare` have changed what is mounted, seen by it alone.

    With the option ``--pid`` it has a pid namespace of its own, too. Skips the test where none of that is
    permitted.
    """
    unshare = ["unshare", "--user", "--map-root-user", "--mount", *options]
    if "--pid" in options:
        unshare += ["--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "sh", "-c", prepare], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"namespaces of one's own are not permitted here ({' '.join(unshare)}: {prepare})")
    done = subprocess.run(
        [*unshare, "sh", "-c", f'{prepare} && exec "$@"', "sh", sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()
