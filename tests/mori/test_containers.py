"""Lists, tuples and dicts: lazy, equal to the builtins, named to their last part, or refused by name."""

import copy
import math
import pickle
import threading
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori

SCALARS = [
    None, True, False, 0, 1, -1, 127, 128, -129, 2**63, -(2**200), 1.0, -0.0, math.inf, 5e-324,
    1j, "", "a", "mörî 森", "\ud800", "x\0y", b"", b"\0\xff", np.int8(3), np.float32(1.5), np.bool_(True),
    np.datetime64("2024-01-01", "D"), np.timedelta64(3, "h"), np.datetime64("NaT", "s"), np.complex64(1j),
    np.uint64(2**64 - 1), np.longdouble("0.1"), np.float16(0.5), np.str_("text"), np.bytes_(b"x"),
]  # fmt: skip

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.fractions(),
)
keys = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.tuples(st.text(), st.integers())
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=20,
)


def same(ours, theirs) -> bool:
    """Compare with the types of everything."""
    if isinstance(theirs, dict):
        return [*map(repr, ours)] == [*map(repr, theirs)] and all(
            same(ours[key], theirs[key]) for key in theirs
        )
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and repr(ours) == repr(theirs)


@pytest.mark.parametrize("value", SCALARS, ids=repr)
def test_a_scalar_keeps_its_exact_type_and_value(store, value):
    for inside in (mori.share([value])[0], mori.share({"k": value})["k"], mori.share((value,))[0]):
        assert type(inside) is type(value)
        assert repr(inside) == repr(value)


def test_scalars_keep_their_types_in_another_process(store, worker):
    shared = mori.share({"all": SCALARS})
    assert worker(lambda x: [(type(v), repr(v)) for v in x["all"]], shared) == [
        (type(v), repr(v)) for v in SCALARS
    ]


@given(tree=trees)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_tree_is_shared_is_what_comes_back(store, tree):
    shared = mori.share([tree])
    assert same(shared[0], tree)
    assert shared == [tree]
    plain = mori.materialize(shared)
    assert plain == [tree]
    assert type(plain[0]) is type(tree)
    assert same(pickle.loads(pickle.dumps(shared))[0], tree)
    with mori.by_value():
        data = pickle.dumps(shared[0])
    assert same(pickle.loads(data), tree)


def test_large_parts_are_lazy_views_and_the_views_are_no_builtins(store, views):
    numbers = dict.fromkeys(range(600))
    shared = mori.share({"l": [*numbers], "t": (*numbers,), "d": {"x": numbers}})
    assert isinstance(shared, mori.SharedDict)
    assert isinstance(shared["l"], mori.SharedList)
    assert isinstance(shared["t"], mori.SharedTuple)
    assert isinstance(shared["d"]["x"], mori.SharedDict)
    assert not isinstance(shared["l"], list)
    assert not isinstance(shared, dict)
    assert isinstance(shared["l"], MutableSequence)
    assert isinstance(shared["t"], Sequence)
    assert not isinstance(shared["t"], MutableSequence)
    assert isinstance(shared, Mapping)
    assert isinstance(shared, MutableMapping)


def test_a_part_that_is_asked_for_twice_is_one_object(store):
    shared = mori.share([np.arange(3), {"a": [1]}])
    array, inner = shared[0], shared[1]
    assert shared[0] is array
    assert shared[1] is inner
    assert inner["a"] is shared[1]["a"]


SEQUENCE_USES = [
    "x[1]", "x[-1]", "x[1:]", "x[::-2]", "x[5:]", "x[np.int64(1)]", "x[True]", "len(x)", "[*x]",
    "bool(x)", "2 in x", "9 in x", "x.index(2)", "x.index(2, 2)", "x.count(2)", "[*reversed(x)]",
    "x + kind([7])", "kind([7]) + x", "x * 2", "2 * x", "x == kind([1, 2, 3, 2])", "x == [1]", "x != 3",
    "x < kind([9])", "kind([9]) <= x", "x >= x", "max(x)", "sorted(x)", "sum(x)", "tuple(x)", "x[4]",
    "x[-5]", "x['a']", "x[1.0]", "x[::0]",
]  # fmt: skip
SEQUENCE_FAULTS = ["x.index(9)", "x + 3", "3 + x", "x < 3", "x * 'a'", "x.missing", "x()"]
DICT_USES = [
    "x['a']", "x[3]", "x[1, 't']", "x['missing']", "x[[]]", "x[True]", "x.get('a')",
    "x.get('missing', 5)", "[*x]", "[*x.items()]", "[*x.values()]", "len(x)", "'a' in x", "9 in x",
    "[] in x", "[*reversed(x)]", "x | {'n': 1}", "{'n': 1, 'a': 0} | x",
    "x == {'a': 1, 3: 'b', (1, 't'): None}", "x == {'a': 1}", "x == 3", "x.keys() & {'a'}", "{**x}",
    "dict(x)", "x.copy()", "bool(x)",
]  # fmt: skip
DICT_FAULTS = ["hash(x)", "x < {}", "x | 3", "x.missing", "x.get([])", "x()"]


