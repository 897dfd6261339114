"""Keys of any type that compares by value: found where they lie, by every key that equals them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import pickle
import random
import subprocess
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.codecs.hashes import UnequalError, hashes_of_array, stable_hash, stable_hashes
from mori.codecs.streams import Blocks
from mori.format.node import open_node, root_of
from mori.memory import mapping as mappings
from tests.regions import region_of

pytestmark = pytest.mark.usefixtures("views")
quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


class Pair(NamedTuple):
    one: Any
    other: Any


class Backwards(tuple):
    """A tuple that compares by what it has, and shows something else."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return reversed([tuple.__getitem__(self, place) for place in range(tuple.__len__(self))])

    def __getitem__(self, place: Any) -> Any:
        return "something else"

    def __len__(self) -> int:
        return 7


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Suit(enum.Enum):
    CLUBS = "c"
    SPADES = 7


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 300


class Name(enum.StrEnum):
    A = "a"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Place:
    row: Any
    column: Any = 0
    note: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Insensitive:
    """A dataclass whose hash is not that of its fields."""

    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Insensitive) and self.name.lower() == other.name.lower()

    def __hash__(self) -> int:
        return hash(self.name.lower())


class Shout(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self.lower(), other)

    def __hash__(self) -> int:
        return hash(self.lower())


def opened(obj: object) -> Any:
    return open_node(root_of(mappings.map_bytes(region_of(obj))))


def is_indexed(shared: Any) -> bool:
    len(shared)
    iter(shared)
    return shared._index is not None


def is_itself(key: object) -> bool:
    """Say whether a key is found in a dict by an equal one: a NaN is not."""
    return bool(pickle.loads(pickle.dumps(key)) == key)


ZONES = [dt.UTC, dt.timezone(dt.timedelta(hours=-3.5)), zoneinfo.ZoneInfo("Europe/Paris")]
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from([0.0, -0.0, 0.5, 1e300, 2.0**61, 2.0**63, math.inf]),
    st.complex_numbers(),
    st.booleans(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.sampled_from([*Level, Whole(5), np.int8(-1), np.uint64(2**64 - 1), np.float32(0.1), np.float64(3)]),
    st.sampled_from([np.bool_(True), np.complex64(2), np.longdouble(7)]),
)
TIMES = st.one_of(
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from(ZONES)),
    st.times(),
    st.times(timezones=st.sampled_from(ZONES[:2])),
    st.timedeltas(),
)
TEXT = st.one_of(
    st.text(st.characters(codec=None), max_size=9),
    st.sampled_from(["a", "k", Text("k"), np.str_("k"), *Name]),
)
ATOMS = st.one_of(
    NUMBERS,
    TIMES,
    TEXT,
    st.binary(max_size=4),
    st.sampled_from([None, np.bytes_(b"k"), *Suit, *Access, Access.READ | Access.WRITE, Access(0)]),
    st.uuids(),
    st.builds(pathlib.PurePosixPath, st.sampled_from(["/a", "b/c", "."])),
)
KEYS = st.recursive(
    ATOMS,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3).map(tuple),
        st.frozensets(parts, max_size=3),
        st.builds(Pair, parts, parts),
        st.builds(Place, parts, parts, parts),
    ),
    max_leaves=5,
)
MANY = st.one_of(
    *(st.lists(kind, min_size=20, max_size=30) for kind in (ATOMS, KEYS, NUMBERS, TIMES, TEXT)),
    st.lists(st.tuples(TEXT, NUMBERS), min_size=20, max_size=30),
    st.lists(st.builds(Pair, NUMBERS, TIMES), min_size=20, max_size=30),
    st.lists(st.builds(Place, NUMBERS, TEXT), min_size=20, max_size=30),
)


def equals(key: Any) -> Iterator[Any]:
    """Yield keys of other types or forms, most of which equal a key."""
    yield pickle.loads(pickle.dumps(key))
    if isinstance(key, str):
        yield from (Text(key), np.str_(key), Shout(key))
    elif isinstance(key, bytes):
        yield np.bytes_(key)
    elif isinstance(key, dt.datetime) and key.tzinfo is not None:
        for zone in ZONES:
            with_zone = key.replace(fold=1 - key.fold)
            yield with_zone
            if 2 <= key.year < 9999:
                yield from (key.astimezone(zone), with_zone.astimezone(zone))
    elif isinstance(key, dt.date):
        yield dt.datetime(key.year, key.month, key.day)
    elif isinstance(key, dt.time):
        yield key.replace(fold=1)
    elif type(key) is tuple or isinstance(key, Pair):
        yield from (tuple(key), Place(*key) if 1 <= len(key) <= 2 else ())
        if len(key) == 2:
            yield Pair(*key)
        yield from zip(*map(equals, key), strict=False)
    elif isinstance(key, frozenset):
        yield frozenset([*key][::-1])
        yield frozenset(next(equals(part)) for part in key)
    elif isinstance(key, Place):
        yield from (Place(key.row, key.column, "another note"), (key.row, key.column))
    elif key is not None and not isinstance(key, enum.Enum | uuid.UUID | dt.timedelta | pathlib.PurePath):
        for cls in (int, float, complex, decimal.Decimal, fractions.Fraction, np.float64, np.longdouble):
            try:
                yield cls(key)
            except (ValueError, TypeError, ArithmeticError, np.exceptions.ComplexWarning):
                continue


