"""namedtuples and dataclasses: instances of their class, whose arrays and containers are mapped."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import pickle
import sys
import threading
import types
import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import mapping as mappings
from tests.mori import classes as c
from tests.regions import bytes_of


def reopened(obj: object, change: Any = None) -> Any:
    plan = measure(obj)
    if change is not None:
        plan.meta = json.dumps(change(json.loads(plan.meta))).encode()
    return open_node(root_of(mappings.map_bytes(bytes_of(plan))))


def below() -> c.Below:
    obj = c.Below("b", [1, 2, 3], extra=(1, None))
    assert obj.length == 3  # in its dict now, as pickle would find it
    obj.late = 1
    obj.more = {"x": 1}  # type: ignore[attr-defined]
    return obj


INSTANCES: dict[str, Any] = {
    "Point": lambda: c.Point(1, "two"),
    "default": lambda: c.Point(1.5),
    "Pair": lambda: c.Pair([1, [2]], {"k": None}),
    "renamed": lambda: c.Renamed(1, 2, 3),
    "no fields": c.Nothing,
    "with methods": lambda: c.Named(1, c.Slim(2, 3)),
    "Fit": lambda: c.Fit("a", [1, 2]),
    "frozen": lambda: c.Frozen(1, ["x"]),
    "slots": lambda: c.Slots("a"),
    "frozen slots": lambda: c.FrozenSlots((1, 2)),
    "more attributes": below,
    "not decorated": lambda: c.Undecorated("u", 1),
    "nested class": lambda: c.Outer.Inner(c.Colour.RED),
    "nested": lambda: c.Frozen(c.Point(c.Slots(c.Fit("deep", {"a": (1,)})), [c.Point(0)])),
}
PICKLED: dict[str, Any] = {
    "own new": lambda: c.Checked(1),
    "no namedtuple": lambda: c.Looks((1,)),
    "attributes on a tuple": lambda: _with_attribute(c.Named(1, 2)),
    "name that leads nowhere": lambda: c.Other([1]),
    "own reduce": lambda: c.Reduced([1]),
    "own new of a dataclass": lambda: _filled(c.Made(1), 1),
    "a list": c.Listed,
}


def _with_attribute(obj: Any) -> Any:
    obj.more = [1]
    return obj


def _filled(obj: Any, value: Any) -> Any:
    obj.a = value
    return obj


def same(ours: Any, theirs: Any) -> bool:
    """Compare with the classes of everything; containers may have become views."""
    if dataclasses.is_dataclass(theirs) or hasattr(theirs, "_fields"):
        mine, its = (c.fields_of(x) for x in (ours, theirs))
        return type(ours) is type(theirs) and [*mine] == [*its] and all(same(mine[k], its[k]) for k in its)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, np.ndarray):
        return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()
    return bool(ours == theirs)


@pytest.mark.parametrize("name", INSTANCES)
def test_an_instance_comes_back_in_its_class(name: str, store: str) -> None:
    plain = INSTANCES[name]()
    for shared in (mori.share(plain), mori.share([plain])[0], mori.share({"k": plain})["k"]):
        assert same(shared, plain)
        assert same(pickle.loads(pickle.dumps(shared)), plain)
        with mori.by_value():
            assert same(pickle.loads(pickle.dumps(shared)), plain)
        assert same(mori.materialize(shared), plain)
        assert shared == plain


@pytest.mark.parametrize("name", INSTANCES)
def test_an_instance_comes_back_in_another_process(name: str, store: str, worker: Any) -> None:
    plain = INSTANCES[name]()
    got = worker(lambda x: mori.materialize(x)[0], mori.share([plain]))
    assert same(got, plain)


@pytest.mark.parametrize("name", PICKLED)
def test_a_class_with_its_own_ways_comes_back(name: str, store: str) -> None:
    plain = PICKLED[name]()
    got = mori.share([plain])[0]
    assert type(got).__qualname__ == type(plain).__qualname__
    assert got == plain
    assert getattr(got, "__dict__", {}) == getattr(plain, "__dict__", {})


def test_a_dataclass_with_its_own_state_comes_back(store: str) -> None:
    got = mori.share([c.Stateful(1)])[0]
    assert (got.a, type(got.lock)) == (1, type(threading.Lock()))


def test_classes_of_main_and_of_functions_are_found_elsewhere(store: str, worker: Any) -> None:
    @dataclasses.dataclass
    class Local:
        a: Any

    Main = dataclasses.make_dataclass("Main", ["a"], namespace={"__module__": "__main__"})  # noqa: N806
    Main.__module__ = "__main__"
    for cls in (Local, Main):
        shared = mori.share([cls(np.arange(1000))])
        assert worker(lambda x: (type(x[0]).__name__, int(x[0].a.sum())), shared) == (cls.__name__, 499500)


def test_post_init_does_not_run_again(store: str) -> None:
    plain = c.Fit("a", 1)
    made = c.Fit.made
    mori.share([plain])[0]
    assert c.Fit.made == made


def test_what_is_not_set_stays_unset() -> None:
    assert "late" not in vars(reopened(c.Below("b", [1])))


def test_a_generic_dataclass_keeps_what_it_was_made_of() -> None:
    got = reopened(c.Box[int]([1]))
    assert got.held == [1]
    assert got.__orig_class__ == c.Box[int]


def test_arrays_and_containers_in_an_instance_are_mapped(store: str, worker: Any) -> None:
    plain = c.Fit("fit", c.Point(np.arange(10_000.0), [np.ones(500), pd.Series(range(9))]))
    shared = mori.share(plain)
    assert type(shared) is c.Fit
    assert type(shared.data) is c.Point
    assert isinstance(shared.data.x, mori.SharedArray)
    assert type(shared.data.y) is list
    assert mori.is_shared(shared.data.y[1])
    assert mori.is_shared(shared)
    assert mori.is_shared(shared.data.x)
    assert mori.share(shared) is shared
    assert len(pickle.dumps(shared)) < 600
    assert worker(lambda x: (type(x), mori.is_shared(x.data.x), float(x.data.x[-1])), shared) == (
        c.Fit,
        True,
        9999.0,
    )


def test_parts_of_an_instance_outlive_it(store: str, worker: Any) -> None:
    shared = mori.share({"a": [0, c.Fit("n", c.Pair(1, np.arange(500)))]})
    part = shared["a"][1].data.second
    assert mori.is_shared(part)
    assert mori.shared_name(part) is None  # the way to it leads through attributes
    del shared
    assert worker(lambda x: x.tolist(), part) == [*range(500)]


def test_a_write_acts_on_that_instance_and_its_container_knows(store: str, worker: Any) -> None:
    shared = mori.share([c.Fit("a", np.zeros(1000)), np.ones(1000)])
    other = mori.map_shared(mori.shared_name(shared))
    fit = shared[0]
    assert shared[0] is fit
    small = len(pickle.dumps(shared))
    fit.name = "changed"
    assert shared[0].name == "changed"
    assert other[0].name == "a"
    got = worker(lambda x: (type(x), x[0].name, mori.is_shared(x[0].data), mori.is_shared(x[1])), shared)
    assert got == (list, "changed", True, True)
    assert len(pickle.dumps(other)) <= small


def test_a_write_to_an_array_in_an_instance_is_not_lost(store: str, worker: Any) -> None:
    for plain in (c.Point(np.zeros(500)), c.Frozen(c.Point(np.zeros(500)))):
        shared = mori.share([plain])
        assert mori.is_shared(shared)
        assert len(pickle.dumps(shared)) < 150
        part = shared[0].x if isinstance(plain, tuple) else shared[0].a.x
        part[3] = 7
        assert len(pickle.dumps(shared)) > 400
        got = worker(lambda x: pickle.dumps(mori.materialize(x)), shared)
        found = pickle.loads(got)[0]
        assert (found.x if isinstance(plain, tuple) else found.a.x)[3] == 7


def test_writes_to_containers_and_frames_in_an_instance_are_not_lost(store: str, worker: Any) -> None:
    shared = mori.share([c.Fit("a", {"k": [1]}), c.Slots(pd.DataFrame({"x": [1, 2]}))])
    shared[0].data["new"] = 2
    shared[1].a.loc[0, "x"] = 9
    assert worker(lambda x: (dict(x[0].data)["new"], int(x[1].a["x"][0])), shared) == (2, 9)


@pytest.mark.parametrize("inner", [{"k": 1}, pd.DataFrame({"k": np.arange(600)})], ids=["dict", "frame"])
@pytest.mark.parametrize("outer", [list, tuple], ids=["list", "tuple"])
def test_a_write_deep_in_an_instance_outlives_every_container(inner: Any, outer: Any, store: str) -> None:
    x = mori.share([c.Fit("a", outer([np.arange(600), c.Slots([np.arange(600), inner])])), 1])
    fit = x[0]
    deep = fit.data[1].a[1]
    if isinstance(deep, dict):
        deep["k"] = 9
    else:
        deep.loc[0, "k"] = 9
    del deep
    gc.collect()
    copies = [pickle.loads(pickle.dumps(x))[0], pickle.loads(pickle.dumps(fit))]
    assert not mori.is_shared(x)
    del x
    gc.collect()
    for each in (fit, pickle.loads(pickle.dumps(fit)), *copies):
        found = each.data[1].a[1]
        assert (found["k"] if isinstance(found, dict) else found.loc[0, "k"]) == 9


def test_an_aliased_part_is_one_in_an_instance_that_is_the_root(store: str) -> None:
    data, part = np.arange(600), c.Fit("b", np.arange(600))
    x = mori.share(c.Slots([data, part], (data, c.Frozen(part))))
    assert x.a[0] is x.b[0]
    x = mori.share(c.Slots(data, [data, 1]))
    assert x.a is x.b[0]
    x = mori.share(c.Slots(part, [part, 1]))
    assert x.a is x.b[0]


def test_dropping_instances_frees_the_region_without_a_garbage_collection(store: str) -> None:
    shared = c.Fit("s", [np.arange(600), {"k": 1}])
    plain = [c.Fit("a", [shared, np.arange(600), c.Point({"k": 1}, shared)]), shared, c.Slots([1], shared)]
    gc.collect()
    gc.disable()
    try:
        for touch in (False, True):
            before = len(mappings.live())
            x = mori.share(plain)
            part = x[0].data[2].x
            fit = x[0]
            if touch:
                x[0].data.append(1)
                x[2].a.append(2)
                part["k"] = 5
            del x, part
            assert len(mappings.live()) == before + 1
            del fit
            assert len(mappings.live()) == before
    finally:
        gc.enable()


CONFIG = c.Fit("config", [1])
MADE = {
    "records": lambda i: c.Fit(f"n{i}", [i, {"k": i}]),
    "nested": lambda i: c.Fit(f"n{i}", c.Slots(c.Point(i, {i}), [1.5] * i)),
    "views": lambda i: c.Fit(f"n{i}", ["long" * 200, {"k": [i]}, c.Slots(i)]),
    "one for all": lambda i: c.Fit(f"n{i}", CONFIG),
}


@pytest.mark.parametrize("kind", MADE)
def test_instances_that_nobody_holds_are_let_go(kind: str, store: str) -> None:
    x = mori.share([MADE[kind](i) for i in range(1000)])
    held, written = x[3], x[5]
    if kind == "views":
        deep = x[7].data[1]
        assert x[7].data[2].a == 7
    written.b = written.name = "new"
    del written
    made = [weakref.ref(instance) for instance in x if hasattr(instance, "__weakref__")]
    gc.collect()
    assert sum(ref() is not None for ref in made) < 700  # some blocks
    assert x[3] is held
    assert x[5].b == x[5].name == "new"
    if kind == "views":
        deep["k"].append(8)
        assert x[7].data[1]["k"] == [7, 8]
        assert pickle.loads(pickle.dumps(x))[7].data[1]["k"] == [7, 8]
    assert pickle.loads(pickle.dumps(x))[5].b == "new"


def test_an_instance_of_what_was_deleted_is_noticed() -> None:
    shared = mori.share([c.Fit("a", 1)])
    fit = shared[0]
    del fit.data
    assert not hasattr(pickle.loads(pickle.dumps(shared))[0], "data")
    assert copy.copy(fit).name == "a"


def test_namedtuples_are_keys(store: str) -> None:
    plain = {c.Point(1, (2, "x")): "a", c.Frozen(1, (2,)): "b"}
    shared = mori.share(plain)
    assert shared[c.Point(1, (2, "x"))] == "a"
    assert shared[1, (2, "x")] == "a"
    assert shared[c.Frozen(1, (2,))] == "b"
    assert type(next(iter(shared))) is c.Point
    assert type(next(iter(shared)).y) is tuple


def test_a_field_that_does_not_pickle_is_named(store: str) -> None:
    with pytest.raises(mori.NotShareableError, match="lock") as caught:
        mori.share({"a": c.Fit("n", [0, c.Point(1, threading.Lock())])})
    assert caught.value.path == "obj['a'].data[1][1]"


def tree(kind: Any) -> Any:
    root = c.Node(np.arange(1000))
    root.children = kind(c.Node(i, root) for i in range(3))
    return root


def test_a_tree_whose_nodes_know_their_parents_is_shared(store: str, worker: Any) -> None:
    for plain in ([tree(list)], tree(list), tree(list).children, {"t": tree(tuple)}):
        shared = mori.share(plain)
        root = shared if isinstance(shared, c.Node) else shared["t"] if isinstance(plain, dict) else shared[0]
        root = root.parent or root
        assert len(root.children) == 3
        assert all(child.parent is root for child in root.children)
        assert mori.is_shared(root.value)
        if shared is not root.children:  # which travels as a reference, and begins an opening of its own
            assert worker(lambda x: x.children[2].parent is x, root)
        worker(gc.collect)  # parents and children are a cycle there, too


def test_a_cycle_through_a_namedtuple_is_shared() -> None:
    cycle: list[Any] = [c.Point(1)]
    cycle.append(c.Pair(0, cycle))
    shared = mori.share(cycle)
    assert shared[1].second is shared
    assert pickle.loads(pickle.dumps(shared))[0] == c.Point(1)


values = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.builds(c.Point, inner, inner),
        st.builds(c.Named, inner, inner),
        st.builds(c.Fit, st.text(max_size=3), inner),
        st.builds(c.FrozenSlots, inner, inner),
        st.builds(c.Frozen, inner),
    ),
    max_leaves=12,
)


@given(values)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_nested_in_classes_comes_back(value: Any) -> None:
    got = reopened([value])
    assert same(got[0], value)
    assert same(pickle.loads(pickle.dumps(got))[0], value)


BAD_NAMES = [
    ("os", "system"),
    ("os;", "x"),
    ("tests.mori.classes", "Nope"),
    (3, "x"),
    ("os", None),
    ("a" * 50_000, "x"),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: f"{name!r:.40}")
@pytest.mark.parametrize("obj", [c.Point(1), c.FrozenSlots(1)], ids=["namedtuple", "dataclass"])
def test_a_node_that_lists_other_names_than_its_stream_has_is_an_error(
    obj: Any, name: tuple[Any, Any]
) -> None:
    with pytest.raises(mori.MoriError) as caught:
        reopened([obj], lambda meta: [*meta[:3], [name]])
    assert len(str(caught.value)) < 1000


def test_a_class_that_is_not_here_is_an_error_when_it_is_used(store: str, third: Any) -> None:
    module = sys.modules["only_here"] = types.ModuleType("only_here")
    module.Gone = type("Gone", (), {"__module__": "only_here", "__annotations__": {"a": "int"}})  # type: ignore[attr-defined]
    dataclasses.dataclass(module.Gone)  # type: ignore[attr-defined]
    try:
        shared = mori.share([module.Gone(3), *([i] for i in range(1000))])  # type: ignore[attr-defined]
        assert shared[0].a == 3

        def look(x: Any) -> Any:
            try:
                return x[0]
            except ImportError as error:
                return type(error), error.cls, x[999]  # type: ignore[attr-defined]

        assert third(look, shared) == (mori.ClassNotFoundError, "only_here.Gone", [998])
    finally:
        del sys.modules["only_here"]
