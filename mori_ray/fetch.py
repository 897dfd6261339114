"""How a process that cannot open a region gets it: once a node, from the node that has it.

The bytes come through Ray's object store and are adopted by the store of this domain under the id that they
had, so that all processes of the node map one copy. Invariant: what is kept beyond its last use is bounded in
time and in bytes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mori import MoriError, RegionNotFoundError, adapters
from mori.adapters import Lease, Region
from mori_ray import hooks, metrics, settings
from mori_ray.errors import RegionNotFetchedError

__all__ = ["fetch", "keep"]

_LIMIT: Final = 120.0  # seconds


def _read_there(payload: bytes) -> np.ndarray[Any, Any] | None:
    """Return the bytes of the region of a reference; what a task returns is sent by value."""
    try:
        return adapters.open_region(payload).bytes()
    except RegionNotFoundError:
        return None


_read = ray.remote(num_cpus=0, max_retries=0)(_read_there)


def fetch(payload: bytes, node: bytes, name: str) -> Region:
    """Return the mapping of a region that could not be opened here: of this node's copy of it.

    Parameters
    ----------
    payload, node : bytes
        A reference, and the id of the node where it was pickled.
    name : str
        The region's.

    Returns
    -------
    Region
        Over what Ray has brought, in this process alone, where the store has no room for a copy.

    Raises
    ------
    RegionNotFetchedError
        If the node is gone, or has the region no more, or if this thread may not wait for it.
    """
    if (found := _copy_here(payload)) is not None:
        return found
    missing = partial(RegionNotFetchedError, name=name, node=node.hex())
    if not hooks.may_wait():
        raise missing(found="the thread by which Ray receives may not wait for it. Use ray.get, not await")
    with _exclusive(payload):
        if (found := _copy_here(payload)) is not None:  # another process was here before
            return found
        there = NodeAffinitySchedulingStrategy(node.hex(), soft=False)
        answer = _read.options(scheduling_strategy=there).remote(payload)
        try:
            if not ray.wait([answer], timeout=_LIMIT, fetch_local=False)[0]:
                raise missing(found=f"it has not answered for {_LIMIT:g} s")
            data = ray.get(answer)  # which takes what it takes, or fails if the node does
        except RayError as error:
            why = f"it does not answer ({type(error).__name__}). It is gone, or has just failed"
            raise missing(found=why) from None
        if data is None:
            raise missing(found="it has the region no more")
        metrics.count_fetch(memoryview(data).nbytes)
        return _adopted(payload, data)


def _copy_here(payload: bytes) -> Region | None:
    found = adapters.find_copy(payload)
    if found is not None:
        keep(found)
    return found


def _adopted(payload: bytes, data: object) -> Region:
    with contextlib.suppress(MoriError, OSError):  # no room, which is no reason to lose the task
        mapping = adapters.adopt(adapters.map_bytes_of(payload, data))
        keep(mapping)
        return mapping
    return adapters.map_bytes_of(payload, data)


def _exclusive(payload: bytes) -> AbstractContextManager[None]:
    """Keep other processes of this node from fetching the same region at once, within limits."""
    region_id, _ = adapters.reference_to_region(payload)
    return adapters.exclusive(f"fetch-{region_id[:1].hex()}", _LIMIT)  # of 256 at most that killed ones leave


class _Fetched:
    """Copies that outlast their last use here, for the next task: so many seconds, and so many bytes."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._leases: dict[bytes, tuple[float, int, Lease]] = {}  # the last used is the last

    def keep(self, mapping: Region) -> None:
        seconds, most = settings.keep_seconds(), settings.keep_nbytes()
        key, now = mapping.region_id, time.monotonic()
        with self._lock:
            used, _, held = self._leases.get(key, (-seconds, 0, mapping.lease))
            if not seconds or held is None or now - used < seconds / 10:
                return
            self._leases.pop(key, None)
            room = most - mapping.nbytes
            if room < 0:
                return
            for old, (_, nbytes, _) in reversed(list(self._leases.items())):
                room -= nbytes
                if room < 0:
                    del self._leases[old]
            self._leases[key] = now, mapping.nbytes, held
        adapters.call_later(partial(self._expire, key, now), seconds)

    def _expire(self, key: bytes, used: float) -> None:
        with self._lock:
            if self._leases.get(key, (None,))[0] == used:
                del self._leases[key]

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        self._leases.clear()
        self._lock = threading.RLock()


_fetched = _Fetched()
keep: Final[Callable[[Region], None]] = _fetched.keep

adapters.in_child(_fetched.forget)
