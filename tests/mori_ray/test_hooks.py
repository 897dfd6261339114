"""A canary for each private hook of Ray: when one of these fails, mori_ray/hooks.py has to follow Ray.

Beside each stands what happens without the hook: bytes travel.
"""

from __future__ import annotations

import gc
import io
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.cloudpickle
from ray._private import serialization
from ray.util.multiprocessing import Pool

import mori
from mori_ray import hooks, lifetime, serialize
from mori_ray.hooks import Purpose
from tests.mori_ray.conftest import connect, wait_until
from tests.mori_ray.tasks import AsyncKeeper, Keeper, call, call_once, generate

X = np.arange(1000)


class Probe:
    """Tells what it is pickled for."""

    seen: ClassVar[list[Purpose]] = []

    @staticmethod
    def purpose() -> Purpose:
        frame: Any = sys._getframe(1)
        while frame.f_globals["__name__"] != hooks.__name__:
            frame = frame.f_back
        return hooks.purpose(frame.f_back)

    def __reduce__(self) -> Any:
        self.seen.append(self.purpose())
        return int, (7,)


@pytest.fixture
def seen(one_node: None) -> list[Purpose]:
    Probe.seen = []
    return Probe.seen


def _task(_: Any) -> int:
    return 1


def _capture() -> Any:
    probe = Probe()
    return lambda: probe


def _actor() -> Any:
    probe = Probe()

    class Capturing:
        def get(self) -> Any:
            return probe

    return ray.remote(Capturing)


def _with_pool() -> None:
    with Pool(1) as pool:
        assert pool.map(len, [[Probe()]]) == [1]


