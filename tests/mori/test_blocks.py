"""Small objects in containers lie in blocks: they come back as the exact builtins, and no write is lost."""

import decimal
import gc
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.codecs.streams import Blocks
from mori.format.node import open_node, root_of
from mori.memory import mapping as mappings
from tests.mori import classes as c
from tests.regions import exact, region_of

leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None))),
    *(st.binary(), st.complex_numbers()),
)
keys = st.recursive(
    leaves, lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)), max_leaves=4
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        *(st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(keys, inner, max_size=4)),
        *(st.sets(keys, max_size=4), st.frozensets(keys, max_size=4)),
    ),
    max_leaves=20,
)


@given(tree=trees)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_small_tree_is_written_is_what_is_read(tree):
    for obj in ([tree, np.arange(2)], [tree, *map(list, range_pairs())]):
        read = open_node(root_of(mappings.map_bytes(region_of(obj))))[0]
        assert exact(read, tree)


def range_pairs():
    return ((i, i) for i in range(100))


RECORD = {"id": 7, "tags": ["a", ("b", 1.5)], "seen": {1, 2}, "fixed": frozenset({b"x"}), "none": None}


def test_a_record_is_one_node_and_its_exact_builtin(store, worker):
    shared = mori.share([RECORD, np.arange(3), (1, "x"), {3}, frozenset({4}), [], {}])
    kinds = [dict, np.ndarray, tuple, set, frozenset, list, dict]
    assert [type(part) for part in shared] == kinds
    assert exact(shared[0], RECORD)
    assert worker(lambda x: [type(part) for part in x], shared) == kinds
    assert worker(lambda x: x[0], shared) == RECORD
    assert shared[0] is shared[0]
    assert not mori.is_shared(shared[0])
    assert mori.shared_name(shared[0]) is None


@pytest.mark.parametrize("inner", [list(range(600)), ["x"] * 600, dict.fromkeys(range(600)), set(range(600))])
def test_what_is_large_is_a_view(store, inner):
    for obj in ([inner, 1], [inner] + [[i] for i in range(100)]):
        shared = mori.share(obj)
        assert isinstance(shared[0], mori.SharedList | mori.SharedDict | mori.SharedSet)
        assert mori.is_shared(shared[0])
        assert shared[0] == inner


def test_the_inside_of_a_record_has_names(store, worker):
    shared = mori.share([0, {"config": {"lr": 0.1, "layers": [3, (4, 5)]}, "a": np.arange(2)}, {"s": {1}}])
    root = mori.shared_name(shared)
    assert worker(mori.map_shared, f"{root}[1,0]") == {"lr": 0.1, "layers": [3, (4, 5)]}
    assert mori.map_shared(f"{root}[1,0,0]") == 0.1
    assert mori.map_shared(f"{root}[1,0,1,1,0]") == 4
    for path in ("[1,0,2]", "[1,0,0,0]", "[1,0,1,2]", "[2,0,0]"):
        with pytest.raises(mori.PartNotFoundError):
            mori.map_shared(root + path)


WRITES = {
    "item": lambda x: x["config"].__setitem__("lr", 0.2),
    "list in it": lambda x: x["config"]["layers"].append(9),
    "set in it": lambda x: x["config"]["names"].add(2),
    "in a tuple": lambda x: x["pair"][1].append(3),
    "in a list of views": lambda x: x["deep"][0]["inner"].update(new=1),
    "emptied": lambda x: x["config"].clear(),
    "type alone": lambda x: x["config"].__setitem__("lr", 0),
}


def tree() -> dict:
    return {
        "config": {"lr": 0, "layers": [1, 2], "names": {1}},
        "pair": (1, [2]),
        "deep": [{"inner": {"k": [1]}, "array": np.arange(300)}],
        "array": np.arange(400),
    }


def plain(x):
    return {key: (value.tolist() if key == "array" else value) for key, value in mori.materialize(x).items()}


@pytest.mark.parametrize("how", WRITES)
def test_a_write_to_a_builtin_is_seen_by_the_next_look_and_by_pickling(store, worker, how):
    shared, untouched, expected = mori.share(tree()), mori.share(tree()), tree()
    name = mori.shared_name(shared)
    if how == "type alone":
        expected["config"]["lr"] = 1
        shared["config"]["lr"] = True
        assert shared["config"]["lr"] is True
    else:
        WRITES[how](shared)
        WRITES[how](expected)
    gc.collect()
    assert exact(plain(shared)["config"], {**expected["config"], **shared["config"]})
    assert repr(mori.materialize(shared)) == repr(expected) or how == "type alone"
    assert not mori.is_shared(shared)

    def look(x):
        return type(x), repr(mori.materialize(x)), mori.is_shared(x["array"])

    assert worker(look, shared) == (dict, repr(mori.materialize(shared)), True)
    assert repr(mori.materialize(mori.map_shared(name))) == repr(tree())
    assert mori.is_shared(untouched)


def test_a_look_alone_leaves_everything_shared(store):
    shared = mori.share(tree())
    config, inner = shared["config"], shared["deep"][0]["inner"]
    assert mori.is_shared(shared)
    assert len(pickle.dumps(shared, 5)) <= 100
    inner["k"].append(2)
    assert not mori.is_shared(shared)
    assert config == tree()["config"]


