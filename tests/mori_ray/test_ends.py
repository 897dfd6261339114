"""Workers, actors and drivers that end, in every way: what they have returned stays, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

import mori
from mori.store.files import FilesStore
from tests import stored
from tests.killing import kills
from tests.mori_ray.conftest import ROOT, wait_until
from tests.mori_ray.tasks import Keeper, call, call_once
from tests.mori_ray.test_lifetime import assert_freed, is_gone

ROWS = 100_000
SUM = float(np.arange(ROWS).sum())


def made() -> tuple[int, str | None, Any]:
    x = mori.share([np.arange(ROWS), "two"])
    return os.getpid(), mori.shared_name(x), x


def assert_made(ref: Any, pid: int) -> None:
    wait_until(lambda: not psutil.pid_exists(pid), 30)
    _, name, back = ray.get(ref)
    assert name is not None
    assert is_gone(name), "it must not depend on the worker"
    assert float(back[0].sum()) == SUM
    assert back[1] == "two"


def test_what_an_actor_returns_outlives_an_actor_that_nobody_has_any_more(one_node: None) -> None:
    keeper = Keeper.remote()
    pid = ray.get(keeper.call.remote(lambda kept: os.getpid()))
    ref = keeper.call.remote(lambda kept: made())
    del keeper
    assert_made(ref, pid)


def test_what_a_task_returns_does_not_keep_a_worker_of_a_single_call(one_node: None) -> None:
    # So are the workers of tasks with a GPU: while one stays, so does its memory there.
    ref = call_once.remote(made)
    pid = ray.get(ref)[0]
    assert_made(ref, pid)
    x = mori.share(np.arange(ROWS))
    ref = call_once.remote(lambda x: (os.getpid(), x), x)
    pid, back = ray.get(ref)
    assert mori.shared_name(back) == mori.shared_name(x)
    wait_until(lambda: not psutil.pid_exists(pid), 30)


def test_what_a_task_returns_outlives_a_worker_that_is_killed(one_node: None) -> None:
    ref = call.remote(made)
    pid = ray.get(ref)[0]
    os.kill(pid, signal.SIGKILL)
    assert_made(ref, pid)


def test_what_a_worker_has_put_ends_with_it_as_ray_has_it(one_node: None) -> None:
    def put() -> tuple[int, str | None, list[Any]]:
        pid, name, x = made()
        return pid, name, [ray.put(x)]

    pid, name, (ref,) = ray.get(call.remote(put))
    assert float(ray.get(ref)[0].sum()) == SUM
    os.kill(pid, signal.SIGKILL)
    assert_freed(name)
    wait_until(lambda: not psutil.pid_exists(pid))
    with pytest.raises((ray.exceptions.OwnerDiedError, mori.RegionNotFoundError)):
        ray.get(ref, timeout=20)[0]


def test_an_actor_that_is_restarted_gets_what_its_driver_still_has(one_node: None) -> None:
    x = mori.share(np.arange(ROWS))
    keeper = Keeper.options(max_restarts=1, max_task_retries=2).remote(x)
    pid = ray.get(keeper.call.remote(lambda kept: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    again, name = ray.get(keeper.call.remote(lambda kept: (os.getpid(), mori.shared_name(kept))))
    assert again != pid
    assert name == mori.shared_name(x)


def test_a_driver_that_is_killed_leaves_nothing_that_is_not_found(no_ray: None, tmp_path: Path) -> None:
    script = """
        import os, signal, sys, time, mori, mori_ray, numpy as np, ray
        from tests import stored
        ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20,
                 logging_level="ERROR", log_to_driver=False)
        @ray.remote
        class Keeper:
            def __init__(self, x):
                self.x = x
            def pid(self, *args):
                return os.getpid()
        x = mori.share(np.arange(1000))
        keeper = Keeper.remote(x)
        put = ray.put(mori.share(np.arange(2000)))
        print(ray.get(keeper.pid.remote(put)), len(stored.names(sys.argv[1])), flush=True)
        queued = [keeper.pid.remote(mori.share(np.arange(i))) for i in range(100)]
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MORI_STORE": f"files:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, regions = map(int, done.stdout.split())
    assert regions == 2
    wait_until(lambda: not psutil.pid_exists(pid), 30)  # Ray ends its workers

    def is_empty() -> bool:
        FilesStore(str(tmp_path)).prune()
        return not stored.names(tmp_path)

    wait_until(is_empty)


@pytest.mark.slow
def test_workers_are_killed_at_random_and_every_value_is_right() -> None:
    kills(10, "ray")
