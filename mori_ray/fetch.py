"""How a process that cannot open a region gets its bytes: from a task on the node that has it.

Imports hooks and mori.reference. The bytes come through Ray's object store, in the region's own layout.
Every call fetches anew; keeping a copy on the node for a while goes on here.
"""

from __future__ import annotations

from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mori import reference
from mori.errors import RegionNotFoundError
from mori.reference import Lost
from mori_ray import hooks

__all__ = ["fetch"]

_LIMIT: Final = 120.0  # seconds

# What a task returns travels by value.
_open_there = ray.remote(num_cpus=0, max_retries=0)(reference.load)


def fetch(payload: bytes, node: bytes, lost: Lost) -> Any:
    """Return the object of a reference, opened on its own node; what was lost if that has no more of it."""
    error = object.__getattribute__(lost, "_mori_error")
    if not isinstance(error, RegionNotFoundError) or not hooks.may_wait():
        return lost
    there = NodeAffinitySchedulingStrategy(node.hex(), soft=False)
    try:
        return ray.get(_open_there.options(scheduling_strategy=there).remote(payload), timeout=_LIMIT)
    except RayError:
        return lost
