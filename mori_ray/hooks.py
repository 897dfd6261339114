"""Every hook of Ray that is not its public surface.

tests/mori_ray/test_hooks.py has a canary for each; where one is gone, the function here says so (`None`,
`False`, `Purpose.UNKNOWN`), and bytes are sent: slower, and right.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Container
from contextlib import AbstractContextManager
from enum import Enum
from types import FrameType
from typing import Any, Final

import ray
import ray.cloudpickle
from ray._private.worker import global_worker

__all__ = [
    "Purpose",
    "around_dumps",
    "borrow",
    "connection",
    "is_client",
    "is_connected",
    "may_wait",
    "needs",
    "owner_of",
    "prefer",
    "purpose",
    "task",
    "when_out_of_scope",
]


class Purpose(Enum):
    """The purpose for which Ray pickles an object."""

    ARGUMENT = "argument"  # of a task or of an actor
    LOOP_ARGUMENT = "loop argument"  # of an actor that may open it on an event loop
    CLOSURE = "closure"  # of a remote function or an actor class
    PUT = "put"
    RETURN = "return"  # returned or yielded by a task
    UNKNOWN = "unknown"  # for Ray Client, or by the user: Ray does not say where it goes


_PICKLING: Final = frozenset(
    {"ray.cloudpickle", "ray.cloudpickle.cloudpickle", "ray.cloudpickle.cloudpickle_fast"}
)
_SERIALIZATION: Final = "ray._private.serialization"
_SERIALIZE: Final = (_SERIALIZATION, "serialize")
_CALLERS: Final = {
    _SERIALIZE: {
        ("ray.remote_function", ""): Purpose.ARGUMENT,
        ("ray.actor", ""): Purpose.ARGUMENT,
        ("ray._private.worker", "put_object"): Purpose.PUT,
        ("ray._private.worker", "main_loop"): Purpose.RETURN,
    },
    ("ray._common.serialization", "pickle_dumps"): {
        ("ray.remote_function", ""): Purpose.CLOSURE,
        ("ray._private.function_manager", ""): Purpose.CLOSURE,
    },
}


def purpose(frame: FrameType | None) -> Purpose:
    """Return what a dump is for, by the frames of Ray that called for it.

    Only frames of Ray's own serializers are passed on the way up: a dump that a user's ``__reduce__``
    starts in the middle of an argument is no part of that argument.
    """
    while frame is not None:
        place = _place(frame)
        caller = frame.f_back
        if (callers := _CALLERS.get(place)) is not None:
            if caller is None:  # of a thread of Ray's that has begun outside of Python
                return Purpose.RETURN if place == _SERIALIZE else Purpose.UNKNOWN
            module, function = _place(caller)
            found = callers.get((module, ""), callers.get((module, function), Purpose.UNKNOWN))
            if found is Purpose.ARGUMENT and module == "ray.actor" and _may_be_asynchronous(caller):
                return Purpose.LOOP_ARGUMENT
            return found
        if place[0] not in _PICKLING and place[0] != _SERIALIZATION:
            break
        frame = caller
    return Purpose.UNKNOWN


def _place(frame: FrameType) -> tuple[str, str]:
    return frame.f_globals.get("__name__", ""), frame.f_code.co_name


def _may_be_asynchronous(caller: FrameType) -> bool:
    """Whether the actor of a call may open its arguments on an event loop, which is not to be kept waiting.

    Asynchronous actors execute out of order, always; those with threads do, too.
    """
    names = caller.f_locals
    if "is_asyncio" in names:  # the actor is made here
        return bool(names["is_asyncio"])
    return bool(getattr(names.get("self"), "_ray_allow_out_of_order_execution", True))


def around_dumps(choose: Callable[[Purpose], AbstractContextManager[None]]) -> None:
    """Enter a context around each dump of Ray's own pickler.

    Exact types could be registered with it one by one (``ray.util.register_serializer``), but the
    parts of a shared frame are plain pandas with blocks, indexes and string arrays of many classes,
    and whatever is not registered would go out as a reference that nothing keeps alive.
    """
    pickler = ray.cloudpickle.CloudPickler
    plain = pickler.dump
    if getattr(plain, "_mori", False):
        return

    @functools.wraps(plain)
    def dump(self: Any, obj: Any) -> Any:
        with choose(purpose(sys._getframe(1))):
            return plain(self, obj)

    dump._mori = True  # type: ignore[attr-defined]
    pickler.dump = dump


def prefer(classes: Container[type], reduce: Callable[[Any], Any]) -> None:
    """Patch Ray's pickler to call `reduce` before its own reducers of some classes; None leaves it to those.

    Ray registers some anew with each connection, over whatever there is, and a user may at any time
    (``ray.util.register_serializer``).
    """
    reducers = getattr(ray.cloudpickle.CloudPickler, "dispatch", {})
    own = getattr(reducers, "maps", [reducers])[0]
    for cls in [*own]:
        if cls in classes and not getattr(plain := own[cls], "_mori", False):
            own[cls] = _before(plain, reduce)


def _before(plain: Callable[[Any], Any], reduce: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(plain)
    def reduced(obj: Any) -> Any:
        return reduce(obj) or plain(obj)

    reduced._mori = True  # type: ignore[attr-defined]
    return reduced


def task() -> object:
    """Return what says which task this thread runs.

    None for a driver, where Ray does not say, and on an event loop, which runs many tasks on one thread.
    """
    if getattr(global_worker, "mode", None) != ray.WORKER_MODE:
        return None
    core = global_worker.core_worker
    get = getattr(core, "get_current_task_id", None)
    is_loop = getattr(core, "current_actor_is_asyncio", None)
    return None if get is None or is_loop is None or is_loop() else get()


def owner_of(token: ray.ObjectRef) -> bytes:
    """Return the address of an object's owner, as `borrow` takes it; empty where Ray does not say."""
    get = getattr(global_worker.core_worker, "get_owner_address", None)
    return bytes(get(token)) if get is not None else b""


