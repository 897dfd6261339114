"""A reference to what is gone, in an engine's deserializer: the first use says what is missing."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed.protocol.pickle import loads

import mori
from mori.memory import lease
from mori.wire.lost import Lost
from tests.mori.pandas_versions import str_frame

pytestmark = pytest.mark.each_store

_OBJECTS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(1000),
    "slice": lambda: mori.share(np.arange(1000))[3:9:2],
    "frame": lambda: str_frame({"a": np.arange(9), "s": list("abcdefghi")}),
    "frame in a dict": lambda: mori.share({"f": pd.DataFrame({"a": np.arange(9.0)})})["f"],
    "list": lambda: [np.arange(3), "x"],
    "part": lambda: mori.share([[np.arange(3)], 1])[0],
    "dict": lambda: {"a": np.arange(3)},
    "strings": lambda: ["a", "b", None],
    "set": lambda: set(range(1000)),
    "bytes": lambda: bytes(9000),
}


def _vanished(make: Callable[[], Any]) -> tuple[bytes, str | None]:
    shared = mori.share(make())
    pickled, name = pickle.dumps(shared), mori.shared_name(shared)
    del shared
    lease.expire_graces()
    return pickled, name


def _enter(x: Any) -> None:
    with x:
        pass


_USES: dict[str, Callable[[Any], object]] = {
    "len": len,
    "iter": iter,
    "element": lambda x: x[0],
    "assignment": lambda x: operator.setitem(x, 0, 1),
    "in": lambda x: 1 in x,
    "attribute": lambda x: x.shape,
    "method": lambda x: x.mean(),
    "setting": lambda x: setattr(x, "name", "n"),
    "deleting": lambda x: delattr(x, "name"),
    "bool": bool,
    "call": lambda x: x(),
    "==": lambda x: x == 1,
    "<": lambda x: x < 1,
    "1 +": lambda x: 1 + x,
    "+ 1": lambda x: x + 1,
    "-x": lambda x: -x,
    "+x": lambda x: +x,
    "1 %": lambda x: 1 % x,
    "<<": lambda x: x << 1,
    "array @": lambda x: np.ones(3) @ x,
    "float": float,
    "int": int,
    "complex": complex,
    "round": round,
    "floor": math.floor,
    "asarray": np.asarray,
    "ufunc": np.sin,
    "sum": np.sum,
    "with": _enter,
    "reversed": reversed,
    "Series": pd.Series,
    "sorted": sorted,
}


@pytest.mark.parametrize("kind", _OBJECTS)
def test_what_is_gone_unpickles_and_says_at_its_first_use_what_is_missing(store: str, kind: str) -> None:
    pickled, name = _vanished(_OBJECTS[kind])
    got = loads(pickled)
    for what in ("len", "attribute", "asarray", "sum", "iter", "1 +"):
        with pytest.raises(mori.RegionNotFoundError) as caught:
            _USES[what](got)
        assert str(caught.value).startswith(
            f"shared region {(name or caught.value.name).partition('[')[0]} not"
        )
        assert "mori.by_value()" in str(caught.value)
    assert not mori.is_shared(got)


def test_every_use_says_so() -> None:
    got = loads(_vanished(_OBJECTS["array"])[0])
    silent = []
    for what, use in _USES.items():
        try:
            use(got)
        except mori.RegionNotFoundError:
            continue
        except Exception as error:
            silent.append(f"{what}: {error!r}")
        else:
            silent.append(what)
    assert silent == []


def test_each_use_tells_its_own_place_and_nothing_of_the_others() -> None:
    got = loads(_vanished(_OBJECTS["array"])[0])
    for _ in range(3):
        with pytest.raises(mori.RegionNotFoundError) as caught:
            len(got)
        text = "".join(traceback.format_exception(caught.value))
        assert text.count("Traceback") == 1
        assert text.count("in test_each_use") == 1
        assert "in load" not in text, "where it was unpickled says nothing"


def test_what_an_engine_does_with_any_object_leaves_it_alone() -> None:
    """Printing, hashing, copying, pickling on, and looking for a protocol: not its use."""
    pickled, name = _vanished(_OBJECTS["array"])
    got = loads(pickled)
    assert name is not None
    assert name in repr(got)
    assert name in f"{got} {got!s}"
    assert hash(got) == hash(got)
    assert not hasattr(got, "__dask_graph__")
    assert isinstance(got, Lost)
    for again in (
        copy.copy(got),
        copy.deepcopy(got),
        loads(pickle.dumps(got)),
        loads(pickle.dumps([got]))[0],
    ):
        with pytest.raises(mori.RegionNotFoundError):
            len(again)
    with pytest.raises(mori.RegionNotFoundError):
        pickle.loads(pickle.dumps(got))


def test_many_references_to_what_is_gone_are_unpickled_on_many_threads_without_a_wait(store: str) -> None:
    pickled, _ = _vanished(_OBJECTS["list"])
    kept = mori.share(np.arange(1000))
    good = pickle.dumps(kept)
    seen: list[Any] = []

    def read() -> None:
        seen.extend((type(loads(pickled)).__name__, int(loads(good).sum())) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert seen == [("Lost", 499500)] * 160
