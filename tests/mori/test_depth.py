"""Containers in each other: as deep as pickle follows, nodes at any depth, an error with its path beyond."""

import gc
import pickle
import threading

import numpy as np
import pytest

import mori
from mori.memory import mapping as mappings
from tests.mori.classes import Fit

KINDS = {
    "list": lambda x: [x],
    "tuple": lambda x: (x,),
    "dict": lambda x: {"k": x},
    "mixed": lambda x: [({"k": x},)],
    "instance": lambda x: Fit("f", x),
}
VIEWS = [kind for kind in KINDS if kind != "instance"]


def deep(kind: str, levels: int, obj: object = None):
    obj = np.arange(300) if obj is None else obj
    for _ in range(levels):
        obj = KINDS[kind](obj)
    return obj


def inner(x):
    if isinstance(x, Fit):
        return x.data
    return x["k"] if isinstance(x, dict | mori.SharedDict) else x[0]


def parts_of(x):
    parts = [x]
    while not isinstance(parts[-1], np.ndarray):
        parts.append(inner(parts[-1]))
    return parts


def leaf(x):
    while not isinstance(x, np.ndarray):
        x = inner(x)
    return x


# in one stream


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_levels_are_shared_opened_and_copied(store, third, kind):
    plain = deep(kind, 33 if kind == "mixed" else 100)
    shared = mori.share([plain])[0]
    assert leaf(shared).tolist() == leaf(plain).tolist()
    assert mori.is_shared(leaf(shared))
    assert mori.shared_name(leaf(shared)) is None  # deeper than 64 steps: it has no name
    assert third(lambda x: mori.is_shared(leaf(x)), shared)
    private = mori.materialize(shared)
    assert type(private) is type(plain)
    assert leaf(private).flags.writeable
    with mori.by_value():
        data = pickle.dumps(shared)
    assert leaf(pickle.loads(data)).tolist() == leaf(plain).tolist()
    leaf(shared)[0] = 7
    assert leaf(pickle.loads(pickle.dumps(shared)))[0] == 7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 1000])
def test_what_is_deeper_than_pickle_follows_is_refused_by_its_path_and_leaves_nothing(store, kind, place):
    obj = deep(kind, 100_000)  # Python 3.14 follows about 40,000
    with pytest.raises(mori.NotShareableError, match="nested more deeply than pickle can follow") as caught:
        mori.share([*([1] for _ in range(place)), obj])
    assert caught.value.path.startswith(f"obj[{place}]")
    assert len(caught.value.path) < 50
    gc.collect()
    assert mappings.live() == []
    while not isinstance(obj, np.ndarray):  # level by level: not every Python frees so many at once
        obj = inner(obj)


# a node each


@pytest.mark.parametrize("levels", [1_000, 10_000])
@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_thousands_of_nodes_are_shared_opened_and_copied(nodes, store, third, kind, levels):
    shared = mori.share(deep(kind, levels))
    assert len(pickle.dumps(shared)) <= 100
    assert third(lambda x: mori.is_shared(leaf(x)), shared)
    with mori.by_value():
        data = pickle.dumps(shared)
    assert len(parts_of(pickle.loads(data))) == levels + 1
    private = mori.materialize(shared)
    assert len(parts_of(private)) == levels + 1
    assert type(private) is {"list": list, "tuple": tuple, "dict": dict}[kind]
    assert leaf(private).flags.writeable
    assert leaf(shared).tolist() == [*range(300)]
    while not isinstance(private, np.ndarray):
        private = inner(private)


@pytest.mark.parametrize("kind", VIEWS)
def test_what_was_read_is_a_reference_still_and_what_was_written_to_travels(nodes, store, kind):
    shared = mori.share(deep(kind, 200 if kind != "mixed" else 70))
    leaf(shared)
    assert leaf(pickle.loads(pickle.dumps(shared)))[0] == 0
    parts = parts_of(shared)
    parts[-1][0] = 9
    assert not any(map(mori.is_shared, parts))
    assert leaf(mori.materialize(shared))[0] == 9
    assert leaf(pickle.loads(pickle.dumps(shared)))[0] == 9


@pytest.mark.parametrize("kind", VIEWS)
def test_a_part_below_the_depth_of_names_has_none_and_travels_as_a_reference(nodes, store, worker, kind):
    part, names = mori.share(deep(kind, 1_000)), []
    for _ in range(500):
        names.append(mori.shared_name(part))
        part = inner(part)
    assert all(names[:22])
    assert not any(names[65:])
    assert mori.is_shared(part)
    assert len(pickle.dumps(part)) <= 100
    assert worker(lambda x: (mori.is_shared(x), len(parts_of(x))), part) == (True, len(parts_of(part)))
    assert len(parts_of(mori.map_shared(names[20]))) == len(parts_of(part)) + 480


