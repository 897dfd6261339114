"""What mori adds to schedulers, workers and nannies of Dask, and the ways to bring it there.

Each plugin can be set up more than once. Without them everything is right, by value where it must be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from distributed import Client, Nanny, Scheduler, Worker
from distributed.active_memory_manager import ReduceReplicas
from distributed.core import Status
from distributed.diagnostics.plugin import NannyPlugin, SchedulerPlugin, WorkerPlugin
from distributed.scheduler import TaskState

import mori
from mori import adapters
from mori.adapters import used
from mori_dask import autoshare, config, handshake, memory, metrics, page, scattered, spill
from mori_dask.relay import Relayed
from mori_dask.serialize import SIZE
from mori_dask.versions import Versions

if TYPE_CHECKING:  # distributed comes without types of its own
    NannyPlugin = SchedulerPlugin = WorkerPlugin = object

__all__ = ["MoriNanny", "MoriScheduler", "MoriWorker", "dask_setup", "install"]


class MoriScheduler(SchedulerPlugin):
    """Keeps replicas of shared objects, forgets the arguments of tasks that are done, shows it all."""

    name = "mori"
    idempotent = True

    def __init__(self) -> None:
        self._scheduler: Scheduler = None
        self._versions: Versions | None = None
        self._forgets = False
        self._raised: dict[Any, Relayed] = {}  # exceptions that refer to regions, by the key of their task

    def register(self, worker: str = "", said: Any = None) -> dict[str, Any]:
        """Answer a worker or client that has met mori only after it was connected."""
        stream = self._scheduler.stream_comms.get(worker)
        if stream is not None and stream.comm is not None:
            handshake.tell(stream.comm, said)
            if self._versions is not None:
                self._versions.note_worker(worker, said)
        return handshake.said(relay=True)

    async def start(self, scheduler: Scheduler) -> None:
        """Begin with what is there."""
        config.check()
        if not config.enabled():
            return
        self._scheduler = scheduler
        self._versions = Versions(scheduler)
        scheduler.handlers["mori_register"] = self.register
        scattered.keep(scheduler)
        if config.get("mori.dask.keep-replicas"):
            _keep_replicas(scheduler)
        for worker in scheduler.workers:
            self.add_worker(scheduler, worker)
        page.add(scheduler)
        metrics.add(scheduler)

    async def close(self) -> None:
        """End."""
        if self._scheduler is not None:
            metrics.remove(self._scheduler)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Meet a worker."""
        if self._versions is not None:
            self._versions.note_worker(worker, scheduler.workers[worker].metrics.get("mori"))
        self._forgets = False

    def add_client(self, scheduler: Scheduler, client: str) -> None:
        """Clear the log of messages to a new client, too, whose connection is there by the next task."""
        self._forgets = False

    def _forget_what_is_sent(self) -> None:
        """Keep connections from holding their last messages, and the references in them; Dask reads none."""
        self._forgets = True
        for stream in (*self._scheduler.stream_comms.values(), *self._scheduler.client_comms.values()):
            stream.recent_message_log = deque(maxlen=0)

    def update_graph(self, scheduler: Scheduler, *, client: str, **kwargs: Any) -> None:
        """Check the version of a client at its first graph, when it is connected and can be warned."""
        if self._versions is not None:
            self._versions.note_client(client)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Forget it."""
        if self._versions is not None:
            self._versions.forget_client(client)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Drop the arguments of a forgotten task: work stealing, and workers that are gone, keep it.

        The same for its exception, which is kept with the last message of its worker.
        """
        if not used.ever or self._scheduler is None:
            return
        if not self._forgets:
            self._forget_what_is_sent()
        if finish == "erred" and isinstance(raised := self._scheduler.tasks[key].exception, Relayed):
            self._raised[key] = raised
        elif start == "erred" and (raised := self._raised.pop(key, None)) is not None:
            raised.let_go()
        if finish == "forgotten":
            self._scheduler.tasks[key].run_spec = None

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Remove from the store what a killed worker left there: it let go of nothing."""
        if self._versions is not None:
            self._versions.forget_worker(worker)
        if adapters.needs_pruning():
            asyncio.get_running_loop().run_in_executor(None, mori.prune_shared)


class _KeepShared(ReduceReplicas):
    """Dask's policy for replicas, for what takes memory."""

    def __repr__(self) -> str:
        return f"{ReduceReplicas.__name__}()"  # Dask's log has it by this name

    def run(self) -> Generator[Any, Any, None]:
        for suggestion in super().run():
            if not _is_shared(suggestion.ts):
                yield suggestion