def outcome(use: str, x, kind: type, *, exactly: bool = True):
    """Return what a use of an object gives: a value with its type, or an error with its text."""
    try:
        value = eval(use, {"x": x, "kind": kind, "np": np})
    except Exception as error:
        return type(error), str(error) if exactly else ""
    return type(value), value


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_shared_sequence_answers_like_the_builtin(store, kind):
    plain = kind([1, 2, 3, 2])
    shared = mori.share(plain)
    for use in SEQUENCE_USES:
        assert (use, outcome(use, shared, kind)) == (use, outcome(use, plain, kind))
    for use in SEQUENCE_FAULTS:
        assert (use, outcome(use, shared, kind, exactly=False)) == (
            use,
            outcome(use, plain, kind, exactly=False),
        )


def test_a_shared_dict_answers_like_the_builtin(store):
    plain = {"a": 1, 3: "b", (1, "t"): None}
    shared = mori.share(plain)
    for use in DICT_USES:
        assert (use, outcome(use, shared, dict)) == (use, outcome(use, plain, dict))
    for use in DICT_FAULTS:
        assert (use, outcome(use, shared, dict, exactly=False)) == (
            use,
            outcome(use, plain, dict, exactly=False),
        )


def test_a_shared_tuple_has_the_hash_of_the_tuple(store):
    assert hash(mori.share((1, (2, "a")))) == hash((1, (2, "a")))
    with pytest.raises(TypeError, match="unhashable"):
        hash(mori.share([1]))


def test_views_of_equal_parts_are_equal_and_compare_with_each_other(store):
    one, other = mori.share([1, {"a": (2, 3)}]), mori.share([1, {"a": (2, 3)}])
    assert one == other
    assert one == [1, {"a": (2, 3)}]
    assert [1, {"a": (2, 3)}] == one  # noqa: SIM300
    assert one != [1, {"a": (2, 4)}]
    assert one != (1, {"a": (2, 3)})
    assert hash(one[1]["a"]) == hash((2, 3))
    assert {one[1]["a"]: "found"}[2, 3] == "found"


@pytest.mark.parametrize("thing", [
    None, 1, 1.5, "text", b"bytes", True, 1j, len, math, int, same, np.float64(1),
    object(), range(3), threading.Lock(), "/mori_1_1",
], ids=lambda thing: type(thing).__name__)  # fmt: skip
def test_what_cannot_be_shared_comes_back_as_it_is(store, thing):
    assert mori.share(thing) is thing
    assert not mori.is_shared(thing)
    assert mori.shared_name(thing) is None


def test_plain_containers_and_arrays_are_not_shared(store):
    for thing in (
        [1],
        {},
        (),
        {1, 2},
        frozenset(),
        np.arange(3),
        pd.DataFrame(),
        pd.Series([1]),
        pd.Index(["a"]),
    ):
        assert not mori.is_shared(thing)
        assert mori.shared_name(thing) is None
        assert mori.materialize(thing) is not None


def test_what_only_pickles_survives_inside_a_container(store, worker):
    shared = mori.share([len, np.ndarray, {1, 2}, range(3), np.array([1, "a"], object), lambda x: x + 1])
    assert shared[:4] == [len, np.ndarray, {1, 2}, range(3)]
    assert shared[4].tolist() == [1, "a"]
    assert shared[5](1) == 2
    assert worker(lambda x: x[5](len(x)), shared) == 7


@pytest.mark.parametrize(("obj", "path"), [
    ([threading.Lock()], "obj[0]"),
    ({"a": [0, (1, threading.Lock())]}, "obj['a'][1][1]"),
    ({("t", 1): threading.Lock()}, "obj[('t', 1)]"),
    ([np.array([threading.Lock()])], "obj[0]"),
], ids=lambda x: x if isinstance(x, str) else type(x).__name__)  # fmt: skip
def test_what_does_not_pickle_is_an_error_that_names_the_path(store, obj, path):
    with pytest.raises(mori.NotShareableError, match="lock") as caught:
        mori.share(obj)
    assert caught.value.path == path
    assert pickle.loads(pickle.dumps(caught.value)).path == path


def test_a_part_that_stands_twice_is_no_cycle(store):
    part = [1, 2]
    assert mori.share([part, part, {"again": part}]) == [part, part, {"again": part}]


def test_opening_reads_none_of_the_elements(store):
    few, many = mori.share(list(range(10))), mori.share(list(range(10_000)))
    assert len(pickle.dumps(many)) == len(pickle.dumps(few))
    assert len(many) == 10_000
    assert many[9_999] == 9_999
    assert repr(many).endswith("5, ... 10,000 in all]>")


def test_a_copy_of_a_tuple_is_a_tuple(store):
    for plain in ((), (1, "a", None), tuple(range(600)), (np.arange(600), [1])):
        x = mori.share(plain)
        assert type(copy.copy(x)) is tuple
        assert len(copy.copy(x)) == len(plain)
