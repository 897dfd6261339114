"""What is one object is written once, and is one object again: in every container, and when written to."""

import gc
import pickle
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.format import layout, writer
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import mapping as mappings
from tests.mori.damage import checksummed
from tests.mori.pandas_versions import str_frame
from tests.regions import bytes_of

pytestmark = pytest.mark.usefixtures("views")

CONTAINERS = (mori.SharedList, mori.SharedTuple, mori.SharedDict, list, tuple, dict)


def region_nbytes(obj) -> int:
    return writer.region_nbytes(measure(obj))


ONCE = {
    "array": lambda: np.zeros(10_000),
    "list": lambda: [np.zeros(10_000), 1],
    "tuple": lambda: (np.zeros(10_000), 1),
    "dict": lambda: {"k": np.zeros(10_000)},
    "frame": lambda: str_frame({"a": np.zeros(10_000), "s": ["x"] * 10_000}),
    "series": lambda: pd.Series(np.zeros(10_000)),
    "index": lambda: pd.Index(np.arange(10_000) * 2),
    "bytes": lambda: b"x" * 80_000,
    "set": lambda: set(range(30_000)),
    "objects": lambda: np.array([{"a": 1}, "b" * 80_000], object),
}


@pytest.mark.parametrize("kind", ONCE)
def test_what_is_met_twice_is_written_once_and_is_one_object(store, worker, kind):
    part = ONCE[kind]()
    other = [{}]  # what is not of one kind with it: the strings of a packed list are no nodes
    once, often = region_nbytes([part, other]), [part, part, {"k": part, "o": other}, (1, [part, other])]
    shared = mori.share(often)
    assert region_nbytes(often) < once + 1500
    for opened in (shared, mori.map_shared(mori.shared_name(shared)), pickle.loads(pickle.dumps(shared))):
        first = opened[0]
        assert first is opened[1]
        assert first is opened[2]["k"]
        assert first is opened[3][1][0]
        assert pickle.dumps(mori.materialize(first)) == pickle.dumps(mori.materialize(opened[3][1][0]))
    assert worker(lambda x: type(x[0]) is type(x[3][1][0]) and len(x[0]) == len(x[1]), shared)
    private = mori.materialize(shared)
    assert private[0] is private[1]
    assert private[0] is private[2]["k"]
    assert private[0] is private[3][1][0]


def test_an_index_of_many_series_is_written_once(store):
    index = pd.Index(np.arange(10_000) * 3, name="i")
    shared = mori.share({number: pd.Series(np.ones(10_000), index=index) for number in range(5)})
    assert shared._node.extent < 6 * 80_000 + 5_000
    for number in range(5):
        pd.testing.assert_series_equal(pd.Series(shared[number]), pd.Series(np.ones(10_000), index=index))
    with mori.by_value():
        last = pickle.loads(pickle.dumps(shared[4]))
    pd.testing.assert_series_equal(pd.Series(last), pd.Series(np.ones(10_000), index=index))
    assert mori.shared_name(shared[4]) == f"{mori.shared_name(shared)}[4]"


def test_small_values_and_keys_are_not_aliased(store):
    key, text = ("k", (1, 2)), "text"
    shared = mori.share([{key: text}, {key: text}, text, text, (), (), key, key])
    assert shared == [{key: text}, {key: text}, text, text, (), (), key, key]
    assert shared[6] is shared[7]
    assert [type(found) for found in shared[0]] == [tuple]


def test_empty_lists_that_are_two_stay_two(store):
    one, other = [], []
    shared = mori.share([one, other, one])
    assert shared[0] is shared[2]
    assert shared[0] is not shared[1]
    shared[0].append(1)
    assert shared == [[1], [], [1]]


# random graphs: the pattern of identities is that of the original


def graph(choices: list[tuple[int, list[int]]]):
    """Build containers and arrays, each over some of those before it; the last ones stand in a list."""
    made: list = [np.arange(3), "text", 1.5, np.ones((2, 2))]
    for kind, parts in choices:
        inside = [made[part % len(made)] for part in parts]
        if kind == 0:
            made.append(inside)
        elif kind == 1:
            made.append((*inside, [len(made)]))  # one that is no constant of the compiler
        elif kind == 2:
            made.append({f"k{place}": part for place, part in enumerate(inside)})
        else:
            made.append(np.full(2, len(made)))
    return made[4:]


