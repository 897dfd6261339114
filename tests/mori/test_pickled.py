"""Anything else that pickles comes back as what it is, with its arrays and frames in shared memory."""

from __future__ import annotations

import collections
import copy
import datetime as dt
import enum
import gc
import pickle
import sys
import threading
from typing import Any

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from mori.format import codec, origins
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import mapping as mappings
from tests.mori.pandas_versions import NAN_STRINGS
from tests.regions import bytes_of, region_of


class Model:
    """What an estimator looks like: arrays and frames among its attributes."""

    def __init__(self, n: int = 1000) -> None:
        self.coef = np.arange(float(n))
        self.again = self.coef
        self.tree = {"left": [np.arange(n).reshape(2, -1)[:, ::2], "leaf"]}
        self.frame = pd.DataFrame({"x": np.arange(n), "s": pd.array(["a"] * n, NAN_STRINGS)})
        self.small = np.arange(3)
        self.name = "m"

    def total(self) -> float:
        return float(self.coef.sum())


class Slotted:
    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values = np.arange(1000)


class Color(enum.Enum):
    RED = 1


def test_an_object_of_a_users_class_comes_back_as_one_with_its_arrays_shared(store: str) -> None:
    model = Model()
    shared = mori.share(model)
    assert type(shared) is Model
    assert shared is not model
    assert vars(shared).keys() == vars(model).keys()
    assert shared.total() == model.total()
    assert shared.name == "m"
    assert mori.is_shared(shared)
    for array in (shared.coef, shared.tree["left"][0]):
        assert type(array) is mori.SharedArray
        assert mori.is_shared(array)
    assert shared.again is shared.coef
    assert shared.coef.tobytes() == model.coef.tobytes()
    np.testing.assert_array_equal(shared.tree["left"][0], model.tree["left"][0])
    assert mori.is_shared(shared.frame)
    pdt.assert_frame_equal(shared.frame, model.frame)
    assert type(shared.small) is np.ndarray
    assert shared.small.flags.writeable
    assert type(model.coef) is np.ndarray  # the original is as it was


def test_pickled_by_its_own_class_it_carries_references(store: str, worker: Any) -> None:
    shared = mori.share(Model(100_000))
    assert len(pickle.dumps(shared, 5)) < 2000
    assert worker(lambda m: (mori.is_shared(m.coef), mori.is_shared(m.frame), m.total()), shared) == (
        True,
        True,
        shared.total(),
    )


def test_sharing_twice_gives_the_same_object_and_its_name_opens_it(store: str, worker: Any) -> None:
    shared = mori.share(Model())
    assert mori.share(shared) is shared
    name = mori.shared_name(shared)
    assert name is not None
    assert mori.map_shared(name).total() == shared.total()
    assert worker(lambda name: mori.map_shared(name).total(), name) == shared.total()


def test_a_change_is_in_that_object_alone_and_travels_with_it(store: str, worker: Any) -> None:
    shared = mori.share(Model())
    name = mori.shared_name(shared)
    shared.name = "changed"
    shared.coef[0] = 5.0
    again = mori.map_shared(name)
    assert (again.name, again.coef[0]) == ("m", 0.0)
    assert worker(lambda m: (m.name, float(m.coef[0]), mori.is_shared(m.frame)), shared) == (
        "changed",
        5.0,
        True,
    )


def test_the_region_goes_with_the_last_part_of_it(store: str, wait: Any) -> None:
    shared = mori.share(Model())
    node = origins.node_of(shared)
    assert node is not None
    name, number = mori.shared_name(shared), id(shared)
    array = shared.coef
    del shared, node
    gc.collect()
    assert number not in origins._origins
    assert mori.map_shared(name).total() == array.sum()
    del array
    gc.collect()

    def is_gone() -> bool:
        try:
            mori.map_shared(name)
        except mori.RegionNotFoundError:
            return True
        return False

    wait(is_gone)


def test_a_copy_is_not_taken_for_the_shared_object(store: str) -> None:
    shared = mori.share(Model())
    other = copy.copy(shared)
    assert not mori.is_shared(other)
    assert mori.shared_name(other) is None
    assert mori.is_shared(other.coef)


def test_a_class_without_weak_references_is_rebuilt_and_its_parts_are_shared(store: str) -> None:
    shared = mori.share(Slotted())
    assert type(shared) is Slotted
    assert mori.is_shared(shared.values)
    assert not mori.is_shared(shared)


@pytest.mark.parametrize(
    "make",
    [
        lambda: collections.OrderedDict(a=np.arange(1000), b=1),
        lambda: collections.deque([np.arange(1000), "x"], maxlen=3),
        lambda: collections.UserDict(a=np.arange(1000.0)),
        lambda: collections.Counter({"a": 2}),
        lambda: range(5),
        lambda: slice(1, 2),
        lambda: {1}.__class__,
        lambda: Color.RED,
        lambda: np.float64,
        lambda: len,
        lambda: math_like,
        threading.Lock,
        lambda: (number for number in [1]),
        lambda: 10**400,
    ],
)
def test_what_is_given_comes_back_equal_with_its_class(store: str, make: Any) -> None:
    obj = make()
    shared = mori.share(obj)
    assert type(shared) is type(obj)
    if shared is not obj:
        assert mori.is_shared(shared)
        assert repr(mori.materialize(shared)) == repr(obj)


