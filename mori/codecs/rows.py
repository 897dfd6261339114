"""Lists and tuples of records in columns: dicts of the same keys in one order, or tuples of one length.

Imports codec, layout and the columns. Values are None, str, int, float, bool and bytes, exact types; a
field with several of them has a column for each. What it decodes to is `Rows`, which makes a record, or
a block of them, when it is asked to; nothing is scanned when it is opened.
"""

from __future__ import annotations

import itertools
import operator
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from mori.codecs import packed, strings
from mori.codecs.kinds import kinds_of
from mori.codecs.meta import from_json, to_json
from mori.codecs.packed import Column
from mori.format.codec import Buffer, Buffers, BuiltinCodec, Encoded
from mori.format.layout import Codec as Id
from mori.format.node import Node

__all__ = ["FEWEST", "WIDEST", "Rows", "RowsCodec", "pack"]

FEWEST: Final = 32
"""Records from which on they stand in columns."""
WIDEST: Final = 256
"""Fields of a record, at most: to read one record is to read all its columns."""

_STR: Final = "s"
_MOST: Final = 512  # records that are made at once, at most
_BLOCK_NBYTES: Final = 1 << 20
_KEY: Final = 1 << 63  # keys that are int lie within 64 bits with their sign
_KINDS: Final = {"list": list, "tuple": tuple}
_RECORDS: Final = {"dict": dict, "tuple": tuple}
_PLAIN: Final = (str, int, float, bool, bytes)
_TYPES: Final = frozenset({type(None), *_PLAIN})


