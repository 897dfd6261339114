"""Tokens, sizes, registration, and canaries for the places where mori_dask reaches into Dask."""

import asyncio
import gc
import inspect
import io
import os
import pickle
import subprocess
import sys

import distributed.client
import distributed.comm.utils
import distributed.protocol
import distributed.protocol.pickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask.sizeof import sizeof
from dask.tokenize import tokenize
from distributed import Client, core, worker
from distributed.comm import tcp
from distributed.comm.core import Comm
from distributed.protocol.serialize import Serialized, deserialize, families, serialize, to_serialize

import mori
import mori_dask
from mori.memory import mapping as mappings
from mori.store.base import MAGIC, format_name
from mori.wire import reference
from mori.wire.transport import use_transport
from mori_dask.message import deciding
from tests.fresh import run_python
from tests.mori.classes import Metered


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(1000),
        lambda: pd.DataFrame({"a": [1.0, 2.0]}),
        lambda: [1, 2, np.arange(3)],
        lambda: {"a": 1},
        lambda: {"a", "b"},
        lambda: b"x" * 5000,
        lambda: np.ma.array(np.arange(1000), mask=np.arange(1000) % 2),
        lambda: np.rec.fromarrays([np.arange(1000), np.arange(1000)], names="x,y"),
        lambda: np.array(["a", "b"], dtype=object),
        lambda: Metered({"a": np.arange(1000)}),
        lambda: pd.Index(np.arange(1000)),
        lambda: pd.MultiIndex.from_product([range(100), range(10)]),
    ],
)
def test_a_token_names_the_object_in_every_process_and_not_its_content(make):
    shared = mori.share(make())
    received = pickle.loads(pickle.dumps(shared))
    assert tokenize(shared) == tokenize(received)
    assert tokenize(shared) != tokenize(mori.share(make()))


@pytest.mark.parametrize(
    "make", [pa.table, pa.record_batch, lambda x: pa.chunked_array([x["a"]]), lambda x: pa.array(x["a"])]
)
def test_a_shared_object_of_pyarrows_is_measured_and_named_without_reading_it(make):
    plain = make({"a": np.zeros(100_000)})
    shared = mori.share(plain)
    assert sizeof(shared) < 1000
    assert sizeof(plain) > 100_000 or isinstance(plain, pa.RecordBatch | pa.Array)  # of which Dask knows less
    assert tokenize(shared) == tokenize(mori.map_shared(mori.shared_name(shared)))
    assert tokenize(shared) != tokenize(mori.share(plain))
    assert tokenize(plain) == tokenize(make({"a": np.zeros(100_000)}))


def test_the_token_of_a_masked_array_that_is_private_depends_on_values_mask_and_fill():
    def private(mask, fill):
        shared = mori.share(np.ma.array(np.arange(10), mask=np.arange(10) == mask, fill_value=fill))
        received = pickle.loads(_by_value(shared))
        assert type(received) is type(shared)
        assert not mori.is_shared(received)
        return tokenize(received)

    assert private(3, 1) == private(3, 1)
    assert len({private(3, 1), private(4, 1), private(3, 2)}) == 3


def _by_value(x):
    with mori.by_value():
        return pickle.dumps(x)


@pytest.mark.parametrize("make", [pa.table, pa.record_batch])
def test_dasks_own_serializer_takes_the_tables_that_are_not_shared(make):
    plain = make({"a": np.arange(1000)})
    for table in (plain, mori.share(plain).slice(1)):
        header, frames = serialize(table, context=None)
        assert header["serializer"] == "dask"
        assert deserialize(header, frames).equals(table)
    shared = mori.share(plain)
    assert serialize(shared, context=None)[0]["serializer"] == "dask"  # nobody has said where it goes
    with use_transport("reference"):
        header, frames = serialize(shared, context=None)
    assert header["serializer"] == "pickle"


def test_a_table_that_dask_received_first_does_not_change_what_it_sends(tmp_path):
    """Dask registers what it sends and what it receives of pyarrow at once, with either."""
    code = """
import mori, mori_dask, pyarrow as pa
from distributed.protocol.serialize import dask_deserialize, dask_serialize, serialize
from mori.wire.transport import use_transport
dask_deserialize.dispatch(pa.Table)
shared = mori.share(pa.table({"a": range(10_000)}))
with use_transport("reference"):
    print(serialize(shared)[0]["serializer"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pickle\n"


@pytest.mark.parametrize("kind", ["DataFrame", "Series"])
def test_plain_frames_are_measured_and_named_as_ever_after_a_shared_one_was_the_first_of_all(kind: str):
    code = f"""
import sys
import mori, mori_dask, pandas as pd
from dask.sizeof import sizeof
from dask.tokenize import tokenize
plain = pd.{kind}({{"a": range(10_000)}})
if sys.argv[1:]:
    shared = mori.share(plain)
    assert sizeof(shared) < 1000
    assert tokenize(shared) != tokenize(plain)