math_like = lambda x: x + 1  # noqa: E731


@pytest.mark.parametrize(
    "make", [threading.Lock, lambda: Color.RED, lambda: range(3), dict.keys, lambda: len]
)
def test_what_has_nothing_to_map_or_does_not_pickle_is_returned_itself(store: str, make: Any) -> None:
    obj = make if make is dict.keys else make()
    assert mori.share(obj) is obj
    assert not mori.is_shared(obj)
    assert mappings.live() == []


def test_a_constant_inside_a_container_is_not_taken_for_shared(store: str) -> None:
    shared = mori.share([Color.RED, np.arange(3)])
    assert shared[0] is Color.RED
    assert not mori.is_shared(Color.RED)


def test_inside_a_container_the_parts_of_an_object_are_shared(store: str) -> None:
    shared = mori.share({"a": [Model()]})
    model = shared["a"][0]
    assert type(model) is Model
    assert not mori.is_shared(model)  # by itself it travels by value, with references to its parts
    assert mori.is_shared(model.coef)
    assert len(pickle.dumps(model)) < 2000
    assert mori.map_shared(f"{mori.shared_name(shared)}[0,0]").total() == model.total()


def test_a_class_of_main_and_a_lambda_go_by_cloudpickle(store: str, worker: Any) -> None:
    cls = type("Local", (), {"__module__": "__main__", "f": lambda self: self.x.sum()})
    obj = cls()
    obj.x = np.arange(1000)
    shared = mori.share(obj)
    assert mori.is_shared(shared.x)
    assert shared.f() == 499500
    name = mori.shared_name(shared)
    assert worker(lambda name: int(mori.map_shared(name).f()), name) == 499500
    tree = mori.share({"f": lambda x: x + 1, "x": np.arange(3)})
    assert tree["f"](1) == 2


def test_materialize_gives_private_memory_back(store: str) -> None:
    shared = mori.share(Model())
    private = mori.materialize(shared)
    assert type(private) is Model
    assert not mori.is_shared(private)
    assert type(private.coef) is np.ndarray
    assert private.coef.flags.writeable
    assert private.again is private.coef
    assert type(private.frame) is pd.DataFrame
    assert private.total() == shared.total()
    name = mori.shared_name(shared)
    del shared
    gc.collect()
    assert mappings.live() == []
    assert name is not None


def unpicklable(**attributes: Any) -> Model:
    model = Model()
    vars(model).update(attributes)
    return model


@pytest.mark.filterwarnings("ignore::mori.ObjectColumnWarning")
@pytest.mark.parametrize(
    ("obj", "path"),
    [
        ([threading.Lock()], "obj[0]"),
        ({"a": [1, unpicklable(lock=threading.Lock())]}, "obj['a'][1].lock"),
        ([unpicklable(tree={"x": [0, threading.Lock()]})], "obj[0].tree['x'][1]"),
        (
            {"m": unpicklable(frame=pd.DataFrame({"o": np.array([threading.Lock()], object)}))},
            "obj",  # by what the frame makes of its column
        ),
    ],
    ids=["element", "attribute", "deep", "frame"],
)
def test_a_part_that_does_not_pickle_is_named_by_its_path(store: str, obj: Any, path: str) -> None:
    with pytest.raises(mori.NotShareableError) as caught:
        mori.share(obj)
    assert caught.value.path.startswith(path)
    assert "does not pickle" in str(caught.value)
    assert mappings.live() == []


def test_a_stream_that_asks_for_a_part_that_is_not_there_is_refused() -> None:
    plan = measure(codec.Pickled(Model()))
    assert len(plan.children) == 3
    plan.children.pop()
    node = root_of(mappings.map_bytes(bytes_of(plan)))
    with pytest.raises(mori.CorruptRegionError, match="no part"):
        open_node(node)


def test_damage_to_the_stream_is_noticed_before_it_is_unpickled() -> None:
    data = bytearray(region_of(Model()))
    place = data.index(b"Model")
    data[place] ^= 1
    with pytest.raises(mori.CorruptRegionError, match="checksum"):
        open_node(root_of(mappings.map_bytes(bytes(data))))


def test_a_shared_object_is_not_pickled_twice_into_another_region(store: str) -> None:
    shared = mori.share(Model(100_000))
    other = mori.share(collections.UserDict(model=shared))
    name = mori.shared_name(other)
    del shared
    gc.collect()
    assert mori.is_shared(other["model"].coef)
    assert mori.map_shared(name)["model"].total() == other["model"].total()
    assert len(mappings.live()) == 1


def test_what_pickles_needs_no_cloudpickle(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    when = dt.datetime(2024, 5, 6, tzinfo=dt.UTC)
    assert mori.share([np.arange(600), when, collections.Counter("aab")])[1:] == [
        when,
        collections.Counter("aab"),
    ]


def test_an_open_file_is_refused_and_not_read(store, tmp_path, capsys):
    path = tmp_path / "text"
    path.write_text("a\nb\n")
    with path.open() as file:
        with pytest.raises(mori.NotShareableError, match=r"obj\[0\]\['log'\]"):
            mori.share([{"log": file}, np.arange(600)])
        assert file.readline() == "a\n"
    with capsys.disabled():  # a plain one
        assert mori.share([np.arange(600), sys.stdout])[1] is sys.stdout
