"""A real Ray for the tests of mori_ray: one node, two workers, started when it is first asked for."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # before ray is imported
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"

import psutil
import pytest
import ray
from ray._private import serialization

from mori import store as stores
from mori.memory import lease
from mori_ray import lifetime

ROOT = Path(__file__).parents[2]
GRACE = 0.2
_CURRENT = Path("/tmp/ray/ray_current_cluster")  # left by a Cluster that was not shut down


@pytest.fixture(scope="session")
def _environment() -> Iterator[None]:
    """What Ray's processes inherit: mori and these tests can be imported, and graces are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("MORI_GRACE", str(GRACE))
        patch.delenv("MORI_STORE", raising=False)
        yield
        ray.shutdown()


def connect(**options: Any) -> None:
    """Start Ray with one node of two processors."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        logging_level="ERROR",
        log_to_driver=False,
        **options,
    )


@pytest.fixture
def one_node(_environment: None) -> None:
    """Ray on one node, the same one for all tests that do not end it."""
    if not ray.is_initialized():
        connect()


@pytest.fixture
def no_ray(_environment: None) -> Iterator[None]:
    """Ray is not connected, and whatever the test connects to is ended."""
    ray.shutdown()
    yield
    end()


def end(cluster: Any = None) -> None:
    """End Ray, and a cluster of several nodes."""
    ray.shutdown()
    if cluster is not None:
        cluster.shutdown()
    with contextlib.suppress(FileNotFoundError):
        _CURRENT.unlink()


def regions() -> set[str]:
    """Return the regions that this process, Ray's or its workers hold."""
    me = psutil.Process()
    family = {me.pid, *(child.pid for child in me.children(recursive=True))}
    return {entry.name for entry in stores.current().entries() if family & {*entry.holders}}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a region, in this process or in a worker, or something that Ray still needs.

    Threads, descriptors and children are Ray's.
    """
    monkeypatch.setenv("MORI_GRACE", str(GRACE))
    before, failed = regions(), request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        return  # its traceback holds what it had
    wait_until(lambda: not regions() - before)
    found = lifetime.session()
    wait_until(lambda: found is None or not found._leases)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each object that Ray pickles here."""
    seen: list[int] = []
    plain = serialization.Pickle5SerializedObject

    def counted(metadata: Any, inband: bytes, writer: Any, refs: Any) -> Any:
        made = plain(metadata, inband, writer, refs)
        seen.append(made.total_bytes)
        return made

    monkeypatch.setattr(serialization, "Pickle5SerializedObject", counted)
    return seen


def wait_until(condition: Callable[[], object], seconds: float = 10, *, end_graces: bool = True) -> None:
    """Wait for a condition; fail after a limit. Regions have no grace meanwhile, unless it is asked for."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"still not so after {seconds} s"
        time.sleep(0.02)
        gc.collect()
        if end_graces:
            lease.expire_graces()
