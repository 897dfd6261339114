"""Thousands of levels are no recursion error, and a cycle is refused by the path to where it closes."""

import gc
import pickle
import threading

import numpy as np
import pytest

import mori

KINDS = {
    "list": lambda x: [x],
    "tuple": lambda x: (x,),
    "dict": lambda x: {"k": x},
    "mixed": lambda x: [({"k": x},)],
}


def deep(kind: str, levels: int):
    obj = np.arange(3)
    for _ in range(levels):
        obj = KINDS[kind](obj)
    return obj


def inner(x):
    return x["k"] if isinstance(x, dict | mori.SharedDict) else x[0]


def leaf(x):
    while not isinstance(x, np.ndarray):
        x = inner(x)
    return x


def levels_of(x) -> int:
    count = 0
    while not isinstance(x, np.ndarray):
        x, count = inner(x), count + 1
    return count


@pytest.mark.parametrize("levels", [1_000, 10_000])
@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_thousands_of_levels_are_shared_opened_and_copied(store, third, kind, levels):
    shared = mori.share(deep(kind, levels))
    assert levels_of(shared) == levels
    assert leaf(shared).tolist() == [0, 1, 2]
    assert len(pickle.dumps(shared)) <= 100
    assert third(lambda x: mori.is_shared(leaf(x)), shared)
    private = mori.materialize(shared)
    assert levels_of(private) == levels
    assert type(private) is {"list": list, "tuple": tuple, "dict": dict}[kind]
    assert leaf(private).flags.writeable
    with mori.by_value():
        data = pickle.dumps(shared)
    assert levels_of(pickle.loads(data)) == levels
    del shared, private
    gc.collect()


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_below_the_depth_of_names_has_none_and_travels_as_a_reference(store, worker, kind):
    part, names = mori.share(deep(kind, 1_000)), []
    for _ in range(500):
        names.append(mori.shared_name(part))
        part = inner(part)
    assert all(names[:65])
    assert not any(names[65:])
    assert mori.is_shared(part)
    assert len(pickle.dumps(part)) <= 100
    assert worker(lambda x: (mori.is_shared(x), levels_of(x)), part) == (True, levels_of(part))
    for depth in (1, 64):
        assert levels_of(mori.map_shared(names[depth])) == levels_of(part) + 500 - depth


@pytest.mark.parametrize("kind", KINDS)
def test_equality_and_hash_of_a_thousand_levels(store, kind):
    plain = "end"
    other = "other end"
    for _ in range(1_000):
        plain, other = KINDS[kind](plain), KINDS[kind](other)
    one, same, different = mori.share(plain), mori.share(plain), mori.share(other)
    assert one == same
    assert one == plain
    assert plain == one
    assert one != different
    assert one != other
    if kind == "tuple":
        assert hash(one) == hash(plain)
        key = one
        for _ in range(700):
            key = key[0]
        assert {key: 1}[mori.materialize(key)] == 1
        assert mori.share({mori.materialize(key): 1})[key] == 1


def test_equality_asks_for_the_elements_in_their_order_and_no_further_than_needed(store):
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_repr_ends_at_a_depth(store, kind):
    shared = mori.share(deep(kind, 10_000))
    assert len(repr(shared)) < 300
    assert " of 1>" in repr(shared)
    assert (
        repr(mori.share([[len, (2, len)]]))
        == f"<SharedList [<SharedList [{len!r}, <SharedTuple [2, {len!r}]>]>]>"
    )
    shared = mori.share([1])
    shared.append(shared)
    assert len(repr(shared)) < 300


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_write_thousands_of_levels_down_reaches_all_above(store, kind):
    shared = mori.share(deep(kind, 10_000))
    parts = [shared]
    while not isinstance(parts[-1], np.ndarray):
        parts.append(inner(parts[-1]))
    parts[-1][0] = 9
    assert leaf(shared)[0] == 9
    assert not any(mori.is_shared(part) for part in parts[::500])
    assert leaf(mori.materialize(shared))[0] == 9
    del shared, parts
    gc.collect()


def test_aliases_at_thousands_of_levels(store):
    common = np.arange(1000)
    obj = [common]
    for _ in range(3_000):
        obj = [obj, common]
    shared = mori.share(obj)
    part = shared
    for _ in range(3_000):
        assert part[1] is shared[1]
        part = part[0]
    private = mori.materialize(shared)
    assert private[0][0][1] is private[1]
    with mori.by_value():
        arrived = pickle.loads(pickle.dumps(shared[0]))
    assert arrived[0][0][1] is arrived[1]


def test_a_graph_that_would_unfold_without_end_is_copied_once_a_node(store):
    obj = [np.arange(3)]
    for _ in range(200):
        obj = [obj, obj]
    private = mori.materialize(mori.share(obj))
    assert private[0] is private[1]
    assert private[0][1] is private[1][0]


# cycles


def through_a_list():
    obj = {"a": [0, 1, 2]}
    obj["a"].append(obj)
    return obj


def through_a_tuple():
    inside = [1]
    inside.append((2, inside))
    return [0, inside]


def through_values():
    obj = {"k": {"l": {}}}
    obj["k"]["l"]["back"] = obj["k"]
    return (obj,)


def at_a_distance():
    obj = bottom = []
    for _ in range(5_000):
        bottom.append([])
        bottom = bottom[0]
    bottom.append(obj)
    return obj


@pytest.mark.parametrize(("make", "path"), [
    (through_a_list, "obj['a'][3]"),
    (through_a_tuple, "obj[1][1][1]"),
    (through_values, "obj[0]['k']['l']['back']"),
    (at_a_distance, "obj" + "[0]" * 5_001),
])  # fmt: skip
def test_a_cycle_is_refused_by_the_path_to_where_it_closes(store, make, path):
    obj = make()
    with pytest.raises(mori.NotShareableError, match="contains itself") as caught:
        mori.share(obj)
    assert caught.value.path == path


class Knot:
    """An object that refers to itself, and to an array."""

    def __init__(self) -> None:
        self.me = [self]
        self.array = np.arange(2000)


def test_a_cycle_inside_of_what_pickles_survives(store):
    objects = np.empty(2, object)
    objects[0] = [objects]
    objects[1] = "end"
    shared = mori.share([Knot(), objects])
    knot, again = shared[0], shared[1]
    assert knot.me[0] is knot
    assert knot.array.tolist() == [*range(2000)]
    inside = again[0][0]  # the array as pickle knows it; around it stands the shared one
    assert inside[0][0] is inside
    assert inside[1] == "end"
    assert again[1] == "end"


def test_a_part_that_fails_leaves_nothing_of_what_was_met_before(store):
    array = np.zeros(10_000)
    with pytest.raises(mori.NotShareableError) as caught:
        mori.share([array, array, {"k": [array, threading.Lock()]}])
    assert caught.value.path == "obj[2]['k'][1]"
