"""`scatter` and `gather`: one copy a host, whoever asks for it.

On the client's host every worker is given a reference; to each other host the bytes go once, land in its
store, and are references for all other workers there.
"""

from __future__ import annotations

import asyncio
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import asynccontextmanager
from queue import Queue
from typing import Any, Final

from dask.sizeof import sizeof
from dask.tokenize import tokenize
from dask.typing import no_default
from dask.utils import parse_timedelta
from distributed import Client, Future
from distributed.metrics import time
from distributed.protocol import to_serialize
from distributed.utils import offload

import mori
from mori.adapters import identity
from mori_dask.handshake import domain, hosts_of, scheduler_keeps
from mori_dask.scattered import with_references

__all__ = ["gather", "scatter"]

_PAUSE: Final = 0.1

# What was scattered, by what the data are: while a future is there, they are scattered to its key again.
_given: Final[weakref.WeakKeyDictionary[Any, weakref.WeakValueDictionary[str, Future]]] = (
    weakref.WeakKeyDictionary()
)


def scatter(
    client: Client,
    data: Any,
    *,
    workers: Any = None,
    broadcast: bool | int = True,
    direct: bool | None = None,
    hash: bool = True,  # noqa: A002  as client.scatter calls it
    timeout: Any = no_default,
    asynchronous: bool | None = None,
) -> Any:
    """Put data into the memory of the cluster, once a host.

    Parameters
    ----------
    client : distributed.Client
        Of this thread or of an event loop; inside a task, `distributed.get_client()`.
    data : object, list, tuple, set or dict
        As for ``client.scatter``: a collection is scattered element by element, the values of a dict
        under its keys. What is not shared yet is shared first; what cannot be (numbers,
        functions) goes the way of ``client.scatter``.
    workers : str or list of str, optional
        Addresses of the workers to give it to; all by default.
    broadcast : bool or int
        True: to all workers. A number: to all workers of as many hosts, this one first. False: to all
        workers of this host, or of one host if none runs here.
    direct : bool, optional
        True: connect to the workers. False: let the scheduler pass it on, which then picks the
        workers as ``client.scatter`` has it. By default the second where the first does not work.
    hash : bool
        Whether what is scattered again has the key of the first time, as long as a future of that is
        there. Otherwise each time has a key of its own.
    timeout : number or str, optional
        Seconds to wait for workers.
    asynchronous : bool, optional
        Whether to return an awaitable; by default as the client does.

    Returns
    -------
    Future, or list, tuple, set or dict of Futures
        As the data were.

    Raises
    ------
    NotShareableError
        If a part of the data cannot be shared; it names the path.
    StoreFullError
        If there is no room.
    TimeoutError
        If no worker runs in time.

    Notes
    -----
    The data are written once into shared memory of the client's host, and go over the network once for each
    other host. The time and size of the key do not depend on the size of the data. The region lives
    until the last future is released, and a little longer (`MORI_GRACE`).

    Examples
    --------
    >>> import mori_dask
    >>> future = mori_dask.scatter(client, frame)  # doctest: +SKIP
    >>> results = client.map(work, [future] * 8, range(8))  # doctest: +SKIP
    """
    if isinstance(data, Queue | Iterator):
        raise TypeError(f"a {type(data).__name__} cannot be scattered; pass a list")
    seconds = parse_timedelta(client._timeout if timeout in (None, no_default) else timeout)
    return client.sync(
        _scatter,
        client,
        data,
        workers=[workers] if isinstance(workers, str) else workers,
        broadcast=broadcast,
        direct=direct,
        hashed=hash,
        timeout=seconds,
        asynchronous=asynchronous,
    )


def gather(
    client: Client,
    futures: Any,
    *,
    errors: str = "raise",
    direct: bool = True,
    asynchronous: bool | None = None,
) -> Any:
    """Get results from the workers themselves, shared ones of this host as references.

    Parameters
    ----------
    client : distributed.Client
        Of this thread or of an event loop.
    futures : Future, or nested list, tuple, set or dict of Futures
        What to wait for.
    errors : {"raise", "skip"}
        What to do about tasks that failed.
    direct : bool
        Whether to connect to the workers; the scheduler is asked for what they do not give.
    asynchronous : bool, optional
        Whether to return an awaitable; by default as the client does.

    Returns
    -------
    object
        The results, arranged as the futures are.

    Examples
    --------
    >>> frame = mori_dask.gather(client, future)  # doctest: +SKIP
    """
    return client.gather(futures, errors=errors, direct=direct, asynchronous=asynchronous)


