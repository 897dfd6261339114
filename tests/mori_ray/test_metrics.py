"""What Ray's metrics and `mori ls` show: what lives on a node, who holds it, what was fetched."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.util.metrics import Metric

import mori
from mori.errors import SettingError
from mori_ray import metrics
from tests.mori_ray.conftest import ROOT, connect, wait_until
from tests.mori_ray.tasks import Keeper, call, watch_metrics, watched_metrics

EVERY = 0.1  # seconds
REGIONS = {"mori_regions", "mori_bytes", "mori_holders"}


@pytest.fixture
def reporting(no_ray: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray in a store of its own, so that no other regions are counted."""
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    monkeypatch.setenv("MORI_RAY_METRICS", str(EVERY))
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    monkeypatch.setattr(Metric, "_record", Metric._record)  # given back at the end
    metrics._gauge.cache_clear()
    connect()


def last(recorded: list[tuple[str, float, dict[str, str]]]) -> dict[str, float]:
    return {name: value for name, value, _ in recorded}


def test_ls_shows_the_ray_node_of_those_that_hold_a_region(one_node: None) -> None:
    x = mori.share(np.arange(1000))
    keeper = Keeper.remote(x)
    pid = ray.get(keeper.call.remote(lambda kept: os.getpid()))
    done = subprocess.run(
        [sys.executable, "-m", "mori", "ls", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=55,
    )
    (entry,) = [entry for entry in json.loads(done.stdout) if entry["name"] == mori.shared_name(x)]
    assert {pid, os.getpid()} <= set(entry["holders"])
    assert entry["places"] == [f"ray:{ray.get_runtime_context().get_node_id()}"]


def test_one_process_of_a_node_reports_its_regions_and_another_takes_over(
    reporting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"node": ray.get_runtime_context().get_node_id()}
    y = mori.share([np.arange(100_000)])
    with monkeypatch.context() as patch:
        patch.setenv("MORI_RAY_METRICS", "often")
        with pytest.raises(SettingError, match="MORI_RAY_METRICS"):
            ray.put(y)
    watch_metrics()
    keeper = Keeper.remote()
    ray.get(keeper.call.remote(watch_metrics))

    def makes(kept: Any) -> str | None:
        x = mori.share(np.arange(1000))
        ray.put(x)
        Metric.made_by_a_test = x  # type: ignore[attr-defined]
        return mori.shared_name(x)

    name = ray.get(keeper.call.remote(makes))
    seen: dict[str, float] = {}

    def theirs() -> dict[str, float]:
        seen.update(last(ray.get(keeper.call.remote(watched_metrics))))
        return seen

    wait_until(lambda: theirs().keys() >= REGIONS)
    assert not watched_metrics(), "this process has had nothing to do with shared objects yet"
    ray.get(keeper.keep.remote(y))
    sizes = {entry.name: entry.nbytes for entry in mori.regions()}
    assert sizes.keys() == {name, mori.shared_name(y)}
    expected = {
        "mori_regions": 2,
        "mori_bytes": sum(sizes.values()),
        "mori_holders": 3,
        "mori_lent_regions": 1,
    }
    wait_until(lambda: theirs() == expected)
    mine = watched_metrics()
    wait_until(lambda: mine.extend(watched_metrics()) or mine)
    assert set(last(mine)) == {"mori_lent_regions"}
    assert all(tags == node for _, _, tags in mine)
    wait_until(lambda: last(watched_metrics()) == {"mori_lent_regions": 1})  # as the actor has it
    ray.kill(keeper)
    wait_until(lambda: "mori_regions" in last(watched_metrics()))
    mori.prune_shared()
    expected |= {"mori_regions": 1, "mori_bytes": sizes[mori.shared_name(y)], "mori_holders": 1}
    wait_until(lambda: last(watched_metrics()) == expected)
    del y
    ray.shutdown()
    time.sleep(2 * EVERY)
    watched_metrics()
    time.sleep(3 * EVERY)
    assert not watched_metrics()


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry") is None,
    reason="ray[default] is not installed, whose agent hands out what Ray's metrics record",
)
def test_the_agent_of_a_node_hands_out_the_metrics(reporting: None) -> None:
    (node,) = ray.nodes()
    x = mori.share(np.arange(1000))
    ray.get(call.remote(len, x))
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: dict[str, float] = {}

    def is_shown() -> bool:
        with urllib.request.urlopen(url, timeout=5) as page:
            for line in page.read().decode().splitlines():
                if line.startswith("ray_mori_") and node["NodeID"] in line:
                    found[line.partition("{")[0]] = float(line.rpartition(" ")[2])
        return found.keys() >= {f"ray_{name}" for name in REGIONS}

    wait_until(is_shown, 30)
    assert found["ray_mori_regions"] == 1
    assert found["ray_mori_bytes"] > x.nbytes


def test_nothing_of_rays_metrics_is_made_without_a_connection() -> None:
    code = (
        "import ray, threading, numpy, mori, mori_ray; from mori_ray import metrics; "
        "x = mori.share(numpy.arange(1000)); ray.cloudpickle.dumps(x); mori_ray.near(x); "
        "metrics.count_fetch(8); "
        "made = metrics._gauge.cache_info().currsize + metrics._counter.cache_info().currsize; "
        "print(made, sum('metrics' in thread.name for thread in threading.enumerate()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=55
    )
    assert done.stdout.split() == ["0", "0"]