@pytest.mark.parametrize(
    ("send", "purpose"),
    [
        (lambda: ray.get(call.remote(_task, Probe())), Purpose.ARGUMENT),
        (lambda: ray.get(call.remote(_task, {"a": [Probe()]})), Purpose.ARGUMENT),
        (lambda: ray.get(Keeper.remote(Probe()).call.remote(_task)), Purpose.ARGUMENT),
        (lambda: ray.get(Keeper.remote().keep.remote([Probe()])), Purpose.ARGUMENT),
        (lambda: ray.get(AsyncKeeper.remote().call.remote(_task, Probe())), Purpose.LOOP_ARGUMENT),
        (lambda: ray.get(AsyncKeeper.remote(Probe()).call.remote(_task, 1)), Purpose.LOOP_ARGUMENT),
        (_with_pool, Purpose.ARGUMENT),
        (lambda: ray.get(ray.remote(_capture()).remote()), Purpose.CLOSURE),
        (lambda: ray.get(_actor().remote().get.remote()), Purpose.CLOSURE),
        (lambda: ray.put(Probe()), Purpose.PUT),
        (lambda: ray.put([Probe()]), Purpose.PUT),
        (lambda: ray.cloudpickle.dumps(Probe()), Purpose.UNKNOWN),
        (lambda: ray.cloudpickle.CloudPickler(io.BytesIO()).dump(Probe()), Purpose.UNKNOWN),
    ],
    ids=[
        "argument",
        "nested argument",
        "constructor",
        "method",
        "asynchronous method",
        "asynchronous constructor",
        "pool",
        "function",
        "actor class",
        "put",
        "nested put",
        "dumps",
        "pickler",
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_frames_of_ray_say_what_a_dump_is_for(
    send: Callable[[], Any], purpose: Purpose, seen: list[Purpose]
) -> None:
    send()
    assert set(seen) == {purpose}


class _Returned:
    """Tells the receiver what it was pickled for."""

    def __reduce__(self) -> Any:
        return Purpose, (Probe.purpose().value,)


def test_the_frames_of_ray_say_what_a_worker_returns(one_node: None) -> None:
    refs = [
        call.remote(_Returned),
        next(generate.remote(_Returned)),
        Keeper.remote().call.remote(lambda kept: _Returned()),
        Keeper.options(max_concurrency=2).remote().call.remote(lambda kept: _Returned()),
        AsyncKeeper.remote().call.remote(_Returned),
    ]
    assert ray.get(refs) == [Purpose.RETURN] * 5


def test_ray_tells_one_task_from_another_and_says_nothing_on_a_loop(one_node: None) -> None:
    def tasks() -> tuple[str, str]:
        return str(hooks.task()), str(hooks.task())

    one, again = ray.get(call.remote(tasks))
    assert one == again
    assert ray.get(call.remote(tasks))[0] != one
    assert ray.get(AsyncKeeper.remote().call.remote(lambda: hooks.task() is None))
    assert hooks.task() is None


def test_every_dump_of_ray_passes_the_hook() -> None:
    assert getattr(ray.cloudpickle.CloudPickler.dump, "_mori", False)
    assert ray.cloudpickle.Pickler.dump is ray.cloudpickle.CloudPickler.dump
    before = ray.cloudpickle.CloudPickler.dump
    serialize.register()
    assert ray.cloudpickle.CloudPickler.dump is before


def test_ray_counts_a_token_that_is_not_in_the_pickle(one_node: None) -> None:
    over: list[bytes] = []

    class Needing:
        def __init__(self) -> None:
            self.token = ray.put(b"mori")

        def __reduce__(self) -> Any:
            assert hooks.needs(self.token)
            return int, (7,)

    needing = Needing()
    key = needing.token.binary()
    assert hooks.when_out_of_scope(needing.token, over.append)
    ref = ray.put(needing)
    del needing
    assert ray.get(ref) == 7
    assert not over
    del ref
    wait_until(lambda: over == [key])


def test_a_shared_table_is_asked_for_before_rays_own_reducer_in_every_connection(no_ray: None) -> None:
    reducers = ray.cloudpickle.CloudPickler.dispatch
    for _ in range(2):  # Ray registers its own again
        connect()
        x, plain = mori.share(pa.table({"a": X})), pa.table({"a": X})
        assert ray.get(call.remote(mori.is_shared, x))
        assert getattr(reducers[pa.Table], "_mori", False)
        assert reducers[pa.Table](plain)[0].__module__ == "ray._private.arrow_serialization"
        assert ray.get(call.remote(lambda theirs: theirs, plain)).equals(plain)
        assert ray.get(ray.put(x)).equals(plain)
        ray.shutdown()


def test_a_token_is_counted_inside_a_dump_alone(one_node: None) -> None:
    assert not hooks.needs(ray.put(b"mori"))


def test_only_the_owner_of_a_token_is_told(one_node: None) -> None:
    borrowed = ray.get(call.remote(lambda: [ray.put(b"mori")]))[0]
    assert not hooks.when_out_of_scope(borrowed, lambda key: None)


def test_a_connection_goes_with_shutdown_and_the_session_with_it(no_ray: None) -> None:
    assert hooks.connection() is None
    assert lifetime.session() is None
    connect()
    session = lifetime.session()
    assert session is not None
    assert lifetime.session() is session
    connection, kept = weakref.ref(hooks.connection()), weakref.ref(session)
    del session
    gc.collect()
    assert connection() is not None
    assert kept() is not None
    gc.disable()
    try:
        ray.shutdown()
        assert connection() is None
        assert kept() is None
    finally:
        gc.enable()


def test_the_thread_of_ray_that_must_not_wait_has_its_name(one_node: None) -> None:
    # An object that is awaited is unpickled there.
    class Named:
        def __reduce__(self) -> Any:
            return _may_wait_here, ()

    assert ray.put([Named()]).future().result(timeout=10) == [("worker.io", False)]
    assert hooks.may_wait()


def _may_wait_here() -> tuple[str, bool]:
    with open(f"/proc/self/task/{threading.get_native_id()}/comm") as name:
        return name.read().strip(), hooks.may_wait()


class _OldCoreWorker:
    """What the core worker of Ray 2.56 lacks."""


class _OldWorker:
    core_worker = _OldCoreWorker()


@pytest.mark.parametrize(
    "take_away",
    [
        lambda patch: patch.delattr(serialization.SerializationContext, "add_contained_object_ref"),
        lambda patch: patch.delattr(serialization.SerializationContext, "is_in_band_serialization"),
        lambda patch: patch.setattr(hooks, "_CALLERS", {}),
        lambda patch: patch.setattr(hooks, "when_out_of_scope", _when_out_of_scope_of_old),
        lambda patch: patch.setattr(hooks, "connection", lambda: None),
    ],
    ids=["contained references", "in band", "frames", "Ray 2.56", "connection"],
)
def test_without_a_hook_an_argument_and_what_is_put_go_by_value(
    take_away: Callable[[pytest.MonkeyPatch], None], one_node: None
) -> None:
    x = mori.share(X)
    with pytest.MonkeyPatch.context() as patch:
        take_away(patch)
        ref = call.remote(lambda theirs: (mori.is_shared(theirs), int(theirs.sum())), x)
        put = ray.put(x)
    assert ray.get(ref) == (False, int(X.sum()))
    assert not mori.is_shared(ray.get(put))


@pytest.mark.parametrize("hook", ["task", "owner_of", "borrow"])
def test_without_a_hook_what_a_task_returns_goes_by_value(hook: str, one_node: None) -> None:
    gone = {"task": None, "owner_of": b"", "borrow": None}[hook]

    def take_away_and_return(x: Any) -> Any:
        setattr(hooks, hook, lambda *args: gone)
        return x

    with pytest.MonkeyPatch.context() as patch:
        if hook == "owner_of":
            patch.setattr(hooks, hook, lambda token: gone)
        back = ray.get(call_once.remote(take_away_and_return, mori.share(X)))
    assert not mori.is_shared(back)
    assert int(back.sum()) == int(X.sum())


_plain = hooks.when_out_of_scope


def _when_out_of_scope_of_old(token: ray.ObjectRef, call: Callable[[bytes], None]) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "global_worker", _OldWorker())
        return _plain(token, call)
