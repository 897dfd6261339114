"""The records of a list in columns that an opening has handed out: a write to one is found, and not lost.

Imports the columns of records and the lock. A dict tells nobody that it was written to. So those that are
handed out are kept, one by one or as the block that an iterator goes through, beside the very objects that
their values were: a record is as it was if it still holds those. Now and then those are let go that nobody
else holds and that are as they were. Records that are tuples cannot be written to, and are not kept.
"""

from __future__ import annotations

import itertools
import operator
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mori.codecs.rows import Rows
from mori.objects.containers.lock import lock

__all__ = ["HandedRows"]

_FEW: Final = 64  # that are kept one by one, before any is let go
_BLOCKS: Final = 4  # that are kept whole, as many
_MANY: Final = 4  # a block is kept whole if one of so many of its records is held, or changed
_FLOAT: Final = struct.Struct("<d")
_Record = dict[Any, Any]


def _holders(records: Iterable[Any]) -> list[int]:
    return [*map(sys.getrefcount, records)]


_probe: Final[list[_Record]] = [{}]
_ALONE: Final = _holders(_probe)[0]  # of what one list holds
_BLOCK_ALONE: Final = sys.getrefcount(_probe)  # the module here, a block there


class _Block:
    """Records one behind the other, and the values that they were made of, field by field."""

    __slots__ = ("columns", "records")

    def __init__(self, records: list[_Record], columns: list[list[Any]]) -> None:
        self.records = records
        self.columns = columns


class HandedRows:
    """The dicts of a list of records, by their place."""

    __slots__ = ("_blocks", "_last", "_most", "_most_blocks", "_rows", "_singles", "_size")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._size = rows.block_length
        self._singles: dict[int, tuple[list[_Record], tuple[Any, ...]]] = {}
        self._blocks: dict[int, _Block] = {}
        self._last = -1  # the block that an iterator was given last
        self._most, self._most_blocks = _FEW, _BLOCKS

    def kept(self) -> int:
        """Return how many records, or blocks of them, are kept."""
        return len(self._singles) + len(self._blocks)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> _Record:
        with lock:
            found = self._found(index)
            return self._keep(index, self._rows.values(index)) if found is None else found

    def block(self, start: int, stop: int) -> list[_Record]:
        """Return records from `start` on: at least one and as many as are well made at once."""
        with lock:
            number, first = divmod(start, self._size)
            end = min(number * self._size + self._size, len(self._rows))
            if not first and stop >= end:
                return self._whole(number, start, end)
            stop = min(stop, end)
            if number in self._blocks:
                return self._blocks[number].records[first : first + stop - start]
            made: list[_Record] = []
            values = zip(*self._rows.columns(start, stop), strict=True)
            for index, each in zip(range(start, stop), values, strict=True):
                found = self._found(index)
                made.append(self._keep(index, each) if found is None else found)
            return made

    def _found(self, index: int) -> _Record | None:
        block = self._blocks.get(index // self._size)
        if block is not None:
            found: _Record = block.records[index % self._size]
            return found
        single = self._singles.get(index)
        return None if single is None else single[0][0]

    def _keep(self, index: int, values: tuple[Any, ...]) -> _Record:
        record = dict(zip(self._rows.keys, values, strict=True))
        if len(self._singles) >= self._most:
            self._let_go_singles()
        self._singles[index] = [record], values
        return record

    def _whole(self, number: int, start: int, end: int) -> list[_Record]:
        if self._last != number:  # an iterator comes from there
            self._release(self._last)
        self._last = number
        block = self._blocks.get(number)
        if block is not None:
            return block.records
        if len(self._blocks) >= self._most_blocks:
            self._let_go_blocks()
        columns = self._rows.columns(start, end)
        block = _Block(self._rows.made(columns), columns)
        for index in [*self._singles] if len(self._singles) < self._size else range(start, end):
            if start <= index < end and index in self._singles:
                (record,), values = self._singles.pop(index)
                block.records[index - start] = record
                for column, value in zip(columns, values, strict=True):
                    column[index - start] = value
        self._blocks[number] = block
        return block.records

    def _release(self, number: int) -> None:
        """Let a block go, but for what is held or changed in it."""
        block = self._blocks.get(number)
        if block is None or sys.getrefcount(block.records) > _BLOCK_ALONE:  # an iterator is in it
            return
        records, columns = block.records, block.columns
        kept = {place for place, count in enumerate(_holders(records)) if count > _ALONE}
        if len(kept) * _MANY < len(records) and not self._are_intact(records, columns):
            values = zip(*columns, strict=True)
            kept |= {place for place, each in enumerate(values) if not self._is_intact(records[place], each)}
        if len(kept) * _MANY >= len(records):
            return
        for place in kept:
            own = tuple(column[place] for column in columns)
            self._singles[number * self._size + place] = [records[place]], own
        del self._blocks[number]

    def _let_go_blocks(self) -> None:
        for number in [*self._blocks]:
            self._release(number)
        self._most_blocks = max(_BLOCKS, 2 * len(self._blocks))

    def _let_go_singles(self) -> None:
        singles = self._singles
        held = _holders(itertools.chain.from_iterable(box for box, _ in singles.values()))
        for index, count in zip([*singles], held, strict=True):
            (record,), values = singles[index]
            if count <= _ALONE and self._is_intact(record, values):
                del singles[index]
        self._most = max(_FEW, 2 * len(singles))  # so that each costs the same, however many are held

    def let_go(self) -> None:
        """Forget those that nobody else holds, and that were not written to."""
        with lock:
            self._let_go_blocks()
            self._let_go_singles()

    def is_changed(self) -> bool:
        """Say whether any that is kept is not what the region says any more."""
        with lock:
            for block in self._blocks.values():
                if not self._are_intact(block.records, block.columns):
                    values = zip(*block.columns, strict=True)
                    if not all(map(self._is_intact, block.records, values)):
                        return True
            return not all(self._is_intact(box[0], values) for box, values in self._singles.values())

    def _are_intact(self, records: Sequence[_Record], columns: Sequence[Sequence[Any]]) -> bool:
        """Say whether records hold the very keys and values that they were made of."""
        keys = self._rows.keys
        try:
            return (
                all(map(operator.is_, itertools.chain.from_iterable(records), itertools.cycle(keys)))
                and set(map(len, records)) == {len(keys)}
                and all(
                    all(map(operator.is_, map(operator.itemgetter(key), records), column))
                    for key, column in zip(keys, columns, strict=True)
                )
            )
        except (KeyError, RuntimeError):  # another thread writes to one at this moment
            return False

    def _is_intact(self, record: _Record, values: Sequence[Any]) -> bool:
        """Say whether a record has the keys and values that it had, with all types."""
        keys = self._rows.keys
        try:
            return (
                len(record) == len(keys)
                and all(map(_is_same, record, keys))
                and all(map(_is_same, record.values(), values))
            )
        except RuntimeError:
            return False


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) is float:
        return _FLOAT.pack(one) == _FLOAT.pack(other)
    return bool(one == other)