def lookups(plain: Any, others: list[Any]) -> Iterator[Any]:
    for key in [*plain, *others]:
        yield from filter(is_itself, equals(key))


@quick
@given(MANY, st.lists(KEYS, max_size=9))
def test_a_dict_finds_what_the_builtin_finds(keys: list, others: list) -> None:
    plain = {key: i for i, key in enumerate(keys)}
    shared = opened(plain)
    assert len(shared) == len(plain)
    assert [*map(type, shared)] == [*map(type, plain)]
    assert all(ours == key for ours, key in zip(shared, plain, strict=True) if is_itself(key))
    for key in lookups(plain, others):
        assert shared.get(key, "none") == plain.get(key, "none"), repr(key)
        assert (key in shared) is (key in plain)


@quick
@given(MANY, st.lists(KEYS, max_size=9), st.sampled_from([set, frozenset]))
def test_a_set_finds_what_the_builtin_finds(keys: list, others: list, kind: type) -> None:
    plain = kind(keys)
    shared = opened(plain)
    assert len(shared) == len(plain)
    for key in lookups(plain, others):
        assert (key in shared) is (key in plain), repr(key)


@quick
@given(MANY)
def test_many_keys_have_the_hashes_that_each_has(keys: list) -> None:
    try:
        many = [*stable_hashes(keys)]
    except (LookupError, UnequalError) as error:
        with pytest.raises(type(error)):
            [stable_hash(key) for key in keys]
    else:
        assert [*map(hash, many)] == [hash(stable_hash(key)) for key in keys]


ENDS = [0, -1, -2, *(sign * (1 << 61) + step for sign in (1, -1) for step in (-2, -1, 0, 1)), -(1 << 63)]


@quick
@given(
    st.one_of(
        st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from(ENDS), min_size=1),
        st.lists(st.floats(allow_nan=False) | st.sampled_from([*map(float, ENDS), 5e-324]), min_size=1),
        st.lists(st.booleans(), min_size=1),
    )
)
def test_arrays_have_the_hashes_of_their_elements(keys: list) -> None:
    assert hashes_of_array(np.array(keys)).tolist() == [*map(hash, keys)]


@quick
@given(KEYS)
def test_equal_keys_have_equal_hashes(key: Any) -> None:
    for other in equals(key):
        try:
            hashes = hash(stable_hash(key)), hash(stable_hash(other))
        except (LookupError, UnequalError):
            continue
        if key == other and hash(key) == hash(other):
            assert len({*hashes}) == 1, (key, other)