def pattern(obj) -> list:
    """Number the objects in the order in which a walk meets them: equal for equal graphs."""
    seen: dict[int, tuple[int, object]] = {}
    out: list = []
    pending = [obj]
    while pending:
        part = pending.pop()
        if not isinstance(part, (*CONTAINERS, np.ndarray)):
            out.append(part)
            continue
        if id(part) in seen:
            out.append(("again", seen[id(part)][0]))
            continue
        seen[id(part)] = len(seen), part
        kind = type(part).__name__.removeprefix("Shared").lower()
        if isinstance(part, np.ndarray):
            out.append(part.tolist())
        elif kind == "dict":
            out.append((kind, list(part)))
            pending.extend(part.values())
        else:
            out.append((kind, len(part)))
            pending.extend(part)
    return out


small = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 40), max_size=4)), min_size=1, max_size=6
).map(graph)
graphs = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 40), max_size=4)), min_size=1, max_size=12
).map(graph)
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@given(obj=graphs)
@many
def test_whatever_is_one_object_is_one_again(store, obj):
    expected = pattern(pickle.loads(pickle.dumps(obj)))
    shared = mori.share(obj)
    assert pattern(shared) == expected
    assert pattern(mori.map_shared(mori.shared_name(shared))) == expected
    assert pattern(mori.materialize(shared)) == expected
    with mori.by_value():
        assert pattern(pickle.loads(pickle.dumps(shared))) == expected
    assert pattern(mori.share([shared])[0]) == expected


@given(obj=graphs, place=st.integers(0, 100))
@many
def test_a_part_that_travels_by_value_takes_along_what_it_refers_to(store, obj, place):
    shared = mori.share(obj)
    part = shared[place % len(shared)]
    expected = pattern(pickle.loads(pickle.dumps(obj[place % len(obj)])))
    with mori.by_value():
        in_band = pickle.dumps(part)
        out_of_band: list = []
        stream = pickle.dumps(part, 5, buffer_callback=out_of_band.append)
    assert pattern(pickle.loads(pickle.dumps(part))) == expected
    del shared, part
    for arrived in (pickle.loads(in_band), pickle.loads(stream, buffers=out_of_band)):
        assert pattern(arrived) == expected
        assert not mori.is_shared(arrived)
        with mori.by_value():  # and once more, now from a buffer
            assert pattern(pickle.loads(pickle.dumps(arrived))) == expected


def unfolded(obj):
    """Return what an object says, whatever is one object in it."""
    if isinstance(obj, np.ndarray):
        return obj.tolist()
    if isinstance(obj, dict | mori.SharedDict):
        return {key: unfolded(value) for key, value in obj.items()}
    return [unfolded(part) for part in obj] if isinstance(obj, CONTAINERS) else obj


ways = st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=4)


def write(obj, way: list[int]) -> None:
    """Walk into an object, and write where the walk ends."""
    for step in way:
        if isinstance(obj, np.ndarray) or not len(obj):
            break
        inner = (
            [*obj.values()][step % len(obj)]
            if isinstance(obj, dict | mori.SharedDict)
            else obj[step % len(obj)]
        )
        if not isinstance(inner, (*CONTAINERS, np.ndarray)):
            break
        obj = inner
    if isinstance(obj, np.ndarray):
        obj += 7
    elif isinstance(obj, dict | mori.SharedDict):
        obj["new"] = 7
    elif isinstance(obj, list | mori.SharedList):
        obj.append(7)


