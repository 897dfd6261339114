"""A part that somebody still refers to is not let go, in whatever way Python counts that reference."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

import mori

_COUNT = 1000


class Thing:
    def __init__(self, number: int) -> None:
        self.number: Any = number
        self.below: list[Any] = [number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


MAKE_AND_WRITE: dict[str, tuple[Callable[[int], Any], Callable[[Any], object]]] = {
    "list": (lambda i: [i, "x", None], lambda part: part.append("written")),
    "dict": (lambda i: {"a": i, "b": "x"}, lambda part: part.update(a="written")),
    "set": (lambda i: {i, "x"}, lambda part: part.add("written")),
    "attribute": (Thing, lambda part: setattr(part, "number", "written")),
    "__dict__": (Thing, lambda part: vars(part).update(number="written")),
    "list of an instance": (Thing, lambda part: part.below.append("written")),
}


def _write_late(part: Any, shared: Any, write: Callable[[Any], object]) -> None:
    for index in range(len(shared)):  # more than are kept
        shared[index]
    write(part)


@pytest.mark.parametrize("kind", MAKE_AND_WRITE)
def test_a_part_that_one_variable_or_argument_alone_refers_to_is_written_to(kind: str) -> None:
    # Python 3.14 pushes a variable without counting: a count is one lower than before, at some places only.
    make, write = MAKE_AND_WRITE[kind]
    shared = mori.share([make(i) for i in range(_COUNT)])
    part = shared[7]
    _write_late(part, shared, write)
    _write_late(shared[8], shared, write)
    assert shared[7] is part
    for number in (7, 8):
        wanted = make(number)
        write(wanted)
        assert shared[number] == wanted
        assert pickle.loads(pickle.dumps(shared))[number] == wanted
