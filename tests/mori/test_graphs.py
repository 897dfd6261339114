"""However objects refer to each other in a container: they come back so, and every write is carried."""

from __future__ import annotations

import contextlib
import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from tests.mori import classes as c

CONSTANTS = (None, 1.5, "s", b"b", c.T, c.START, c.STOP, c.Colour.RED, c.Word, c.Point, len)
VALUES = {id(one) for one in CONSTANTS}
LISTS, TUPLES = (list, mori.SharedList), (tuple, mori.SharedTuple)
DICTS, SETS = (dict, mori.SharedDict), (set, mori.SharedSet)
WRITTEN = (*LISTS, *DICTS, *SETS, c.Fit, c.Node, c.Slots, c.Reduced, c.Key, np.ndarray, np.void)
_Make = Callable[[random.Random, int, list[Any]], Any]


def _record(number: int) -> Any:
    record = np.zeros(1, "i4,f8")[0]
    record["f0"] = number
    return record


def _objects(number: int, parts: list[Any]) -> Any:
    array = np.empty(len(parts) + 1, object)
    for place, part in enumerate([[number], *parts]):
        array[place] = part
    return array


MAKE: dict[str, _Make] = {
    "list": lambda rng, i, parts: [i, *parts],
    "dict": lambda rng, i, parts: {f"k{j}": part for j, part in enumerate([i, *parts])},
    "tuple": lambda rng, i, parts: (i, *parts),
    "instance": lambda rng, i, parts: c.Fit(f"n{i}", parts),
    "slots": lambda rng, i, parts: c.Slots([i], parts),
    "node": lambda rng, i, parts: c.Node(i, parts[0] if parts else None, parts),
    "namedtuple": lambda rng, i, parts: c.Point(i, parts),
    "reduced": lambda rng, i, parts: c.Reduced([i, *parts]),
    "array": lambda rng, i, parts: np.arange(rng.choice([3, 400, 10_000])) + i,
    # The garbage collector does not look into arrays of objects: a cycle through one stays for good.
    "objects": lambda rng, i, parts: _objects(i, [part for part in parts if type(part) in (int, str, bytes)]),
    "record": lambda rng, i, parts: _record(i),
    "masked": lambda rng, i, parts: np.ma.array([i, 2, 3], mask=[0, 1, 0]),
    "frame": lambda rng, i, parts: pd.DataFrame({"a": np.arange(3) + i, "b": 1.5}),
    "series": lambda rng, i, parts: pd.Series(np.arange(3) + i),
    "large list": lambda rng, i, parts: [*([j] for j in range(520)), i, *parts],
    "large dict": lambda rng, i, parts: {j: [j] for j in range(520)} | {"x": parts},
    "set": lambda rng, i, parts: {c.Key(i * 1000 + j) for j in range(rng.choice([1, 520]))},
    "keys": lambda rng, i, parts: {c.Key(j): [j] for j in range(rng.choice([2, 520]))},
    "constant": lambda rng, i, parts: rng.choice(CONSTANTS),
}


def build(rng: random.Random) -> Any:
    kinds = [rng.choice([*MAKE]) for _ in range(rng.randint(1, 6))]
    made: list[Any] = []
    for number in range(rng.randint(1, 15)):
        parts = [rng.choice([*CONSTANTS, *made, *made]) for _ in range(rng.randint(0, 3))]
        made.append(MAKE[rng.choice(kinds)](rng, number, parts))
    for one in made:
        if type(one) is c.Node and rng.random() < 0.5:
            one.parent = rng.choice(made)
        elif type(one) is list and rng.random() < 0.2:
            one.append(rng.choice(made))
    padding = [{"id": number, "tags": [number]} for number in range(rng.choice([0, 5, 40]))]
    root = [rng.choice(made) for _ in range(rng.choice([1, 3, 100]))] + padding
    rng.shuffle(root)
    return rng.choice([root, tuple(root), {f"k{place}": one for place, one in enumerate(root)}])


