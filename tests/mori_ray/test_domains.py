"""A node in a pid namespace of its own, as a container has one, cannot open what others share: it fetches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mori
from tests.mori_ray.conftest import end, wait_until
from tests.mori_ray.tasks import Keeper, call, name_of
from tests.mori_ray.test_lifetime import is_gone

ROWS = 100_000
SUM = float(np.arange(ROWS).sum())
_UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
_START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "2"]


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def _others(here: str) -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]


@pytest.fixture
def there(no_ray: None) -> Iterator[Any]:
    """The strategy for a node in a pid namespace of its own."""
    if not _can_unshare():
        pytest.skip("needs unshare with the right to make a pid namespace")
    head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = None
    try:
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        here = ray.get_runtime_context().get_node_id()
        start = [*_START, "--address", cluster.address, "--object-store-memory", str(100 << 20)]
        env = {**os.environ, "MORI_RAY_KEEP": "1"}
        node = subprocess.Popen(
            [*_UNSHARE, *start], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: _others(here), 100)
        yield NodeAffinitySchedulingStrategy(_others(here)[0], soft=False)
    finally:
        ray.shutdown()
        if node is not None:
            node.kill()
            node.wait()
        end(cluster)


@pytest.mark.timeout(240)
def test_a_node_that_sees_other_processes_fetches_and_is_fetched_from(there: Any) -> None:
    def look(x: Any) -> tuple[int, bool, str | None, float]:
        return os.getpid(), mori.is_shared(x), name_of(x), float(x.sum())

    def share_and_send(_: Any) -> tuple[str | None, list[Any]]:
        mine = mori.share(np.arange(ROWS))
        home = NodeAffinitySchedulingStrategy(here, soft=False)
        return mori.shared_name(mine), [call.options(scheduling_strategy=home).remote(look, mine)]

    here = ray.get_runtime_context().get_node_id()
    x = mori.share(np.arange(ROWS))
    name = mori.shared_name(x)
    keepers = [Keeper.options(scheduling_strategy=there).remote(x) for _ in range(2)]
    del x
    one, other = ray.get([keeper.call.remote(look) for keeper in keepers])
    assert one[0] < os.getpid(), "its pids are those of its namespace"
    assert one[1:] == other[1:] == (True, one[2], SUM)
    assert one[2] != name, "both map the copy of their node"
    theirs, (ref,) = ray.get(keepers[0].call.remote(share_and_send))
    assert ray.get(ref)[1:] == (True, theirs, SUM), (
        "from here all processes are seen: theirs is opened by its id"
    )
    del keepers, ref
    wait_until(lambda: name is not None and is_gone(name))
