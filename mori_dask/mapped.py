"""What the workers of a cluster have mapped: each region once, with who maps it.

It is put together from what each worker tells with its heartbeat; none is asked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from distributed import Client, Scheduler

from mori import adapters

__all__ = ["Region", "collect", "domains", "names", "regions", "told_to"]


class Region(NamedTuple):
    """A region that workers of a cluster have mapped."""

    region_id: str
    """Its id, in hexadecimal digits; `mori.regions` has the same, as bytes."""
    nbytes: int
    domain: str
    """The processes that can open each other's regions: usually a machine."""
    owner: int
    """The process that wrote it, which may be gone, or be no worker."""
    workers: tuple[str, ...]
    """The addresses of the workers that map it."""

    @property
    def saved(self) -> int:
        """Bytes that the workers would hold in addition, had each of them its own copy."""
        return self.nbytes * (len(self.workers) - 1)


def regions(client: Client) -> Any:
    """Return the regions that the workers of a cluster have mapped, the largest first.

    Parameters
    ----------
    client : distributed.Client
        The cluster's; an asynchronous one makes this a coroutine.

    Returns
    -------
    list of Region
        With region_id, nbytes, domain, owner, workers, and `saved`, in bytes. A region that lies in two
        domains (it was sent from one to the other by value) is there twice.

    Notes
    -----
    As of the last heartbeat of each worker (half a second to five), of the 500 largest regions each. Workers
    that have not installed mori tell nothing. `mori.regions` lists all regions of this machine, as of now.
    """
    return client.sync(_regions, client)


async def _regions(client: Client) -> list[Region]:
    identity = await client.scheduler.identity(n_workers=-1)
    return collect({address: worker["metrics"] for address, worker in identity["workers"].items()})


def collect(metrics: dict[str, dict[str, Any]]) -> list[Region]:
    """Put together what workers, by their address, have told."""
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    workers: dict[tuple[str, str], list[str]] = {}
    for address, told in sorted(metrics.items()):
        ours = told.get("mori")
        if not ours:
            continue
        for region_id, (nbytes, owner, *_) in ours["regions"].items():
            key = ours["domain"], region_id
            sizes[key] = nbytes, owner
            workers.setdefault(key, []).append(address)
    found = [
        Region(region_id, nbytes, domain, owner, tuple(workers[domain, region_id]))
        for (domain, region_id), (nbytes, owner) in sizes.items()
    ]
    return sorted(found, key=lambda region: -region.nbytes)


def told_to(scheduler: Scheduler) -> dict[str, dict[str, Any]]:
    """Return what the workers have told a scheduler, by their address."""
    return {address: worker.metrics for address, worker in scheduler.workers.items()}


def names(metrics: dict[str, dict[str, Any]]) -> dict[tuple[str, str], tuple[str, float]]:
    """Return name, and when it was written, by domain and id; not those of workers with an earlier mori."""
    return {
        (ours["domain"], region_id): (adapters.name_of(told[1], told[2]), told[3])
        for ours in (told.get("mori") for told in metrics.values())
        if ours
        for region_id, told in ours["regions"].items()
        if len(told) == 4
    }


class Domain(NamedTuple):
    """What the workers of a domain, usually a machine, have mapped."""

    domain: str
    workers: tuple[str, ...]
    """The addresses of those that have mori installed, with or without a region."""
    regions: int
    nbytes: int
    """Of these regions, each counted once."""
    holders: int
    """The sum of the workers that map each of them."""
    saved: int


def domains(metrics: dict[str, dict[str, Any]]) -> list[Domain]:
    """Put together what workers have told for each domain that they are in, also where nothing is mapped."""
    workers: dict[str, list[str]] = {}
    for address, told in sorted(metrics.items()):
        if ours := told.get("mori"):
            workers.setdefault(ours["domain"], []).append(address)
    found: dict[str, list[Region]] = {domain: [] for domain in workers}
    for region in collect(metrics):
        found[region.domain].append(region)
    return [
        Domain(
            domain,
            tuple(workers[domain]),
            len(mapped),
            sum(region.nbytes for region in mapped),
            sum(len(region.workers) for region in mapped),
            sum(region.saved for region in mapped),
        )
        for domain, mapped in found.items()
    ]
