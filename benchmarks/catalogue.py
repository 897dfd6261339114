"""The kinds of containers and objects that `benchmarks.kinds` measures: how each is made.

Each function makes an object of about `n` elements, the same in every process. Invariant: nothing is one
object in two places unless the kind is about that, but for small ints and words, as in any program.
"""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import importlib.util
import pathlib
import random
import sys
import types
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks import classes

__all__ = ["KINDS", "Kind"]

Rng = random.Random


class Kind(NamedTuple):
    """A kind of object: how it is made and read.

    `share` is the part of the elements asked for that it has: large elements are fewer. `part` takes one
    element by a key, and `keys` lists them; without them ``x[key]`` of a container, or ``key in x`` of a set.
    """

    name: str
    make: Callable[[int], Any]
    share: float = 1.0
    needs: str = ""
    is_cyclic: bool = False
    part: Callable[[Any, Any], Any] | None = None
    keys: Callable[[Any], Iterable[Any]] | None = None

    def is_here(self) -> bool:
        """Say whether the libraries that it needs are installed."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def _each(
    make: Callable[[Rng, int], Any], into: Callable[[Iterable[Any]], Any] = list
) -> Callable[[int], Any]:
    """Return a function that makes a container of n elements by calling `make` for each."""

    def build(n: int) -> Any:
        rng = Rng(1)
        return into(make(rng, i) for i in range(n))

    return build


def _pairs(key: Callable[[Rng, int], Any], value: Callable[[Rng, int], Any]) -> Callable[[int], Any]:
    """Return a function that makes a dict of n entries."""
    return _each(lambda rng, i: (key(rng, i), value(rng, i)), dict)


def _one_odd(odd: Any) -> Callable[[int], list[Any]]:
    """Return a function that makes a list of ints with one other element in the middle."""

    def build(n: int) -> list[Any]:
        found: list[Any] = _each(_number)(n)
        found[n // 2] = odd
        return found

    return build


_SYLLABLES: Final = ("ka", "to", "mi", "ren", "so", "lu", "vex", "an", "dor", "i", "pa", "zu")
_WORDS: Final = tuple(a + b for a in _SYLLABLES for b in _SYLLABLES)
_DAY: Final = dt.date(2026, 1, 1)
_NOON: Final = dt.datetime(2026, 1, 1, 12)


def _number(rng: Rng, i: int) -> int:
    return rng.randrange(1_000_000_000)


def _index(rng: Rng, i: int) -> int:
    return i * 3 + 1


def _float(rng: Rng, i: int) -> float:
    return rng.random()


def _text(rng: Rng, i: int) -> str:
    return f"{rng.choice(_WORDS)}-{i}"


def _phrase(rng: Rng, low: int, high: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(low, high)))


def _name(rng: Rng, i: int) -> str:
    return f"name {i}"


def _ints(rng: Rng, low: int, high: int) -> list[int]:
    return [rng.randrange(100_000) for _ in range(rng.randint(low, high))]


def _floats(rng: Rng, count: int) -> list[float]:
    return [rng.random() for _ in range(count)]


def _texts(rng: Rng, low: int, high: int) -> list[str]:
    return [f"{rng.choice(_WORDS)}{rng.randrange(10_000)}" for _ in range(rng.randint(low, high))]


def _scalar(rng: Rng, i: int) -> Any:
    return (i, rng.random(), f"text {i}", None, i % 2 == 0, i + 2**70)[rng.randrange(6)]


def _moment(rng: Rng, i: int) -> dt.datetime:
    return _NOON + dt.timedelta(seconds=i * 61, microseconds=rng.randrange(1_000_000))


def _record(rng: Rng, i: int) -> dict[str, Any]:
    return {"id": i, "name": f"name {i}", "price": rng.random(), "is_new": i % 3 == 0}


def _gappy(rng: Rng, i: int) -> dict[str, Any]:
    full = {**_record(rng, i), "tags": _texts(rng, 0, 3), "parent": rng.randrange(1 + i), "comment": None}
    return {key: value for key, value in full.items() if rng.random() < 0.7}


def _nested_record(rng: Rng, i: int) -> dict[str, Any]:
    where = {"city": rng.choice(_WORDS), "at": (rng.random(), rng.random())}
    return {"id": i, "where": where, "sizes": [rng.randrange(50) for _ in range(3)]}


def _document(rng: Rng, i: int) -> dict[str, Any]:
    """Make what an API answers with: about 30 values in four levels."""
    return {
        "id": i,
        "user": {"name": f"user {i}", "mail": f"u{i}@example.org", "verified": i % 2 == 0, "age": None},
        "title": _phrase(rng, 3, 9),
        "tags": _texts(rng, 0, 6),
        "scores": _floats(rng, 4),
        "items": [
            {"sku": f"sku-{rng.randrange(9999)}", "count": rng.randrange(9), "price": rng.random() * 100}
            for _ in range(rng.randint(0, 4))
        ],
        "meta": {"at": "2026-01-01T12:00:00Z", "geo": {"lat": rng.random(), "lon": rng.random()}},
    }


def _matrix(n: int) -> list[list[float]]:
    rng = Rng(1)
    return [_floats(rng, 100) for _ in range(max(n // 100, 2))]


def _deep(rng: Rng, i: int) -> list[Any]:
    inner: list[Any] = [i]
    for level in range(200):
        inner = [level, inner]
    return inner


def _subtree(rng: Rng, depth: int) -> Any:
    return [_subtree(rng, depth - 1) for _ in range(rng.randint(1, 4))] if depth else rng.randrange(1000)


def _trie(n: int) -> dict[str, Any]:
    rng, root = Rng(1), dict[str, Any]()
    for i in range(n):
        node = root
        for letter in f"{rng.choice(_WORDS)}{i}":
            node = node.setdefault(letter, {})
        node["end"] = True
    return root


def _trie_keys(trie: Any) -> list[str]:
    """List some words of a trie."""
    rng, found = Rng(2), []
    for _ in range(400):
        word, node = "", trie
        while "end" not in node:
            letter = rng.choice(list(node))
            word, node = word + letter, node[letter]
        found.append(word)
    return list(dict.fromkeys(found))


def _trie_part(trie: Any, word: str) -> Any:
    for letter in word:
        trie = trie[letter]
    return trie["end"]


def _graph(n: int) -> dict[int, list[int]]:
    rng = Rng(1)
    return {i: [rng.randrange(n) for _ in range(rng.randint(0, 10))] for i in range(n)}


def _rings(n: int) -> list[classes.Link]:
    rings = []
    for first in range(0, n, 200):
        ring = [classes.Link(first + i) for i in range(200)]
        for link, after in zip(ring, [*ring[1:], ring[0]], strict=True):
            link.next = after
        rings.append(ring[0])
    return rings


def _family(rng: Rng, i: int) -> classes.Branch:
    root = classes.Branch(i, None)
    for j in range(3):
        child = classes.Branch(j, root)
        child.children = [classes.Branch(k, child) for k in range(2)]
        root.children.append(child)
    return root


def _orders(n: int) -> list[classes.Order]:
    rng = Rng(1)
    customers = [classes.Customer(i, f"customer {i}", rng.random()) for i in range(10)]
    return [classes.Order(i, rng.choice(customers), rng.random()) for i in range(n)]


def _shared_lists(n: int) -> list[dict[str, Any]]:
    rng = Rng(1)
    common = [_ints(rng, 5, 5) for _ in range(50)]
    return [{"id": i, "group": rng.choice(common)} for i in range(n)]


def _contains_itself(n: int) -> list[Any]:
    found: list[Any] = [[i, i + 1] for i in range(n)]
    found.append(found)
    return found


def _person(rng: Rng, i: int) -> dict[str, Any]:
    return {"name": _phrase(rng, 2, 2), "friends": {rng.randrange(1000) for _ in range(3)}}


def _noted(rng: Rng, i: int) -> Any:
    return sys.modules["__main__"].Noted(i, f"note {i}", rng.random())


# A class of a script or a notebook: every process of a run is forked, and so has it in its own __main__.
if not hasattr(sys.modules["__main__"], "Noted"):
    _class = type("Noted", (classes.Plain,), {"__module__": "__main__"})
    sys.modules["__main__"].Noted = _class  # type: ignore[attr-defined]


def _attrs(name: str) -> Callable[[Rng, int], Any]:
    def make(rng: Rng, i: int) -> Any:
        from benchmarks import classes_attrs

        return getattr(classes_attrs, name)(i, rng.choice(_WORDS), rng.random())

    return make


def _user(rng: Rng, i: int) -> Any:
    from benchmarks.classes_pydantic import User

    return User(number=i, name=f"user {i}", score=rng.random(), tags=_texts(rng, 0, 2))


def _array(*shape: int, dtype: Any = "f8") -> Callable[[Rng, int], Any]:
    def make(rng: Rng, i: int) -> Any:
        size = int(np.prod(shape))
        return (np.arange(i, i + size) % 251).astype(dtype).reshape(shape)

    return make


def _varying(rng: Rng, i: int) -> Any:
    return np.arange(rng.randrange(60), dtype=float) + i


def _any_dtype(rng: Rng, i: int) -> Any:
    return np.arange(rng.randrange(1, 20)).astype(("f8", "f4", "i8", "i4", "u1", "?")[i % 6])


def _generic(rng: Rng, i: int) -> Any:
    return (np.float32, np.int8, np.int64, np.float64, np.bool_)[i % 5](i % 100)


def _sample(rng: Rng, i: int) -> dict[str, Any]:
    return {"id": i, "features": _array(16, dtype="f4")(rng, i), "label": rng.choice(_WORDS)}


def _csr(rng: Rng, i: int) -> Any:
    from scipy import sparse

    return sparse.random_array((20, 50), density=0.1, format="csr", rng=np.random.default_rng(i))


def _frame(rng: Rng, i: int, rows: int = 50) -> Any:
    import pandas as pd

    columns = {
        "a": np.arange(rows) + i,
        "b": np.arange(rows) * 0.5,
        "c": [rng.choice(_WORDS) for _ in range(rows)],
    }
    return pd.DataFrame(columns)


def _series(rng: Rng, i: int) -> Any:
    import pandas as pd

    return pd.Series(np.arange(100.0) + i, name=f"series {i}")


def _timestamp(rng: Rng, i: int) -> Any:
    import pandas as pd

    return pd.Timestamp(_moment(rng, i))


def _lists_in_a_frame(n: int) -> Any:
    import pandas as pd

    rng = Rng(1)
    return pd.DataFrame({"id": range(n), "tags": [_texts(rng, 0, 4) for _ in range(n)]})


def _at(frame: Any, row: int) -> Any:
    return frame["id"].iat[row], frame[frame.columns[-1]].iat[row]


def _wide(n: int) -> Any:
    frame = _frame(Rng(1), 0, n)
    frame.insert(0, "id", range(n))
    return frame


def _forest(n: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    x = np.random.default_rng(1).random((500, 8))
    return RandomForestClassifier(max(n // 1000, 2), random_state=1).fit(x, x[:, 0] > x[:, 1])


def _vectorizer(n: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = Rng(1)
    return TfidfVectorizer().fit(" ".join(_texts(rng, 20, 20)) for _ in range(max(n // 20, 2)))


def _python_models(n: int) -> list[Any]:
    from sklearn.linear_model import LinearRegression

    x = np.random.default_rng(1).random((30, 4))
    return [LinearRegression().fit(x, x[:, 0] + i) for i in range(n)]


def _arrow(rng: Rng, i: int) -> Any:
    import pyarrow as pa

    return pa.table({"a": np.arange(50) + i, "b": np.arange(50) * 0.5})


def _polars(rng: Rng, i: int) -> Any:
    import polars as pl

    return pl.DataFrame({"a": np.arange(50) + i, "b": np.arange(50) * 0.5})


def _structured(n: int) -> Any:
    found = np.zeros(n, dtype=[("a", "i4"), ("b", "f8")])
    found["a"], found["b"] = np.arange(n), np.arange(n) * 0.5
    return found


def _objects(n: int) -> Any:
    found = np.empty(n, object)
    rng = Rng(1)
    found[:] = [_text(rng, i) if i % 5 else None for i in range(n)]
    return found


def _group(rng: Rng, i: int) -> tuple[str, list[int]]:
    return f"group {i}", _ints(rng, 0, 6)


def _counter(n: int) -> Any:
    rng = Rng(1)
    return collections.Counter(f"{rng.choice(_WORDS)}{rng.randrange(n)}" for _ in range(n))


def _mixed_keys(n: int) -> dict[Any, Any]:
    rng = Rng(1)
    keys: Iterable[Any] = (None, True, False, *(f"key {i}" if i % 2 else i for i in range(2, n)))
    return {key: rng.random() for key in keys}


def _many(make: Callable[[Rng, int], Any], per: int) -> Callable[[int], Any]:
    return lambda n: _each(make)(max(n // per, 2))


KINDS: Final = (
    # scalars
    Kind("list of small ints", _each(lambda rng, i: rng.randrange(200))),
    Kind("list of ints", _each(_number)),
    Kind("tuple of ints", _each(_number, tuple)),
    Kind("list of ints beyond int64", _each(lambda rng, i: rng.getrandbits(100))),
    Kind("list of ints, one None", _one_odd(None)),
    Kind("list of ints, one float", _one_odd(0.5)),
    Kind("list of ints, one str", _one_odd("odd")),
    Kind("list of floats", _each(_float)),
    Kind("list of ints and floats", _each(lambda rng, i: i if rng.random() < 0.5 else rng.random())),
    Kind("list of floats and None", _each(lambda rng, i: None if rng.random() < 0.2 else rng.random())),
    Kind("list of bools", _each(lambda rng, i: rng.random() < 0.5)),
    Kind("list of complex", _each(lambda rng, i: complex(rng.random(), i))),
    Kind("list of short str", _each(_text)),
    Kind("list of long str", _each(lambda rng, i: _phrase(rng, 50, 400)), 0.1),
    Kind("list of non-ASCII str", _each(lambda rng, i: f"森 {rng.choice(_WORDS)} é {i}")),
    Kind("list of str of few values", _each(lambda rng, i: rng.choice(_WORDS))),
    Kind("list of str or None", _each(lambda rng, i: None if rng.random() < 0.2 else _text(rng, i))),
    Kind("list of any scalars", _each(_scalar)),
    Kind("list of bytes", _each(lambda rng, i: rng.randbytes(rng.randrange(1, 200)))),
    Kind("list of bytes of 10 kB", _each(lambda rng, i: rng.randbytes(10_000)), 0.05),
    Kind("list of numpy float64", _each(lambda rng, i: np.float64(rng.random()))),
    Kind("list of numpy scalars of five types", _each(_generic)),
    Kind("list of numpy datetime64", _each(lambda rng, i: np.datetime64("2026-01-01", "s") + i)),
    Kind("list of dates", _each(lambda rng, i: _DAY + dt.timedelta(days=rng.randrange(20_000)))),
    Kind("list of datetimes", _each(_moment)),
    Kind(
        "list of datetimes with a zone",
        _each(lambda rng, i: _moment(rng, i).replace(tzinfo=dt.UTC)),
    ),
    Kind(
        "list of timedeltas",
        _each(lambda rng, i: dt.timedelta(seconds=rng.randrange(10**6), microseconds=i)),
    ),
    Kind("list of times", _each(lambda rng, i: dt.time(i % 24, rng.randrange(60), rng.randrange(60)))),
    Kind("list of pandas Timestamps", _each(_timestamp), 0.2, "pandas"),
    Kind("list of Decimals", _each(lambda rng, i: decimal.Decimal(rng.randrange(10**8)) / 100)),
    Kind("list of Fractions", _each(lambda rng, i: fractions.Fraction(i, rng.randrange(1, 1000)))),
    Kind("list of UUIDs", _each(lambda rng, i: uuid.UUID(int=rng.getrandbits(128)))),
    Kind(
        "list of paths", _each(lambda rng, i: pathlib.PurePosixPath("/data", rng.choice(_WORDS), f"{i}.csv"))
    ),
    Kind("list of enums", _each(lambda rng, i: rng.choice([*classes.Colour]))),
    Kind("list of IntEnums", _each(lambda rng, i: rng.choice([*classes.Level]))),
    Kind("list of slices", _each(lambda rng, i: slice(i, i + rng.randrange(100)))),
    Kind(
        "list of classes",
        _each(lambda rng, i: rng.choice((int, str, classes.Trade, collections.OrderedDict))),
    ),
    # lists, tuples and sets
    Kind("list of lists of 5 ints", _each(lambda rng, i: _ints(rng, 5, 5))),
    Kind("list of lists of ints, 0 to 20", _each(lambda rng, i: _ints(rng, 0, 20))),
    Kind("list of lists of 3 floats", _each(lambda rng, i: _floats(rng, 3))),
    Kind("list of lists of floats, 0 to 30", _each(lambda rng, i: _floats(rng, rng.randint(0, 30)))),
    Kind("list of lists of str, 1 to 5", _each(lambda rng, i: _texts(rng, 1, 5))),
    Kind("list of lists of mixed scalars", _each(lambda rng, i: [i, f"text {i}", rng.random(), None])),
    Kind("list of empty lists", _each(lambda rng, i: [])),
    Kind("list of pairs (int, str)", _each(lambda rng, i: (i, _text(rng, i)))),
    Kind("list of tuples of 3 floats", _each(lambda rng, i: tuple(_floats(rng, 3)))),
    Kind(
        "list of tuples of 1 to 6 scalars",
        _each(lambda rng, i: tuple(_scalar(rng, i) for _ in range(1 + i % 6))),
    ),
    Kind("tuple of tuples of 2 ints", _each(lambda rng, i: (i, rng.randrange(1000)), tuple)),
    Kind("list of sets of ints", _each(lambda rng, i: {*_ints(rng, 1, 8)})),
    Kind("list of frozensets of str", _each(lambda rng, i: frozenset(_texts(rng, 1, 5)))),
    Kind("matrix as lists of 100 floats", _matrix, 10),
    Kind("token lists, 50 to 500 str", _many(lambda rng, i: rng.choices(_WORDS, k=rng.randint(50, 500)), 20)),
    Kind("token lists, 50 to 500 ints", _many(lambda rng, i: _ints(rng, 50, 500), 20)),
    Kind("lists nested 200 deep", _many(_deep, 200)),
    Kind("trees of nested lists", _many(lambda rng, i: _subtree(rng, 5), 20)),
    Kind("set of ints", _each(_number, set)),
    Kind("set of str", _each(_text, set)),
    Kind("frozenset of tuples", _each(lambda rng, i: (i, rng.randrange(1000)), frozenset)),
    # records
    Kind("records with equal keys", _each(_record)),
    Kind("records with gaps", _each(_gappy)),
    Kind("records in records", _each(_nested_record)),
    Kind("records with a set", _each(_person)),
    Kind("JSON documents", _each(_document), 0.15),
    Kind(
        "list of dicts int to float",
        _each(lambda rng, i: {rng.randrange(1000): rng.random() for _ in range(5)}),
    ),
    # instances
    Kind("dataclasses", _each(lambda rng, i: classes.Trade(i, rng.choice(_WORDS), rng.random(), i * 0.5))),
    Kind(
        "dataclasses with slots",
        _each(lambda rng, i: classes.SlottedTrade(i, rng.choice(_WORDS), rng.random(), i)),
    ),
    Kind(
        "dataclasses, frozen",
        _each(lambda rng, i: classes.FrozenTrade(i, rng.choice(_WORDS), rng.random(), i)),
    ),
    Kind(
        "dataclasses, frozen with slots",
        _each(lambda rng, i: classes.FrozenSlottedTrade(i, rng.choice(_WORDS), rng.random(), i)),
    ),
    Kind(
        "dataclasses with lists of dataclasses",
        _each(
            lambda rng, i: classes.Basket(
                f"basket {i}", [classes.Trade(j, "x", rng.random(), 1.0) for j in range(i % 4)], {"at": i}
            )
        ),
        0.5,
    ),
    Kind("plain instances", _each(lambda rng, i: classes.Plain(i, f"name {i}", rng.random()))),
    Kind("instances with __slots__", _each(lambda rng, i: classes.Slotted(i, f"name {i}", rng.random()))),
    Kind("instances of a class of __main__", _each(_noted)),
    Kind("SimpleNamespaces", _each(lambda rng, i: types.SimpleNamespace(a=i, b=f"text {i}", c=rng.random()))),
    Kind("namedtuples", _each(lambda rng, i: classes.Point(rng.random(), rng.random(), f"label {i}"))),
    Kind(
        "namedtuples of namedtuples",
        _each(
            lambda rng, i: classes.Segment(
                *(classes.Point(rng.random(), i, rng.choice(_WORDS)) for _ in range(2))
            )
        ),
    ),
    Kind("pydantic models", _each(_user), 0.5, "pydantic"),
    Kind("attrs instances", _each(_attrs("Reading")), 1, "attrs"),
    Kind("attrs instances, frozen", _each(_attrs("FrozenReading")), 1, "attrs"),
    Kind("exceptions", _each(lambda rng, i: ValueError(f"bad value {i}", i))),
    Kind("instances of a subclass of list", _each(lambda rng, i: classes.Row(_ints(rng, 2, 6)))),
    Kind("instances of a subclass of dict", _each(lambda rng, i: classes.Settings(_record(rng, i)))),
    Kind("instances of a subclass of str", _each(lambda rng, i: classes.Word(_text(rng, i)))),
    # objects that are met more than once
    Kind("1,000 orders of 10 customers", _orders, 0.05),
    Kind("records that hold one of 50 lists", _shared_lists),
    Kind("linked rings of 200", _rings, 1, is_cyclic=True),
    Kind("trees that know their parents", _many(_family, 10), 1, is_cyclic=True),
    Kind("list that contains itself", _contains_itself, 1, is_cyclic=True),
    # dicts
    Kind("dict str to int", _pairs(_name, _number)),
    Kind("dict str to float", _pairs(_name, _float)),
    Kind("dict str to str", _pairs(_name, _text)),
    Kind("dict int to int", _pairs(_index, _number)),
    Kind("dict int to float", _pairs(_index, _float)),
    Kind("dict str to list of ints", _pairs(_name, lambda rng, i: _ints(rng, 1, 8))),
    Kind("dict str to tuple", _pairs(_name, lambda rng, i: (i, rng.random(), rng.choice(_WORDS)))),
    Kind("dict str to record", _pairs(_name, _record)),
    Kind("dict str to dataclass", _pairs(_name, lambda rng, i: classes.Trade(i, "x", rng.random(), 1.0))),
    Kind("dict str to mixed scalars", _pairs(_name, _scalar)),
    Kind("dict int to set (inverted index)", _pairs(_index, lambda rng, i: {*_ints(rng, 1, 12)})),
    Kind("dict int to list (graph)", _graph),
    Kind("dict of dicts of dicts (trie)", _trie, 1, part=_trie_part, keys=_trie_keys),
    Kind("dict with tuple keys", _pairs(lambda rng, i: (i, rng.choice(_WORDS)), _float)),
    Kind("dict with float keys", _pairs(_float, _index)),
    Kind("dict with date keys", _pairs(lambda rng, i: _DAY + dt.timedelta(days=i), _float)),
    Kind(
        "dict with enum keys",
        lambda n: {one: _ints(Rng(one.value), 100, 100) for one in classes.Station},
        0.01,
    ),
    Kind("dict with UUID keys", _pairs(lambda rng, i: uuid.UUID(int=rng.getrandbits(128)), _index)),
    Kind("dict with bytes keys", _pairs(lambda rng, i: i.to_bytes(8, "big"), _index)),
    Kind("dict with frozenset keys", _pairs(lambda rng, i: frozenset((i, i + 1)), _float)),
    Kind("dict with None, bool, int and str keys", _mixed_keys),
    # of the standard library
    Kind("Counter", _counter),
    Kind("defaultdict of lists", lambda n: collections.defaultdict(list, _each(_group, dict)(n))),
    Kind("OrderedDict", lambda n: collections.OrderedDict(_pairs(_name, _float)(n))),
    Kind("deque of tuples", _each(lambda rng, i: (i, rng.random()), collections.deque)),
    Kind("array.array", lambda n: array.array("d", range(n)), 10),
    Kind("bytes", lambda n: Rng(1).randbytes(n), 500),
    Kind("bytearray", lambda n: bytearray(Rng(1).randbytes(n)), 500),
    # of numpy, pandas and others
    Kind("list of arrays of 3", _each(_array(3))),
    Kind("list of arrays of 100", _each(_array(100)), 0.5),
    Kind("list of arrays of 0 to 60", _each(_varying)),
    Kind("list of images of 28 x 28", _each(_array(28, 28, dtype="u1")), 0.25),
    Kind("list of small arrays of six dtypes", _each(_any_dtype)),
    Kind("list of arrays of 100 kB", _each(_array(12_500)), 0.01),
    Kind("list of pairs (array, int)", _each(lambda rng, i: (_array(16, dtype="f4")(rng, i), i % 10))),
    Kind("records with an array", _each(_sample), 0.5),
    Kind("dict int to array of 100", _pairs(_index, _array(100)), 0.5),
    Kind("dict str to array of 0 to 60", _pairs(_name, _varying)),
    Kind("array", lambda n: np.arange(float(n)), 10),
    Kind("structured array", _structured, 10),
    Kind("array of objects", _objects),
    Kind("list of csr arrays", _each(_csr), 0.05, "scipy"),
    Kind("list of frames", _each(_frame), 0.01, "pandas"),
    Kind("dict str to frame", _pairs(_name, _frame), 0.01, "pandas"),
    Kind("list of Series", _each(_series), 0.02, "pandas"),
    Kind("frame", _wide, 1, "pandas", part=_at, keys=lambda x: range(len(x))),
    Kind(
        "frame with a column of lists", _lists_in_a_frame, 1, "pandas", part=_at, keys=lambda x: range(len(x))
    ),
    Kind("list of Arrow tables", _each(_arrow), 0.01, "pyarrow"),
    Kind("list of polars frames", _each(_polars), 0.01, "polars"),
    Kind(
        "RandomForest",
        _forest,
        1,
        "sklearn",
        part=lambda x, i: x.estimators_[i],
        keys=lambda x: range(len(x.estimators_)),
    ),
    Kind(
        "TfidfVectorizer",
        _vectorizer,
        1,
        "sklearn",
        part=lambda x, word: x.vocabulary_[word],
        keys=lambda x: list(x.vocabulary_),
    ),
    Kind("list of linear models", _python_models, 0.02, "sklearn"),
)
