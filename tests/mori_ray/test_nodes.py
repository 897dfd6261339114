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
from mori import reference
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


def test_objects_cross_nodes_by_value(two_nodes: tuple[str, str]) -> None:
    there = two_nodes[1]
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
    make = call.options(scheduling_strategy=on(there))
    made = ray.get(make.remote(lambda: mori.share({"a": np.arange(1 << 16)})))
    assert int(made["a"][-1]) == (1 << 16) - 1


def test_a_node_that_cannot_open_a_region_fetches_it_from_its_home(
    two_nodes: tuple[str, str], tmp_path: Path
) -> None:
    # As for a node that joins while a task is queued: what it gets is a reference all the same.
    here, there = two_nodes
    array = np.arange(300_000.0)
    x = mori.share([array, pd.DataFrame({"a": array})])
    payloads = []
    for part in (x, x[0][7:], x[1]):
        way = _Recording()
        with reference.travel(way):
            part.__reduce_ex__(5)
        payloads.append(way.payload)

    def open_all(payloads: list[bytes], home: bytes) -> tuple[str, float, float, bool]:
        whole, part, frame = [serialize.load(payload, home) for payload in payloads]
        assert float(whole[0].sum()) == float(frame["a"].sum())
        return type(whole).__name__, float(whole[0].sum()), float(part.sum()), mori.is_shared(whole)

    opened = call.options(scheduling_strategy=on(there)).remote(open_all, payloads, bytes.fromhex(here))
    assert ray.get(opened) == ("SharedList", float(array.sum()), float(array[7:].sum()), False)
    assert not list((tmp_path / "two").iterdir())

    def lost(payload: bytes, home: bytes) -> str:
        return type(serialize.load(payload, home)).__name__

    # Its home node has it no more, or is none.
    del x, part
    wait_until(lambda: not list((tmp_path / "one").iterdir()))
    for home in (here, "12" * 28):
        ref = call.options(scheduling_strategy=on(there)).remote(lost, payloads[1], bytes.fromhex(home))
        assert ray.get(ref) == "Lost"


class _Recording:
    payload = b""

    def takes(self, mapping: Any) -> bool:
        return True

    def reduce(self, payload: bytes) -> Any:
        self.payload = payload
        return serialize.load, (payload, b"")
