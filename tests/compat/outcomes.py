"""A pytest plugin: writes what became of each test to the file that ``--outcomes`` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

_found: dict[str, list[str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, required=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        said = ""
        if report.failed:
            crash: Any = getattr(report.longrepr, "reprcrash", None)
            said = str(report.longrepr if crash is None else crash.message)
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        _found[report.nodeid] = [outcome, said]


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--outcomes").write_text(json.dumps(_found), encoding="utf-8")