def test_what_is_held_or_changed_stays_and_the_rest_is_let_go(store):
    shared = mori.share([{"i": i, "l": [i]} for i in range(5000)])
    held, inside, value = shared[10], shared[11]["l"], shared[13]["i"]
    shared[12]["i"] = "changed"
    for i in range(100, 5000):
        assert shared[i]["i"] == i
    assert len(shared._source._read) <= 16 + 4
    held["i"] = inside[0] = "later"
    for i in range(100, 5000):
        assert shared[i]["l"] == [i]
    assert [shared[10]["i"], shared[11]["l"], shared[12]["i"]] == ["later", ["later"], "changed"]
    assert shared[13]["i"] == value
    back = pickle.loads(pickle.dumps(shared))
    assert [back[i] for i in (10, 11, 12)] == [shared[i] for i in (10, 11, 12)]
    rows = [*shared]
    assert rows[4000] is shared[4000]
    rows[4000]["i"] = 0
    del rows
    assert shared[4000]["i"] == 0
    assert not mori.is_shared(shared)


@pytest.mark.parametrize("size", [3, 300])
def test_what_was_read_of_records_with_arrays_is_let_go(store, size):
    shared = mori.share([{"id": i, "x": np.arange(i, i + size), "y": (np.ones(2), 1)} for i in range(1000)])
    assert sum(int(record["x"][0]) for record in shared) == sum(range(1000))
    assert shared._source.is_idle()
    shared[500]["x"][1] = -1
    assert [int(record["x"][1]) for record in shared][499:502] == [500, -1, 502]
    assert pickle.loads(pickle.dumps(shared))[500]["x"][1] == -1


@pytest.mark.parametrize(
    "value", [pd.Timestamp("2024-02-29", tz="UTC"), pd.Timedelta(1), pd.Period("2024"), pd.NaT]
)
def test_scalars_of_pandas_are_values_that_nobody_has_to_watch(store, value):
    shared = mori.share([*([value] * 500), "text"])
    assert shared._source._is_fixed
    assert all(type(one) is type(value) for one in shared[:500])
    assert shared._source.is_idle()


def test_reading_many_records_accumulates_no_memory(store):
    shared = mori.share([{"i": i, "name": f"name {i}"} for i in range(30_000)])
    shared[0]
    gc.collect()
    tracemalloc.start()
    total = sum(record["i"] for record in shared)
    shared_at = [shared[i * 7919 % 30_000]["i"] for i in range(3000)]
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert total == sum(range(30_000))
    assert shared_at[1] == 7919
    assert kept < 300_000


def test_a_damaged_block_is_an_error_and_the_others_are_read():
    data = bytearray(region_of([[i, "text"] for i in range(1000)]))
    place = data.rindex(b"text")
    data[place] ^= 1
    opened = mori.frombuffer(bytes(data))
    assert opened[0] == [0, "text"]
    with pytest.raises(mori.CorruptRegionError, match="checksum"):
        opened[999]
    with pytest.raises(mori.CorruptRegionError, match="checksum"):
        list(opened)


def with_stream(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return a region in which a stream has other bytes, and the checksums that belong to them."""
    node = root_of(mappings.map_bytes(bytes(data)))
    blocks = Blocks(node.meta, node.buffers(), 0)
    changed = bytearray(data)
    assert len(old) == len(new)
    for number in range(blocks.count):
        stream = blocks.stream(number)
        start = data.index(stream)
        changed[start : start + len(stream)] = stream.replace(old, new)
        was, now = (struct.pack("<q", zlib.crc32(one)) for one in (stream, stream.replace(old, new)))
        place = data.index(was)
        changed[place : place + 8] = now
    return bytes(changed)


def test_a_stream_that_names_what_its_node_does_not_list_is_refused():
    data = region_of([decimal.Decimal(i) for i in range(100)])
    assert mori.frombuffer(with_stream(data, b"Decimal", b"Decimal"))[7] == 7
    forged = mori.frombuffer(with_stream(data, b"Decimal", b"Context"))
    with pytest.raises(mori.CorruptRegionError, match="does not list"):
        forged[7]


CONSTANTS = (c.T, c.START, c.Point, c.Word, c.STOP, c.Fit, c.Value, c.SKIP, c.Point, c.LAST, c.T)


@pytest.mark.parametrize("others", [decimal.Decimal, lambda i: [decimal.Decimal(i), c.Point], lambda i: [i]])
@pytest.mark.parametrize("distance", [1, 10, 20, 30, 40, 120, 150, 300])
def test_constants_without_a_qualified_name_are_listed_wherever_they_are(others, distance):
    plain = [others(i) for i in range(distance * (len(CONSTANTS) + 1))]
    plain[distance::distance] = CONSTANTS
    opened = mori.frombuffer(region_of(plain))
    assert exact([*opened], plain)
    assert all(one is other for one, other in zip(opened[distance::distance], CONSTANTS, strict=True))


def test_one_list_that_stands_in_several_small_containers_is_one(store):
    tags, inner = ["a"], {"k": 1}
    plain = [{"id": 1, "tags": tags}, {"id": 2, "tags": tags}, tags, {"deep": [{"inner": inner}]}, (inner,)]
    shared = mori.share(plain)
    assert shared == plain
    assert shared[0]["tags"] is shared[1]["tags"] is shared[2]
    assert shared[3]["deep"][0]["inner"] is shared[4][0]
    shared[1]["tags"].append("b")
    shared[4][0]["k"] = 2
    for again in (shared, pickle.loads(pickle.dumps(shared))):
        assert again[0]["tags"] == again[2] == ["a", "b"]
        assert again[3]["deep"][0]["inner"] == {"k": 2}


def test_pickling_after_reading_everything_costs_what_is_held(store):
    shared = mori.share([[i, [i]] for i in range(5000)])
    for element in shared:
        assert element[1] == [element[0]]
    del element
    assert len(pickle.dumps(shared, 5)) <= 100
    assert not shared._source._read
    held = [shared[i] for i in range(0, 5000, 500)]
    assert len(pickle.dumps(shared, 5)) <= 100
    assert len(shared._source._read) == len(held)
    held[3].append("more")
    assert pickle.loads(pickle.dumps(shared, 5))[1500] == [1500, [1500], "more"]
