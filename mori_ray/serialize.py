"""What Ray pickles of mori: decided once a dump, applied by the core's own pickling.

Inside Ray's pickler parts of regions go out as bytes unless it is known that the process which Ray takes for
the owner of the pickled object keeps the region. So what is reached inside other objects, such as the blocks
of a plain frame, needs no registration of its own.

A reference carries no ObjectRef: Ray is told which token the argument contains, and counts it as if
it were pickled there, so the name stays short and the receiver has nothing to register. In the
receiver its own mapping keeps the region.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from mori import RegionNotFoundError, adapters
from mori.adapters import Lost, Region
from mori_ray import fetch, hooks, lifetime
from mori_ray.hooks import Purpose
from mori_ray.lifetime import Session

__all__ = ["load", "load_argument", "register"]

_SMALL: Final = 100 << 10  # bytes that Ray sends along with the task


class _Put(adapters.Transport):
    """The transport of what is put: its owner for Ray is this process, which keeps the region."""

    def accepts(self, mapping: Region) -> bool:
        session = lifetime.session()
        return session is not None and self._is_better(session, mapping) and self._keeps(session, mapping)

    def _is_better(self, session: Session, mapping: Region) -> bool:
        return session.has_one_node()

    def _keeps(self, session: Session, mapping: Region) -> bool:
        return session.lend(mapping)

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        session = lifetime.session()
        assert session is not None
        return load, (payload, session.node)


class _Return(_Put):
    """The transport of what a task returns: its owner is the caller, if that has lent the region."""

    def _keeps(self, session: Session, mapping: Region) -> bool:
        return session.give_back(mapping)


class _Argument(_Put):
    """The transport of arguments: another node fetches the region, once."""

    def _is_better(self, session: Session, mapping: Region) -> bool:
        return mapping.nbytes > _SMALL or session.has_one_node()

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        session = lifetime.session()
        assert session is not None
        token, owner = session.token_of(adapters.open_region(payload))
        return load_argument, (payload, session.node, token, owner)


class _LoopArgument(_Argument):
    """The transport of what an event loop opens: to fetch would keep that waiting."""

    def _is_better(self, session: Session, mapping: Region) -> bool:
        return session.has_one_node()


class _Closure(_Put):
    """The transport of functions: their regions are kept for the session."""

    def _is_better(self, session: Session, mapping: Region) -> bool:
        return mapping.nbytes > _SMALL or session.has_one_node()

    def _keeps(self, session: Session, mapping: Region) -> bool:
        session.capture(mapping)
        return True


_TRANSPORTS: Final[dict[Purpose, adapters.TransportLike]] = {
    Purpose.ARGUMENT: _Argument(),
    Purpose.LOOP_ARGUMENT: _LoopArgument(),
    Purpose.CLOSURE: _Closure(),
    Purpose.PUT: _Put(),
    Purpose.RETURN: _Return(),
    Purpose.UNKNOWN: "value",
}


def _choose(purpose: Purpose) -> AbstractContextManager[None]:
    table = getattr(sys.modules.get("pyarrow"), "Table", None)
    if table is not None:
        hooks.prefer(table, adapters.reduce_opened)
    return nullcontext() if adapters.is_by_value() else adapters.use_transport(_TRANSPORTS[purpose])


def register() -> None:
    """Patch Ray's pickler to choose a transport for each dump."""
    hooks.around_dumps(_choose)


def load(payload: bytes, node: bytes) -> Any:
    """Return the object of a reference that was pickled on a node; a `Lost` one instead of an error."""
    try:
        mapping = _open(payload, node)
    except Exception as error:  # see `adapters.load`
        return Lost(error, (adapters.load, (payload,)))
    return adapters.load_from(mapping, payload)


def load_argument(payload: bytes, node: bytes, token: bytes, owner: bytes) -> Any:
    """Return the object of a reference in an argument, which the task may return as one; see `load`."""
    try:
        mapping = _open(payload, node)
        session = lifetime.session()
        if session is not None:
            session.note_borrowed(mapping, token, owner)
    except Exception as error:
        return Lost(error, (adapters.load, (payload,)))
    return adapters.load_from(mapping, payload)


def _open(payload: bytes, node: bytes) -> Region:
    """Return the mapping of a region, or of this node's copy of it.

    Another node, or a container that sees other processes, cannot open the region: it asks the node
    where that is for the bytes.
    """
    try:
        mapping = adapters.open_region(payload)
    except RegionNotFoundError as error:
        if not hooks.is_connected():
            raise
        return fetch.fetch(payload, node, error.name)
    session = lifetime.session()
    if session is not None and session.node != node and adapters.is_copy(payload, mapping):
        fetch.keep(mapping)  # several nodes may share a host, and its store
    return mapping
