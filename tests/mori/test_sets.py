"""Sets and frozensets: equal to the builtins, opened without being built, written to locally."""

import pickle
from collections.abc import MutableSet, Set

import numpy as np
import pytest

import mori
from tests.mori.test_containers import outcome

pytestmark = pytest.mark.usefixtures("views")

SETS = {
    "int": set(range(100)),
    "str": {f"s{i}" for i in range(100)},
    "mixed": {1, "a", None, 2.5, (1, ("x" * 600,)), frozenset({"y" * 600}), b"b"},
    "empty": set(),
}
USES = [
    "x | {1, 'n'}", "{1, 'n'} | x", "x & {1, 's1'}", "{1} & x", "x - {1, 'a'}", "{1, 'n'} - x", "x ^ {1}",
    "{1, 'n'} ^ x", "x == kind(y)", "x == {1}", "x != 3", "x <= kind(y)", "x < kind(y)", "x >= {1}",
    "x > {1}", "{1} <= x", "1 in x", "'s5' in x", "[] in x", "(1, ('x' * 600,)) in x", "len(x)", "bool(x)",
    "set(x)", "frozenset(x)", "x.copy()", "x.isdisjoint([1])", "x.union([7], 'ab')",
    "x.intersection(y)", "x.difference([1])", "x.symmetric_difference([1])", "x.issubset(y)",
    "x.issuperset([1])", "x | 3", "3 | x", "x | [1]", "x - None", "x <= 3", "x < [1]", "x.union(3)", "x[0]",
    "x | x", "x & y.keys()", "y.keys() & x", "y.keys() | x", "x.issubset(3)",
]  # fmt: skip


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("name", SETS)
def test_a_shared_set_answers_like_the_builtin(store, name, kind):
    plain = kind(SETS[name])
    shared = mori.share(plain)
    assert type(shared) is (mori.SharedSet if kind is set else mori.SharedFrozenSet)
    assert isinstance(shared, Set)
    assert isinstance(shared, MutableSet) == (kind is set)

    y = dict.fromkeys(plain)
    for use in USES:
        ours, theirs = (outcome(f"(lambda y: {use})(kind.y)", x, kind_with(kind, y)) for x in (shared, plain))
        if isinstance(ours[1], str):
            ours = ours[0], ours[1].replace(type(shared).__name__, kind.__name__)
        assert (use, ours) == (use, theirs)


def kind_with(kind, keys):
    class Kind:
        y = keys

        def __new__(cls, values):
            return kind(values)

    return Kind


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("name", SETS)
def test_a_set_comes_back_exactly_everywhere(store, worker, name, kind):
    plain = kind(SETS[name])
    shared = mori.share(plain)

    def types(x):
        return sorted(map(str, map(type, x))), x == plain, set(x) == plain

    assert types(shared) == types(plain)
    assert worker(types, shared) == types(plain)
    assert mori.materialize(shared) == plain
    assert type(mori.materialize(shared)) is kind
    assert len(pickle.dumps(shared, 5)) <= 100
    with mori.by_value():
        data = pickle.dumps(shared)
    assert pickle.loads(data) == plain
    inside = mori.share([plain, np.arange(2)])
    assert inside[0] == plain
    assert mori.share(inside) is inside
    assert mori.share([shared])[0] == plain


def test_a_frozenset_has_the_hash_of_the_builtin(store):
    plain = frozenset(f"s{i}" for i in range(1000))
    shared = mori.share({plain: 1, "other": mori.share(plain)})
    assert hash(shared["other"]) == hash(plain)
    assert shared[plain] == 1
    assert {type(key) for key in shared} == {frozenset, str}
    with pytest.raises(TypeError, match="unhashable"):
        hash(mori.share({1}))


WRITES = [
    "x.add('n')", "x.add(1)", "x.discard(1)", "x.discard('no')", "x.remove(1)", "x.update([7], {8})",
    "x.clear()", "x.difference_update([1])", "x.intersection_update([1, 2])", "x.__ior__({'n'})",
    "x.symmetric_difference_update([1, 'n'])", "x.__iand__({1})", "x.__isub__({1})", "x.__ixor__({1, 'n'})",
]  # fmt: skip
FAULTS = [
    "x.remove('no')",
    "x.add([])",
    "x.update(3)",
    "x.discard({})",
    "(x.clear(), x.pop())",
    "x.remove([])",
]


@pytest.mark.parametrize("write", WRITES)
def test_a_change_is_local_and_pickles_as_a_plain_set(store, worker, write):
    plain = {1, 2, 3}
    shared, expected = mori.share(plain), set(plain)
    reference, other = pickle.dumps(shared), mori.share([set(range(500))])
    eval(write, {"x": shared})
    eval(write, {"x": expected})
    assert shared == expected
    assert {*shared} == expected
    assert len(shared) == len(expected)
    assert worker(lambda x: (type(x), x), shared) == (set, expected)
    assert pickle.loads(reference) == plain
    part = other[0]
    part.add("n")
    assert "n" in other[0]
    assert worker(lambda x: len(x[0]), other) == 501
    assert not mori.is_shared(other)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_change_is_the_error_of_the_builtin(store, fault):
    shared = mori.share({1, 2})
    with pytest.raises((KeyError, TypeError)) as ours:
        eval(fault, {"x": shared})
    with pytest.raises((KeyError, TypeError)) as theirs:
        eval(fault, {"x": {1, 2}})
    assert (ours.type, str(ours.value)) == (theirs.type, str(theirs.value))
    assert mori.is_shared(shared) == ("clear" not in fault)


def test_pop_takes_each_element_once(store):
    shared = mori.share({1, 2, 3})
    assert {shared.pop(), shared.pop(), shared.pop()} == {1, 2, 3}
    assert len(shared) == 0


def test_opening_iterating_and_looking_up_builds_no_table(store):
    shared = pickle.loads(pickle.dumps(mori.share(set(range(10_000)))))
    assert len(shared) == 10_000
    assert sum(shared) == sum(range(10_000))
    assert repr(shared) == "<SharedSet {0, 1, 2, 3, 4, 5, ... 10,000 in all}>"
    assert 77 in shared
    assert -1 not in shared
    assert shared._lookup is None
    assert shared & {77, -1} == {77}
    assert shared._lookup is not None