def apart(x: Any) -> tuple[Any, list[Any]]:
    """Return what an object is by itself, and what it refers to in order; views are as their builtins."""
    if id(x) in VALUES or isinstance(x, int | float | str | bytes):
        return x, []
    if isinstance(x, np.ma.MaskedArray | np.void | pd.DataFrame | pd.Series):
        return repr(x.tolist() if hasattr(x, "tolist") else x), []
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, None if x.dtype.hasobject else x.tobytes()), [
            *(x.tolist() if x.dtype.hasobject else ())
        ]
    if isinstance(x, DICTS):
        return "dict", [part for item in x.items() for part in item]
    if isinstance(x, SETS):
        return "set", sorted(x, key=lambda key: key.number)
    for kind, classes in (("list", LISTS), ("tuple", TUPLES)):
        if isinstance(x, classes):
            return kind, [*x]
    return type(x), [*c.fields_of(x).values()]


def is_equal(one: Any, other: Any, *, exactly: bool = True) -> bool:
    """Return whether two graphs are equal; `exactly` if what is one object in the second is in the first."""
    partners: dict[int, Any] = {}
    pairs, kept = [(one, other)], []
    while pairs:
        ours, theirs = pairs.pop()
        if isinstance(theirs, WRITTEN):
            key = id(theirs) if exactly else hash((id(ours), id(theirs)))
            if key in partners:
                if partners[key] is not ours:
                    return False
                continue
            partners[key] = ours
        (head, parts), (their_head, their_parts) = apart(ours), apart(theirs)
        if head != their_head or len(parts) != len(their_parts):
            return False
        kept.append((ours, theirs, parts, their_parts))  # or ids would be those of others
        pairs += zip(parts, their_parts, strict=True)
    return True


def write(shared: Any, plain: Any, number: int) -> None:
    """Write the same to an object and its like."""
    for x in (shared, plain):
        if isinstance(x, LISTS):
            x.append(number)
        elif isinstance(x, DICTS):
            x[f"w{number}"] = number
        elif isinstance(x, c.Fit | c.Node | c.Slots | c.Reduced):
            setattr(x, next(iter(c.fields_of(x))), number)
        elif isinstance(x, c.Key):
            x.tags.append(number)
        elif isinstance(x, np.void):
            x["f0"] = number
        elif isinstance(x, np.ndarray):
            x[0] = number
        elif isinstance(x, pd.DataFrame | pd.Series):
            x.iloc[0] = number


def go(rng: random.Random, shared: Any, plain: Any) -> tuple[Any, Any]:
    """Return an object that some steps lead to, and its like."""
    for _ in range(rng.randint(1, 4)):
        parts = apart(plain)[1]
        if not parts:
            break
        place = rng.randrange(len(parts))
        if isinstance(plain, list | tuple) and not hasattr(plain, "_fields"):
            shared, plain = shared[place], plain[place]
        else:
            shared, plain = apart(shared)[1][place], parts[place]
    return shared, plain


@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore")
def test_whatever_graph_is_shared_is_read_and_written_to_as_its_plain_like(rng: random.Random) -> None:
    plain = build(rng)
    expected, untouched = copy.deepcopy(plain), copy.deepcopy(plain)
    try:
        shared = mori.share(plain)
    except mori.NotShareableError as error:
        assert "contains itself" in str(error)  # noqa: PT017 - other errors are faults
        return
    del plain
    other = pickle.loads(pickle.dumps(shared))
    assert is_equal(shared, expected)
    held = []
    for number in range(rng.randint(1, 6)):
        held.append(go(rng, shared, expected))
        if rng.random() < 0.7:
            write(*held.pop(rng.randrange(len(held))), 1000 + number)
        with contextlib.suppress(AttributeError):
            [*shared.values()] if isinstance(shared, DICTS) else [*shared]
        if rng.random() < 0.3:
            held.clear()
            pickle.dumps(shared)
    del held
    assert is_equal(shared, expected)
    with mori.by_value():
        sent = pickle.dumps(shared)
    for again in (pickle.loads(sent), pickle.loads(pickle.dumps(shared))):
        # In what was changed, untouched parts are references, each of which is opened by itself.
        assert is_equal(again, expected, exactly=mori.is_shared(shared))
    assert is_equal(other, untouched)
