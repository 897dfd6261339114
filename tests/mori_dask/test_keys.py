"""What the keys of the configuration change in a cluster: what travels by which way, and what lands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, wait

import mori
import mori_dask
from mori.memory import mapping as mappings
from mori.memory import region
from mori.wire import reference
from mori_dask import arrivals
from tests.mori_dask.test_paths import look

SIZE = 25_000  # elements of 8 bytes


@contextmanager
def _cluster(key: str, value: Any) -> Iterator[Client]:
    """A cluster in which a key is set from its beginning, in all processes."""
    with (
        dask.config.set({key: value}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def _shared(x: Any) -> bool:
    return bool(look(x)[0])


def _made(client: Client) -> Any:
    made = client.submit(lambda: mori.share(np.arange(SIZE)), pure=False)
    wait(made)
    return made


def test_without_relay_what_a_scheduler_passes_on_goes_by_value_and_the_rest_does_not():
    with _cluster("mori.dask.relay", value=False) as client:
        array = mori.share(np.arange(SIZE))
        made = _made(client)
        assert look(made.result()) == (False, None, array.sum())
        scattered = client.scatter(array, direct=False, hash=False)
        assert client.submit(look, scattered, pure=False).result() == (False, None, array.sum())
        assert {*client.run(look, array).values()} == {(False, None, array.sum())}
        client.publish_dataset(array, name="by value")
        assert look(client.get_dataset("by value")) == (False, None, array.sum())
        client.unpublish_dataset("by value")
        # Arguments, and what goes from worker to worker or client.
        assert client.submit(look, array, pure=False).result()[0]
        for worker in client.nthreads():
            assert client.submit(look, made, workers=[worker], pure=False).result()[0]
        assert _shared(mori_dask.gather(client, made))
        assert client.submit(look, mori_dask.scatter(client, array), pure=False).result()[0]
        # What a scheduler has said, counts for those that have not set it.
        with dask.config.set({"mori.dask.relay": True}):
            client.run(lambda: dask.config.set({"mori.dask.relay": True}))
            assert not _shared(made.result())
            scattered = client.scatter(array, direct=False, hash=False)
            assert not client.submit(look, scattered, pure=False).result()[0]


def test_a_client_that_has_set_it_sends_values_to_a_scheduler_that_passes_references_on(client: Client):
    array = mori.share(np.arange(SIZE))
    for relay in (True, False):
        with dask.config.set({"mori.dask.relay": relay}):
            there = client.scatter(array, direct=False, hash=False)
            assert client.submit(look, there, pure=False).result()[0] is relay


def test_without_frame_interception_plain_arrays_go_by_value_and_shared_ones_do_not(client: Client):
    array = mori.share(np.arange(SIZE))
    plain = pd.DataFrame(np.asarray(array).reshape(-1, 4), copy=False)
    ways = (np.asarray(array), [np.asarray(array)], plain)
    for on in (True, False):
        with dask.config.set({"mori.dask.frame-interception": on}):
            for x in ways:
                seen = client.submit(lambda x: look(x[0] if isinstance(x, list) else x), x, pure=False)
                assert seen.result()[::2] == (on, array.sum())
            there = client.scatter(np.asarray(array), direct=True, hash=False)
            assert client.submit(look, there, pure=False).result()[::2] == (on, array.sum())
            assert client.submit(look, array, pure=False).result()[0]


def test_plain_arrays_of_fewer_bytes_than_the_least_go_by_value(client: Client):
    array = mori.share(np.arange(SIZE))
    for least, shared in ((2001, False), (2000, True), ("2 kB", True), ("1 MiB", False)):
        with dask.config.set({"mori.dask.min-bytes": least}):
            for x in (np.asarray(array)[:250], {"in": np.asarray(array)[:250]}):
                seen = client.submit(lambda x: look(x["in"] if isinstance(x, dict) else x), x, pure=False)
                assert seen.result()[::2] == (shared, array[:250].sum())
            assert client.submit(look, array[:250], pure=False).result()[0]  # a shared one's own view


@pytest.mark.parametrize(
    ("least", "lands"), [(200_000, True), ("1 MiB", False), (False, False), (None, False)]
)
def test_what_comes_as_bytes_lands_from_the_least_on_and_never_if_that_is_off(client: Client, least, lands):
    """Landing as a worker does it: one in this process is what decides; see test_domains for real hosts."""

    def arrive(data: bytes) -> tuple[bool, bool]:
        with dask.config.set({"mori.dask.land-bytes": least}):
            x = reference.receive(bytearray(data))
        mapping = mappings.held_by(np.asarray(x))
        return mapping.shared, region.find_copy(mapping.header.region_id, (0, 0)) is not None

    assert arrivals._adopt in reference._receivers
    array = mori.share(np.arange(SIZE))
    function, (buffer, *_) = _by_value(array)
    assert function is reference.receive
    data = bytes(buffer.raw())
    del array, buffer
    assert client.submit(arrive, data, pure=False).result() == (lands, lands)


def _by_value(array: Any) -> Any:
    with mori.by_value():
        return array.__reduce_ex__(5)[:2]