class Rows:
    """The records of a node. Whatever its methods raise on damaged bytes is a ValueError."""

    array = None
    """They are no numbers."""

    def __init__(self, meta: bytes, buffers: Buffers) -> None:
        kind, record, length, fields, columns = from_json(meta)
        self.kind: type = _KINDS[kind]
        self.record: type = _RECORDS[record]
        self.keys: list[Any] = _keys(fields) if self.record is dict else []
        self.width = len(self.keys) if self.record is dict else fields
        if type(self.width) is not int or not 0 < self.width <= WIDEST:
            raise ValueError(f"records of {str(self.width)[:40]} fields")
        if len(columns) > len(_PLAIN) * self.width:
            raise ValueError(f"{len(columns)} columns for {self.width} fields")
        waiting = iter(buffers)
        self._columns: list[tuple[int, Column]] = []
        for place, tag, missing in columns:
            if type(place) is not int or not 0 <= place < self.width:
                raise ValueError(f"a column of the field {str(place)[:40]} of {self.width}")
            own = Buffers(itertools.islice(waiting, 3 if tag == _STR else packed.buffers_of(tag)))
            own.trusted = buffers.trusted
            head = (kind, length, missing)
            column = strings.Strings(head, own) if tag == _STR else packed.opened(tag, head, own)
            self._columns.append((place, column))
        if not self._columns or next(waiting, None) is not None:
            raise ValueError(f"{len(buffers)} buffers for {len(self._columns)} columns")
        self._length: int = length
        each = sum(buffer.nbytes for buffer in buffers) // max(1, length)
        self.block_length = max(1, min(_MOST, _BLOCK_NBYTES // max(1, each)))
        """Records that are best made at once."""

    def __len__(self) -> int:
        return self._length

    def values(self, index: int) -> tuple[Any, ...]:
        """Return the values of one record."""
        found = [None] * self.width
        for place, column in self._columns:
            if found[place] is None:
                found[place] = column[index]
        return tuple(found)

    def columns(self, start: int, stop: int) -> list[list[Any]]:
        """Return the values of some records, field by field."""
        found: list[list[Any]] = [[]] * self.width
        for place, column in self._columns:
            values = _between(column, start, stop)
            if found[place]:
                values = [b if a is None else a for a, b in zip(found[place], values, strict=True)]
            found[place] = values
        return [values or [None] * (stop - start) for values in found]

    def __getitem__(self, index: int) -> Any:
        values = self.values(index)
        return dict(zip(self.keys, values, strict=True)) if self.record is dict else values

    def block(self, start: int, stop: int) -> list[Any]:
        """Return records from `start` on: at least one and as many as are well made at once."""
        return self.made(self.columns(start, min(stop, start + self.block_length)))

    def made(self, columns: list[list[Any]]) -> list[Any]:
        """Return the records of these columns."""
        values = zip(*columns, strict=True)
        if self.record is tuple:
            return list(values)
        return list(map(dict, map(zip, itertools.repeat(self.keys), values)))


def _between(column: Column, start: int, stop: int) -> list[Any]:
    values = column.block(start, stop)
    while start + len(values) < stop:
        values += column.block(start + len(values), stop)
    return values


def _keys(fields: Any) -> list[Any]:
    if type(fields) is not list or len(fields) > WIDEST:
        raise ValueError("keys that are no list, or too many")
    if not {str, int}.issuperset(map(type, fields)) or len(set(fields)) != len(fields):
        raise ValueError("keys that are not distinct, or neither str nor int")
    return [sys.intern(key) if type(key) is str else key for key in fields]


def _columns(rows: Sequence[Any], key: Any) -> list[Encoded] | None:
    """Return the columns of a field, None for what cannot have any."""
    of = operator.itemgetter(key)
    values = [*map(of, rows)]
    kinds = kinds_of(values)
    if not kinds <= _TYPES:
        return None
    found = []
    missing = len(kinds) > 1
    kinds.discard(type(None))

    def take(cls: type, where: slice) -> list[Any]:
        block = [*map(of, rows[where])]
        return block if len(kinds) == 1 else [value if type(value) is cls else None for value in block]

    for cls in _PLAIN:
        if cls in kinds:
            own = values if len(kinds) == 1 else [v if type(v) is cls else None for v in values]
            again = partial(take, cls)
            made = strings.pack(own, missing, again) if cls is str else packed.pack(own, cls, missing, again)
            if made is None:
                return None
            found.append(made)
    return found


def _have_keys(rows: Sequence[dict[Any, Any]], keys: list[Any]) -> bool:
    """Say whether all have the same keys, of the same types, in the same order; they have as many."""
    if all(map(operator.is_, itertools.chain.from_iterable(rows), itertools.cycle(keys))):
        return True  # as a parser makes them
    types = [*map(type, keys)]
    return all([*row] == keys and [*map(type, row)] == types for row in rows)


def _is_one_twice(obj: Sequence[Any]) -> bool:
    """Say whether one object stands in a list twice; a set of ids would be larger than the columns."""
    ids = np.fromiter(map(id, obj), "u8", len(obj))
    ids.sort()
    return bool((ids[1:] == ids[:-1]).any())


def pack(obj: Sequence[Any], kind: str) -> Encoded | None:
    """Return a list or tuple of records as one node, None for any other, and where one stands in it twice."""
    if len(obj) < FEWEST:
        return None
    first = obj[0]
    cls = type(first)
    if cls not in (dict, tuple) or not 0 < len(first) <= WIDEST:
        return None
    values = first.values() if cls is dict else first
    if not _TYPES.issuperset(map(type, values)) or kinds_of(obj) != {cls}:
        return None
    if len(set(map(len, obj))) != 1 or _is_one_twice(obj):
        return None
    keys: list[Any] = [*first] if cls is dict else [*range(len(first))]
    if cls is dict and not ({str, int}.issuperset(map(type, keys)) and _have_keys(obj, keys)):
        return None
    if any(type(key) is int and not -_KEY <= key < _KEY for key in keys):
        return None
    heads: list[tuple[int, str, int]] = []
    buffers: list[Buffer] = []
    for place, key in enumerate(keys):
        columns = _columns(obj, key)
        if columns is None:
            return None
        for column in columns:
            *tag, _, missing = from_json(column.meta)[1:]
            heads.append((place, tag[0] if tag else _STR, missing))
            buffers += column.buffers
    if not heads:
        return None
    plain = [kind, cls.__name__, len(obj), keys if cls is dict else len(keys), heads]
    return Encoded(to_json(plain), buffers, (), Id.ROWS)


class RowsCodec(BuiltinCodec):
    """A list or tuple of records."""

    id = Id.ROWS

    pack = staticmethod(pack)

    def fewest(self) -> int:
        """Return how many records are worth columns."""
        return FEWEST

    def encode(self, obj: Sequence[Any]) -> Encoded | None:
        raise AssertionError("records are packed by the plan, which knows what else refers to them")

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Rows:
        return Rows(meta, buffers)

    def part(self, node: Node, number: int) -> None:
        """Return None: its elements have no nodes of their own."""

    def step(self, obj: Any, index: int) -> str:
        raise AssertionError("records in columns have no parts that could fail")
