"""What a worker writes of shared objects when it spills: references, with the regions kept for them.

Invariant: a file with references in it has the leases of its regions beside it, for as long as it is there.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from distributed.spill import Slow, SpillBuffer

from mori import adapters
from mori.adapters import Lease, Region
from mori_dask import config

__all__ = ["held", "refer"]


class _Leasing(adapters.Transport):
    """The transport into a file: it keeps leases, with the bytes of their regions, until the file is gone."""

    def __init__(self) -> None:
        self.leases: dict[bytes, tuple[Lease, int]] = {}

    def accepts(self, mapping: Region) -> bool:
        assert mapping.lease is not None
        self.leases[mapping.region_id] = (mapping.lease, mapping.nbytes)
        return True


class _ReferringSlow(Slow):
    """Dask's files of spilled keys, with what keeps their regions alive."""

    mori_leases: dict[Hashable, dict[bytes, tuple[Lease, int]]]

    def __setitem__(self, key: Hashable, value: object) -> None:
        if config.get("mori.dask.spill") == "value":
            super().__setitem__(key, value)
            return
        transport = _Leasing()
        with adapters.use_transport(transport):
            super().__setitem__(key, value)
        if transport.leases:
            self.mori_leases[key] = transport.leases

    def __delitem__(self, key: Hashable) -> None:
        super().__delitem__(key)
        self.mori_leases.pop(key, None)


def _files_of(data: Any) -> Any:
    return data._slow_uncached if isinstance(data, SpillBuffer) else None


def refer(data: Any) -> None:
    """Make a worker's data spill references, those it has already included; a user's own store stays."""
    files = _files_of(data)
    if type(files) is Slow:
        files.mori_leases = {}
        files.__class__ = _ReferringSlow


def held(data: Any) -> int:
    """Return the bytes of the regions that spilled keys of a worker keep alive."""
    files = _files_of(data)
    if not isinstance(files, _ReferringSlow):
        return 0
    regions = {
        name: size for leases in list(files.mori_leases.values()) for name, (_, size) in leases.items()
    }
    return sum(regions.values())
