"""Tokens, sizes, registration, and canaries for the places where mori_dask reaches into Dask."""

import asyncio
import pickle

import distributed.comm.utils
import distributed.protocol
import numpy as np
import pandas as pd
import pytest
from dask.sizeof import sizeof
from dask.tokenize import tokenize
from distributed.comm.core import Comm
from distributed.protocol.serialize import deserialize, families, serialize

import mori
import mori_dask


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(1000),
        lambda: pd.DataFrame({"a": [1.0, 2.0]}),
        lambda: [1, 2, np.arange(3)],
        lambda: {"a": 1},
    ],
)
def test_a_token_names_the_object_in_every_process_and_not_its_content(make):
    shared = mori.share(make())
    received = pickle.loads(pickle.dumps(shared))
    assert tokenize(shared) == tokenize(received)
    assert tokenize(shared) != tokenize(mori.share(make()))


def test_tokens_of_different_views_differ():
    shared = mori.share(np.arange(1000).reshape(10, 100))
    assert len({tokenize(shared), tokenize(shared[1:]), tokenize(shared.T), tokenize(shared[::2])}) == 4


def test_a_token_of_a_private_copy_depends_on_its_values():
    one, two = mori.share(np.arange(10)), mori.share(np.arange(10))
    one[0] = two[0] = 5
    assert tokenize(one) == tokenize(two)
    two[0] = 6
    assert tokenize(one) != tokenize(two)


def _mapped_kilobytes() -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssShmem:"))


def test_a_token_is_made_without_reading_the_object():
    shared = mori.share(np.zeros(5_000_000))  # written, and not read yet: none of its pages is mapped
    before = _mapped_kilobytes()
    tokenize(shared)
    assert _mapped_kilobytes() - before < 1000
    tokenize(np.asarray(shared))
    assert _mapped_kilobytes() - before > 30_000


def test_what_is_shared_weighs_nothing_for_the_scheduler():
    shared = mori.share(np.zeros(100_000))
    assert sizeof(shared) < 1000
    assert sizeof(mori.share(pd.DataFrame({"a": np.zeros(100_000)}))) < 1000
    shared[0] = 1
    assert sizeof(shared) >= shared.nbytes


def test_dasks_own_array_serializer_does_not_take_shared_arrays():
    shared = mori.share(np.arange(10))
    header, frames = serialize(shared, context=None)
    assert header["serializer"] == "pickle"
    assert isinstance(deserialize(header, frames), mori.SharedArray)


def test_what_is_serialized_for_nobody_in_particular_carries_its_bytes():
    """As a spill file does: it may be read when the region is gone."""
    shared = mori.share(np.arange(10_000))
    _, frames = serialize(shared, context=None)
    assert sum(memoryview(frame).nbytes for frame in frames) > shared.nbytes


def test_messages_are_made_by_the_function_that_mori_dask_wraps(monkeypatch: pytest.MonkeyPatch):
    made = []
    wrapped = distributed.protocol.dumps
    assert wrapped._mori
    monkeypatch.setattr(distributed.protocol, "dumps", lambda *a, **k: made.append(1) or wrapped(*a, **k))
    asyncio.run(distributed.comm.utils.to_frames({"x": 1}, context={}))
    assert made == [1]


def test_connections_say_their_domain():
    assert getattr(Comm.handshake_info, "_mori", False)
    assert families["pickle"][2], "Dask no longer passes a context to the pickle family"
    assert mori_dask.domain().split(":")[0] in ("memfd", "files")


def test_importing_it_again_changes_nothing():
    before = (distributed.protocol.dumps, Comm.handshake_info, families["pickle"])
    mori_dask.handshake.announce()
    mori_dask.serialize.register()
    assert (distributed.protocol.dumps, Comm.handshake_info, families["pickle"]) == before
