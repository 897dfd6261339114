"""What is installed in a cluster is there once, for those that join later, and after a restart."""

import asyncio

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import mori
import mori_dask
from mori_dask.plugins import MoriScheduler
from tests.mori_dask.conftest import wait_until, worker_process
from tests.mori_dask.test_paths import look

_PRELOADS = {f"distributed.{kind}.preload": [] for kind in ("scheduler", "worker", "nanny")}


def _installed(client: Client, *, nanny: bool = False) -> list[bool]:
    """Return for each worker, or nanny, whether it has the plugin and measures its own memory."""

    def look_at_worker(dask_worker):
        return "mori" in dask_worker.plugins and "get_process_memory" in vars(dask_worker.monitor)

    def look_at_nanny(dask_worker):
        callback = dask_worker.periodic_callbacks["memory_monitor"].callback
        return "mori" in dask_worker.plugins and hasattr(callback, "_mori")

    return list(client.run(look_at_nanny if nanny else look_at_worker, nanny=nanny).values())


def _plugins(client: Client) -> list[str]:
    return client.run_on_scheduler(
        lambda dask_scheduler: [
            name for name, p in dask_scheduler.plugins.items() if type(p).__name__ == "MoriScheduler"
        ]
    )


def test_a_cluster_that_was_started_from_here_has_it_installed(client: Client):
    assert _plugins(client) == ["mori"]
    assert _installed(client) == _installed(client, nanny=True) == [True] * 3
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    assert all("mori" in worker["metrics"] for worker in workers.values())


def test_dask_shows_the_code_of_its_user_and_not_what_mori_has_put_between(client: Client):
    with dask.config.set({"distributed.diagnostics.computations.nframes": 1}):
        client.submit(abs, -1, pure=False).result()
    code = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.computations[-1].code)
    shown = [frame.code for frames in code for frame in frames]
    assert len(shown) == 1
    assert test_dask_shows_the_code_of_its_user_and_not_what_mori_has_put_between.__name__ in shown[0]


def test_it_is_installed_in_a_running_cluster_once_and_stays():
    with (
        dask.config.set(_PRELOADS),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        array = mori.share(np.arange(50_000))
        assert _plugins(client) == []
        assert client.submit(look, array, pure=False).result() == (False, None, array.sum())
        for _ in range(2):
            assert mori_dask.install(client) is None
            assert _plugins(client) == ["mori"]
            assert _installed(client) == _installed(client, nanny=True) == [True]
        # What was connected before has heard of it.
        assert client.submit(look, array, pure=False).result() == (True, mori.shared_name(array), array.sum())
        cluster.scale(2)
        client.wait_for_workers(2)
        assert _installed(client) == _installed(client, nanny=True) == [True, True]
        seen = client.gather(client.map(lambda x, _: look(x), [array] * 6, range(6), pure=False))
        assert seen == [(True, mori.shared_name(array), array.sum())] * 6
        client.restart()
        assert _plugins(client) == ["mori"]
        assert _installed(client) == _installed(client, nanny=True) == [True, True]
        assert client.submit(look, array, pure=False).result()[0]
        # One that only preloads it, and has no nanny.
        with worker_process(client.scheduler.address):
            client.wait_for_workers(3)
            assert _installed(client) == [True] * 3
        wait_until(lambda: len(client.nthreads()) == 2)


def test_an_asynchronous_client_installs_it_when_it_is_awaited():
    async def main() -> tuple[list[str], list[bool]]:
        async with (
            LocalCluster(n_workers=1, processes=False, asynchronous=True, dashboard_address=":0") as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            await mori_dask.install(client)
            workers = await client.run(lambda dask_worker: "mori" in dask_worker.plugins)
            return list(cluster.scheduler.plugins), list(workers.values())

    with dask.config.set(_PRELOADS):
        plugins, workers = asyncio.run(main())
    assert "mori" in plugins
    assert workers == [True]


def test_a_wrong_value_or_what_is_not_enabled_installs_nothing(client: Client):
    with dask.config.set({"mori.dask.spill": "never"}), pytest.raises(mori.SettingError, match="spill"):
        mori_dask.install(client)
    before = client.run_on_scheduler(lambda dask_scheduler: id(dask_scheduler.plugins["mori"]))
    with dask.config.set({"mori.dask.enabled": False}):
        assert mori_dask.install(client) is None
    mori_dask.install(client)
    assert before == client.run_on_scheduler(lambda dask_scheduler: id(dask_scheduler.plugins["mori"]))
    assert MoriScheduler.idempotent