async def _scatter(
    client: Any,
    data: Any,
    *,
    workers: Any,
    broadcast: bool | int,
    direct: bool | None,
    hashed: bool,
    timeout: Any,
) -> Any:
    values, back = _taken_apart(data)
    async with _beside(_hosts(client, workers, direct, timeout)) as asked:  # while it is written
        objects = {number: await offload(mori.share, value) for number, value in values.items()}
        hosts = await asked if any(map(mori.is_shared, objects.values())) else None
    names = {number: number for number in values}
    held: dict[Any, Future] = {}  # to the end: a key whose last future goes meanwhile is forgotten
    bases: dict[Any, str] = {}
    if not isinstance(data, dict):
        given = _given.setdefault(client, weakref.WeakValueDictionary())
        for number, obj in objects.items():
            bases[number] = _base(obj)
            if hashed and (future := given.get(bases[number])) is not None and not future.cancelled():
                held[number] = future
        names = {number: held[number].key if number in held else _key(bases[number]) for number in values}
    shared = {names[number]: obj for number, obj in objects.items() if mori.is_shared(obj)}
    others = {names[number]: obj for number, obj in objects.items() if not mori.is_shared(obj)}
    futures: dict[Any, Future] = {}
    if others:
        futures |= await client._scatter(
            others, workers=workers, broadcast=broadcast, direct=direct, timeout=timeout
        )
    if shared:
        await _place(client, shared, hosts, workers, broadcast, timeout)
        for key, obj in shared.items():
            futures[key] = Future(key, client)
            client.futures[key].finish(type=type(obj))
    for number, base in bases.items():
        if hashed:
            given[base] = futures[names[number]]
    return back({number: futures[names[number]] for number in values})


def _taken_apart(data: Any) -> tuple[dict[Any, Any], Any]:
    """Return the values to scatter by number or key, and what puts their futures together again."""
    if type(data) is dict:
        return data, dict
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return dict(enumerate(data)), lambda futures: type(data)(*futures.values())
    if type(data) in (list, tuple, set, frozenset, range):
        made = list if type(data) is range else type(data)
        return dict(enumerate(data)), lambda futures: made(futures.values())
    return {0: data}, lambda futures: futures[0]


def _base(obj: Any) -> str:
    """Return what the key of an object begins with: its type, and what it is."""
    name = identity(obj) if mori.is_shared(obj) else None
    return f"{type(obj).__name__}-{tokenize(obj if name is None else ('mori', name))}"


def _key(base: str) -> str:
    # Never that of a future that is gone: the scheduler may hear of its release after this, and forget both.
    return f"{base}-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, Any]) -> AsyncIterator[Awaitable[Any]]:
    """Do something beside the block, until its end at most."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


_Hosts = dict[Any, list[str]] | None
"""The workers of each host; None if they are not to be connected to."""


async def _hosts(client: Any, workers: Any, direct: bool | None, timeout: Any) -> _Hosts:
    running = await _running(client, workers, timeout)
    if direct is False:
        return None
    try:
        return await hosts_of(client, running)
    except (OSError, TimeoutError):
        if direct:
            raise
        return None


async def _place(
    client: Any, data: dict[Any, Any], hosts: _Hosts, workers: Any, broadcast: bool | int, timeout: Any
) -> None:
    message = {key: to_serialize(obj) for key, obj in data.items()}
    if hosts is None:
        await client.scheduler.scatter(
            data=message, workers=workers, client=client.id, broadcast=broadcast, timeout=timeout
        )
        return
    chosen = _chosen(hosts, broadcast)
    given = await asyncio.gather(*(_give(client, host, hosts[host], message) for host in chosen))
    holders = [worker for some in given for worker in some]
    if not holders:
        raise OSError(f"none of {sum(map(len, hosts.values()))} workers could be given the data")
    sizes = {key: sizeof(obj) for key, obj in data.items()}
    await client.scheduler.update_data(
        who_has=dict.fromkeys(data, holders),
        nbytes=with_references(sizes, data) if scheduler_keeps(client) else sizes,
        client=client.id,
    )


async def _running(client: Any, workers: Any, timeout: Any) -> list[str]:
    limit = time() + timeout
    while not (running := await client.scheduler.ncores_running(workers=workers)):
        if time() > limit:
            raise TimeoutError(f"no worker runs after {timeout} s")
        await asyncio.sleep(_PAUSE)
    return list(running)


def _chosen(hosts: dict[Any, list[str]], broadcast: bool | int) -> list[Any]:
    """Return the hosts that get the data: this one first, then those with the most workers."""
    here = domain()
    order = sorted(hosts, key=lambda host: (host != here, -len(hosts[host])))
    return order if broadcast is True else order[: max(1, int(broadcast))]


async def _give(client: Any, host: Any, workers: list[str], message: dict[Any, Any]) -> list[str]:
    """Send data to the workers of one host; return those that have it."""
    if host == domain():
        return await _update(client, workers, message)
    for number, first in enumerate(workers):  # until one has taken the bytes
        if await _update(client, [first], message):
            rest = workers[number + 1 :]
            fetched = await asyncio.gather(*(_fetch(client, worker, first, message) for worker in rest))
            return [first, *(worker for worker in fetched if worker is not None)]
    return []


async def _update(client: Any, workers: list[str], message: dict[Any, Any]) -> list[str]:
    async def update(worker: str) -> str | None:
        try:
            await client.rpc(worker).update_data(data=message)
        except OSError:  # it has just gone
            return None
        return worker

    return [worker for worker in await asyncio.gather(*map(update, workers)) if worker is not None]


async def _fetch(client: Any, worker: str, holder: str, message: dict[Any, Any]) -> str | None:
    try:
        answer = await client.rpc(worker).gather(who_has={key: [holder] for key in message})
    except OSError:
        return None
    return worker if answer["status"] == "OK" else None
