"""The faults of mori_ray."""

from __future__ import annotations

from mori import MoriError, RegionNotFoundError

__all__ = ["RegionNotFetchedError"]


class RegionNotFetchedError(RegionNotFoundError):
    """A region of another node that could not be brought to this one.

    Attributes
    ----------
    name : str
        The name of the region.
    node : str
        The id of the Ray node that has it, or had it.
    """

    node: str

    def __init__(self, *, name: str, node: str, found: str) -> None:
        MoriError.__init__(
            self,
            f"shared region {name} could not be fetched from its Ray node {node}: {found}. A shared object "
            "lives on the node where it was shared, and ends with that: share it again where it is needed, "
            "or keep it in Ray's object store with mori_ray.put()",
            name=name,
            node=node,
            found=found,
        )
