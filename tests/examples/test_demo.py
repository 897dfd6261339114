"""The demo: what a newcomer sees, and that it would notice a wrong result."""

from __future__ import annotations

import importlib
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_demo(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), *options],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("demo")
    for name in ("demo", "demo_engines"):
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "Dask", "Ray"])
def test_the_demo_runs_and_judges_by_its_own_table(engine: str) -> None:
    done = run_demo("--megabytes", "5", "--tasks", "2", "--engines", engine)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = dict(re.findall(rf"^\| {engine} +\| (plain|shared) +\|(.*)\|$", done.stdout, re.MULTILINE))
    assert cells.keys() == {"plain", "shared"}
    assert re.search(
        rf"^  {engine}: shared is (.* )?as fast, sends .*, and takes ", done.stdout, re.MULTILINE
    )
    assert "all 12 tasks equal" in done.stdout
    assert "Regions left in the store: none." in done.stdout
    steps = [
        line for line in done.stderr.splitlines() if not re.fullmatch(r"  \w+(:|, \w+:) .* \.\.\.", line)
    ]
    assert steps == []  # no warning, no log
    begun = re.findall(rf"^  {engine}, (plain|shared): 1,000 rows", done.stderr, re.MULTILINE)
    assert begun == ["shared", "plain", "plain", "shared", "shared", "plain"], "each begins in turn"


@pytest.mark.slow
def test_the_demo_refuses_an_engine_that_it_does_not_know() -> None:
    done = run_demo("--engines", "spark")
    assert done.returncode == 2
    assert "no such engine: spark" in done.stderr


@pytest.mark.slow
def test_an_engine_that_is_not_installed_is_reported_with_its_extra(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo.tqdm, "monitor_interval", 0)  # its thread would stay
    monkeypatch.setattr(demo.ENGINES["ray"], "library", "not_installed_anywhere")
    monkeypatch.setattr(sys, "argv", ["demo.py", "--rows", "1000", "--tasks", "1", "--engines", "ray"])
    assert demo.main() == 0
    assert "Ray is not installed: pip install -e '.[ray]'" in capsys.readouterr().out


def test_means_that_differ_in_the_last_bit_are_found(demo: ModuleType) -> None:
    expected = {0: {"a": 1.0, "b": math.nan}, 1: {"a": 2.0, "b": 3.0}}
    equal = demo.Row("Ray", "plain", 1.0, 1.0, 1.0, 1.0, {seed: dict(expected[seed]) for seed in expected})
    assert demo.differences(expected, [equal]) == []
    wrong = equal._replace(way="shared", means={0: expected[0], 1: {"a": math.nextafter(2.0, 3), "b": 3.0}})
    [line] = demo.differences(expected, [equal, wrong])
    assert line.startswith("Ray, shared, seed 1:")


def test_what_is_printed_are_the_medians_of_each_way(demo: ModuleType) -> None:
    seconds = {"shared": (1.0, 9.0, 2.0), "plain": (4.0, 3.0, 8.0)}
    rows = [demo.Row("Ray", way, s, 1.0, 1.0, 1.0, {}) for way in seconds for s in seconds[way]]
    assert [(row.way, row.seconds) for row in demo.medians(rows)] == [("plain", 4.0), ("shared", 2.0)]


def test_a_task_without_a_result_is_found(demo: ModuleType) -> None:
    row = demo.Row("Dask", "plain", 1.0, 1.0, 1.0, 1.0, {})
    assert len(demo.differences({7: {"a": 1.0}}, [row])) == 1


def test_the_verdict_says_so_when_sharing_loses(demo: ModuleType) -> None:
    plain = demo.Row("Ray", "plain", 1.0, 300, 1e6, 1e6, {})
    shared = demo.Row("Ray", "shared", 2.0, 310, 3e6, 3e6, {})
    said = demo.verdict(plain, shared)
    assert "0.5 times as fast" in said
    assert "2.0 MB more private memory" in said