@given(obj=small, writes=ways)
@many
def test_writes_are_seen_wherever_the_object_is_met_and_travel(store, obj, writes):
    plain = pickle.loads(pickle.dumps(obj))
    untouched = pattern(plain)
    shared = mori.share(obj)
    other = mori.map_shared(mori.shared_name(shared))
    for way in writes:
        write(plain, way)
        write(shared, way)
    expected = pattern(plain)
    assert unfolded(pickle.loads(pickle.dumps(shared))) == unfolded(plain)
    with mori.by_value():
        assert unfolded(pickle.loads(pickle.dumps(shared))) == unfolded(plain)
    assert pattern(shared) == expected
    assert pattern(mori.materialize(shared)) == expected
    assert pattern(other) == untouched
    for ours, theirs in zip(shared, plain, strict=True):
        assert unfolded(pickle.loads(pickle.dumps(ours))) == unfolded(theirs)


def test_a_write_to_an_aliased_array_is_seen_through_every_reference(store, worker):
    array = np.arange(5.0)
    shared = mori.share([array, array, {"k": array}, (1, [array])])
    other = mori.map_shared(mori.shared_name(shared))
    part = shared[3]
    shared[0][0] = 9
    for opened in (shared, pickle.loads(pickle.dumps(shared)), worker(lambda x: x, shared)):
        assert opened[1][0] == opened[2]["k"][0] == opened[3][1][0][0] == 9
    assert shared[1] is shared[0]
    assert not mori.is_shared(shared)
    assert other[1][0] == other[3][1][0][0] == 0
    assert mori.is_shared(other)
    del shared
    gc.collect()
    assert part[1][0][0] == 9  # although nobody had taken it from here before
    assert worker(lambda x: x[1][0][0], part) == 9
    assert not mori.is_shared(part)
    assert mori.shared_name(part) is None


@pytest.mark.parametrize("taken", [False, True])
def test_a_write_through_an_alias_is_seen_where_the_object_stands_first(store, worker, taken):
    array, inner = np.arange(5.0), [1, 2]
    shared = mori.share([[array, inner], {"k": [array, inner]}])
    first = shared[0] if taken else None
    shared[1]["k"][0][0] = 9
    shared[1]["k"][1].append(3)
    assert shared[0][0][0] == 9
    assert shared[0][1] == [1, 2, 3]
    assert worker(lambda x: (x[0][0][0], x[0][1]), shared) == (9, [1, 2, 3])
    if taken:
        assert first is shared[0]
        assert worker(lambda x: (x[0][0], x[1]), first) == (9, [1, 2, 3])


def test_a_write_to_a_frame_is_seen_through_its_aliases_and_at_every_depth(store, worker):
    frame = pd.DataFrame({"a": [1, 2]})
    shared = mori.share([[frame, 1], {"k": (frame,)}, [np.arange(3)]])
    part = shared[1]
    shared[0][0].loc[0, "a"] = 9
    assert part["k"][0].loc[0, "a"] == 9
    for made in (part, worker(lambda x: x, part), pickle.loads(pickle.dumps(shared))[1]):
        assert made["k"][0].loc[0, "a"] == 9
    assert not mori.is_shared(shared)


def test_a_part_that_was_opened_on_its_own_is_not_the_one_of_another_opening(store):
    array = np.arange(5.0)
    shared = mori.share([array, [array]])
    name = mori.shared_name(shared)
    alone, again = mori.map_shared(f"{name}[0]"), mori.map_shared(f"{name}[1,0]")
    assert alone is not again
    assert alone is not shared[0]
    alone[0] = 9
    assert shared[0][0] == shared[1][0][0] == again[0] == 0


def test_an_alias_is_named_after_the_place_where_the_object_stands_first(store, worker):
    array = np.arange(1000)
    shared = mori.share([[1, array], {"k": [array]}, array])
    root = mori.shared_name(shared)
    for part in (shared[0][1], shared[1]["k"][0], shared[2]):
        assert mori.shared_name(part) == f"{root}[0,1]"
        assert len(pickle.dumps(part)) <= 100
        assert worker(mori.shared_name, part) == f"{root}[0,1]"
    for path in ("[0,1]", "[1,0,0]", "[2]"):
        assert mori.map_shared(root + path).sum() == array.sum()
        assert worker(lambda name: mori.map_shared(name).sum(), root + path) == array.sum()
    with pytest.raises(mori.PartNotFoundError, match="not a container"):
        mori.map_shared(f"{root}[2,0]")


