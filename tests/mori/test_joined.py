"""Text, keys and records are made when they are written: little is held, and what changes is as it was."""

import itertools
import tracemalloc

import numpy as np
import pytest

import mori
from mori.codecs import packed
from mori.format.atoms import PIECE
from mori.memory import region

pytestmark = pytest.mark.usefixtures("views")

COUNT = 100_000
KINDS = {
    "strings": lambda n: [f"word number {i}" for i in range(n)],
    "text": lambda n: [f"wörd nümber {i}" for i in range(n)],
    "bytes": lambda n: [b"word number %d" % i for i in range(n)],
    "long integers": lambda n: [1 << (i % 50 + 70) for i in range(n)],
    "missing": lambda n: [None if i % 7 == 0 else f"word number {i}" for i in range(n)],
    "dict of str": lambda n: {f"word number {i}": i for i in range(n)},
    "dict of bytes": lambda n: {b"word number %d" % i: i for i in range(n)},
    "dict of int": lambda n: {3 * i: i for i in range(n)},
    "records": lambda n: [{"id": i, "name": f"word number {i}", "city": f"city {i % 100}"} for i in range(n)],
    "tuples": lambda n: [(f"word number {i}", 0.5 * i) for i in range(n)],
}
PAYLOADS = {  # the bytes of the values alone
    "strings": lambda x: sum(map(len, x)),
    "dict of str": lambda x: sum(map(len, x)) + 8 * len(x),
    "dict of int": lambda x: 16 * len(x),
    "records": lambda x: sum(8 + len(r["name"]) + len(r["city"]) for r in x),
}
BLOCKS = 5 << 20  # what is made at once, and waits to be written


@pytest.mark.parametrize(
    ("kind", "count", "most"),
    [
        *(
            (kind, 3 * COUNT, lambda payload: 1.2 * payload + BLOCKS)
            for kind in PAYLOADS
            if kind != "records"
        ),
        ("records", 3 * COUNT, lambda payload: 3 * payload),  # their blocks are measured by being made
        (
            "dict of int",
            10 * COUNT,
            lambda payload: 1.6 * payload,
        ),  # keys, values and index as arrays: lists of the two would be twice as much
    ],
)
def test_the_peak_of_sharing_is_hardly_more_than_the_payload(kind, count, most):
    plain = KINDS[kind](count)
    mori.share(KINDS[kind](1000))  # what is imported
    tracemalloc.start()
    try:
        shared = mori.share(plain)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most(PAYLOADS[kind](plain))
    assert len(shared) == len(plain)


@pytest.mark.parametrize("change", [lambda x: x.popitem(), lambda x: (x.popitem(), x.update({-1: 0}))])
def test_a_dict_that_changes_while_its_numbers_are_taken_is_refused(change, monkeypatch):
    plain = {i: i for i in range(COUNT)}
    types_of, pieces = packed.types_of, itertools.count()

    def change_once(piece):
        if next(pieces) == -(-COUNT // PIECE):  # the keys have been taken
            change(plain)
        return types_of(piece)

    monkeypatch.setattr(packed, "types_of", change_once)
    with pytest.raises((mori.NotShareableError, RuntimeError), match="changed"):
        mori.share(plain)
    monkeypatch.undo()
    assert mori.share(plain) == plain


@pytest.mark.parametrize("odd", [True, 0.5, None, "text", 1 << 70])
def test_numbers_and_one_that_is_none_of_them(odd):
    plain = {i: i for i in range(40_000)} | {30_000: odd}
    shared = mori.share(plain)
    assert shared == plain
    assert type(shared[30_000]) is type(odd)
    assert [*map(type, shared.values())] == [*map(type, plain.values())]


CHANGES = {
    "strings": lambda x: x.__setitem__(COUNT // 2, "another length"),
    "text": lambda x: x.__setitem__(5, x[5].replace("ö", "ä")),
    "bytes": lambda x: x.clear(),
    "long integers": lambda x: x.__setitem__(0, 1 << 1000),
    "missing": lambda x: x.pop(),
    "dict of int": lambda x: x.pop(9) and x.update({-1: 3}),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_changes_between_measuring_and_writing_is_as_it_was(kind, store, monkeypatch):
    plain = KINDS[kind](COUNT)
    before, create = plain.copy(), region.create

    def change_first(*args, **kwargs):
        CHANGES[kind](plain)
        return create(*args, **kwargs)

    monkeypatch.setattr(region, "create", change_first)
    shared = mori.share(plain)
    assert shared == before
    assert shared != plain


def test_arrays_that_change_between_measuring_and_writing_are_refused(store, monkeypatch):
    plain = [np.zeros(10) for _ in range(COUNT // 100)]
    create = region.create

    def change_first(*args, **kwargs):
        plain[5].resize(20, refcheck=False)
        return create(*args, **kwargs)

    monkeypatch.setattr(region, "create", change_first)
    with pytest.raises(RuntimeError, match="changed"):
        mori.share(plain)
    monkeypatch.undo()
    assert np.array_equal(mori.share(plain)[5], plain[5])


@pytest.mark.parametrize("kind", ["dict of str", "dict of bytes"])
def test_a_dict_that_changes_after_measuring_is_as_it_was(kind, monkeypatch):
    plain = KINDS[kind](COUNT)
    before, create = dict(plain), region.create

    def change_first(*args, **kwargs):
        plain.popitem()
        plain.update({"one more": 1})
        return create(*args, **kwargs)

    monkeypatch.setattr(region, "create", change_first)
    shared = mori.share(plain)
    assert shared == before
    assert "one more" in plain
    assert "one more" not in shared
