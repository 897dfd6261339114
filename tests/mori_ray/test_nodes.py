"""Several nodes: each fetches a region once, from its home, and keeps it for a while."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mori
import mori_ray
from mori import adapters, store
from mori.memory import lease
from mori.wire import reference, transport
from mori_ray import fetch, serialize
from tests import stored
from tests.mori_ray.conftest import ROOT, end, wait_until
from tests.mori_ray.tasks import (
    AsyncKeeper,
    Keeper,
    call,
    mapped,
    name_of,
    watch_metrics,
    watched_metrics,
)

KEEP = 1.5  # seconds
ARRAY = np.arange(300_000.0)
SUM = float(ARRAY.sum())


class Nodes(NamedTuple):
    """Nodes that cannot open each other's regions; the driver is on the first."""

    cluster: Any
    here: str
    there: str
    stores: Path

    def files(self, name: str = "two") -> list[str]:
        return [label for label in stored.names(self.stores / name) if not label.endswith(".draft")]


@pytest.fixture(scope="module")
def cluster(_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    ray.shutdown()
    root = tmp_path_factory.mktemp("stores")
    for name in ("one", "two"):
        (root / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORI_RAY_KEEP", str(KEEP))
        patch.setenv("MORI_STORE", f"files:{root / 'one'}")
        head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            patch.setenv("MORI_STORE", f"files:{root / 'two'}")
            other = made.add_node(num_cpus=2, object_store_memory=100 << 20)
            patch.setenv("MORI_STORE", f"files:{root / 'one'}")
            ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
            yield Nodes(made, ray.get_runtime_context().get_node_id(), other.node_id, root)
        finally:
            end(made)


@pytest.fixture
def nodes(cluster: Nodes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("MORI_STORE", f"files:{cluster.stores / 'one'}")
    yield cluster
    wait_until(lambda: not cluster.files("one") + cluster.files("two"))


def on(node: str) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def test_a_node_fetches_a_region_once_and_all_its_workers_map_it(nodes: Nodes) -> None:
    frame = pd.DataFrame({"a": ARRAY, "s": pd.array(["x", "y", "z"] * 100_000, dtype="str")})
    x, f = mori.share([ARRAY, "two"]), mori.share(frame)

    def look(xs: Any, f: Any) -> Any:
        x, part = xs
        paths = [stored.home() / name[1:] for name in sorted(mapped())]
        inodes = [os.stat(path).st_ino for path in paths]
        return mori.is_shared(x), float(x[0].sum()), float(part.sum()), f["s"][4], name_of(f), inodes

    keepers = [Keeper.options(scheduling_strategy=on(nodes.there)).remote() for _ in range(2)]
    ray.get([keeper.call.remote(lambda kept: kept) for keeper in keepers])
    ray.get([keeper.keep.remote([[x, x[0][7:]], f]) for keeper in keepers])  # both at once
    one, other = ray.get([keeper.call.remote(lambda kept: look(*kept)) for keeper in keepers])
    assert one[:4] == (True, SUM, SUM - 21, "y")
    assert one == other
    assert one[4] != mori.shared_name(f)  # a copy, under a name of its own
    assert len(nodes.files()) == 2
    there = call.options(scheduling_strategy=on(nodes.there))
    assert ray.get(there.remote(look, [x, x[0][7:]], f)) == one
    ray.get([keeper.keep.remote(None) for keeper in keepers])
    wait_until(lambda: not nodes.files())  # their time is over, while the regions and the workers go on
    for node in nodes[1:3]:
        found = ray.get(call.options(scheduling_strategy=on(node)).remote(look, [x, x[0][7:]], f))
        assert found[:4] == one[:4]


def test_what_is_in_rs_layout_goes_to_another_node_by_value(nodes: Nodes) -> None:
    x = mori.share(pd.DataFrame({"a": ARRAY, "s": ["x", None, "z"] * 100_000}), layout="r")

    def look(f: Any) -> Any:
        return float(f["a"].sum()), f["s"].tolist()[2]

    for node in nodes[1:3]:
        assert ray.get(call.options(scheduling_strategy=on(node)).remote(look, x)) == (SUM, "z")


def _source(x: Any) -> str | None:
    from mori.memory import mapping as mappings

    found = mappings.held_by(np.asarray(x))
    return None if found is None else found.source


def test_a_file_is_opened_by_its_path_on_another_node_that_has_it(nodes: Nodes, tmp_path: Path) -> None:
    mori.save(ARRAY, tmp_path / "x.mori")
    there = NodeAffinitySchedulingStrategy(nodes.there, soft=False)
    source = ray.get(call.options(scheduling_strategy=there).remote(_source, mori.load(tmp_path / "x.mori")))
    assert source == str(tmp_path / "x.mori")
    assert nodes.files() == []


def test_a_fetch_is_counted_in_rays_metrics(nodes: Nodes) -> None:
    x = mori.share(ARRAY)
    keeper = Keeper.options(scheduling_strategy=on(nodes.there)).remote()
    ray.get(keeper.call.remote(watch_metrics))
    for _ in range(2):
        assert ray.get(keeper.call.remote(lambda kept, x: float(x.sum()), x)) == SUM
    counted = ray.get(keeper.call.remote(watched_metrics))
    (nbytes,) = [entry.nbytes for entry in mori.regions() if entry.name == mori.shared_name(x)]
    assert [(name, value) for name, value, _ in counted if name.startswith("mori_fetch")] == [
        ("mori_fetches", 1),
        ("mori_fetched_bytes", nbytes),
    ]


def test_a_home_that_does_not_answer_is_not_waited_for_without_end(nodes: Nodes) -> None:
    keeper = Keeper.options(scheduling_strategy=on(nodes.there)).remote()
    payload = ray.get(keeper.call.remote(_share_and_keep))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "_LIMIT", 1e-9)
        with pytest.raises(mori_ray.RegionNotFetchedError, match="it has not answered for 1e-09 s"):
            len(serialize.load(payload, bytes.fromhex(nodes.there)))
    assert float(serialize.load(payload, bytes.fromhex(nodes.there)).sum()) == SUM


def test_nodes_that_share_a_store_keep_no_copies(nodes: Nodes) -> None:
    x = mori.share(ARRAY)
    payload = payload_of(x)

    def is_copy(theirs: Any, payload: bytes) -> bool:
        return adapters.is_copy(payload, reference.open_region(payload))

    assert not is_copy(x, payload)
    for node, expected in ((nodes.here, False), (nodes.there, True)):
        assert ray.get(call.options(scheduling_strategy=on(node)).remote(is_copy, x, payload)) is expected
    name, other = mori.shared_name(x), bytes.fromhex(nodes.there)
    held = serialize.load(payload, other)  # as from another node of this host
    assert mori.shared_name(held) == name
    assert not fetch._fetched._leases


def test_an_argument_for_another_node_needs_nothing_of_the_driver(nodes: Nodes) -> None:
    there = call.options(scheduling_strategy=on(nodes.there))
    refs = [there.remote(lambda x: float(x[0].sum()), mori.share([ARRAY, i])) for i in range(3)]
    assert ray.get(refs) == [SUM] * 3


def test_a_copy_is_passed_on_from_the_node_where_it_is(nodes: Nodes) -> None:
    x = mori.share(ARRAY)

    def pass_on(x: Any, here: str, there: str) -> list[Any]:
        tasks = [call.options(num_cpus=0, scheduling_strategy=on(node)) for node in (here, there)]
        return [name_of(x), *ray.get([task.remote(name_of, x) for task in tasks])]

    names = call.options(scheduling_strategy=on(nodes.there)).remote(pass_on, x, *nodes[1:3])
    copy, at_home, again = ray.get(names)
    assert at_home == mori.shared_name(x)
    assert copy == again != at_home


def test_what_goes_to_several_nodes_by_value(nodes: Nodes) -> None:
    x, small = mori.share(ARRAY), mori.share(np.arange(1000))
    there = on(nodes.there)
    is_shared = call.options(scheduling_strategy=there).remote(mori.is_shared, small)
    assert not ray.get(is_shared), "what Ray sends along with the task need not be fetched"
    loop = AsyncKeeper.options(scheduling_strategy=there).remote(x)
    look = loop.call.remote(lambda x: (mori.is_shared(x), float(x.sum())), x)
    assert ray.get(look) == (False, SUM), "an event loop is not kept waiting"
    for back in ray.get([ray.put(x), call.options(scheduling_strategy=there).remote(lambda x: x, x)]):
        assert not mori.is_shared(back)
        np.testing.assert_array_equal(back, ARRAY)
    made = call.options(scheduling_strategy=there).remote(lambda: mori.share({"a": np.arange(1 << 16)}))
    assert int(ray.get(made)["a"][-1]) == (1 << 16) - 1


def test_a_task_stays_near_its_data(nodes: Nodes) -> None:
    x = mori.share(ARRAY)
    near = mori_ray.near(x)
    assert isinstance(near, NodeAffinitySchedulingStrategy)
    assert (near.node_id, near.soft) == (nodes.here, True)
    where = lambda *_: ray.get_runtime_context().get_node_id()  # noqa: E731
    assert (
        ray.get([call.options(scheduling_strategy=near).remote(where, x) for _ in range(3)])
        == [nodes.here] * 3
    )
    assert ray.get(call.options(scheduling_strategy=on(nodes.there)).remote(_near_there, x)) == nodes.there
    assert mori_ray.near(ARRAY) == "DEFAULT"


def _near_there(x: Any) -> Any:
    near = mori_ray.near(x)
    assert isinstance(near, NodeAffinitySchedulingStrategy)
    return near.node_id


class Late:
    """A reference that is opened wherever it arrives, as one sent before there were other nodes."""

    def __init__(self, payload: bytes, home: str) -> None:
        self.payload = payload
        self.home = bytes.fromhex(home)

    def __reduce__(self) -> Any:
        return serialize.load, (self.payload, self.home)


class _Recording:
    payload = b""

    def accepts(self, mapping: Any) -> bool:
        return True

    def reduce(self, payload: bytes) -> Any:
        self.payload = payload
        return str, ("",)


def payload_of(x: Any) -> bytes:
    way = _Recording()
    with transport.use_transport(way):
        x.__reduce_ex__(5)
    return way.payload


def test_the_thread_by_which_ray_receives_does_not_wait(nodes: Nodes) -> None:
    x = mori.share(ARRAY)
    ref = ray.put([Late(payload_of(x), nodes.here)])

    @ray.remote
    class Awaiting:
        async def look(self, refs: list[Any]) -> tuple[str, float]:
            (lost,) = await refs[0]
            with pytest.raises(mori_ray.RegionNotFetchedError) as caught:
                lost.sum()
            return str(caught.value), float(ray.get(refs[0])[0].sum())

    text, total = ray.get(Awaiting.options(scheduling_strategy=on(nodes.there)).remote().look.remote([ref]))
    assert "Use ray.get, not await" in text
    assert total == SUM


def test_a_home_that_ends_takes_its_regions_with_it_and_that_is_said(nodes: Nodes, tmp_path: Path) -> None:
    x = mori.share(ARRAY)
    lost, payload = mori.shared_name(x), payload_of(x)
    del x
    wait_until(lambda: not nodes.files("one"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MORI_STORE")
        gone = nodes.cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    home = Keeper.options(scheduling_strategy=on(gone.node_id)).remote()
    made = ray.get(home.call.remote(_share_and_keep))
    home_pid = ray.get(home.call.remote(lambda _: os.getpid()))
    there = call.options(scheduling_strategy=on(nodes.there), max_retries=0)

    def define() -> Any:
        captured = mori.share(ARRAY)
        return ray.remote(lambda: float(captured.sum()))

    # The copy lands in a store of another kind; what functions capture stays with the workers of the node.
    function = define()
    assert ray.get(function.options(scheduling_strategy=on(gone.node_id)).remote()) == SUM
    session = serialize.lifetime.session()
    assert session is not None
    session._captured.clear()
    del function

    # Ray makes a value again that was lost with its node, from the argument that nobody else has.
    anywhere = call.options(scheduling_strategy=NodeAffinitySchedulingStrategy(gone.node_id, soft=True))
    again = anywhere.remote(_make, mori.share(ARRAY), tmp_path / "ran")
    ray.wait([again], fetch_local=False)

    ray.kill(home)
    del home
    nodes.cluster.remove_node(gone)
    wait_until(lambda: not psutil.pid_exists(home_pid))
    assert ray.get(again, timeout=40)[-1] == SUM
    assert len((tmp_path / "ran").read_text().split()) == 2
    del again
    for late, found in (
        (
            Late(payload, nodes.here),
            f"{lost} could not be fetched from its Ray node {nodes.here}: it has the",
        ),
        (Late(made, gone.node_id), f"from its Ray node {gone.node_id}: it does not answer"),
    ):
        with pytest.raises(mori_ray.RegionNotFetchedError, match=found) as caught:
            ray.get(there.remote(lambda x: x.sum(), late))
        assert "share it again where it is needed" in str(caught.value.cause)


def _make(x: Any, path: Path) -> Any:
    with path.open("a") as file:
        file.write(f"{ray.get_runtime_context().get_node_id()}\n")
    return np.full(1 << 17, x.sum())


def _share_and_keep(_: Any) -> bytes:
    global _kept
    _kept = mori.share(ARRAY)
    return payload_of(_kept)


_kept: Any = None


@pytest.fixture
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_RAY_KEEP", "30")
    monkeypatch.setenv("MORI_RAY_KEEP_BYTES", "20000")


def _names() -> set[str]:
    return {entry.name for entry in store.current().entries() if os.getpid() in entry.holders}


def test_what_is_kept_is_bounded_and_the_last_used_stays(few_bytes: None) -> None:
    kept, before = fetch._Fetched(), _names()
    small = [mori.share(np.arange(1000) + i) for i in range(3)]
    large = mori.share(np.arange(3000))
    names = [name_of(x) for x in small]
    for x in (*small, large):
        kept.keep(reference.open_region(payload_of(x)))
    del x, small, large
    wait_until(lambda: _names() - before == {names[1], names[2]})
    lease.expire_graces()  # as for want of room
    wait_until(lambda: _names() == before)


def test_a_child_that_is_forked_keeps_no_copies(few_bytes: None) -> None:
    x = mori.share(np.arange(1000))
    name = name_of(x)
    fetch.keep(reference.open_region(payload_of(x)))
    del x
    assert name in _names()
    into, out = os.pipe()
    if not (child := os.fork()):
        os.write(out, f"{len(fetch._fetched._leases)} {name in _names()}".encode())
        os._exit(0)
    assert os.read(into, 20) == b"0 False"
    os.waitpid(child, 0)
    os.close(into)
    os.close(out)
    assert name in _names()
    lease.expire_graces()
    wait_until(lambda: name not in _names())


def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mori.share(np.arange(10))
    for setting in ("MORI_RAY_KEEP", "MORI_RAY_KEEP_BYTES"):
        monkeypatch.setenv(setting, "much")
        with pytest.raises(mori.SettingError, match=f"{setting}='much' cannot be used"):
            fetch._Fetched().keep(reference.open_region(payload_of(x)))
        monkeypatch.delenv(setting)


def test_where_the_store_has_no_room_what_ray_has_brought_is_used() -> None:
    before = _names()
    x = mori.share(ARRAY)
    payload = payload_of(x)
    data = np.array(reference.open_region(payload).bytes())
    del x
    lease.expire_graces()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        mapping = fetch._adopted(payload, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not mapping.shared
    np.testing.assert_array_equal(reference.load_from(mapping, payload), ARRAY)
    assert _names() == before


@pytest.mark.timeout(180)
def test_tasks_of_a_node_whose_raylet_is_killed_are_served_on_another(no_ray: None, tmp_path: Path) -> None:
    head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        doomed = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

        def look(x: Any, started: Path, gate: Path | None) -> Any:
            started.touch()
            while gate is not None and not gate.exists():
                time.sleep(0.02)
            return os.getpid(), ray.get_runtime_context().get_node_id(), mori.shared_name(x), float(x.sum())

        x = mori.share(ARRAY)
        name = mori.shared_name(x)
        running = call.remote(look, x, tmp_path / "running", tmp_path / "gate")
        queued = [call.remote(look, x, tmp_path / f"queued {i}", None) for i in range(3)]
        del x
        wait_until((tmp_path / "running").exists, 60)
        (raylet,) = doomed.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)
        wait_until(lambda: raylet.process.poll() is not None, 30)
        lease.expire_graces()  # nothing but Ray's own counting keeps the region now
        other = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        (tmp_path / "gate").touch()
        for _, node, found, total in ray.get([running, *queued], timeout=120):
            assert (node, found, total) == (other.node_id, name, SUM)
        del running, queued
        wait_until(lambda: name not in {entry.name for entry in store.current().entries()}, 30)
    finally:
        end(cluster)


@pytest.mark.timeout(120)
def test_a_driver_whose_raylet_is_killed_keeps_its_objects_and_leaves_nothing(
    no_ray: None, tmp_path: Path
) -> None:
    script = """
        import os, signal, sys, mori, mori_ray, numpy as np, ray
        ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20,
                 logging_level="ERROR", log_to_driver=False)
        @ray.remote
        def look(x):
            return float(x.sum())
        print(ray._private.worker._global_node.get_logs_dir_path(), flush=True)
        x = mori.share(np.arange(1000))
        put = ray.put(mori.share(np.arange(2000)))
        assert ray.get(look.remote(x)) == 499500
        queued = [look.remote(mori.share(np.arange(i + 1))) for i in range(20)]
        (raylet,) = ray._private.worker._global_node.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)
        raylet.process.wait()
        try:  # a worker that has its lease still may answer
            ray.get(look.remote(x), timeout=5)
        except ray.exceptions.RayError:
            pass
        name = mori.shared_name(x)
        print(float(x.sum()), float(mori.map_shared(name).sum()), flush=True)
    """
    home, output = tmp_path / "store", tmp_path / "output"
    home.mkdir()

    def is_empty() -> bool:
        store.files.FilesStore(str(home)).prune()
        return not stored.names(home)

    try:
        with output.open("w") as file:
            driver = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(script)],
                env={**os.environ, "PYTHONPATH": str(ROOT), "MORI_STORE": f"files:{home}"},
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=100,
                check=False,
            )
        assert "499500.0 499500.0" in output.read_text(), f"the driver ended with {driver.returncode}"
        wait_until(is_empty, 30)
    finally:  # shown where the test fails: Ray ends a process silently, and says why in its log alone
        sys.stdout.write(said := output.read_text())
        for log in Path(said.partition("\n")[0] or tmp_path).glob("python-core-driver-*"):
            sys.stdout.write(f"{log}\n{log.read_text()[-4000:]}")
