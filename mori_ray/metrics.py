"""What Ray's metrics show of mori: one process of each node counts what is shared there.

Invariant: nothing of Ray's metrics is made without a connection, and no task waits for them: a thread looks
at intervals, and a fetch is counted as it is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import queue
import threading
import weakref
from typing import Any, Final, Protocol

from ray.util.metrics import Counter, Gauge

import mori
from mori import MoriError, adapters
from mori_ray import hooks, settings

__all__ = ["count_fetch", "report"]

_TAGS: Final = ("node",)


class _Reported(Protocol):
    @property
    def node(self) -> bytes: ...

    @property
    def lent(self) -> int: ...


@functools.cache
def _gauge(name: str, text: str) -> Any:
    return Gauge(name, description=text, tag_keys=_TAGS)


@functools.cache
def _counter(name: str, text: str) -> Any:
    return Counter(name, description=text)


def count_fetch(nbytes: int) -> None:
    """Count a region that this process has brought from another node."""
    with contextlib.suppress(MoriError):  # the session has said what is wrong with the setting
        if hooks.is_connected() and settings.metrics_seconds():
            _counter("mori_fetches", "Regions fetched from other nodes").inc()
            _counter("mori_fetched_bytes", "Bytes of the regions fetched from other nodes").inc(nbytes)


def report(session: _Reported, seconds: float) -> None:
    """Report to Ray every so often, on a thread that ends with the session."""
    over: queue.SimpleQueue[None] = queue.SimpleQueue()  # whose put may be called at any moment of any thread
    about = weakref.ref(session, lambda _: over.put(None))
    thread = threading.Thread(target=_run, args=(about, over, seconds), name="mori-ray-metrics", daemon=True)
    with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
        thread.start()


def _run(about: weakref.ref[_Reported], over: queue.SimpleQueue[None], seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        lock: int | None = None
        with contextlib.suppress(OSError, MoriError):  # no place for it: this process reports for itself
            lock = os.open(_path(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, lock)
        while not _is_over(over, seconds):
            session = about()
            if session is None or not hooks.is_connected():
                return
            node, lent = session.node, session.lent
            del session  # which goes with the connection, and not with us
            tags = {"node": node.hex()}
            _gauge("mori_lent_regions", "Regions that a process has lent to Ray's objects").set(lent, tags)
            with contextlib.suppress(MoriError, OSError):  # no store: not this time
                if lock is not None and _is_first(lock, node):
                    _report_node(tags)


def _is_over(over: queue.SimpleQueue[None], seconds: float) -> bool:
    try:
        over.get(timeout=seconds)
    except queue.Empty:
        return False
    return True


def _path() -> str:
    return os.path.join(adapters.own_directory(), "ray-metrics.lock")


def _is_first(lock: int, node: bytes) -> bool:
    """Whether this process is the one that reports for its node, which it stays until it ends.

    All nodes have one file, each locks a byte of its own, which need not exist. Such a lock is the process's
    own: no child inherits it, and the kernel gives it back.
    """
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int.from_bytes(node[:7], "big"))
    except BlockingIOError:
        return False
    return True


def _report_node(tags: dict[str, str]) -> None:
    found = mori.regions()
    for name, text, value in (
        ("mori_regions", "Regions that are alive on a node", len(found)),
        ("mori_bytes", "Bytes of the regions that are alive on a node", sum(e.nbytes for e in found)),
        ("mori_holders", "Holds of processes on regions of a node", sum(len(e.holders) for e in found)),
    ):
        _gauge(name, text).set(value, tags)
