"""What connects mori to an engine: the contract for those who write an adapter, as mori_dask and mori_ray do.

An engine sends objects between processes. To each of them mori is a class that pickles as a reference or as
bytes; which of the two, only the engine knows, since a reference is good where the receiver can open the
region, and for as long as somebody keeps that alive. An adapter says so by a `Transport`, and keeps leases.
docs/adapters.md has a whole one.

Pickling
    `use_transport` chooses how what is pickled inside goes; `Transport` decides for each region, and sees
    each reference. `is_by_value` and `is_transport_set` tell what was chosen.
Opening
    `load` opens a reference. Where it cannot it raises; inside `use_lost_objects` it returns a `Lost` object,
    of which `losses` keeps count.
    `open_region`, `load_from` and `memory_of` do it in steps, for those who get at the region in their own
    ways.
Keeping
    A `Lease` keeps a region alive; `lease_of` gives that of a reference, a `Region` has its own.
Bytes
    `map_bytes` opens bytes that came from elsewhere, `map_bytes_of` those of a reference's region; `adopt`
    puts them into this host's store, once a host, and `on_receive` has that done with all that arrives.

Everything here may be called on any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from mori import api, settings, store
from mori._fork import in_child
from mori.errors import readable_size
from mori.format.origins import node_of
from mori.format.origins import watch as watch_classes
from mori.memory.grace import call_later
from mori.memory.lease import Lease
from mori.memory.mapping import Mapping as Region
from mori.memory.mapping import address_of, live, map_bytes, used
from mori.memory.mapping import held_by as region_of
from mori.memory.region import adopt
from mori.memory.region import find_copy as find_region_copy
from mori.store import locks
from mori.store.base import FILES, MEMFD, Name, format_name
from mori.store.processes import announce
from mori.wire import picklers
from mori.wire.lost import Lost, losses
from mori.wire.picklers import reduce_array
from mori.wire.reference import (
    identity,
    lease_of,
    load,
    load_from,
    map_bytes_of,
    memory_of,
    on_receive,
    open_region,
    refer_to_memory,
    reference_to_region,
    use_lost_objects,
    where_of,
)
from mori.wire.transport import (
    LeasingTransport,
    Transport,
    TransportLike,
    is_by_value,
    transport_var,
    use_transport,
)
from mori.wire.transport import is_set as is_transport_set

__all__ = [
    "Lease",
    "LeasingTransport",
    "Lost",
    "Region",
    "Transport",
    "TransportLike",
    "add_settings",
    "address_of",
    "adopt",
    "announce",
    "array_classes",
    "call_later",
    "container_classes",
    "domain",
    "exclusive",
    "find_copy",
    "free_bytes",
    "identity",
    "in_child",
    "is_by_value",
    "is_copy",
    "is_opened",
    "is_transport_set",
    "lease_of",
    "live_regions",
    "load",
    "load_from",
    "losses",
    "map_bytes",
    "map_bytes_of",
    "memory_of",
    "name_of",
    "nbytes_of",
    "needs_pruning",
    "on_receive",
    "open_region",
    "own_directory",
    "readable_size",
    "reduce_array",
    "reduce_opened",
    "refer_to_memory",
    "reference_to_region",
    "region_of",
    "transport_var",
    "use_lost_objects",
    "use_transport",
    "used",
    "watch_classes",
]

add_settings: Final[Callable[[settings.Source], None]] = settings.add_source

_domains: Final[dict[int, str]] = {}
in_child(_domains.clear)


def domain() -> str:
    """Return the name of the set of processes that can open the regions that this one creates."""
    here = store.current()
    if here.kind != MEMFD:
        return here.domain()
    # Engines ask for each message. A process with threads stays in its namespaces; a fork of it may not.
    user = os.geteuid()
    if user not in _domains:
        _domains[user] = here.domain()
    return _domains[user]


def free_bytes() -> int:
    """Return the bytes that a new region may have in this store."""
    return store.current().free()


def own_directory() -> str:
    """Return a directory that this user's processes of this domain have in common, and no other user."""
    return locks.make_directory(store.directory())


def exclusive(name: str, seconds: float) -> AbstractContextManager[None]:
    """Keep this user's other processes, and threads, from doing the same; wait so long at most."""
    return locks.exclusive(store.directory(), name, seconds)


def needs_pruning() -> bool:
    """Return whether killed processes leave regions in this store, for `mori.prune_shared` to remove."""
    return store.current().kind == FILES


def live_regions() -> list[Region]:
    """Return the regions that this process has mapped, and that others can open."""
    return [region for region in live() if region.shared]


def name_of(pid: int, number: int) -> str:
    """Return the name of the region that a process made as its `number`-th."""
    return format_name(Name(pid, number))


def nbytes_of(obj: Any) -> int | None:
    """Return the bytes that a shared object has in its region, which is not read; None for others."""
    name = api.shared_name(obj)
    found = None if name is None else api.locate(name)
    return None if found is None else found[1].extent


def find_copy(reference: bytes) -> Region | None:
    """Return the region of a reference, or its copy that was adopted here; None without either."""
    where, _ = where_of(reference)
    assert where.region_id is not None
    found = find_region_copy(where.region_id, (where.pid, where.number))
    # One that may be read in other ways is another one: a file's may be trusted here, and not there.
    is_other = found is not None and where.path is not None and found.allows_pickles != where.allows_pickles
    return None if is_other else found


def is_copy(reference: bytes, region: Region) -> bool:
    """Return whether a region is an adopted copy, and not the one that the sender of the reference has."""
    where, _ = where_of(reference)
    assert region.lease is not None
    if where.path is not None:
        return region.source is None
    try:
        theirs = os.stat(f"/proc/{where.holder}/fd/{where.fd}")
    except OSError:
        return True
    return not os.path.samestat(theirs, os.fstat(region.lease.fd))


def array_classes() -> tuple[type, ...]:
    """Return the classes that stand for numpy's arrays: engines often have ways of their own for these."""
    from mori.objects.array import SharedArray
    from mori.objects.array_codec import SharedMatrix, SharedRecords
    from mori.objects.masked import SharedMaskedArray

    return SharedArray, SharedMaskedArray, SharedRecords, SharedMatrix


def container_classes() -> tuple[type, ...]:
    """Return the bases of shared containers: small ones are builtins, which engines look into."""
    from mori.objects.containers.small import Small
    from mori.objects.containers.view import View

    return Small, View


def is_opened(obj: object) -> bool:
    """Return whether an object of a class that is not mori's was opened from a region, and may be pickled as
    a reference to it.
    """
    return node_of(obj) is not None and is_transport_set() and not is_by_value()


def reduce_opened(obj: Any) -> Any:
    """Return what ``__reduce_ex__`` returns for a reference to an object of a class that is not mori's.

    None where the object has to go its own way. Such classes cannot be told how to pickle, so an adapter asks
    here first where its engine has a serializer for them; plain picklers ask by themselves.
    """
    return picklers.reduce_opened(obj) if is_transport_set() else None


picklers.refer_in_engines()
