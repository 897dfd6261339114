"""The suite itself: what goes wrong in one test is that test's failure, and the others run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import worker as workers
from tests.worker import Worker

ROOT = Path(__file__).parents[1]
SLOW_REPORTS = """
import time
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    if item.name == "test_that_fails":
        time.sleep(2)
"""
LATE = """
import time
import pytest

def test_that_starts_what_all_share():
    pass

@pytest.mark.timeout(1)
def test_that_fails():
    assert False

@pytest.fixture
def slow_at_the_end():
    yield
    time.sleep(30)

@pytest.mark.timeout(1)
def test_that_takes_too_long_at_its_end(slow_at_the_end):
    pass

@pytest.mark.timeout(1)
def test_that_takes_too_long():
    time.sleep(30)

def test_that_passes():
    pass
"""


@pytest.mark.parametrize("spread", [[], ["--numprocesses", "1"]], ids=["alone", "spread"])
def test_a_timeout_fails_its_test_and_not_the_run(tmp_path: Path, spread: list[str]) -> None:
    file = tmp_path / "test_late.py"
    file.write_text(LATE, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(SLOW_REPORTS, encoding="utf-8")
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "tests.conftest", *spread, str(file)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "2 failed, 3 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_a_worker_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_LIMIT", 0.2)
    worker = Worker("fork")
    with pytest.raises(TimeoutError):
        worker(time.sleep, 60)
    assert worker.is_ended