def borrow(token: bytes, owner: bytes) -> ray.ObjectRef | None:
    """Return a reference to an object of another process, which Ray counts from now on.

    It must be alive, as what an argument contains is while the task runs.
    """
    register = getattr(global_worker.core_worker, "deserialize_and_register_object_ref", None)
    if register is None or not owner:
        return None
    ref = ray.ObjectRef(token, owner)
    register(token, ray.ObjectRef.nil(), owner, b"")
    return ref


def is_connected() -> bool:
    """Whether this process is a driver or a worker; not so through Ray Client."""
    return bool(getattr(global_worker, "connected", False))


def is_client() -> bool:
    """Whether this process is connected through Ray Client."""
    client = getattr(sys.modules.get("ray.util.client"), "ray", None)
    return client is not None and bool(client.is_connected())


def connection() -> Any:
    """Return something of Ray's that goes when ``ray.shutdown`` has ended the connection; None without one.

    The serialization context would say it better, but Ray's pickler refers to it until the next one.
    """
    return getattr(global_worker, "function_actor_manager", None) if is_connected() else None


def needs(token: ray.ObjectRef) -> bool:
    """Make Ray count a reference to `token` in the message that it is serializing, without pickling it.

    That is what the reducer of ObjectRefs does, too. False if Ray is not serializing on this thread.
    """
    get = getattr(global_worker, "get_serialization_context", None)
    if get is None or not is_connected():
        return False
    within = get()
    in_band = getattr(within, "is_in_band_serialization", None)
    add = getattr(within, "add_contained_object_ref", None)
    if in_band is None or add is None or not in_band():
        return False
    add(token, allow_out_of_band_serialization=True)
    return True


def when_out_of_scope(token: ray.ObjectRef, call: Callable[[bytes], None]) -> bool:
    """Call a function when nothing anywhere refers to `token` any more; needs Ray 2.57.

    It is called with the id on a thread of Ray's that may not be kept waiting.
    """
    add = getattr(global_worker.core_worker, "add_object_out_of_scope_callback", None)
    if add is None:
        return False
    try:
        return bool(add(token, call))
    except ValueError:  # not ours
        return False


def may_wait() -> bool:
    """Whether this thread may wait for Ray: its own IO thread would wait for itself."""
    if not is_connected():
        return False
    with (
        contextlib.suppress(OSError),
        open(f"/proc/self/task/{threading.get_native_id()}/comm", "rb") as name,
    ):
        return name.read().strip() != b"worker.io"
    return threading.current_thread() is threading.main_thread()
