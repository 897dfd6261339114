"""A write to an object of whatever class, rebuilt from a shared container, is that container's own."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import functools
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import OneClassSVM

import mori
from mori.objects.containers import identity
from tests.mori.classes import Fit, Point


class Model:
    """An object with values, containers and an array."""

    def __init__(self, n: int = 1000) -> None:
        self.alpha = 1
        self.params = {"deep": [1, {"er": 2}]}
        self.array = np.arange(n)


def _set(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda x: setattr(x, name, value)


def _graph() -> Any:
    model = Model()
    model.params["self"] = model
    return model


def _writes() -> list[Any]:
    """Return what makes an object, what writes to it, and what shows that."""
    found: list[Any] = [
        (Model, _set("alpha", 2), lambda x: x.alpha),
        (Model, _set("new", 2), lambda x: vars(x).get("new")),
        (Model, lambda x: delattr(x, "alpha"), lambda x: "alpha" in vars(x)),
        (Model, lambda x: x.params["deep"][1].update(er=3), lambda x: x.params["deep"][1]["er"]),
        (Model, lambda x: x.array.__setitem__(0, 7), lambda x: int(x.array[0])),
        (Model, _set("array", None), lambda x: x.array is None),
        (_graph, _set("alpha", 2), lambda x: x.params["self"].alpha),
        (lambda: collections.Counter("abca"), lambda x: x.update("zz"), lambda x: x["z"]),
        (lambda: collections.deque([1], 3), lambda x: x.append(2), list),
        (lambda: collections.OrderedDict(a=1, b=2), lambda x: x.move_to_end("a"), list),
        (
            lambda: np.random.default_rng(1),
            lambda x: x.random(),
            lambda x: x.bit_generator.state["state"]["state"],
        ),
        (lambda: pd.Index(np.arange(1000.0), name="a"), _set("name", "b"), lambda x: x.name),
    ]
    with contextlib.suppress(ImportError):
        import torch

        found.append((lambda: torch.arange(1000.0), lambda x: x.__setitem__(0, 7), lambda x: float(x[0])))
    with contextlib.suppress(ImportError):
        import scipy.sparse as sp

        for cls in (sp.csr_array, sp.lil_array):
            make = functools.partial(cls, np.eye(50))
            found.append((make, lambda x: x.__setitem__((0, 0), 7), lambda x: float(x[0, 0])))
    with contextlib.suppress(ImportError):
        import polars as pl

        found.append(
            (
                lambda: pl.DataFrame({"a": np.arange(1000)}),
                lambda x: x.insert_column(0, pl.Series("b", np.arange(1000))),
                lambda x: x.columns,
            )
        )
    with contextlib.suppress(ImportError):
        import xarray as xr

        found.append(
            (
                lambda: xr.DataArray(np.arange(1000), dims="x"),
                lambda x: x.attrs.update(unit="m"),
                lambda x: dict(x.attrs),
            )
        )
    return found


WRITES = _writes()
WAYS = ["at once", "held", "aliased", "in a dataclass", "in a namedtuple"]
IDS = [f"{type(make()).__name__}-{number}" for number, (make, *_) in enumerate(WRITES)]


@pytest.fixture(scope="module", autouse=True)
def _polars_has_run() -> None:
    with contextlib.suppress(ImportError):
        import polars as pl

        mori.share(pl.DataFrame({"a": np.arange(1000)}))  # polars opens what it keeps open


@pytest.mark.parametrize(
    ("make", "write", "look", "way"),
    [
        pytest.param(*case, way, id=f"{name}-{way}")
        for name, case in zip(IDS, WRITES, strict=True)
        for way in (WAYS if name in ("Model-0", "Model-3", "Counter-7") else WAYS[:1])
    ],
)
def test_a_write_is_the_containers_own_and_travels_with_it(
    make: Callable[[], Any], write: Callable[[Any], Any], look: Callable[[Any], Any], way: str, third: Any
) -> None:
    obj = make()
    written = make()
    write(written)
    expected = look(written)
    if expected == look(make()):
        pytest.fail("the write can't be seen")
    inner = {"aliased": [obj, obj], "in a dataclass": [Fit("f", obj)], "in a namedtuple": [Point(obj)]}
    get: Callable[[Any], Any] = {
        "in a dataclass": lambda x: x["part"][0].data,
        "in a namedtuple": lambda x: x["part"][0].x,
    }.get(way, lambda x: x["part"][-1])
    shared = mori.share({"other": np.arange(2000), "part": inner.get(way, [obj])})
    other = mori.map_shared(mori.shared_name(shared))
    small = len(pickle.dumps(shared, 5))
    assert len(pickle.dumps(get(shared), 5)) > 0
    del obj
    held = get(shared) if way == "held" else None
    write(get(shared))
    if way == "aliased":
        assert look(shared["part"][0]) == expected
    sent = pickle.loads(pickle.dumps(shared, 5))
    assert look(get(sent)) == expected
    assert third(lambda x, look, get: look(get(x)), shared, look, get) == expected
    assert mori.is_shared(sent["other"])
    assert len(pickle.dumps(other, 5)) == small
    third(gc.collect)  # one of them refers to itself
    del held


def test_a_write_to_what_lies_inside_an_object_is_found_when_the_object_itself_is_not_held() -> None:
    shared = mori.share([Model(10) for _ in range(300)])
    deep = shared[7].params["deep"]
    vars_of = vars(shared[8])
    for _ in range(2):
        for model in shared:
            assert model.alpha == 1
    gc.collect()
    deep[1]["er"] = "new"
    vars_of["alpha"] = "newer"
    del deep, vars_of, model
    for _ in range(2):
        assert [model.alpha for model in shared].count(1) == 299
    sent = pickle.loads(pickle.dumps(shared, 5))
    assert sent[7].params["deep"][1]["er"] == "new"
    assert sent[8].alpha == "newer"
    assert sent[9].params["deep"][1]["er"] == 2


def test_one_object_is_handed_out_while_it_is_held_or_was_written_to() -> None:
    shared = mori.share([Model() for _ in range(300)])
    held = shared[5]
    shared[6].alpha = 2
    for _ in shared:
        pass
    assert shared[5] is held
    assert shared[6].alpha == 2


def test_what_was_only_read_still_travels_as_a_reference() -> None:
    shared = mori.share({"models": [make() for make, *_ in WRITES]})
    for _ in range(2):
        held = [[*shared["models"]] for _ in range(2)]
        assert len(pickle.dumps(shared, 5)) <= 100
        assert held[0][0] is held[1][0]
        del held
    assert mori.is_shared(shared)


class Lookup:
    """An object whose parts are written late."""

    def __init__(self, n: int) -> None:
        self.places = {f"word {i}": i for i in range(n)}
        self.words = [f"word {i}" for i in range(n)]
        self.rows = [{"id": i, "name": f"name {i}"} for i in range(n)]


def test_an_object_with_large_dicts_lists_and_records_travels_as_a_reference_when_it_was_read() -> None:
    shared = mori.share([Lookup(5000) for _ in range(3)])
    held = [*shared]
    assert held[1].places["word 7"] == held[1].words.index("word 7") == held[1].rows[7]["id"]
    assert len(pickle.dumps(shared, 5)) <= 100
    held[1].places["word 7"] = 8
    assert pickle.loads(pickle.dumps(shared, 5))[1].places["word 7"] == 8


def test_a_write_through_the_dict_of_an_instance_is_found_when_nothing_else_is_held() -> None:
    shared = mori.share([Fit(str(number), np.arange(10)) for number in range(300)])
    held = vars(shared[8])
    for _ in range(2):
        assert [fit.name for fit in shared] == [str(number) for number in range(300)]
    held["name"] = "new"
    del held
    for _ in range(2):
        assert [fit.name for fit in shared].count("8") == 0
    assert pickle.loads(pickle.dumps(shared, 5))[8].name == "new"


def test_reading_a_list_of_large_objects_keeps_few_of_them() -> None:
    shared = mori.share([Blob(number) for number in range(60)])
    seen = weakref.WeakSet()
    most = 0
    for blob in shared:
        seen.add(blob)
        del blob
        most = max(most, len(seen))
    assert most < 30  # of 1 MB each


class Blob:
    """An object of a megabyte that stays in its pickle."""

    def __init__(self, number: int) -> None:
        self.text = f"{number:08}" * (1 << 17)


def test_what_is_written_into_an_object_and_does_not_pickle_is_an_error_and_nothing_is_lost() -> None:
    shared = mori.share({"model": Model(), "rest": np.arange(1000)})
    shared["model"].lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        pickle.dumps(shared, 5)
    assert shared["model"].alpha == 1
    del shared["model"].lock
    assert pickle.loads(pickle.dumps(shared, 5))["model"].alpha == 1


def test_writing_back_what_was_there_makes_a_reference_of_it_again() -> None:
    shared = mori.share([Model()])
    shared[0].alpha = 2
    shared[0].alpha = 1
    assert len(pickle.dumps(shared, 5)) <= 100


def test_an_object_is_let_go_with_its_container() -> None:
    shared = mori.share([Model()])
    ref = weakref.ref(shared[0])
    assert ref() is not None
    del shared
    gc.collect()
    assert ref() is None


def test_arrays_in_an_instance_are_writable_for_code_that_insists_on_it(store: str) -> None:
    shared = mori.share(Model(200_000))
    other = pickle.loads(ForkingPickler.dumps(shared))
    assert mori.is_shared(shared.array)
    assert not memoryview(shared.array).readonly
    np.random.default_rng(0).shuffle(shared.array)
    (ctypes.c_int64 * 200_000).from_buffer(shared.array)[0] = -5
    assert shared.array[0] == -5
    assert not mori.is_shared(shared.array)
    assert other.array.tolist() == list(range(200_000))
    assert mori.is_shared(other)
    assert pickle.loads(pickle.dumps(shared)).array[0] == -5


def test_a_view_of_an_array_in_an_instance_writes_through(worker: Any) -> None:
    shared = mori.share(Model())
    shared.array[10:20][3] = 99
    assert (shared.array[13], mori.is_shared(shared)) == (99, False)
    assert worker(lambda x: int(x.array[13]), shared) == 99


def test_what_was_not_written_to_of_an_instance_still_travels_as_a_reference() -> None:
    shared = mori.share(Fit(np.arange(100_000.0), np.arange(100_000)))
    part = shared.data[1000:50_000:2]
    assert len(ForkingPickler.dumps(part)) < 200
    assert len(ForkingPickler.dumps(np.asarray(part))) < 300
    assert pickle.loads(pickle.dumps(part)).tolist() == part.tolist()
    shared.name[5] = -1
    assert 800_000 < len(pickle.dumps(shared)) < 801_000  # the one that was written to, and no other
    assert pickle.loads(pickle.dumps(shared)).name[5] == -1
    shared.name[5] = 5
    assert len(ForkingPickler.dumps(shared)) < 200


def test_a_private_copy_of_an_instance_does_not_see_its_writes() -> None:
    shared = mori.share(Model(100_000))
    private = mori.materialize(shared)
    shared.array[0] = 7
    private.array[1] = 8
    assert (private.array[0], shared.array[1], type(private.array)) == (0, 1, np.ndarray)


def test_an_estimator_predicts_by_code_that_asks_for_writable_buffers() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 30))
    neighbours = KNeighborsClassifier(algorithm="kd_tree").fit(x, x[:, 0] > 0)
    machine = OneClassSVM().fit(x)
    for fitted in (neighbours, machine):
        assert (mori.share(fitted).predict(x) == fitted.predict(x)).all()


def test_where_no_more_can_be_mapped_the_arrays_are_as_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(mapping: Any) -> Any:
        raise OSError(errno.ENOMEM, "no more")

    name = mori.shared_name(kept := mori.share(Model()))
    monkeypatch.setattr(identity, "writable_mapping", refuse)
    shared = mori.map_shared(name)
    shared.array[0] = 7
    assert (shared.array[0], kept.array[0], mori.is_shared(shared)) == (7, 0, False)
