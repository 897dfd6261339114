"""Lists of records: exact, equal to the builtins, and no write to a record is lost."""

import gc
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.codecs.containers import SMALL
from mori.format.layout import Id
from mori.format.node import open_node, root_of
from mori.memory import mapping as mappings
from tests.regions import exact, region_of

N = 1500  # several blocks, and a last one that is not full


def record(i: int) -> dict:
    mixed = (i, i * 0.5, i % 2 == 0, f"s{i}", b"b", None)[i % 6]
    return {"id": i, "name": f"ä {i}" if i % 3 else None, "x": i * 0.5, 7: mixed, "big": i << 62, "n": None}


KINDS = {
    "list of dicts": lambda: [record(i) for i in range(N)],
    "tuple of dicts": lambda: tuple(record(i) for i in range(N)),
    "list of tuples": lambda: [tuple(record(i).values()) for i in range(N)],
    "tuple of tuples": lambda: tuple((i, str(i)) for i in range(N)),
}


@pytest.mark.parametrize("name", KINDS)
def test_records_are_one_node_and_come_back_exactly(store, worker, name):
    plain = KINDS[name]()
    shared = mori.share(plain)
    assert type(shared) is (mori.SharedList if "list of" in name else mori.SharedTuple)
    assert (shared._node.record.codec, len(shared._node)) == (Id.BLOCKS, 0)
    assert exact([*shared], [*plain])
    assert exact([shared[i] for i in range(N)], [*plain])
    assert exact([*reversed(shared)], [*reversed(plain)])
    assert exact(mori.materialize(shared), plain)
    assert exact(worker(lambda x: [*x], shared), [*plain])
    assert worker(lambda x: type(x[3]), shared) is type(plain[3])
    assert shared == plain
    assert shared != type(plain)([*plain[:-1], plain[0]])
    assert (plain[700] in shared, shared.index(plain[700]), shared.count(plain[1])) == (True, 700, 1)
    assert mori.is_shared(shared)
    assert len(pickle.dumps(shared, 5)) <= 100
    with mori.by_value():
        data = pickle.dumps(shared, 5)
    assert exact([*pickle.loads(data)], [*plain])
    for take in (
        slice(1, 3),
        slice(500, 1100),
        slice(None, None, -7),
        slice(-2, None),
        slice(3, 1),
        slice(None),
    ):
        assert exact(shared[take], plain[take])
    assert exact(mori.share([shared, 1])[0][5], plain[5])


values = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=9)),
)
keys = st.one_of(st.text(st.characters(codec=None), max_size=5), st.integers())


@st.composite
def tables(draw):
    fields = draw(st.lists(keys, min_size=1, max_size=5, unique=True))
    kinds = [
        draw(st.sampled_from([values, st.integers(0, 9), st.floats(), st.text(max_size=3)])) for _ in fields
    ]
    found = draw(st.lists(st.tuples(*kinds), min_size=1, max_size=12))
    if draw(st.booleans()):
        return found
    return [dict(zip(fields, each, strict=True)) for each in found]