print(sizeof(plain), tokenize(plain), sizeof(pd.Series(range(10))), tokenize(pd.DataFrame({{"b": [1]}})))
"""
    told = [
        subprocess.run([sys.executable, "-c", code, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["shared"])
    ]
    assert told[0] == told[1] != ""


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


def _reached():
    pickling = distributed.protocol.pickle
    return (
        *(distributed.protocol.dumps, Comm.handshake_info, families["dask"], families["pickle"]),
        *(pickling.dumps, distributed.client.dumps),
        *(Client._run, core.error_message, worker.error_message, Serialized.__init__, *reference._receivers),
        *(worker.get_data_from_worker, tcp.convert_stream_closed_error),
    )


def test_importing_it_again_changes_nothing():
    before = _reached()
    mori_dask.handshake.announce()
    for module in (
        mori_dask.serialize,
        mori_dask.relay,
        mori_dask.buffers,
        mori_dask.run,
        mori_dask.raised,
        mori_dask.refetch,
        mori_dask.arrivals,
    ):
        module.register()
    assert _reached() == before


def test_what_stands_for_a_function_of_dasks_has_its_parameters_and_defaults():
    for ours in (distributed.protocol.dumps, distributed.protocol.pickle.dumps):
        names = inspect.signature(ours, follow_wrapped=False).parameters
        for name, parameter in inspect.signature(ours.__wrapped__).parameters.items():
            assert (names[name].kind, names[name].default) == (parameter.kind, parameter.default), name


def test_what_a_later_dask_passes_on_is_passed_on():
    with_more = deciding(lambda *args, **kwargs: (args, kwargs))
    assert with_more([1], context={}, later=2) == (([1], None, "message", {}, None), {"later": 2})


def _arguments(pickled: bytes):
    """Return what a pickled call is with, uncalled."""

    class Uncalled(pickle.Unpickler):
        def find_class(self, module, name):
            return lambda *arguments: arguments

    return Uncalled(io.BytesIO(pickled)).load()


def test_a_buffer_in_a_region_goes_as_a_reference_and_a_damaged_one_is_no_error_before_it_is_used():
    pickling = distributed.protocol.pickle
    shared = mori.share(np.arange(10_000))
    view, buffers = np.asarray(shared)[100:], []
    with use_transport("reference"):
        pickled = pickling.dumps(view, buffer_callback=buffers.append)
    assert not buffers
    assert len(pickled) < 500
    found = pickling.loads(pickled, buffers=buffers)
    assert np.shares_memory(found, view)
    np.testing.assert_array_equal(found, view)
    inner, ((payload, offset, nbytes),) = _arguments(pickled)
    for damaged in (
        (payload, 1 << 20, nbytes),
        (payload, offset, nbytes + 8),
        (payload[:1] + os.urandom(16) + payload[17:], offset, nbytes),
    ):
        seen = mori_dask.buffers._load(inner, [damaged])
        with pytest.raises(mori.MoriError):
            seen.sum()
    with use_transport("value"):
        pickling.dumps(view, buffer_callback=buffers.append)
    assert memoryview(buffers[-1]).nbytes == view.nbytes
    pickling.dumps(view, buffer_callback=buffers.append)  # nobody has said where it goes
    assert memoryview(buffers[-1]).nbytes == view.nbytes


def test_no_bytes_of_an_array_are_taken_for_a_reference():
    """Nothing stands for a region among the buffers, so an array may begin like anything that is sent."""
    shared, sent = mori.share(np.arange(10_000)), []
    with use_transport("reference"):
        pickled = distributed.protocol.pickle.dumps(np.asarray(shared), buffer_callback=sent.append)
    _, ((payload, *_),) = _arguments(pickled)
    assert not hasattr(distributed.protocol.pickle.loads, "_mori")
    former = bytes.fromhex("8f3c1d6ae2b94705916d0cf2a7583be4")  # began a frame of 73 bytes once
    context = {"recipient": {"mori": {"domain": mori_dask.domain(), "relay": False}}}
    for data in (
        payload,
        pickled,
        former + bytes(57),
        former + bytes(16) + payload,
        MAGIC * 9,
    ):
        array = np.frombuffer(data, "u1")
        frames = distributed.protocol.dumps([to_serialize(array), to_serialize([array])], context=context)
        got, (inside,) = distributed.protocol.loads(frames)
        assert got.tobytes() == inside.tobytes() == data


def test_what_is_relayed_is_held_and_mapped_by_nobody(monkeypatch: pytest.MonkeyPatch):
    """A scheduler has the frames alone, and the region is there for as long as it has them."""
    monkeypatch.setenv("MORI_GRACE", "0")
    here = {"recipient": {"mori": {"domain": mori_dask.domain(), "relay": "reference"}}}
    there = {"recipient": {"mori": {"domain": "elsewhere", "relay": False}}}
    shared = mori.share(np.arange(100_000))
    name = mori.shared_name(shared)
    frames = distributed.protocol.dumps({"data": to_serialize([{"a": shared}])}, context=here)
    assert sum(memoryview(frame).nbytes for frame in frames) < 2000
    held = distributed.protocol.loads(frames, deserialize=False)
    del shared
    assert not [one for one in mappings.live() if format_name(one.name) == name]
    passed = distributed.protocol.dumps(
        held, context={"recipient": {**here["recipient"]["mori"], "mori": {}}}
    )
    assert sum(memoryview(frame).nbytes for frame in passed) > 800_000  # to who has not said where it is
    (got,) = distributed.protocol.loads(distributed.protocol.dumps(held, context=here)).values()
    assert mori.shared_name(got[0]["a"]) == name
    del got
    (got,) = distributed.protocol.loads(distributed.protocol.dumps(held, context=there)).values()
    np.testing.assert_array_equal(got[0]["a"], np.arange(100_000))
    assert not mori.is_shared(got[0]["a"])
    del held, got, passed
    gc.collect()
    assert name not in [entry.name for entry in mori.regions()]


def test_an_exception_is_passed_on_with_references_here_and_with_bytes_to_others(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MORI_GRACE", "0")
    context = {"recipient": {"mori": {"domain": mori_dask.domain(), "relay": "reference"}}}
    there = {"recipient": {"mori": {"domain": "elsewhere", "relay": False}}}
    opens = {"recipient": {"mori": {"domain": mori_dask.domain(), "relay": False}}}
    shared = mori.share(np.arange(100_000))
    name = mori.shared_name(shared)
    message = worker.error_message(ValueError(shared))
    again = worker.error_message(ValueError(shared))
    foreign = distributed.protocol.dumps(message, context=there)
    assert sum(memoryview(frame).nbytes for frame in foreign) > 800_000
    direct = distributed.protocol.dumps(again, context=opens)
    frames = distributed.protocol.dumps(message, context=context)
    assert max(sum(memoryview(frame).nbytes for frame in some) for some in (direct, frames)) < 10_000
    held = distributed.protocol.loads(frames, deserialize=False)
    del shared
    assert name in [entry.name for entry in mori.regions()]
    passed = distributed.protocol.dumps(held, context=there)
    here = distributed.protocol.dumps(held, context=opens)
    for got, is_shared in ((passed, False), (foreign, False), (here, True), (direct, True)):
        _, exception, _ = core.clean_exception(**distributed.protocol.loads(got))
        (array,) = exception.args
        np.testing.assert_array_equal(array, np.arange(100_000))
        assert mori.is_shared(array) == is_shared
    held["exception"].let_go()
    del array, exception, got, again, message
    gc.collect()
    assert name not in [entry.name for entry in mori.regions()]


def test_what_shares_its_first_object_while_it_is_pickled_is_pickled_by_value_and_once():
    code = """
        import pickle
        import mori, mori_dask
        import numpy as np
        from distributed.protocol import dumps, loads
        from distributed.protocol.pickle import dumps as pickled
        from mori.memory import mapping as mappings
        from mori.memory import region

        class Sharing:
            def __reduce__(self):
                return list, ((mori.share(np.arange(5000.0)),),)

        buffers = []
        assert not mappings.used.ever
        first = pickled([np.ones(3000), Sharing()], buffer_callback=buffers.append)
        assert mappings.used.ever
        own, (shared,) = pickle.loads(first, buffers=buffers)
        mappings.used.ever = False
        frames = dumps([Sharing()])
        print(len(buffers), own.sum(), shared.sum() == np.arange(5000.0).sum(), mori.is_shared(shared),
              sum(map(len, frames)) > 40_000, loads(frames)[0][0][-1])
    """
    assert run_python(code) == "2 3000.0 True False True 4999.0"


def test_a_message_is_asked_once_who_keeps_what_is_in_it(monkeypatch):
    asked = []
    monkeypatch.setattr(mori_dask.message, "_is_held_by_sender", lambda msg: asked.append(1) or True)
    shared = mori.share(np.arange(1000.0))
    info = {"mori": mori_dask.handshake.said(relay=True)}
    parts = [to_serialize(shared) for _ in range(20)]
    frames = distributed.protocol.dumps(parts, context={"recipient": info})
    assert len(asked) == 1
    assert sum(memoryview(frame).nbytes for frame in frames) < shared.nbytes * len(parts)


def test_a_message_has_no_attributes_but_its_own():
    message = mori_dask.message.Message({"op": "x"}, {})
    assert not hasattr(message, "anything")
    assert message.opened is False