KINDS: dict[str, Callable[[int], Any]] = {
    "int": lambda i: i,
    "str": str,
    "float": lambda i: i / 7,
    "big int": lambda i: 1 << i,
    "tuple": lambda i: (i % 300, f"k{i}"),
    "tuples": lambda i: ((i, None), (True, b"%d" % i)),
    "date": lambda i: dt.date(1900, 1, 1) + dt.timedelta(i),
    "datetime": lambda i: dt.datetime(2000, 1, 1, tzinfo=ZONES[i % 3]) + dt.timedelta(hours=i),
    "decimal": lambda i: decimal.Decimal(i) / 8,
    "fraction": lambda i: fractions.Fraction(i, 9),
    "uuid": lambda i: uuid.UUID(int=i << 64),
    "enum": lambda i: (Suit.CLUBS, Suit.SPADES, Level.LOW, Access.READ)[i % 4] if i < 4 else i + 300,
    "frozenset": lambda i: frozenset((i, "a", None)),
    "namedtuple": lambda i: Pair(i, str(i)),
    "dataclass": lambda i: Place(i, str(i)),
    "path": lambda i: pathlib.PurePosixPath(f"/a/{i}"),
    "mixed": lambda i: (i, str(i), None if i == 2 else -i)[i % 3],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lookup_decodes_one_block_of_keys(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = KINDS[kind]
    keys = {make(i): i for i in range(1000)}
    read: list[int] = []
    stream = Blocks.stream
    for shared in (opened(keys), opened({*keys})):
        monkeypatch.setattr(Blocks, "stream", lambda by, number: (read.append(number), stream(by, number))[1])
        for key in random.Random(1).sample([*keys], 50):
            read.clear()
            assert pickle.loads(pickle.dumps(key)) in shared
            assert len(read) <= 1
            assert is_indexed(shared)
        read.clear()
        assert (make, "missing") not in shared
        assert "missing" not in shared
        assert shared.__contains__(math.nan) is False
        assert not read
        monkeypatch.undo()


@pytest.mark.parametrize(
    "odd",
    [math.nan, (1, math.nan), frozenset([math.nan]), decimal.Decimal("nan"), Insensitive("A"), Shout("A"),
     Place(Shout("A")), Place(math.nan), range(3), int, ..., (1, int), np.datetime64(1, "s")],
    ids=repr,
)  # fmt: skip
def test_one_key_that_may_be_equal_to_anything_or_nothing_leaves_a_table(odd: Any) -> None:
    plain = {**dict.fromkeys(range(100)), odd: 1}
    shared = opened(plain)
    assert not is_indexed(shared)
    assert 7 in shared
    assert 100 not in shared
    assert next(reversed(shared)) in shared
    assert (Insensitive("a") in shared) is (Insensitive("a") in plain)
    assert (Shout("A") in shared) is (Shout("A") in plain)


@pytest.mark.parametrize("key", [[], {}, (1, []), (object(), []), (1, ({},)), Place([]), bytearray(b"1")])
def test_what_cannot_be_hashed_is_pythons_own_error(key: Any) -> None:
    plain: Any
    for plain in (dict.fromkeys(range(20)), dict.fromkeys([(i, 0) for i in range(20)]), {*range(20)}):
        shared = opened(plain)
        with pytest.raises(TypeError) as theirs:
            _ = key in plain
        with pytest.raises(TypeError) as ours:
            _ = key in shared
        assert str(ours.value) == str(theirs.value)
        with pytest.raises(TypeError):
            _ = decimal.Decimal("sNaN") in shared
        assert is_indexed(shared)
        assert getattr(shared, "_places", None) is getattr(shared, "_lookup", None) is None


def test_a_tuple_that_shows_something_else_is_found_by_what_it_has() -> None:
    plain = {Backwards((i, str(i))): i for i in range(100)}
    shared = opened(plain)
    assert is_indexed(shared)
    assert shared[3, "3"] == shared[Backwards((3, "3"))] == plain[3, "3"] == 3
    assert ("3", 3) not in shared


def test_a_set_is_looked_up_in_a_set_as_the_frozenset_that_it_equals() -> None:
    plain = {frozenset((i, i + 1)) for i in range(100)}
    shared = opened(plain)
    assert {3, 4} in shared
    assert {3, 5} not in shared
    with pytest.raises(TypeError):
        _ = {3, 4} in opened(dict.fromkeys(plain))


def test_writes_to_a_dict_with_keys_of_any_type_are_those_of_the_builtin() -> None:
    plain: Any = {(i, dt.date(2000, 1, 1 + i)): i for i in range(20)}
    shared = opened(plain)
    for x in (shared, plain):
        assert x.pop((3.0, dt.date(2000, 1, 4))) == 3
        x[True, dt.date(2000, 1, 2)] = "one"
        x[decimal.Decimal(3), dt.date(2000, 1, 4)] = "three"
        del x[5, dt.date(2000, 1, 6)]
        with pytest.raises(KeyError):
            x[5, dt.date(2000, 1, 6)]
        assert x.setdefault((7, dt.date(2000, 1, 8)), "none") == 7
    assert [*shared.items()] == [*plain.items()]
    assert repr([*shared]) == repr([*plain])


_READ = """
import gc, json, sys
import mori
from tests.mori import test_keys
def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith(("Anonymous:", "Swap:")))
make, number = test_keys.KINDS[sys.argv[1]], int(sys.argv[4])
warm = mori.map_shared(sys.argv[2])
found = [make(i) in warm for i in range(10)]
gc.collect(); gc.disable()
before = private()
shared = mori.map_shared(sys.argv[3])
found = [shared[make(i)] for i in range(0, number, number // 10)]
print(json.dumps([private() - before, len(shared), found]))
"""


@pytest.mark.parametrize("kind", ["int", "str", "float", "tuple", "date"])
def test_keys_are_found_in_another_process_without_memory(kind: str, store: str) -> None:
    number = 100_000
    make = KINDS[kind]
    shared = mori.share({make(i): i for i in range(number)})
    warm = mori.share({make(i): i for i in range(1000)})
    done = subprocess.run(
        [sys.executable, "-c", _READ, kind, *map(str, map(mori.shared_name, (warm, shared))), str(number)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    private, length, found = json.loads(done.stdout)
    assert (length, found) == (number, list(range(0, number, number // 10)))
    assert private <= 100 << 10
