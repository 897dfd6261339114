"""What a container has handed out is kept while anybody holds it, or a part of it, and is let go then."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mori
from tests.mori.classes import Fit, Key

N = 520  # elements of a large container
FIRST = 3


def rows() -> list[list[int]]:
    return [[number] for number in range(N)]


def first(x: Any) -> Any:
    return next(iter(x))


def append(x: Any) -> None:
    x.append("new")


MAKE: dict[str, Callable[[], Any]] = {
    "list": rows,
    "list of lists": lambda: [rows() for _ in range(2)] * (N // 2),
    "tuple": lambda: tuple(rows()),
    "dict": lambda: dict(enumerate(rows())),
    "dict of keys": lambda: {Key(number): number for number in range(N)},
    "dict of tuples": lambda: {(number, None): [number] for number in range(N)},
    "set": lambda: {Key(number) for number in range(N)},
    "frozenset": lambda: frozenset(map(Key, range(N))),
    "objects": lambda: np.array([[1], {"a": 1}, None] * N, object),
    "array": lambda: np.arange(10_000),  # too large for a column
    "list in a record": lambda: {"rows": rows()},
    "list in an instance": lambda: Fit("name", rows()),
    "set in a tuple": lambda: ({Key(number) for number in range(N)}, 1),
    "record": lambda: {"id": 1, "tags": ["a"]},
    "instance": lambda: Fit("name", [1]),
}
WRITES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], object]]] = {
    "list": (first, append),
    "list of lists": (lambda x: x[1][2], append),
    "tuple": (first, append),
    "dict": (lambda x: x[5], append),
    "dict of keys": (first, lambda key: append(key.tags)),
    "dict of tuples": (lambda x: x[7, None], append),
    "set": (first, lambda key: append(key.tags)),
    "frozenset": (first, lambda key: append(key.tags)),
    "objects": (lambda x: x[1], lambda part: part.update(a=2)),
    "list in a record": (lambda x: x["rows"][7], append),
    "list in an instance": (lambda x: x.data[7], append),
    "set in a tuple": (lambda x: first(x[0]), lambda key: append(key.tags)),
    "record": (lambda x: x["tags"], append),
    "instance": (lambda x: x.data, append),
}


def shared_of(kind: str) -> Any:
    return mori.share([MAKE[kind]() for _ in range(70)])


def read(shared: Any, kind: str) -> None:
    """Read all elements, and a part of each."""
    take = WRITES[kind][0] if kind in WRITES else first
    for element in shared:
        take(element)


@pytest.mark.parametrize("kind", MAKE)
def test_what_nobody_holds_is_let_go(kind: str) -> None:
    shared = shared_of(kind)
    read(shared, kind)
    assert len(shared._source._read) <= 17
    assert shared._source.is_idle()


@pytest.mark.parametrize("kind", MAKE)
def test_an_element_that_is_held_is_kept_and_is_one_object(kind: str) -> None:
    shared = shared_of(kind)
    held = shared[FIRST]
    read(shared, kind)
    assert shared[FIRST] is held
    assert not shared._source.is_idle()
    del held
    assert shared._source.is_idle()


@pytest.mark.parametrize("kind", WRITES)
def test_a_part_of_an_element_that_is_held_is_kept_and_a_write_to_it_is_carried(kind: str) -> None:
    take, write = WRITES[kind]
    shared = shared_of(kind)
    held = take(shared[FIRST])
    read(shared, kind)
    assert take(shared[FIRST]) is held
    assert mori.is_shared(shared)
    expected = pickle.loads(pickle.dumps(held))
    write(held)
    write(expected)
    del held
    read(shared, kind)
    for again in (shared, pickle.loads(pickle.dumps(shared, 5))):
        got = take(again[FIRST])
        assert getattr(got, "tags", got) == getattr(expected, "tags", expected)


RECORDS: dict[str, Any] = {
    "structured": np.dtype("i4,f8"),
    "record": np.dtype((np.record, [("f0", "i4"), ("b", "U3")])),
    "padded": np.dtype({"names": ["f0"], "formats": ["i4"], "offsets": [4], "itemsize": 16}),
    "with objects": np.dtype("i4,O"),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    ("put", "take"),
    [
        (lambda one: one, lambda x: x[FIRST]),
        (lambda one: [one, 1], lambda x: x[FIRST][0]),
        (lambda one: {"one": one}, lambda x: x[FIRST]["one"]),
        (lambda one: Fit("name", one), lambda x: x[FIRST].data),
    ],
    ids=["alone", "list", "dict", "instance"],
)
def test_a_record_of_numpy_in_a_container_is_written_to(name: str, put: Any, take: Any) -> None:
    shared = mori.share([put(one) for one in np.zeros(2000, RECORDS[name])])
    record = take(shared)
    assert record.dtype == RECORDS[name]
    record["f0"] = 7
    assert record["f0"] == 7
    del record
    for _ in shared:
        pass
    for again in (shared, pickle.loads(pickle.dumps(shared, 5))):
        assert take(again)["f0"] == 7
