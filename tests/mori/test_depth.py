"""Containers in each other: as deep as pickle follows, with a clear error beyond it; cycles come back."""

import gc
import pickle

import numpy as np
import pytest

import mori
from mori.memory import region

KINDS = {
    "list": lambda x: [x],
    "tuple": lambda x: (x,),
    "dict": lambda x: {"k": x},
    "mixed": lambda x: [({"k": x},)],
}


def deep(kind: str, levels: int):
    obj = np.arange(300)
    for _ in range(levels):
        obj = KINDS[kind](obj)
    return obj


def inner(x):
    return x["k"] if isinstance(x, dict) else x[0]


def leaf(x):
    while not isinstance(x, np.ndarray):
        x = inner(x)
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_levels_are_shared_opened_and_copied(store, third, kind):
    plain = deep(kind, 33 if kind == "mixed" else 100)
    shared = mori.share(plain)
    assert leaf(shared).tolist() == leaf(plain).tolist()
    assert mori.is_shared(leaf(shared))
    assert mori.shared_name(leaf(shared)) is None  # deeper than 64 steps: it has no name
    assert len(pickle.dumps(shared)) <= 100
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
def test_what_is_deeper_than_pickle_follows_is_a_clear_error_that_leaves_nothing(store, kind):
    obj = deep(kind, 100_000)
    with pytest.raises(mori.NotShareableError, match="nested more deeply than pickle can follow"):
        mori.share(obj)
    gc.collect()
    assert region.live() == []
    while not isinstance(obj, np.ndarray):  # level by level: not every Python frees so many at once
        obj = inner(obj)


def test_a_graph_that_would_unfold_without_end_is_copied_once_a_node(store):
    obj = [np.arange(3)]
    for _ in range(200):
        obj = [obj, obj]
    private = mori.materialize(mori.share(obj))
    assert private[0] is private[1]
    assert private[0][1] is private[1][0]


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


def test_a_cycle_through_large_containers_is_refused_by_name(store):
    large = [[i] for i in range(1000)]
    other = [[i] for i in range(1000)]
    large[3].append(other)
    other[5].append(large)
    with pytest.raises(mori.NotShareableError, match="contains itself") as caught:
        mori.share([large])
    assert caught.value.path == "obj[0][3][1][5][1]"
