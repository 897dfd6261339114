"""An index of keys: their hashes in order, so that a key is found without reading the others.

The keys stand in a list of their own. Nothing is built when the index is opened. What a lookup finds is
compared with the key itself, so a hash that many keys share makes it slower and never wrong.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori.codecs.hashes import PROBE, UnequalError, hashes_of_array, stable_hash, stable_hashes
from mori.format.atoms import PIECE, pieces_of
from mori.format.codec import CHANGED

__all__ = ["FEWEST", "Index", "build"]

FEWEST: Final = 16
"""Keys from which on they have an index; a table of fewer is built as fast as an index is opened."""

_META: Final = struct.Struct("<q")
_FACTOR: Final = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio: neighbours come far apart
_BITS: Final = 32  # of an entry for the hash, and as many for the position
_WORD: Final = (1 << 64) - 1
_PLACE: Final = (1 << _BITS) - 1


def build(
    keys: Collection[Any], array: npt.NDArray[Any] | None = None
) -> tuple[bytes, Sequence[npt.NDArray[Any]]]:
    """Return the meta and the buffers of an index of distinct keys, empty ones for keys that have none.

    `array` are the keys, where they are numbers of one kind.

    Raises
    ------
    RuntimeError
        If what the keys are in is changed meanwhile.
    """
    count = len(keys)
    if not FEWEST <= count <= _PLACE:
        return b"", ()
    table = np.empty(count, "<u8")
    hashes = table.view("<i8")
    start = 0
    try:
        for piece in _hashed(keys, array):
            hashes[start : start + len(piece)] = piece
            start += len(piece)
    except (LookupError, UnequalError):
        return b"", ()
    if start != count:
        raise RuntimeError(CHANGED)
    table *= np.uint64(_FACTOR)
    table &= np.uint64(_WORD ^ _PLACE)
    for start in range(0, count, PIECE):
        entries = table[start : start + PIECE]
        entries |= np.arange(start, start + len(entries), dtype="<u8")
    table.sort()
    return _META.pack(PROBE), (table,)


def _hashed(keys: Collection[Any], array: npt.NDArray[Any] | None) -> Iterator[npt.NDArray[np.int64]]:
    if array is not None:
        for start in range(0, len(array), PIECE):
            yield hashes_of_array(array[start : start + PIECE])
        return
    for piece in pieces_of(keys):
        yield np.fromiter(stable_hashes(piece), "<i8", len(piece))


class Index:
    """The index of a node, opened in constant time.

    Parameters
    ----------
    count
        How many keys there are.
    look
        Returns the key at a position.
    nothing
        An empty container of the kind that the keys are those of, which raises what Python raises for a key
        that cannot be hashed.

    Raises
    ------
    ValueError
        When it is made, if meta or buffers are not those of an index of so many keys; from `find`, if an
        entry is no position.
    LookupError
        When it is made, if this Python hashes otherwise than the one that wrote it.
    """

    __slots__ = ("_nothing", "_read", "_table")

    def __init__(
        self,
        meta: bytes,
        buffers: Sequence[npt.NDArray[np.uint8]],
        count: int,
        read: Callable[[int], Any],
        nothing: Collection[Any],
    ) -> None:
        (probe,) = _META.unpack(meta)
        (table,) = buffers
        if probe != PROBE:
            raise LookupError
        if table.nbytes != 8 * count:
            raise ValueError(f"an index of {table.nbytes} bytes for {count} keys")
        self._table = table.data.cast("Q")
        self._read = read
        self._nothing = nothing

    def find(self, key: Any) -> int | None:
        """Return the position of an equal key, None if there is none.

        Raises
        ------
        TypeError
            For a key that cannot be hashed, with Python's text.
        LookupError
            For a key of a type that may be equal to anything: it takes a table of all keys.
        """
        try:
            sought = (stable_hash(key) * _FACTOR & _WORD) >> _BITS
        except (LookupError, UnequalError) as error:
            if key in self._nothing or isinstance(error, UnequalError):
                return None
            raise
        table = self._table
        for place in range(bisect_left(table, sought << _BITS), len(table)):
            entry = table[place]
            if entry >> _BITS != sought:
                return None
            position: int = entry & _PLACE
            if position >= len(table):
                raise ValueError("an entry of its index leads outside of its keys")
            found = self._read(position)
            if found is key or found == key:
                return position
        return None
