"""A small container inside another is one node, comes back as the exact builtin, and loses no write."""

import gc
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.codecs import small
from mori.format import layout, writer
from mori.format.layout import Codec as Id
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import region
from mori.objects.containers import handed

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


def region_of(obj) -> bytes:
    plan = measure(obj)
    head = layout.Header(bytes(16), writer.region_nbytes(plan), writer.ROOT, 1, 1, 0)
    return bytes(writer.to_bytes(plan, head))


def exact(value):
    """Return what two values share only if they are equal with all their types, NaN included."""
    if type(value) in (list, tuple):
        return type(value), [exact(element) for element in value]
    if type(value) is dict:
        return dict, [(exact(key), exact(element)) for key, element in value.items()]
    if type(value) in (set, frozenset):
        return type(value), sorted(repr(exact(element)) for element in value)
    if type(value) is float:
        return float, struct.pack("<d", value)
    if type(value) is complex:
        return complex, struct.pack("<dd", value.real, value.imag)
    return type(value), value


@given(tree=trees)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_small_tree_is_written_is_what_is_read(tree):
    encoded = small.encode(tree)
    if encoded is None or type(tree) not in (list, tuple, dict, set, frozenset):
        return
    assert len(encoded) <= small.MOST
    read = open_node(root_of(region.over(region_of([tree, np.arange(2)]))))[0]
    assert exact(read) == exact(tree)
    assert small.encode(read) == encoded  # so that a write is found, whatever order a set has


RECORD = {"id": 7, "tags": ["a", ("b", 1.5)], "seen": {1, 2}, "fixed": frozenset({b"x"}), "none": None}


def test_a_record_is_one_node_and_its_exact_builtin(store, worker):
    shared = mori.share([RECORD, np.arange(3), (1, "x"), {3}, frozenset({4}), [], {}])
    kinds = [dict, mori.SharedArray, tuple, set, frozenset, list, dict]
    assert [type(part) for part in shared] == kinds
    assert exact(shared[0]) == exact(RECORD)
    assert shared._node.child(0).record.codec == Id.SMALL
    assert worker(lambda x: [type(part) for part in x], shared) == kinds
    assert worker(lambda x: x[0], shared) == RECORD
    assert shared[0] is shared[0]
    assert not mori.is_shared(shared[0])
    assert mori.shared_name(shared[0]) is None


@pytest.mark.parametrize("inner", [
    ["x" * 600], [np.int64(1)], [np.arange(2)], list(range(1000)), {"a": [1, np.arange(2)]}, ["x"] * 600,
    {1: object}, [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]],
], ids=lambda inner: repr(inner)[:30])  # fmt: skip
def test_what_is_large_or_lazy_keeps_its_container_a_view(store, inner):
    assert isinstance(mori.share([inner, 1])[0], mori.SharedList | mori.SharedDict)


def test_a_list_that_stands_twice_in_a_record_does_not_become_two_unseen():
    twice = [1]
    assert small.encode([twice, twice]) is None
    assert small.encode([[1], [1]]) is not None


def test_the_root_is_a_view_however_small(store):
    for root, kind in (([1], mori.SharedList), ((1,), mori.SharedTuple), ({1: 2}, mori.SharedDict)):
        assert type(mori.share(root)) is kind


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
        "deep": [{"inner": {"k": [1]}, "array": np.arange(3)}],
        "array": np.arange(4),
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
    assert exact(plain(shared)["config"]) == exact({**expected["config"], **shared["config"]})
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
    assert len(shared._opening._handed._parts) <= 64 + 3
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


@pytest.mark.parametrize("meta", [
    b"", b"[", b"[\1\0", b"[\xff\xff", b"[\0\0n", b"i\1\0\1", b"[\1\0z", b"[\1\0s\xff\xffabc",
    b"[\1\0s\1\0\xff",
    b"{\1\0[\0\0n", b"{\2\0nnnn", b"<\2\0nn", b"<\1\0[\0\0", b">\2\0tt", b"[\1\0" * 17 + b"n", b"[\1\0d\0",
    b"[\1\0" * 100, b"(" + b"\0" * 600, b"[\x00\x02" + b"n" * 512,
], ids=repr)  # fmt: skip
def test_a_damaged_record_is_an_error(meta):
    plan = measure([{"a": 1}, 2.5])
    plan.children[0].meta = meta
    plan.children[0].close()
    plan.table = []
    plan.close()
    head = layout.Header(bytes(16), writer.region_nbytes(plan), writer.ROOT, 1, 1, 0)
    opened = open_node(root_of(region.over(writer.to_bytes(plan, head))))
    assert opened[1] == 2.5
    with pytest.raises(mori.CorruptRegionError):
        opened[0]


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


def test_pickling_many_held_parts_looks_at_each_once(store, monkeypatch):
    data = np.arange(600)
    x = mori.share([[data, {"k": i}] for i in range(300)])
    views, records = list(x), [part[1] for part in x]
    records[7]["k"] = -1
    looked = []
    monkeypatch.setattr(
        handed, "is_as_written", lambda *args, real=handed.is_as_written: looked.append(1) or real(*args)
    )
    copy = pickle.loads(pickle.dumps(x))
    assert [part[1]["k"] for part in copy] == [*range(7), -1, *range(8, 300)]
    assert len(looked) < 5 * len(views)
