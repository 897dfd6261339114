"""The benchmarks run: at a tiny size, with the ways that need no server, and no figure is asserted."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import alone, check, in_dask, kinds, report, run, scaling
from benchmarks.catalogue import KINDS, Kind
from benchmarks.jobs import JOBS
from benchmarks.peer import Peer, Published
from benchmarks.peers import PEERS
from benchmarks.results import Cell, Results
from benchmarks.walk import deep_recursion, difference, walk


@pytest.fixture
def shm() -> Any:
    """Return a function that lists what the benchmarks have in /dev/shm."""
    return lambda: {name for name in os.listdir("/dev/shm") if "mori-bench" in name}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_run_measures_each_way_and_leaves_nothing(tmp_path: Path, shm: Any) -> None:
    before = shm()
    ways = ["mori", "pickle over a pipe", "stdlib SharedMemory"]
    arguments = ["--scale", "0.001", "--rounds", "1", "--patience", "150", "--jobs", "dict", "--peers", *ways]
    run.main([*arguments, "--without", "scaling", "calls", "--out", str(tmp_path)])
    results = Results.load(tmp_path / "results.json")
    assert set(results.jobs["dict"]) == set(ways[:2])
    for cell in results.jobs["dict"].values():
        assert cell.failed == ""
        assert {"first", "again", "open", "anew", "steady", "lookup", "scan", "peak", "pss read"} <= set(
            cell.figures
        )
    assert 0 < results.cell("dict", "mori").figures["bytes"][0] <= 100
    assert results.cell("dict", "pickle over a pipe").figures["bytes"][0] > 10_000
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "## A dict of 1,000,000 str to int" in text
    assert "0.001 of their full size" in text
    assert "| stdlib SharedMemory | — | — |" in text
    assert shm() == before


@pytest.mark.slow
def test_huge_pages_are_given_where_that_is_asked_for_and_the_setting_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "shmem_enabled"
    setting.write_text("always within_size advise [never] deny force\n")
    monkeypatch.setattr(alone, "_SETTING", setting)
    arguments = ["--scale", "0.001", "--rounds", "2", "--jobs", "array", "--peers", "mori", "--huge"]
    run.main([*arguments, "--without", "alone", "scaling", "calls", "--out", str(tmp_path)])
    assert setting.read_text() == "never"
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert all(f"| `{to}` |" in text for to in alone.HUGE)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_way_that_fails_is_named_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the processes import is the unchanged table, where nothing has this name: they fail.
    broken = Peer("broken", "pickle", frozenset({"array"}), lambda obj, path: Published(bytes), bytes)
    monkeypatch.setitem(PEERS, "broken", broken)
    absent = Peer("absent", "no_such_module", frozenset(JOBS), broken.publish, bytes)
    monkeypatch.setitem(PEERS, "absent", absent)
    arguments = [
        "--scale",
        "0.001",
        "--rounds",
        "1",
        "--jobs",
        "array",
        "--peers",
        "broken",
        "absent",
        "mori",
    ]
    run.main([*arguments, "--without", "scaling", "calls", "alone", "--out", str(tmp_path)])
    results = Results.load(tmp_path / "results.json")
    assert "broken" in results.cell("array", "broken").failed
    assert results.cell("array", "mori").failed == ""
    assert results.left_out == {"absent": "no_such_module is not installed"}
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "broken **failed: " in text
    assert "Left out: absent (no_such_module is not installed)." in text


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_scaling_is_measured_drawn_and_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(scaling, "_READERS", (1, 2))
    monkeypatch.setattr(scaling, "_WAYS", ("mori",))
    results = Results(machine={"scale": 1})
    scaling.measure(results, 1_000_000, 1, 30, 150)
    assert {kind: [point["x"] for point in points] for kind, points in results.scaling.items()} == {
        "size": [1_000_000],
        "strings": [1],
        "dict": [1],
        "readers": [1, 2],
    }
    assert not any(point["failed"] for points in results.scaling.values() for point in points)
    results.save(tmp_path / "results.json")
    # in a process of its own: matplotlib keeps the files of its fonts open
    subprocess.run([sys.executable, "-m", "benchmarks.plots", str(tmp_path / "results.json")], check=True)
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {
        "size.png",
        "elements.png",
        "readers.png",
    }
    assert "| readers of the array, mori | 2 |" in report.scaling_table(results)


def _full() -> Results:
    """Return results in which every target is met exactly as far as it has to be."""
    results = Results(machine={"scale": 1})
    for job in JOBS:
        figures = {"unit": 1.0, "first unit": 1.0, "first": 1.0, "again": 1.0, "bytes": 86.0}
        figures |= dict.fromkeys(
            ("open", "anew", "steady", "lookup", "peak", "anon read", "anon opened"), 1e-6
        )
        for way in PEERS:
            results.jobs.setdefault(job, {})[way] = Cell({name: [value] for name, value in figures.items()})
        results.payloads[job] = 1
    results.scaling["size"] = [{"way": "mori", "x": 1, "peak": 1.0, "open": 1e-6}]
    by_itself = ("allocate private", "allocate shared", "bytes of a slice of an array", "import")
    results.alone = {figure: [0.0] for figure in by_itself}
    results.alone |= {
        f"huge {to}, {figure}": [1.0] for to in alone.HUGE for figure in ("share", "first pass")
    }
    results.alone["huge within_size, first pass"] = [0.5]
    return results


def test_the_check_holds_where_all_targets_are_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _full().save(tmp_path / "results.json")
    assert check.main(tmp_path / "results.json") == 0
    assert "falls short" not in capsys.readouterr().out


def test_the_check_says_by_how_much_a_target_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = _full()
    results.cell("array", "mori").figures["steady"] = [50e-6, 50e-6, 1.0]
    results.save(tmp_path / "results.json")
    assert check.main(tmp_path / "results.json") == 1
    assert "| 50 µs | **falls short**, 2.00 x the target |" in capsys.readouterr().out


def test_the_check_does_not_pass_what_was_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = _full()
    del results.alone["import"]
    results.save(tmp_path / "results.json")
    assert check.main(tmp_path / "results.json") == 1
    assert "| not measured |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "used"])
@pytest.mark.parametrize("counted", [False, True])
def test_small_tasks_are_run_in_a_process_of_their_own(
    kind: str, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_dask, "_COUNTING", ())  # the same process, without valgrind
    seconds, samples, ours = json.loads(in_dask._run(kind, 200, counted=counted).stdout)
    assert 0 < seconds < 60
    assert (samples == 0) == counted
    assert 0 <= ours <= samples
    assert kind == "used" or not ours


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_kinds_are_measured_and_written(tmp_path: Path) -> None:
    page = tmp_path / "kinds.md"
    names = "^(list of lists of 5 ints|dataclasses|dict int to array of 100)$"
    rows = kinds.main(["--elements", "200", "--rounds", "1", "--kinds", names, "--out", str(page)])
    assert len(rows) == 3
    for row in rows:
        assert (row.failed, row.exact) == ("", "")
        for figure in ("share", "open", "read", "look", "private"):
            assert {f"{figure} mori", f"{figure} pickle"} <= set(row.figures)
    text = page.read_text(encoding="utf-8")
    assert "| *whole* ≤ 2 x |" in text
    assert all(f"\n| {row.kind} | " in text for row in rows)


@pytest.mark.parametrize(
    ("make", "failed"),
    [
        (lambda n: os._exit(3), "the process ended with 3"),
        (lambda n: time.sleep(600), "not done after 2 s"),
        (lambda n: [][n], "a small one: IndexError: list index out of range"),
    ],
    ids=["crashes", "hangs", "fails"],
)
def test_a_kind_that_crashes_hangs_or_fails_is_a_row(make: Any, failed: str) -> None:
    options = kinds._options(["--elements", "200"])
    options.patience = 2
    row = kinds.measure(Kind("broken", make), options)
    assert row.failed == failed
    assert failed in kinds.report([row], [], "Kinds", "")


def test_what_pickle_makes_of_every_kind_is_found_to_be_exact() -> None:
    chosen = [kind for kind in KINDS if kind.is_here() and "sklearn" not in kind.needs]
    assert len(chosen) >= 88
    for kind in chosen:
        packed = pickle.dumps(kind.make(max(int(100 * kind.share), 2)), 5)
        found = pickle.loads(packed)
        with deep_recursion():
            walk(found, is_cyclic=kind.is_cyclic)
        assert (kind.name, difference(found, pickle.loads(packed))) == (kind.name, "")


_PAIR = [1]


@pytest.mark.parametrize(
    ("found", "expected", "where"),
    [
        ([1, 2.0], [1, 2], "[1] is a float, no int"),
        ([(1,)], [[1]], "[0] is a tuple, no list"),
        ({"a": True}, {"a": 1}, "['a'] is a bool, no int"),
        ({"a": 0, "b": 1}, {"b": 1, "a": 0}, "the key ['b'] is 'a', not 'b'"),
        ([[1], [1]], [_PAIR, _PAIR], "[1] is another object than before"),
        ([_PAIR, _PAIR], [[1], [1]], "[1] is one object with another"),
        ({1.0}, {1}, "{1} is a float, no int"),
        ([0.0], [-0.0], "[0] is 0.0, not -0.0"),
        ([float("nan")], [float("nan")], ""),
    ],
)
def test_a_difference_is_found(found: Any, expected: Any, where: str) -> None:
    assert difference(found, expected) == where
