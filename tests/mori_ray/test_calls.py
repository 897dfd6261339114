"""Every way to call: several returns, generators, groups of threads, cancelled, on a GPU, without mori."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.exceptions import RaySystemError, TaskCancelledError, WorkerCrashedError

import mori
import mori_ray
from tests.mori_ray.conftest import connect, wait_until
from tests.mori_ray.tasks import Keeper, call, name_of
from tests.mori_ray.test_lifetime import assert_freed, let_the_grace_pass

ROWS = 100_000
SUM = float(np.arange(ROWS).sum())


def shared() -> Any:
    return mori.share(np.arange(ROWS))


def test_a_task_returns_several_names(one_node: None) -> None:
    x = shared()
    name = mori.shared_name(x)
    one, part, made = call.options(num_returns=3).remote(lambda x: (x, x[10:], mori.share(x + 1)), x)
    del x
    let_the_grace_pass()
    assert mori.shared_name(ray.get(one)) == name
    assert mori.is_shared(ray.get(part))
    assert float(ray.get(part).sum()) == SUM - 45
    del one
    let_the_grace_pass()
    assert float(ray.get(part).sum()) == SUM - 45
    assert not mori.is_shared(ray.get(made))
    del part, made  # which Ray could not make again without the argument
    assert_freed(name)


@ray.remote
class Generating:
    """Yields what it is given, on a thread or on an event loop."""

    def on_a_thread(self, x: Any) -> Iterator[Any]:
        for start in range(3):
            yield x[start:]

    async def on_a_loop(self, x: Any) -> AsyncIterator[Any]:
        for start in range(3):
            yield x[start:]


@pytest.mark.parametrize("how", ["on_a_thread", "on_a_loop"])
def test_what_a_generator_has_yielded_stays_until_it_is_dropped(how: str, one_node: None) -> None:
    x = shared()
    name = mori.shared_name(x)
    actor = Generating.remote()
    refs = list(getattr(actor, how).options(num_returns="streaming").remote(x))
    del x
    ray.wait(refs, num_returns=3, fetch_local=False)
    ray.kill(actor)
    let_the_grace_pass()
    assert [float(part.sum()) for part in ray.get(refs)] == [SUM, SUM, SUM - 1]
    del refs
    assert_freed(name)


@ray.remote(concurrency_groups={"reading": 2, "else": 1})
class Grouped:
    """Has threads for its methods, by groups."""

    @ray.method(concurrency_group="reading")
    def name(self, x: Any) -> str | None:
        return name_of(x)

    @ray.method(concurrency_group="else")
    def back(self, x: Any) -> Any:
        return x


def test_groups_of_threads_get_references_and_what_they_return_is_right(one_node: None) -> None:
    x = shared()
    name = mori.shared_name(x)
    actor = Grouped.remote()
    refs = [actor.back.remote(x) for _ in range(4)]
    assert ray.get([actor.name.remote(x) for _ in range(4)]) == [name] * 4
    del x
    ray.wait(refs, num_returns=4)
    ray.kill(actor)
    let_the_grace_pass()
    assert [float(back.sum()) for back in ray.get(refs)] == [SUM] * 4
    del refs
    assert_freed(name)


def test_what_is_waited_for_without_being_fetched_is_there(one_node: None) -> None:
    x = shared()
    name = mori.shared_name(x)
    refs = [ray.put(x), call.remote(shared), mori_ray.put(x)]
    del x
    ready, rest = ray.wait(refs, num_returns=3, fetch_local=False)
    let_the_grace_pass()
    assert not rest
    assert [float(back.sum()) for back in ray.get(ready)] == [SUM] * 3
    del refs, ready
    assert_freed(name)


@pytest.mark.parametrize("force", [False, True], ids=["asked", "killed"])
def test_a_task_that_is_cancelled_frees_its_region(force: bool, tmp_path: Path, one_node: None) -> None:
    def busy(x: Any, path: Path) -> None:
        path.touch()
        while x is not None:
            time.sleep(0.01)

    runs, queued = shared(), shared()
    names = mori.shared_name(runs), mori.shared_name(queued)
    task = call.options(num_cpus=2, max_retries=0)
    refs = [task.remote(busy, runs, tmp_path / "runs"), task.remote(busy, queued, tmp_path / "queued")]
    del runs, queued
    wait_until((tmp_path / "runs").exists)
    for ref in reversed(refs):
        ray.cancel(ref, force=force)
        with pytest.raises((TaskCancelledError, WorkerCrashedError)):
            ray.get(ref, timeout=20)
    assert not (tmp_path / "queued").exists()
    del refs, ref
    for name in names:
        assert_freed(name)


def test_a_detached_actor_has_what_its_driver_has_dropped(one_node: None) -> None:
    x = shared()
    name = mori.shared_name(x)
    namespace = "tests of mori"
    Keeper.options(name="kept", namespace=namespace, lifetime="detached").remote(x)
    del x
    actor = ray.get_actor("kept", namespace)
    assert ray.get(actor.call.remote(name_of)) == name
    let_the_grace_pass()
    assert ray.get(actor.call.remote(np.sum)) == SUM
    ray.kill(actor)
    assert_freed(name)


def test_the_worker_of_a_gpu_ends_though_it_has_returned_objects(no_ray: None) -> None:
    ray.init(
        address="local",
        num_cpus=1,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=80 << 20,
        logging_level="ERROR",
        log_to_driver=False,
    )

    @ray.remote(num_gpus=1)  # and so max_calls=1: while a worker stays, so does its memory there
    def compute(x: Any) -> tuple[int, Any, Any]:
        return os.getpid(), x, mori.share(x + 1)

    x = shared()
    name = mori.shared_name(x)
    ref = compute.remote(x)
    del x
    pid = ray.get(ref)[0]
    wait_until(lambda: not psutil.pid_exists(pid), 30)
    _, back, made = ray.get(ref)
    assert mori.shared_name(back) == name
    assert float(made.sum()) == SUM + ROWS
    del back, ref
    assert_freed(name)


WITHOUT_MORI = """
    import sys

    class Nowhere:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("mori", "mori_ray"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Nowhere())
"""


def test_a_worker_without_mori_says_which_module_it_lacks(tmp_path: Path, no_ray: None) -> None:
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(WITHOUT_MORI))
    connect()

    @ray.remote(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}}, max_retries=0)
    def total(x: Any) -> float:
        return float(x.sum())

    x = shared()
    name = mori.shared_name(x)
    for argument, module in ((x, "mori_ray"), (mori_ray.put(x), "mori")):
        with pytest.raises(RaySystemError, match=f"No module named '{module}'"):
            ray.get(total.remote(argument), timeout=30)
    assert ray.get(total.remote(np.arange(ROWS))) == SUM
    del x, argument
    assert_freed(name)


def test_objects_in_the_layout_of_mori_are_spilled_and_restored(no_ray: None, tmp_path: Path) -> None:
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80 << 20,
        object_spilling_directory=str(tmp_path),
        logging_level="ERROR",
        log_to_driver=False,
    )

    def read(x: Any) -> tuple[float, str]:
        return float(x["a"].sum()), x["words"][999]

    words = [f"word {i}" for i in range(1000)]
    refs = [mori_ray.put({"a": np.full(4 << 20, i, np.float32), "words": words}) for i in range(10)]
    wait_until(lambda: sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > 64 << 20)
    for i, ref in enumerate(refs):
        assert read(ray.get(ref)) == (i * float(4 << 20), "word 999")
    assert ray.get([call.remote(read, ref) for ref in refs]) == [
        (i * float(4 << 20), "word 999") for i in range(10)
    ]