def _is_shared(ts: TaskState) -> bool:
    return ts.nbytes == SIZE or (ts.type or "").startswith("mori.")


def _keep_replicas(scheduler: Scheduler) -> None:
    manager = scheduler.extensions.get("amm")
    for policy in list(getattr(manager, "policies", ())):
        if type(policy) is ReduceReplicas:
            manager.policies.discard(policy)
            manager.add_policy(_KeepShared())


class MoriWorker(WorkerPlugin):
    """Measures a worker's own memory, spills references, and shares large results if that is wanted."""

    name = "mori"
    idempotent = True

    async def setup(self, worker: Worker) -> None:
        """Begin."""
        config.check()
        if not config.enabled():
            return
        memory.account(worker)
        spill.refer(worker.data)
        autoshare.begin()
        worker.metrics["mori"] = memory.report
        metrics.add(worker)
        if adapters.needs_pruning():  # the one before may have been killed
            asyncio.get_running_loop().run_in_executor(None, mori.prune_shared)
        if worker.status == Status.running:  # what is connected already has not heard of mori
            worker.rpc.collect()
            with contextlib.suppress(Exception):  # a scheduler without the plugin: by value, as before
                comm = worker.batched_stream.comm
                handshake.tell(
                    comm, await worker.scheduler.mori_register(worker=worker.address, said=handshake.said())
                )

    def teardown(self, worker: Worker) -> None:
        """End. What has been spilled stays readable."""
        memory.release(worker)
        worker.metrics.pop("mori", None)
        metrics.remove(worker)


class MoriNanny(NannyPlugin):
    """Ends a worker for what its own pages take, and not for those it shares."""

    name = "mori"
    idempotent = True

    def setup(self, nanny: Nanny) -> None:
        """Begin."""
        config.check()
        if config.enabled():
            memory.guard(nanny)

    def teardown(self, nanny: Nanny) -> None:
        """End."""
        memory.unguard(nanny)


async def dask_setup(server: Any) -> None:
    """Install the plugin of what preloads this: a scheduler, a worker or a nanny."""
    if isinstance(server, Scheduler):
        await server.register_scheduler_plugin(MoriScheduler(), idempotent=True)
    elif isinstance(server, Worker):
        await server.plugin_add(MoriWorker(), catch_errors=False)
    elif isinstance(server, Nanny):
        await server.plugin_add(MoriNanny())


def install(client: Client) -> Any:
    """Install mori in a running cluster: scheduler, workers and nannies, and those that join later.

    Idempotent. Not needed for clusters that are started from a process that has imported mori_dask, nor for
    schedulers and workers that are started with ``--preload mori_dask`` (``--preload-nanny`` for nannies).

    Parameters
    ----------
    client : distributed.Client
        The cluster's; an asynchronous one makes this a coroutine. mori has to be installed on every worker.

    Raises
    ------
    mori.SettingError
        If a key of the configuration cannot be used.

    Notes
    -----
    With ``mori.dask.enabled`` false nothing is installed. Plugins survive `Client.restart`.
    """
    config.check()
    return client.sync(_install, client)


async def _install(client: Client) -> None:
    if not config.enabled():
        return
    for plugin in (MoriScheduler(), MoriWorker(), MoriNanny()):
        await client.register_plugin(plugin)
    client.rpc.collect()
    stream = client.scheduler_comm
    if stream is not None and stream.comm is not None:
        handshake.tell(stream.comm, await client.scheduler.mori_register())
