"""A region that comes as bytes lands once in a domain, under its own id."""

import pickle
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mori
from mori import store as stores
from mori.memory import lease, region
from mori.memory import mapping as mappings
from mori.store.base import format_name
from mori.store.locks import exclusive
from mori.wire import reference
from tests import stored
from tests.users import directory_for_all, locked_by_another_user
from tests.worker import Worker

pytestmark = [pytest.mark.each_store, pytest.mark.each_start]

_kept = []


def sent(obj):
    """Return what carries a shared object by value, as bytes that no mapping is behind."""
    buffers: list[pickle.PickleBuffer] = []
    with mori.by_value():
        head = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    return head, [bytes(buffer.raw()) for buffer in buffers]


def received(message):
    """Open what was sent, landed; return its name, its identity and its sum."""
    head, buffers = message
    reference.on_receive(region.adopt)
    try:
        x = pickle.loads(head, buffers=buffers)
    finally:
        reference._receivers.remove(region.adopt)
    _kept.append(x)
    return mori.shared_name(x), reference.identity(x), float(np.asarray(x).sum())


def dropped():
    _kept.clear()


def test_the_region_itself_is_found_where_it_is_in_the_domain(store, worker: Worker):
    array = mori.share(np.arange(10_000.0))
    name, identity, total = worker(received, sent(array))
    worker(dropped)
    assert (name, identity, total) == (mori.shared_name(array), reference.identity(array), array.sum())


def test_what_arrives_in_several_processes_at_once_lands_once_under_its_own_id(
    store, worker: Worker, third: Worker, wait: Callable
):
    array = mori.share(np.arange(300_000.0))
    message, identity, total, name = (
        sent(array),
        reference.identity(array),
        array.sum(),
        mori.shared_name(array),
    )
    (region_id,) = {one.header.region_id for one in mappings.live() if format_name(one.name) == name}
    del array
    wait(lambda: not region.located(region_id))
    seen = []
    threads = [
        threading.Thread(target=lambda other=other: seen.append(other(received, message)))
        for other in (worker, third)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({landed for landed, *_ in seen}) == 1
    assert seen[0][0] != name
    assert [rest for _, *rest in seen] == [[identity, total]] * 2
    assert len(region.located(region_id)) == 1
    assert received(message)[0] == seen[0][0]
    for other in (worker, third):
        other(dropped)
    dropped()


@pytest.mark.parametrize("kind", ["memfd", "files"])
def test_another_user_who_locks_what_he_can_keeps_nobody_waiting(kind: str, monkeypatch: pytest.MonkeyPatch):
    with directory_for_all() as directory:
        monkeypatch.setenv("MORI_STORE", kind if kind == "memfd" else f"files:{directory}")
        message = sent(mori.share(np.arange(10_000.0)))
        received(message)
        dropped()
        common = Path(stores.directory())
        lock = stored.home(common) / "adopt.lock"
        with ExitStack() as stack:
            with exclusive(str(common), "adopt", 0):
                assert lock.exists()
                paths = (Path("/proc/self/ns/pid"), common, lock.parent, lock)
                locked = stack.enter_context(locked_by_another_user(*paths))
            assert locked == ["/proc/self/ns/pid", str(common)]
            begin = time.perf_counter()
            received(message)
            assert time.perf_counter() - begin < 20  # he would keep us for 60
        dropped()
        lease.expire_graces()


def test_a_part_lands_as_a_region_of_its_own(store):
    frame = pd.DataFrame({"a": np.arange(10_000), "b": np.arange(10_000.0)})
    shared = mori.share([frame, np.arange(5)])
    assert received(sent(shared[0]))[0] is not None
    (landed,) = _kept
    dropped()
    assert mori.shared_name(landed) != mori.shared_name(shared[0])
    pd.testing.assert_frame_equal(landed, frame)
    pd.testing.assert_frame_equal(mori.map_shared(mori.shared_name(landed)), frame)


def test_bytes_that_are_damaged_do_not_land(store):
    head, (data,) = sent(mori.share(np.arange(10_000.0)))
    damaged = data[:8] + bytes([data[8] ^ 255]) + data[9:]
    with pytest.raises(mori.CorruptRegionError):
        received((head, [damaged]))
    dropped()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:10], lambda data: b"x" * 4096])
def test_what_is_no_whole_region_does_not_land(store, damage):
    _, (data,) = sent(mori.share(np.arange(10_000.0)))
    with pytest.raises(mori.CorruptRegionError):
        region.adopt(mappings.map_bytes(damage(data)))


def test_a_reference_that_is_none_has_no_mapping():
    with pytest.raises(mori.CorruptRegionError, match="it is no reference"):
        reference.open_region(b"no")