def test_a_part_that_refers_to_nothing_outside_travels_by_value_without_being_rewritten(store):
    array = np.arange(1000)
    inside = [array, *([i] for i in range(1000))]
    shared = mori.share([array, inside, [np.ones(300), *([i] for i in range(1000))]])
    with mori.by_value():
        for place, rewritten in ((0, False), (1, True), (2, False)):
            out_of_band: list = []
            pickle.dumps(shared[place], 5, buffer_callback=out_of_band.append)
            (buffer,) = out_of_band
            address = np.frombuffer(buffer, np.uint8).ctypes.data
            assert (mappings.mapping_at(address, 1) is None) == rewritten


def test_what_is_shared_again_keeps_its_aliases(store):
    array = np.zeros(10_000)
    shared = mori.share([array, [array]])
    again = mori.share({"x": shared, "y": shared[1], "z": shared[0]})
    assert again._node.extent < 82_000
    assert again["x"][0] is again["z"]
    assert again["x"][1] is again["y"]
    assert again["y"][0] is again["z"]


def test_temporary_objects_of_a_codec_are_never_taken_for_one_another(store):
    frames = [pd.DataFrame({"a": [i], "c": pd.Categorical([str(i)])}) for i in range(300)]
    shared = mori.share([frames, [{"k": i, "v": [i]} for i in range(300)]])
    for i in range(300):
        assert shared[0][i]["a"][0] == i
        assert shared[0][i]["c"][0] == str(i)
        assert shared[1][i] == {"k": i, "v": [i]}


# damage


def aliased() -> tuple[bytearray, int]:
    """Return a region of an array and an alias to it, and where the alias starts."""
    array = np.arange(600.0)
    plan = measure([array, np.ones(512), array])
    data = bytearray(bytes_of(plan))
    return data, root_of(mappings.map_bytes(data)).here(2).offset


def distance(to: str) -> int:
    data, alias = aliased()
    root = root_of(mappings.map_bytes(data))
    offsets = {
        "itself": alias,
        "the root": root.offset,
        "what lies before the root": 0,
        "a node without the flag": root.here(1).offset,
        "a buffer": root.here(0).offset + root.here(0).extent - 32,
        "between nodes": root.here(0).offset + 8,
        "what is not aligned": root.here(0).offset + 1,
        "what lies behind": alias + root.here(2).extent,
        "another region": alias - (1 << 40),
        "nowhere": alias + (1 << 63),
    }
    return (alias - offsets[to]) % (1 << 64)


@pytest.mark.parametrize("to", [
    "itself", "the root", "what lies before the root", "a node without the flag", "a buffer",
    "between nodes", "what is not aligned", "what lies behind", "another region", "nowhere",
])  # fmt: skip
def test_an_alias_to_what_is_no_node_before_it_is_refused(to):
    data, alias = aliased()
    opened = open_node(root_of(mappings.map_bytes(bytes(data))))
    assert opened[2] is opened[0]
    struct.pack_into("<Q", data, alias + layout.NODE.size, distance(to))
    opened = open_node(root_of(mappings.map_bytes(bytes(checksummed(data)))))
    assert opened[1][:2].tolist() == [1, 1]
    with pytest.raises(mori.CorruptRegionError, match=r"alias|lies outside|stands in no tree|its p|checksum"):
        opened[2]


def test_an_alias_to_an_alias_is_refused():
    array = np.arange(600.0)
    plan = measure([array, array, array])
    plan.children[1].flags = layout.ALIASED
    plan.children[2].target = plan.children[1]
    data = bytearray(bytes_of(plan))
    alias = root_of(mappings.map_bytes(bytes(data))).here(1).offset
    opened = open_node(root_of(mappings.map_bytes(bytes(data))))
    assert opened[1] is opened[0]
    assert struct.unpack_from("<H", data, alias + 6) == (layout.ALIASED,)
    with pytest.raises(mori.CorruptRegionError, match="alias"):
        opened[2]


