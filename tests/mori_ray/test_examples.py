"""The examples with Ray run as they stand, at a small size."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from ray._private import worker

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def printed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    name, *options = request.param
    if name == "ray_tune.py":  # Tune keeps what it was given until Ray is shut down
        pytest.importorskip("pydantic")
        request.getfixturevalue("no_ray")
        monkeypatch.setenv("RAY_ADDRESS", "local")
    else:
        request.getfixturevalue("one_node")
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capfd.readouterr().out


@pytest.mark.parametrize("printed", [("ray_tasks.py", "--rows", "20_000", "--tasks", "2")], indirect=True)
def test_tasks_over_a_shared_frame(printed: str) -> None:
    assert re.match(r"0 MB shared as /mori_\w+\n2 tasks over all of it: [\d.]+ s\n", printed)
    assert len(re.findall(r"^(Oslo|Rome|Kyoto|Lima|Bern) +1[12]\.\d+ +0\.\d+$", printed, re.MULTILINE)) == 5
    assert re.search(r"warmest hour: \d+, 12\.\d\d degrees", printed)


@pytest.mark.parametrize(
    "printed", [("ray_actor_pool.py", "--entries", "20_000", "--requests", "20")], indirect=True
)
def test_an_actor_pool_serves_a_shared_dict(printed: str) -> None:
    (grown,) = re.findall(r"20000 entries; private memory of each actor grew by at most ([\d.]+) MB", printed)
    assert float(grown) < 1
    (hits,) = re.findall(r"20 requests in [\d.]+ s; (\d+) of 2000 names found", printed)
    assert 900 < int(hits) < 1100


@pytest.mark.parametrize("printed", [("ray_and_others.py",)], indirect=True)
def test_a_process_without_ray_reads_what_a_driver_has_shared(printed: str) -> None:
    lines = printed.splitlines()
    assert lines[-3] == "a task of Ray reads it: 3.000"
    assert re.fullmatch(r"a process without Ray \(False\) reads /mori_\w+\[0\]: 1\.500", lines[-2])
    assert lines[-1].endswith(": 1000000 rows")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Tune's own
@pytest.mark.parametrize("printed", [("ray_tune.py", "--rows", "2_000", "--trials", "2")], indirect=True)
def test_a_search_with_tune_reads_one_training_set(printed: str) -> None:
    from ray.tune.registry import _ParameterRegistry

    assert re.search(r"^best of 2 trials: penalty \S+, error [\d.]+$", printed, re.MULTILINE)
    assert re.search(r"^every trial has read /mori_\w+$", printed, re.MULTILINE)
    hooks = worker._post_init_hooks
    hooks[:] = [hook for hook in hooks if not isinstance(getattr(hook, "__self__", None), _ParameterRegistry)]
