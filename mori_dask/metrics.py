"""What Prometheus reads of shared memory, beside Dask's own: at ``/metrics`` of schedulers and workers.

Dask gives out the registry of the process, so one collector a process stands in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Final

from distributed import Scheduler, Worker

from mori_dask import mapped, memory

__all__ = ["add", "remove"]

_BY_DOMAIN: Final = {
    "mori_regions": ("regions", "Regions that workers of the domain have mapped"),
    "mori_region_bytes": ("nbytes", "Bytes of the regions that workers of the domain have mapped, each once"),
    "mori_holders": ("holders", "Workers that map a region, summed over the regions of the domain"),
    "mori_saved_bytes": ("saved", "Bytes that the workers would hold in addition, had each its own copy"),
}
_OF_A_WORKER: Final = {
    "mori_worker_regions": ("count", "Regions that this process has mapped"),
    "mori_worker_mapped_bytes": ("mapped", "Bytes of the regions that this process has mapped"),
    "mori_worker_made_bytes": ("made", "Bytes of those that this process wrote"),
}


class _Collector:
    """Collects at each scrape the metrics of the last scheduler and worker of this process, as Dask does."""

    def __init__(self) -> None:
        self.servers: dict[str, weakref.ref[Any]] = {}

    def describe(self) -> list[Any]:
        """Name nothing: the registry would else read everything at once, to see what there is."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield what there is now."""
        from prometheus_client.core import GaugeMetricFamily

        servers = {kind: server() for kind, server in list(self.servers.items())}
        if (scheduler := servers.get("scheduler")) is not None:
            domains = mapped.domains(mapped.told_to(scheduler))
            for name, (field, text) in _BY_DOMAIN.items():
                family = GaugeMetricFamily(name, text, labels=["domain"])
                for domain in domains:
                    family.add_metric([domain.domain], getattr(domain, field))
                yield family
        if (worker := servers.get("worker")) is not None:
            told = memory.report(worker)
            for name, (field, text) in _OF_A_WORKER.items():
                yield GaugeMetricFamily(name, text, value=told[field])


_collector: Final = _Collector()


def add(server: Scheduler | Worker) -> None:
    """Add a scheduler's or worker's metrics to those of Dask; does nothing without prometheus_client."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    if not _collector.servers:
        REGISTRY.register(_collector)
    _collector.servers[_kind(server)] = weakref.ref(server)


def remove(server: Scheduler | Worker) -> None:
    """Remove the metrics again, if they are this server's."""
    server_ref = _collector.servers.get(_kind(server))
    if server_ref is None or server_ref() is not server:
        return
    del _collector.servers[_kind(server)]
    if not _collector.servers:
        from prometheus_client import REGISTRY

        REGISTRY.unregister(_collector)


def _kind(server: Scheduler | Worker) -> str:
    return "scheduler" if isinstance(server, Scheduler) else "worker"
