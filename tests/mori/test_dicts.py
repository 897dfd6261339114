"""Dicts: looked up in the region, in their order, and used like the builtin."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import enum
import fractions
import itertools
import json
import pickle
import random
import struct
import types
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.codecs.hashes import PROBE
from mori.codecs.key_index import FEWEST, build
from mori.format import layout
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import mapping as mappings
from tests.regions import bytes_of, region_of

pytestmark = pytest.mark.usefixtures("views")

MANY = 1_000_000


class Text(str):
    """A str that compares as one."""


class Shout(str):
    """A str that equals what it is not."""

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self.lower(), other)

    def __hash__(self) -> int:
        return hash(self.lower())


class Whole(int):
    pass


class Raw(bytes):
    pass


class Colour(enum.IntEnum):
    RED = 3


class Named(str, enum.Enum):  # noqa: UP042 - other than a StrEnum
    A = "k3"


def is_itself(key: object) -> bool:
    """Say whether a key is found in a dict by an equal one: a NaN is not."""
    return bool(pickle.loads(pickle.dumps(key)) == key)


def has_index(shared: mori.SharedDict) -> bool:
    shared._keys()
    return shared._index is not None


def many(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, int]]:
    return st.one_of(
        *(
            st.dictionaries(kind, st.integers(0, 9), min_size=size, max_size=60)
            for kind in kinds
            for size in (0, 20)
        )
    )


STRINGS = st.text(st.characters(codec=None), max_size=9)
SMALL_INTS = st.integers(-(2**63), 2**63 - 1)
MIXED = st.one_of(
    STRINGS, st.integers(), st.binary(max_size=3), st.booleans(), st.none(), st.floats(), st.tuples(STRINGS)
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(
    many(STRINGS, st.binary(max_size=9), SMALL_INTS, st.integers(-40, 40), st.integers(), MIXED),
    st.lists(MIXED, max_size=20),
)
def test_every_dict_comes_back_in_its_order_with_the_types_of_its_keys(plain: dict, others: list) -> None:
    shared = open_node(root_of(mappings.map_bytes(region_of(plain))))
    assert len(shared) == len(plain)
    assert [(type(key), repr(key)) for key in shared] == [(type(key), repr(key)) for key in plain]
    assert [*map(repr, reversed(shared))] == [*map(repr, reversed(plain))]
    assert list(shared.values()) == list(plain.values())
    assert list(reversed(shared.values())) == list(reversed(plain.values()))
    for key in filter(is_itself, plain):
        assert shared[key] == plain[key]
        assert key in shared
    for key in filter(is_itself, others):
        assert (key in shared) is (key in plain)
        assert shared.get(key, "none") == plain.get(key, "none")


@pytest.mark.parametrize(
    ("plain", "indexed"),
    [
        ({str(i): i for i in range(FEWEST)}, True),
        ({str(i): i for i in range(FEWEST - 1)}, False),
        ({b"%d" % i: i for i in range(20)}, True),
        ({i: i for i in range(20)}, True),
        ({i << 62: i for i in range(-2, 2)} | {i: i for i in range(20)}, True),
        ({i << 62: i for i in range(20)}, True),
        ({Text(i): i for i in range(20)}, True),
        ({Shout(i): i for i in range(20)}, False),
        ({bool(i): i for i in range(2)} | {i: i for i in range(20)}, True),
        ({float(i): i for i in range(20)}, True),
        ({float(i): i for i in range(20)} | {float("nan"): 20}, False),
        ({i if i % 2 else str(i): i for i in range(20)}, True),
        ({(i, "t"): i for i in range(20)}, True),
        ({(i, Shout()): i for i in range(20)}, False),
    ],
    ids=lambda value: "" if isinstance(value, bool) else f"{next(iter(value))!r:.20} {len(value)}",
)
def test_keys_that_compare_by_value_have_an_index_and_others_a_table(
    plain: dict, indexed: bool, store: str
) -> None:
    shared = mori.share(plain)
    assert has_index(shared) is indexed
    assert [*map(repr, shared)] == [*map(repr, plain)]
    assert [*map(type, shared)] == [*map(type, plain)]
    assert all(shared[key] == value for key, value in plain.items() if is_itself(key))
    assert (shared._places is None) is indexed


EQUALS: list[Any] = [
    *(3, 3.0, 3 + 0j, True, False, np.int64(3), np.uint8(3), np.float32(3), np.longdouble(3), np.bool_(True)),
    *(Whole(3), Colour.RED, fractions.Fraction(3), decimal.Decimal(3), 3.5, float("nan"), float("inf"), 3j),
    *(
        2**63,
        -(2**63) - 1,
        2.0**63,
        2**64 + 3,
        "3",
        "k3",
        b"k3",
        Text("k3"),
        Shout("K3"),
        Named.A,
        np.str_("k3"),
    ),
    *(np.bytes_(b"k3"), Raw(b"k3"), memoryview(b"k3"), None, (), ("k3",), frozenset(), str, object(), ...),
    np.datetime64(3, "s"),
]


@pytest.mark.parametrize(
    "plain",
    [
        {i: i for i in range(20)},
        {f"k{i}": i for i in range(20)},
        {b"k%d" % i: i for i in range(20)},
        {(f"k{i}" if i % 2 else i): i for i in range(20)},
    ],
    ids=["int", "str", "bytes", "mixed"],
)
def test_an_equal_key_of_another_type_finds_what_it_finds_in_a_dict(plain: dict) -> None:
    shared = open_node(root_of(mappings.map_bytes(region_of(plain))))
    for key in EQUALS:
        assert shared.get(key, "none") == plain.get(key, "none"), repr(key)
        assert (key in shared) is (key in plain), repr(key)


def test_only_a_key_that_may_equal_anything_makes_a_table() -> None:
    shared = open_node(root_of(mappings.map_bytes(region_of({f"k{i}": i for i in range(20)}))))
    for key in ("k1", "none", 3, 3.0, None, ("k1",), b"k1", Text("k1"), np.str_("k1")):
        shared.get(key)
    assert shared._places is None
    assert shared[Shout("K1")] == 1
    assert shared._places is not None


def test_strings_with_one_checksum_are_told_apart() -> None:
    # CRC-32 is linear: the same difference under the same length gives the same checksum.
    start, seen, colliding = random.Random(1), {}, []
    while len(colliding) < 10:
        key = f"{start.getrandbits(64):016x}"
        other = seen.setdefault(zlib.crc32(key.encode()), key)
        if other != key:
            colliding.append((key, other))
    plain = {key: i for i, key in enumerate(itertools.chain(*colliding))}
    shared = open_node(root_of(mappings.map_bytes(region_of(plain))))
    assert has_index(shared)
    assert {key: shared[key] for key in plain} == plain


def test_ints_that_all_fall_into_one_bucket_are_found() -> None:
    inverse = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
    keys = [(i * inverse + (1 << 63)) % (1 << 64) - (1 << 63) for i in range(5000)]
    assert max((key * 0x9E3779B97F4A7C15 % (1 << 64)) >> 51 for key in keys) == 0
    shared = open_node(root_of(mappings.map_bytes(region_of(dict.fromkeys(keys)))))
    assert all(key in shared for key in keys[::97])
    assert 5000 not in shared


def test_keys_that_differ_in_any_bits_have_other_entries() -> None:
    steps = (1, 2, 7, 1 << 10, 1 << 32, 1 << 48, (1 << 20) + 1, 0.5, 0.1, 1 / 1024, 1e-300, 1e300)
    forms = ("{}", "key{:07}", "{:032}", "a/{}/b", "{0}{0}{0}")
    makes = [
        *([i * step for i in range(10_000)] for step in steps),
        *([form.format(i) for i in range(10_000)] for form in forms),
        *([(i // side, i % side) for i in range(10_000)] for side in (2, 100, 128)),
        [dt.date(2000, 1, 1) + dt.timedelta(i) for i in range(10_000)],
        [frozenset((i, i + 1)) for i in range(10_000)],
    ]
    for keys in makes:
        _, (table,) = build(keys)
        assert len(np.unique(table >> np.uint64(32))) >= 9_990, keys[1]


LONG = {f"k{i}": i for i in range(20)}
USES = [
    "x['k3']", "x['missing']", "x[3]", "x[[]]", "x[{}]", "x.get('k3')", "x.get('no')", "x.get('no', 1)",
    "x.get([])", "'k3' in x", "[] in x", "{1} in x.keys()", "len(x)", "bool(x)", "[*x]", "[*x.values()]",
    "[*x.items()]", "[*reversed(x)]", "[*reversed(x.keys())]", "[*reversed(x.values())]",
    "[*reversed(x.items())]", "dict(x)", "list(x)", "tuple(x)", "{**x}", "f(**x)", "x == {**x}",
    "{**x} == x", "x != {}", "x == 3", "x | {'k1': 0, 'n': 1}", "{'k1': 0, 'n': 1} | x", "x.copy()",
    "copy.copy(x)", "x.keys() & {'k3', 'n'}", "x.keys() | {'n'}", "x.keys() - {'k3'}",
    "x.keys() ^ {'k3', 'n'}", "x.keys() & ['k3']", "{'k3'} <= x.keys()", "x.keys() == {**x}.keys()",
    "x.keys().isdisjoint({'n'})", "('k3', 3) in x.items()", "('k3', 4) in x.items()",
    "x.items() & {('k3', 3)}", "3 in x.values()", "99 in x.values()", "x.keys().mapping == x", "max(x)",
    "sum(x.values())", "x.keys() - x.keys()", "sorted(x.items())[:2]", "json.dumps(dict(x))", "match(x)",
    "x.values() == x.values()", "(x.pop('k3'), dict(x))", "(x.pop('no', 1), dict(x))", "x.pop('no')",
    "x.pop([])", "x.pop([], 1)", "(x.popitem(), dict(x))", "(x.setdefault('k3', 9), dict(x))",
    "(x.setdefault('n', 9), dict(x))", "(x.setdefault('n'), dict(x))", "x.setdefault([])",
    "(x.update({'n': 1}, k3=0), dict(x))", "(x.update([('n', 1)]), dict(x))", "(x.update(), dict(x))",
    "x.update(3)", "x.update([1])", "x.update([(1, 2, 3)])", "(x.update(x), dict(x))",
    "(x.clear(), dict(x))", "(x.clear(), x.popitem())", "x.__setitem__([], 1)",
    "(x.__setitem__('k3', 1), dict(x))", "x.__delitem__('no')", "x.__delitem__([])",
    "(x.__delitem__('k3'), dict(x))", "ior(x, {'n': 1})", "ior(x, [('n', 1)])", "ior(x, 3)", "added(x)",
    "removed(x)", "changed(x)", "added_by_value(x)",
]  # fmt: skip
FAULTS = ["hash(x)", "x < {}", "x | 3", "3 | x", "x()", "x.missing", "x.get()", "x.pop()", "f(**{**x, 1: 2})"]


def _ior(x: Any, other: Any) -> Any:
    kept = x
    x |= other
    return x is kept, dict(x)


def _iterate(write: str, what: str = "x") -> Any:
    def run(x: Any) -> Any:
        seen = []
        for part in eval(what, {"x": x}):
            seen.append(part)
            exec(write, {"x": x, "n": len(seen)})
        return seen

    return run


def _match(x: Any) -> Any:
    match x:
        case {"k3": found, **rest}:
            return found, rest
    return None


NAMES = {
    "copy": __import__("copy"), "json": json, "f": lambda **kw: kw, "ior": _ior, "match": _match,
    "added": _iterate("x[n] = 1"), "removed": _iterate("del x[f'k{n}']"), "changed": _iterate("x['k0'] = n"),
    "added_by_value": _iterate("x[n] = 1", "x.values()"),
}  # fmt: skip


def outcome(use: str, x: Any, *, exactly: bool = True) -> tuple[type, Any]:
    try:
        value = eval(use, {"x": x, **NAMES})
    except Exception as error:
        return type(error), str(error) if exactly else ""
    return type(value), value


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("plain", [LONG, {"k3": 3, "k1": 1, "k0": 2, "k2": 5}], ids=["index", "table"])
def test_a_use_gives_what_it_gives_with_the_builtin(use: str, plain: dict) -> None:
    assert outcome(use, open_node(root_of(mappings.map_bytes(region_of(plain))))) == outcome(use, dict(plain))


@pytest.mark.parametrize("use", FAULTS)
def test_a_wrong_use_is_the_same_kind_of_error(use: str) -> None:
    shared = open_node(root_of(mappings.map_bytes(region_of(LONG))))
    assert outcome(use, shared, exactly=False) == outcome(use, dict(LONG), exactly=False)


def test_a_repr_is_bounded_and_says_what_it_is() -> None:
    shared = open_node(root_of(mappings.map_bytes(region_of({i: str(i) for i in range(5000)}))))
    assert repr(shared).startswith("<SharedDict {0: '0', 1: '1',")
    assert repr(shared).endswith("... 5,000 in all}>")
    assert len(repr(shared)) < 200
    assert len(repr(open_node(root_of(mappings.map_bytes(region_of({"k" * 999: "v" * 999})))))) < 300
    assert repr(shared.keys()).startswith("_Keys(<SharedDict {")
    assert isinstance(shared.keys().mapping, types.MappingProxyType)


def test_a_dict_is_looked_up_in_another_process(store: str, worker: Any) -> None:
    shared = mori.share({f"ключ {i}": np.full(2, i) for i in range(100)})
    assert worker(lambda x: (x["ключ 42"].tolist(), list(x)[-1], x.get("no")), shared) == (
        [42, 42],
        "ключ 99",
        None,
    )


def test_parts_of_an_indexed_dict_are_references_with_names(store: str, worker: Any) -> None:
    shared = mori.share({f"k{i}": [np.arange(i + 600)] for i in range(50)})
    part = shared["k7"][0]
    name = mori.shared_name(part)
    assert name == f"{mori.shared_name(shared)}[7,0]"
    assert mori.map_shared(name).tolist() == list(range(607))
    assert len(pickle.dumps(part)) <= 100
    assert shared["k7"][0] is part
    del shared
    assert worker(lambda x: x.tolist(), part) == list(range(607))
    with mori.by_value():
        assert pickle.loads(pickle.dumps(mori.map_shared(f"{name[:-5]}")))["k3"][0].tolist() == [*range(603)]


def test_a_changed_dict_pickles_plainly_with_references_to_what_was_not_touched(
    store: str, worker: Any
) -> None:
    shared = mori.share({f"k{i}": np.full(10_000, i) for i in range(20)})
    shared["k1"][0] = 7  # a part becomes private, and with it the dict
    shared["new"] = 1
    del shared["k2"]
    assert type(pickle.loads(pickle.dumps(shared))) is dict
    assert len(pickle.dumps(shared)) < 100_000  # one array of 80 kB, and nineteen names
    got = worker(lambda x: (type(x), list(x), int(x["k1"][0]), int(x["k3"][5])), shared)
    assert got == (dict, [*(f"k{i}" for i in range(20) if i != 2), "new"], 7, 3)


@pytest.mark.parametrize(
    "write", ["d.pop('k3')", "d.popitem()", "d.clear()", "d.update(a=1)", "d['k3'] = 0", "del d['k3']"]
)
def test_a_write_acts_on_that_dict_alone(write: str, store: str) -> None:
    shared = mori.share([LONG])
    other = mori.map_shared(mori.shared_name(shared))
    exec(write, {"d": shared[0]})
    expected = dict(LONG)
    exec(write, {"d": expected})
    assert shared[0] == expected
    assert pickle.loads(pickle.dumps(shared)) == [expected]
    assert other[0] == LONG


@pytest.mark.parametrize(
    "read", ["d.pop('no', 0)", "d.setdefault('k3')", "d.update()", "d.get('no')", "d.copy()"]
)
def test_what_changes_nothing_leaves_it_shared(read: str, store: str) -> None:
    shared = mori.share(LONG)
    exec(read, {"d": shared})
    with contextlib.suppress(KeyError):
        del shared["no"]
    with contextlib.suppress(KeyError):
        shared.pop("no")
    assert mori.is_shared(shared)


def test_a_nan_among_the_keys_is_found_by_what_iterating_gave() -> None:
    nan = float("nan")
    shared = open_node(root_of(mappings.map_bytes(region_of({nan: 1, 2.0: 2}))))
    assert nan not in shared
    assert shared[next(iter(shared))] == 1


@quick
@given(st.sampled_from(["str", "bytes", "int", "tuple"]), st.data())
def test_a_damaged_index_hides_a_key_or_is_an_error_and_never_more(kind: str, data: st.DataObject) -> None:
    make = {
        "str": lambda i: f"kä{i}",
        "bytes": lambda i: b"%d" % i,
        "int": lambda i: i * 7,
        "tuple": lambda i: (i, "t"),
    }[kind]
    plain = {make(i): i for i in range(40)}
    damaged = bytearray(region_of(plain))
    root = root_of(mappings.map_bytes(bytes(damaged)))
    for _ in range(data.draw(st.integers(1, 4))):
        node = data.draw(st.sampled_from([root, root.child(0)]))
        start = node.offset + node._head - 16 * node.record.buffers
        number = data.draw(st.integers(0, node.record.buffers - 1))
        offset, nbytes = layout.BUFFER.unpack_from(damaged, start + 16 * number)
        if not nbytes:
            continue
        here = node.offset + offset + data.draw(st.integers(0, nbytes - 1))
        if data.draw(st.booleans()):
            damaged[here] = data.draw(st.integers(0, 255))
        else:
            here -= (here - node.offset - offset) % 4
            struct.pack_into(
                "<I", damaged, here, data.draw(st.sampled_from([0, 1, 39, 40, 41, 2**31, 2**32 - 1]))
            )
    shared = open_node(root_of(mappings.map_bytes(bytes(damaged))))
    assert len(shared) == 40
    for key in [*plain, make(-1), make(41)]:
        with contextlib.suppress(mori.CorruptRegionError):
            found = shared.get(key)
            assert found is None or found in range(40)
    with contextlib.suppress(mori.CorruptRegionError):
        assert len(list(shared)) == 40
    with contextlib.suppress(mori.CorruptRegionError):
        assert list(shared.values()) == list(range(40))
    with contextlib.suppress(mori.CorruptRegionError):
        assert shared.get(Shout("no")) is None


@pytest.mark.parametrize("length", [0, 8, 152, 159, 168, 1 << 20])
@pytest.mark.parametrize("meta", [struct.pack("<q", PROBE), b"\0", struct.pack("<qq", PROBE, 20)])
def test_an_index_of_another_length_than_its_keys_is_refused(meta: bytes, length: int) -> None:
    plan = measure({f"{i}": i for i in range(20)})
    plan.meta, plan.buffers = meta, [np.zeros(length, np.uint8)]
    plan.close()
    shared = open_node(root_of(mappings.map_bytes(bytes_of(plan))))
    for use in ("x['3']", "list(x)", "'3' in x", "x.get(3)", "[*x.items()]"):
        assert outcome(use, shared)[0] is mori.CorruptRegionError


def test_an_index_of_a_python_that_hashes_otherwise_is_not_used() -> None:
    plan = measure({f"{i}": i for i in range(20)})
    plan.meta = struct.pack("<q", PROBE + 1)
    plan.close()
    shared = open_node(root_of(mappings.map_bytes(bytes_of(plan))))
    assert not has_index(shared)
    assert shared["3"] == 3
    assert "20" not in shared