def test_an_alias_that_is_no_child_or_has_parts_is_refused():
    data, alias = aliased()
    struct.pack_into("<I", data, alias + 8, 7)  # bytes of the meta
    with pytest.raises(mori.CorruptRegionError, match="no alias"):
        open_node(root_of(mappings.map_bytes(bytes(checksummed(data)))))[2]
    plan = measure([[]])
    plan.codec, plan.meta, plan.buffers, plan.table = layout.Id.ALIAS, bytes(8), [], []
    with pytest.raises(mori.CorruptRegionError, match="stands alone"):
        open_node(root_of(mappings.map_bytes(bytes_of(plan))))


def test_a_later_flag_is_refused():
    plan = measure([[]])
    plan.flags = 4
    with pytest.raises(mori.CorruptRegionError, match="flags 0x4"):
        root_of(mappings.map_bytes(bytes_of(plan)))


def test_frames_over_one_block_keep_the_names_of_their_columns(store):
    frame = pd.DataFrame({"a": np.arange(600.0), "b": np.ones(600)})
    renamed = frame.copy(deep=False)
    renamed.columns = ["c", "d"]
    values = frame["a"]._mgr.blocks[0].values
    shared = mori.share([frame, renamed, values])
    root = mori.shared_name(shared)
    assert mori.shared_name(shared[1]["d"]) == f"{root}[1,1]"
    assert mori.map_shared(f"{root}[1,1]").name == "d"
    assert mori.shared_name(shared[2]) == f"{root}[2]"


@pytest.mark.parametrize("times", [1, 100])
def test_a_large_part_that_is_met_again_and_refers_to_another_is_asked_once(store, times):
    first = [[i] for i in range(600)]
    second = [*([i] for i in range(600)), first]
    shared = mori.share([first, second, second] * times)
    part = shared[1]
    assert part[600] is shared[0]
    assert mori.is_shared(part)
    assert len(pickle.dumps(part)) <= 100
    shared[0][5].append("new")
    assert not mori.is_shared(part)
    for again in (part, pickle.loads(pickle.dumps(part)), pickle.loads(pickle.dumps(shared))[2]):
        assert again[600][5] == [5, "new"]


@pytest.mark.parametrize("root", [
    lambda first, second: {"first": first, "second": second},
    lambda first, second: [first, second],
    lambda first, second: (first, second),
    lambda first, second: {"second": second, "first": first},
    lambda first, second: {"first": first, "second": second} | {i: [i] for i in range(70)},
])  # fmt: skip
def test_a_large_part_that_another_one_refers_to_is_one_object(store, root):
    first = [[i] for i in range(600)]
    shared = mori.share(root(first, [*([i] for i in range(600)), first]))
    is_dict = isinstance(shared, dict | mori.SharedDict)
    first, second = (shared["first"], shared["second"]) if is_dict else shared
    assert second[600] is first
    first[5].append("new")
    assert second[600][5] == [5, "new"]
    assert pickle.loads(pickle.dumps(second))[600][5] == [5, "new"]


def test_a_function_by_value_and_what_is_beside_it_is_one_object_in_all_blocks(store, worker):
    pytest.importorskip("cloudpickle")
    tags, count = ["a"], [0]

    def up():
        count[0] += 1
        return count

    shared = mori.share([{"id": i, "up": up, "tags": tags, "count": count} for i in range(500)])
    first, last = shared[0], shared[499]
    assert (first["up"], first["tags"]) == (last["up"], last["tags"])
    assert first["tags"] is last["tags"]
    assert last["up"]() is first["count"]
    pairs = mori.share([(i, up) for i in range(500)])
    assert pairs[0][1] is pairs[499][1]
    assert not mori.is_shared(shared)
    assert mori.is_shared(pairs)
    assert worker(lambda x: x[0][1]() is x[499][1](), pairs)


def test_a_large_list_that_contains_itself_is_written_to_and_travels(store):
    plain = [[i] for i in range(600)]
    plain[5].append(plain)
    shared = mori.share(plain)
    assert shared[5][1] is shared
    shared[7].append("new")
    with mori.by_value():
        by_value = pickle.dumps(shared)
    for again in (pickle.loads(pickle.dumps(shared)), pickle.loads(by_value)):
        assert type(again) is list
        assert again[7] == [7, "new"]
        assert again[5][1] is again
