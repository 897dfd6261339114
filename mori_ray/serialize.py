"""What Ray pickles of mori: decided once a dump, applied by the core's own pickling.

Inside Ray's pickler parts of regions go out as bytes unless it is known that the process which Ray takes for
the owner of the pickled object keeps the region. So what is reached inside other objects, such as the blocks
of a plain frame, needs no registration of its own.

A reference carries no ObjectRef: Ray is told which token the argument contains, and counts it as if
it were pickled there, so the name stays short and the receiver has nothing to register. In the
receiver its own mapping keeps the region.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from mori import RegionNotFoundError, adapters
from mori.adapters import Lost, Region
from mori_ray import fetch, hooks, lifetime
from mori_ray.hooks import Purpose
from mori_ray.lifetime import Session

__all__ = ["load", "load_argument", "register"]

_SMALL: Final = 100 << 10  # bytes that Ray sends along with the task

_logger = logging.getLogger("mori_ray")
_said: set[str] = set()


def _say(why: str) -> None:
    """Log that shared objects go by value though a task is to have them; once for each reason."""
    if why not in _said:
        _said.add(why)
        _logger.warning("A shared object goes to a task by value, as will others: %s", why)


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
        # Another node could not adopt what is in R's layout: it has no header of mori's.
        return session.has_one_node() or (mapping.nbytes > _SMALL and not mapping.is_r)

    def _keeps(self, session: Session, mapping: Region) -> bool:
        if not (keeps := super()._keeps(session, mapping)):
            _say(
                "this version of Ray does not tell when an object is needed no more: references need Ray 2.57"
            )
        return keeps

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        session = lifetime.session()
        assert session is not None
        token, owner = session.token_of(adapters.open_region(payload))
        return load_argument, (payload, session.node, token, owner)


class _LoopArgument(_Argument):
    """The transport of what an event loop opens: to fetch would keep that waiting."""

    def _is_better(self, session: Session, mapping: Region) -> bool:
        is_better = session.has_one_node()
        if not is_better and mapping.nbytes > _SMALL:
            _say(
                "the actor is asynchronous or has threads, and the cluster has several nodes, so to fetch a "
                "region would keep its event loop waiting. Pass what mori_ray.put returns instead"
            )
        return is_better


class _Client(adapters.Transport):
    """The transport of what goes through Ray Client, whose server is another process, often elsewhere."""

    is_by_value = True

    def accepts(self, mapping: Region) -> bool:
        _say(
            "this process is connected through Ray Client, which passes on bytes alone. Pass what ray.put "
            "returns to several tasks"
        )
        return False


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


_CLIENT: Final = _Client()
_opened: Final[set[type]] = set()  # classes that are not mori's, of which something was opened


def _choose(purpose: Purpose) -> AbstractContextManager[None]:
    if _opened:
        hooks.prefer(_opened, adapters.reduce_opened)
    if adapters.is_by_value():
        return nullcontext()
    if purpose is Purpose.UNKNOWN and hooks.is_client():
        return adapters.use_transport(_CLIENT)
    return adapters.use_transport(_TRANSPORTS[purpose])


def register() -> None:
    """Patch Ray's pickler to choose a transport for each dump."""
    adapters.watch_classes(_opened.add)
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
