"""What Ray pickles of mori: decided once a dump, applied by the core's own pickling.

Imports hooks, lifetime, fetch and mori.reference. Inside Ray's pickler parts of regions go out as
bytes unless it is known where they go: arguments and closures, in a cluster of one node. So what is
reached inside other objects, such as the blocks of a plain frame, needs no registration of its own.

A reference carries no ObjectRef: Ray is told which token the argument contains, and counts it as if
it were pickled there, so the name stays short and the receiver has nothing to register. In the
receiver its own mapping keeps the region. Puts and returns by reference, and references in clusters
of several nodes, go on in `_Argument.takes`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mori import reference
from mori.modules import imported
from mori.reference import Lost
from mori.region import Mapping
from mori_ray import fetch, hooks, lifetime
from mori_ray.hooks import Purpose

__all__ = ["load", "register"]


class _Argument:
    """The way of references in arguments: counted by Ray."""

    def takes(self, mapping: Mapping) -> bool:
        session = lifetime.session()
        return session is not None and session.is_alone() and session.lend(mapping)

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        session = lifetime.session()
        assert session is not None
        return load, (payload, session.node)


class _Closure(_Argument):
    """The way of references in functions: kept for the session."""

    def takes(self, mapping: Mapping) -> bool:
        session = lifetime.session()
        if session is None or not session.is_alone():
            return False
        session.capture(mapping)
        return True


_ways: dict[Purpose, reference.Way] = {
    Purpose.ARGUMENT: _Argument(),
    Purpose.CLOSURE: _Closure(),
    Purpose.UNKNOWN: "value",
}


def _way(purpose: Purpose) -> AbstractContextManager[None]:
    tables = imported("mori.tables")  # nothing of pyarrow lies in a region before
    if tables is not None:
        hooks.prefer(sys.modules["pyarrow"].Table, tables.reference_for_engine)
    return nullcontext() if reference.is_by_value() else reference.travel(_ways[purpose])


def register() -> None:
    """Make Ray's pickler send parts of regions the right way."""
    hooks.around_dumps(_way)


def load(payload: bytes, node: bytes) -> Any:
    """Return the object of a reference that was pickled on a node; never raises.

    A node that has joined while the task was queued, or a container that sees other processes, cannot
    open the region: it asks the node where that is for the bytes.
    """
    found = reference.load(payload)
    return fetch.fetch(payload, node, found) if type(found) is Lost else found