@pytest.mark.parametrize("kind", VIEWS)
def test_equality_hash_and_repr_of_a_thousand_nodes(nodes, store, kind):
    plain, other = deep(kind, 1_000, "end"), deep(kind, 1_000, "other end")
    one, same, different = mori.share(plain), mori.share(plain), mori.share(other)
    assert one == same
    assert one == plain
    assert plain == one
    assert one != different
    assert one != other
    assert len(repr(one)) < 300
    if kind == "tuple":
        assert hash(one) == hash(plain)


def test_what_is_one_object_at_thousands_of_nodes_is_one(nodes, store):
    common = np.arange(1000)
    obj = [common]
    for _ in range(3_000):
        obj = [obj, common]
    shared = mori.share(obj)
    part = shared
    for _ in range(2_900):
        assert part[1] is shared[1]
        part = part[0]
    private = mori.materialize(shared)
    assert private[0][0][1] is private[1]
    with mori.by_value():
        arrived = pickle.loads(pickle.dumps(part[0]))
    assert arrived[0][0][1] is arrived[1]


def test_a_graph_that_would_unfold_without_end_is_copied_once_a_node(store):
    obj = [np.arange(3)]
    for _ in range(200):
        obj = [obj, obj]
    private = mori.materialize(mori.share(obj))
    assert private[0] is private[1]
    assert private[0][1] is private[1][0]


def test_equality_asks_for_the_elements_in_their_order_and_no_further_than_needed(nodes, store):
    shared = mori.share([1, [np.arange(3)], 2])
    assert shared != [0, [np.arange(3)], 2]  # the arrays have no truth value, and are not asked
    with pytest.raises(ValueError, match="ambiguous"):
        shared == [1, [np.arange(3)], 2]  # noqa: B015
    assert shared != [1, (shared[1][0],), 2]
    assert shared == [1, [shared[1][0]], 2]
    assert mori.share({"a": 1, "b": [2]}) == {"b": [2], "a": 1}
    assert mori.share({"a": 1, "b": [2]}) != {"b": [2], "c": 1}

    class Anything:
        def __eq__(self, other):
            return True

        __hash__ = None

    assert shared == [Anything(), Anything(), 2]


# cycles


def through_a_list():
    obj = {"a": [0, 1, 2]}
    obj["a"].append(obj)
    return obj, lambda x: x["a"][3]


def through_a_tuple():
    inside = [1]
    inside.append((2, inside))
    return inside, lambda x: x[1][1]


def through_many():
    obj = [[i] for i in range(1000)]
    obj[700].append({"back": obj})
    return obj, lambda x: x[700][1]["back"]


@pytest.mark.parametrize("make", [through_a_list, through_a_tuple, through_many])
def test_a_container_that_contains_itself_is_one_object(store, worker, make):
    obj, back = make()
    shared = mori.share(obj)
    assert back(shared) is shared
    assert back(back(shared)) is shared
    assert len(pickle.dumps(shared)) <= 100
    assert worker(lambda x: back(x) is x, shared)
    worker(gc.collect)  # it is a cycle there, too
    private = mori.materialize(shared)
    assert type(private) is type(obj)
    assert back(private) is private


class Knot:
    """An object that refers to itself, and to an array."""

    def __init__(self) -> None:
        self.me = [self]
        self.array = np.arange(2000)


def test_an_object_and_an_array_that_contain_themselves_are_one_object(store):
    objects = np.empty(2, object)
    objects[0] = [objects]
    objects[1] = "end"
    shared = mori.share([Knot(), objects])
    knot, again = shared[0], shared[1]
    assert knot.me[0] is knot
    assert knot.array.tolist() == [*range(2000)]
    inside = again[0][0]
    assert inside[0][0] is inside
    assert inside[1] == again[1] == "end"


def test_a_cycle_through_large_containers_is_refused_by_name(store):
    large = [[i] for i in range(1000)]
    other = [[i] for i in range(1000)]
    large[3].append(other)
    other[5].append(large)
    with pytest.raises(mori.NotShareableError, match="contains itself") as caught:
        mori.share([large])
    assert caught.value.path == "obj[0][3][1][5][1]"


def at_a_distance():
    obj = bottom = []
    for _ in range(5_000):
        bottom.append([])
        bottom = bottom[0]
    bottom.append(obj)
    return obj


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: through_a_list()[0], "obj['a'][3]"),
        (lambda: [0, through_a_tuple()[0]], "obj[1][1][1]"),
        (at_a_distance, "obj" + "[0]" * 5_001),
    ],
)
def test_a_cycle_through_nodes_is_refused_by_the_path_to_where_it_closes(nodes, store, make, path):
    with pytest.raises(mori.NotShareableError, match="contains itself") as caught:
        mori.share(make())
    assert caught.value.path == path


def test_a_part_that_fails_leaves_nothing_of_what_was_met_before(store):
    array = np.zeros(10_000)
    with pytest.raises(mori.NotShareableError) as caught:
        mori.share([array, array, {"k": [array, threading.Lock()]}])
    assert caught.value.path == "obj[2]['k'][1]"
    assert mappings.live() == []
