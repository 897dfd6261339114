"""How long a region lives for Ray: as long as an argument can still be needed.

Invariant: a region has one token in a session, an object of four bytes in Ray's store that every argument
with a part of the region refers to. Ray counts it through queues, retries and nested tasks; when it goes out
of scope, the lease of the region is given back.
"""

from __future__ import annotations

import time
import weakref
from functools import partial
from typing import Any, Final

import ray

from mori import adapters
from mori.adapters import Lease, Region, announce
from mori_ray import hooks, metrics, settings

__all__ = ["Session", "session"]

_CHECK_EVERY: Final = 1.0  # seconds between looks at the nodes of the cluster


class Session:
    """What one connection to Ray, from ``init`` to ``shutdown``, keeps of this process's regions.

    Notes
    -----
    Safe on any thread: two that send the same region at once make two tokens, each good for its own.
    """

    def __init__(self) -> None:
        # A mapping has its token, so that the next argument need not make one; the token has the
        # lease, and not the mapping, or neither would ever go.
        self._tokens: weakref.WeakKeyDictionary[Region, ray.ObjectRef] = weakref.WeakKeyDictionary()
        self._leases: dict[bytes, Lease] = {}
        # What tasks have been lent, each by its caller: the task, and the caller's token.
        self._borrowed: weakref.WeakKeyDictionary[Region, tuple[object, bytes, bytes]] = (
            weakref.WeakKeyDictionary()
        )
        self._captured: set[Lease] = set()
        self._node = b""
        self._has_one_node = False
        self._checked = -_CHECK_EVERY
        self._label = announce("ray", self.node.hex())

    @property
    def lent(self) -> int:
        """How many regions Ray has been lent, and this process or Ray still has."""
        return len({*list(self._leases.values()), *self._captured})  # other threads may be lending

    @property
    def node(self) -> bytes:
        """The id of this node."""
        if not self._node:
            self._node = bytes.fromhex(ray.get_runtime_context().get_node_id())
        return self._node

    def has_one_node(self) -> bool:
        """Whether the cluster has a single node, as of the last second."""
        now = time.monotonic()
        if now - self._checked >= _CHECK_EVERY:
            self._has_one_node = sum(node["Alive"] for node in ray.nodes()) == 1
            self._checked = now
        return self._has_one_node

    def token_of(self, mapping: Region) -> tuple[bytes, bytes]:
        """Return id and owner of the token of a region that has been lent."""
        token = self._tokens[mapping]
        return token.binary(), hooks.owner_of(token)

    def note_borrowed(self, mapping: Region, token: bytes, owner: bytes) -> None:
        """Note that an argument of the task that runs is a part of this region."""
        task = hooks.task()
        if task is not None:
            self._borrowed[mapping] = task, token, owner

    def give_back(self, mapping: Region) -> bool:
        """Make the task's result refer to a region of its caller's; False if that cannot be.

        The caller keeps the region for as long as it may need the argument, which is beyond the end
        of the task; what it gets back prolongs that. What is left from another task, such as in the state
        of an actor, may long be nobody's but this process's, and what it returns has to outlive that.
        """
        task, token, owner = self._borrowed.get(mapping, (None, b"", b""))
        if task is None or task != hooks.task():
            return False
        ref = hooks.borrow(token, owner)
        return ref is not None and hooks.needs(ref)

    def lend(self, mapping: Region) -> bool:
        """Keep a region for as long as Ray needs what it is just serializing; False if that cannot be."""
        token = self._tokens.get(mapping)
        if token is None:
            token = self._make_token(mapping)
        return token is not None and hooks.needs(token)

    def _make_token(self, mapping: Region) -> ray.ObjectRef | None:
        assert mapping.lease is not None
        # Inside a reducer nothing but bytes may be put: a pickle inside the pickle that is under way
        # would take over the references which that one has counted so far.
        token = ray.put(b"mori")
        key = token.binary()
        self._leases[key] = mapping.lease
        if not hooks.when_out_of_scope(token, partial(_let_go, weakref.ref(self))):
            del self._leases[key]
            return None
        self._tokens[mapping] = token
        return token

    def capture(self, mapping: Region) -> None:
        """Keep a region for as long as the session lasts: Ray never forgets a function."""
        assert mapping.lease is not None
        self._captured.add(mapping.lease)

    def _forget(self) -> None:
        self._leases.clear()
        self._captured.clear()


_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()
_inherited: list[Session] = []


def session() -> Session | None:
    """Return this process's session, which goes with its connection; None if it has none."""
    connection = hooks.connection()
    if connection is None:
        return None
    found = _sessions.get(connection)
    if found is None:
        seconds = settings.metrics_seconds()
        found = _sessions.setdefault(connection, made := Session())
        if found is made and seconds:
            metrics.report(found, seconds)
    return found


def _let_go(of: weakref.ref[Session], key: bytes) -> None:
    found = of()
    if found is not None:
        adapters.call_later(partial(found._leases.pop, key, None))


@adapters.in_child
def _after_fork_in_child() -> None:
    # The leases are the parent's. Its tokens are not touched: a child has no connection to Ray.
    for found in list(_sessions.values()):
        found._forget()
        _inherited.append(found)
