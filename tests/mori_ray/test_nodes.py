"""Several nodes: everything goes by value; what was sent before a node joined is fetched from its home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mori
from mori_ray import serialize
from tests.mori_ray.conftest import wait_until
from tests.mori_ray.tasks import Keeper, call, mapped


@pytest.fixture
def two_nodes(no_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The ids of two nodes that cannot open each other's regions; the driver is on the first."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path / 'one'}")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    try:
        monkeypatch.setenv("MORI_STORE", f"files:{tmp_path / 'two'}")
        other = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        monkeypatch.setenv("MORI_STORE", f"files:{tmp_path / 'one'}")
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield ray.get_runtime_context().get_node_id(), other.node_id
    finally:
        ray.shutdown()
        cluster.shutdown()


def on(node: str) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def test_objects_cross_nodes(two_nodes: tuple[str, str], tmp_path: Path) -> None:
    here, there = two_nodes
    array = np.arange(300_000.0)
    frame = pd.DataFrame({"a": array, "s": pd.array(["x", "y", "z"] * 100_000, dtype="str")})
    x, f = mori.share([array, "two"]), mori.share(frame)

    def look(xs: Any, f: Any) -> tuple[bool, int, float, float, str, int]:
        x, part = xs
        return mori.is_shared(x), len(mapped()), float(x[0].sum()), float(part.sum()), f["s"][4], len(f)

    total = float(array.sum())
    expected = (False, 0, total, float(array[7:].sum()), "y", 300_000)
    for node in two_nodes:
        ref = call.options(scheduling_strategy=on(node)).remote(look, [x, x[0][7:]], f)
        assert ray.get(ref) == expected
        keeper = Keeper.options(scheduling_strategy=on(node)).remote(x)
        assert ray.get(keeper.call.remote(lambda kept: float(kept[0].sum()))) == total
        ray.kill(keeper)
    captured = ray.remote(lambda: float(x[0].sum()))
    assert ray.get(captured.options(scheduling_strategy=on(there)).remote()) == total
    made = ray.get(
        call.options(scheduling_strategy=on(there)).remote(lambda: mori.share({"a": np.arange(1 << 16)}))
    )
    assert int(made["a"][-1]) == (1 << 16) - 1

    # A reference all the same, as for a node that joins while the task is queued: it asks the home node.
    sent = {"whole": x, "slice": x[0][7:], "column": f["a"], "frame": f}
    payloads = {}
    for name, part in sent.items():
        way = _Recording()
        with serialize.reference.travel(way):
            part.__reduce_ex__(5) if name != "column" else x[0].__reduce_ex__(5)
        payloads[name] = way.payload

    def open_all(payloads: dict[str, bytes], home: bytes) -> dict[str, tuple[str, float]]:
        found = {name: serialize.load(payload, home) for name, payload in payloads.items()}
        return {
            name: (
                type(part).__name__,
                float(
                    np.asarray(part[0] if name == "whole" else part["a"] if name == "frame" else part).sum()
                ),
            )
            for name, part in found.items()
        }

    fetched = ray.get(
        call.options(scheduling_strategy=on(there)).remote(open_all, payloads, bytes.fromhex(here))
    )
    assert fetched["whole"] == ("SharedList", total)
    wait_until(lambda: not list((tmp_path / "two").iterdir()))


class _Recording:
    payload = b""

    def takes(self, mapping: Any) -> bool:
        return True

    def reduce(self, payload: bytes) -> Any:
        self.payload = payload
        return serialize.load, (payload, b"")