@given(plain=tables(), data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_records_are_written_are_what_is_read(plain, data):
    plain = plain * (1 + SMALL // len(plain)) if data.draw(st.booleans()) else plain
    shared = open_node(root_of(mappings.map_bytes(region_of(plain))))
    start, stop = data.draw(st.integers(0, len(plain))), data.draw(st.integers(0, len(plain)))
    assert exact(shared[start:stop], plain[start:stop])
    assert exact([*shared], plain)
    assert exact([shared[i] for i in range(len(plain))], plain)
    for row, other in zip(shared, shared, strict=True):
        assert row is other or type(row) is tuple
    assert shared._mori_is_intact()


# what is written to a record


WRITES = {
    "value": lambda row: row.__setitem__("id", -1),
    "type alone": lambda row: row.__setitem__("zero", False),
    "sign of a zero": lambda row: row.__setitem__("zero float", -0.0),
    "new key": lambda row: row.__setitem__("new", [1]),
    "key gone": lambda row: row.pop("name"),
    "last key gone": lambda row: row.pop("zero float"),
    "another order": lambda row: row.__setitem__("id", row.pop("id")),
    "emptied": lambda row: row.clear(),
    "another key": lambda row: row.__setitem__("other", row.pop("zero float")),
}


def table() -> list[dict]:
    return [{"id": i, "name": f"name {i}", "zero": 0, "zero float": 0.0} for i in range(N)]


@pytest.mark.parametrize("reach", ["index", "iteration", "slice", "list", "reversed", "negative"])
@pytest.mark.parametrize("how", WRITES)
def test_a_write_to_a_record_is_kept_and_travels(store, how, reach):
    shared, untouched, expected = mori.share(table()), mori.share(table()), table()
    reached = {
        "index": lambda x: x[600],
        "negative": lambda x: x[600 - N],
        "iteration": lambda x: next(itertools.islice(x, 600, None)),
        "slice": lambda x: x[590:610][10],
        "list": lambda x: list(x)[600],
        "reversed": lambda x: next(itertools.islice(reversed(x), N - 601, None)),
    }[reach]
    WRITES[how](reached(shared))
    WRITES[how](expected[600])
    for _ in shared:
        pass
    for i in range(0, N, 3):
        assert type(shared[i]) is dict
    gc.collect()
    assert exact(shared[600], expected[600])
    assert not mori.is_shared(shared)
    back = pickle.loads(pickle.dumps(shared))
    assert type(back) is list
    assert exact(back, expected)
    assert exact(mori.materialize(shared), expected)
    assert mori.is_shared(untouched)


def test_a_write_to_a_record_deep_inside_is_kept_when_its_list_is_gone(store):
    shared = mori.share({"a": [table(), np.arange(300)], "b": {str(i): {"id": i} for i in range(N)}})
    shared["a"][0][5]["id"] = -1
    gc.collect()
    assert shared["a"][0][5]["id"] == -1
    assert not mori.is_shared(shared)
    other = mori.share({"a": [table(), np.arange(300)], "b": {str(i): {"id": i} for i in range(N)}})
    assert other["b"]["9"] is other["b"]["9"]
    other["b"]["9"]["id"] = -9
    assert [row["id"] for row in other["b"].values()] == [*range(9), -9, *range(10, N)]
    assert not mori.is_shared(other)
    back = pickle.loads(pickle.dumps(other))
    assert (back["b"]["9"], mori.is_shared(back["a"][1])) == ({"id": -9}, True)


def test_reading_leaves_a_list_of_records_shared(store):
    shared = mori.share(table())
    held = [*shared][:700]
    shared[3], shared[-1]
    assert shared[699] is held[699]
    assert mori.is_shared(shared)
    assert len(pickle.dumps(shared, 5)) <= 100
    name = held[5]["name"]
    held[5]["name"] = "other"
    held[5]["name"] = "".join(list(name))  # equal, and of the same type: as it was
    assert mori.is_shared(shared)


def test_a_record_is_one_object_however_it_is_reached(store):
    shared = mori.share(table())
    single = shared[600]
    rows = [*shared]
    assert rows[600] is single is shared[600] is shared[590:610][10] is [*reversed(shared)][N - 601]
    for one, other in zip(shared, shared, strict=True):
        assert one is other
    first, second = iter(shared), iter(shared)
    taken = [*itertools.islice(first, 1000)]
    assert all(map(lambda a, b: a is b, taken, second))


def test_reading_many_records_accumulates_no_memory(store):
    shared = mori.share([{"i": i, "name": f"name {i}"} for i in range(30_000)])
    for _ in shared:
        pass
    gc.collect()
    tracemalloc.start()
    for _ in range(2):
        assert sum(row["i"] for row in shared) == sum(range(30_000))
    taken = [shared[i * 7919 % 30_000]["i"] for i in range(3000)]
    rows = [*shared]
    assert len(rows) == 30_000
    del rows
    for _ in shared:
        pass
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken[1] == 7919
    assert kept < 1_000_000


def test_a_write_by_an_iterator_that_others_have_overtaken_is_kept(store):
    shared = mori.share(table())
    slow = iter(shared)
    next(slow)
    for _ in range(2):
        for _ in shared:
            pass
    next(slow)["id"] = -1
    assert [shared[i]["id"] for i in range(3)] == [0, -1, 2]
    assert [row["id"] for row in shared][:3] == [0, -1, 2]


def test_an_iterator_that_is_left_does_not_keep_its_block_for_ever(store):
    shared = mori.share(table())
    for i in range(50):
        for row in itertools.islice(shared, i * 20, None):
            assert row["id"] == i * 20
            break
    for _ in shared:
        pass
    del row, _
    assert shared._source.is_idle()


@pytest.mark.parametrize("root", [
    lambda rows: {"rows": rows, "first": rows[0]},
    lambda rows: {"first": rows[0], "rows": rows},
    lambda rows: [rows, [row for row in rows if row["id"] % 2]],
    lambda rows: [rows, {"deep": ["x" * 600, {"k": rows[3]}]}],
    lambda rows: [{"k": [rows[3]]}, rows],
    lambda rows: [*rows, rows[0]],
    lambda rows: [rows, rows],
], ids=["after", "before", "filtered", "deep", "in a record", "twice", "list twice"])  # fmt: skip
def test_a_record_that_stands_elsewhere_too_stays_one_object(store, root):
    plain = root(table()[:40])
    shared = mori.share(plain)
    assert mori.materialize(shared) == plain

    def same(x):
        if isinstance(x, dict | mori.SharedDict):
            return x["rows"][0] is x["first"]
        if len(x) == 41:
            return x[0] is x[40]
        if len(x[0]) == 1:
            return x[0]["k"][0] is x[1][3]
        if type(x[1]) is dict or isinstance(x[1], mori.SharedDict):
            return x[0][3] is x[1]["deep"][1]["k"]
        return x[0][1] is x[1][1 if len(x[1]) == 40 else 0]

    assert same(plain)
    assert same(shared)
    assert same(pickle.loads(pickle.dumps(shared)))


def test_records_have_names(store, worker):
    shared = mori.share({"a": [1, "x"], "rows": table()})
    root = mori.shared_name(shared)
    assert mori.shared_name(shared["rows"]) == f"{root}[1]"
    assert worker(mori.map_shared, f"{root}[1,2]") == table()[2]
    assert mori.map_shared(f"{root}[1,2,1]") == "name 2"
    for path in (f"[1,{N}]", "[1,2,4]", "[1,2,1,0]"):
        with pytest.raises(mori.PartNotFoundError):
            mori.map_shared(root + path)
    assert mori.shared_name(shared["rows"][2]) is None


def test_a_structural_change_keeps_what_was_written_to_the_records(store):
    shared = mori.share(table())
    row = shared[4]
    row["id"] = "four"
    shared.append({"id": "new"})
    assert shared[4] is row
    assert [shared[i]["id"] for i in (3, 4, N)] == [3, "four", "new"]
    assert pickle.loads(pickle.dumps(shared))[4]["id"] == "four"


def test_a_repr_of_records_is_bounded(store):
    shared = mori.share([{"id": i, "text": "x" * 100_000} for i in range(40)])
    assert len(repr(shared)) < 2000
    assert len(shared) == 40
    assert shared[39] == {"id": 39, "text": "x" * 100_000}


def test_a_record_among_many_is_read_without_the_others(store):
    shared = mori.share([{"id": i, "text": "x" * 1000} for i in range(20_000)])
    shared[0]
    tracemalloc.start()
    assert shared[12_345]["id"] == 12_345
    assert next(iter(shared))["id"] == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_keys_of_a_dict_and_elements_of_a_set_may_be_records_that_are_tuples(store):
    plain = {(i, str(i)): i for i in range(100)}
    shared = mori.share({"d": plain, "s": {*plain}, "x": np.arange(3)})
    assert shared["d"] == plain
    assert shared["d"][7, "7"] == 7
    assert set(shared["s"]) == set(plain)
