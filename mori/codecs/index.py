"""Keys that are looked up where they lie: all of them str, all bytes, or all int.

The keys stand one behind the other in their order; a table sorts their positions into buckets by a hash that
is the same in every process. Nothing is built when it is opened, and a lookup reads one bucket: what it finds
there is compared with the key itself, so a hash that many keys share makes it slower and never wrong.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast
from zlib import crc32

import numpy as np
import numpy.typing as npt

from mori import _progress
from mori.codecs.kinds import PIECE, kinds_of, pieces_of
from mori.format.codec import Buffer, Late

__all__ = ["FEWEST", "Index", "Indexed", "build", "kind_of"]

FEWEST: Final = 16
"""Keys from which on a dict has an index; a table of fewer is built as fast as an index is opened."""

_META: Final = struct.Struct("<cBQ")  # what the keys are, the bits of a bucket's number, how many keys
_FACTOR: Final = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio: neighbours come into buckets far apart
_WORD: Final = (1 << 64) - 1
_MOST_BITS: Final = 32
_BLOCK: Final = 1 << 12  # keys that are decoded together
_OUTSIDE: Final = "a bucket of its index lies outside of it"
_NOWHERE: Final = "a position of its index lies outside of it"
_STRANGE: Final = "a key of its index stands in another's bucket"


class Indexed(NamedTuple):
    """Keys and their index, as they are written."""

    meta: bytes
    buffers: list[Buffer]


def kind_of(keys: Collection[object]) -> bytes:
    """Return ``b"s"``, ``b"b"`` or ``b"i"`` where all keys are of exactly one type, else an empty one."""
    types: set[type] = set()
    for block in pieces_of(keys):
        types |= kinds_of(block)
        if len(types) != 1:
            return b""
    return _KINDS.get(types.pop(), b"") if types else b""


def build(keys: Collection[Any]) -> Indexed | None:
    """Return distinct keys with their index, None for keys that cannot have one."""
    count = len(keys)
    if not FEWEST <= count < 1 << _MOST_BITS:
        return None
    kind = kind_of(keys)
    if not kind:
        return None
    stored: list[Buffer]
    if kind == b"i":
        try:
            hashes = np.fromiter(keys, "<i8", count).view("<u8")
        except OverflowError:
            return None
        late = Late(lambda: (np.fromiter(block, "<i8", len(block)) for block in pieces_of(keys)))
        for start in range(0, count, PIECE):
            late.measured(hashes[start : start + PIECE])
        stored = [late]
    else:
        late = Late(lambda: (b"".join(_encoded(block, kind)) for block in pieces_of(keys)))
        offsets, hashes = _measured(keys, kind, late)
        stored = [offsets, late]
    bits = (count - 1).bit_length()
    starts, order = _sorted(hashes, bits)
    return Indexed(_META.pack(kind, bits, count), [starts, order, *stored])


def _sorted(hashes: npt.NDArray[np.uint64], bits: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return where the buckets start, and the positions in their order; the hashes are used up."""
    buckets = hashes
    buckets *= np.uint64(_FACTOR)
    buckets >>= np.uint64(64 - bits)
    starts = np.zeros((1 << bits) + 1, "<u4")
    np.add.at(starts[1:], buckets.view("<i8"), np.uint32(1))
    np.cumsum(starts, out=starts)
    # One number sorts by bucket and then by position, so the same keys give the same bytes everywhere.
    buckets <<= np.uint64(_MOST_BITS)
    for start in range(0, len(buckets), PIECE):
        piece = buckets[start : start + PIECE]
        piece |= np.arange(start, start + len(piece), dtype="<u8")
    buckets.sort()
    return starts, buckets.astype("<u4")


def _encoded(block: list[Any], kind: bytes) -> list[bytes]:
    if kind == b"b":
        return block
    try:
        return list(map(str.encode, block))
    except UnicodeEncodeError:
        return [key.encode("utf-8", "surrogatepass") for key in block]


def _measured(keys: Collection[Any], kind: bytes, late: Late) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the offsets of strings or bytes, and their hashes."""
    offsets, hashes = np.zeros(len(keys) + 1, "<i8"), np.empty(len(keys), "<u8")
    meter = _progress.meter()
    end = 0
    for block in pieces_of(keys):
        start, end = end, end + len(block)
        pieces = _encoded(block, kind)
        offsets[start + 1 : end + 1] = np.fromiter(map(len, pieces), "<i8", len(block))
        hashes[start:end] = np.fromiter(map(crc32, pieces), "<u8", len(block))
        late.measured(b"".join(pieces))
        if meter is not None:
            meter.did(len(block))
    return np.cumsum(offsets, out=offsets), hashes


class Index:
    """The keys of a node, opened in constant time.

    Raises
    ------
    ValueError
        When it is made, if the buffers do not have the lengths that belong to so many keys; from any
        method, if what was read is no bucket, no position or no key.
    """

    __slots__ = ("_count", "_kind", "_place", "_shift", "_span", "_spans", "_start", "_text")

    def __init__(self, meta: bytes, buffers: Sequence[npt.NDArray[np.uint8]]) -> None:
        kind: bytes
        bits: int
        count: int
        kind, bits, count = _META.unpack(meta)
        starts, order, *stored = buffers
        width = 8 * count if kind == b"i" else 8 * (count + 1)
        if kind not in _TYPES or not 0 < bits <= _MOST_BITS or len(stored) != (1 if kind == b"i" else 2):
            raise ValueError(f"{meta!r} is no index")
        if (starts.nbytes, order.nbytes, stored[0].nbytes) != (4 * (1 << bits) + 4, 4 * count, width):
            raise ValueError(f"its index has not the length that belongs to {count} keys")
        self._count = count
        self._kind = kind
        self._shift = 64 - bits
        # What `item` gives is a plain int: neither a struct nor a scalar of numpy is made on the way.
        self._start = np.ndarray(((1 << bits) + 1,), "<u4", starts).item
        self._place = np.ndarray((count,), "<u4", order).item
        self._spans = np.ndarray((width // 8,), "<i8", stored[0])
        self._span = self._spans.item
        self._text = memoryview(stored[-1])

    def __len__(self) -> int:
        return self._count

    def find(self, key: Any) -> int | None:
        """Return the position of an equal key, None if there is none.

        Raises
        ------
        TypeError
            For a key that cannot be hashed, with Python's text.
        LookupError
            For a key of a type that may be equal to anything: it takes a table of all keys.
        """
        kind = self._kind
        if type(key) is not _TYPES[kind]:
            key = _as_stored(key, kind)
            if key is None:
                return None
        if kind == b"i":
            return self._find_number(key)
        try:
            sought = key if kind == b"b" else key.encode()
        except UnicodeEncodeError:  # lone surrogates
            sought = key.encode("utf-8", "surrogatepass")
        bucket = (crc32(sought) * _FACTOR & _WORD) >> self._shift
        first, end = self._start(bucket), self._start(bucket + 1)
        if not first <= end <= self._count:
            raise ValueError(_OUTSIDE)
        for place in range(first, end):
            position: int = self._place(place)
            found = self._bytes(position)
            if found == sought:
                return position
            if (crc32(found) * _FACTOR & _WORD) >> self._shift != bucket:
                raise ValueError(_STRANGE)
        return None

    def _find_number(self, key: int) -> int | None:
        bucket = (key * _FACTOR & _WORD) >> self._shift
        first, end = self._start(bucket), self._start(bucket + 1)
        if not first <= end <= self._count:
            raise ValueError(_OUTSIDE)
        for place in range(first, end):
            position: int = self._place(place)
            if position >= self._count:
                raise ValueError(_NOWHERE)
            found = self._span(position)
            if found == key:
                return position
            if (found * _FACTOR & _WORD) >> self._shift != bucket:
                raise ValueError(_STRANGE)
        return None

    def _bytes(self, position: int) -> bytes:
        """Return the bytes of a key that is no number."""
        if position >= self._count:
            raise ValueError(_NOWHERE)
        start, end = self._span(position), self._span(position + 1)
        if not 0 <= start <= end <= len(self._text):
            raise ValueError("a key lies outside of its text")
        return bytes(self._text[start:end])

    def key(self, position: int) -> Any:
        """Return one key."""
        if self._kind == b"i":
            if position >= self._count:
                raise ValueError(_NOWHERE)
            return self._span(position)
        raw = self._bytes(position)
        return raw if self._kind == b"b" else raw.decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self._count, _BLOCK):
            yield from self._keys(start, min(start + _BLOCK, self._count))

    def __reversed__(self) -> Iterator[Any]:
        for end in range(self._count, 0, -_BLOCK):
            yield from reversed(self._keys(max(0, end - _BLOCK), end))

    def _keys(self, start: int, end: int) -> list[Any]:
        """Return a block of keys."""
        if self._kind == b"i":
            return cast(list[Any], self._spans[start:end].tolist())
        spans = self._spans[start : end + 1]
        first, last = int(spans[0]), int(spans[-1])
        if not 0 <= first <= last <= len(self._text) or bool((spans[1:] < spans[:-1]).any()):
            raise ValueError("keys lie outside of their text")
        raw = bytes(self._text[first:last])
        ends = (spans - first).tolist()
        if self._kind == b"b":
            return [raw[a:b] for a, b in itertools.pairwise(ends)]
        if raw.isascii():
            text = raw.decode("ascii")
            return [text[a:b] for a, b in itertools.pairwise(ends)]
        return [raw[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(ends)]


_KINDS: Final[dict[type, bytes]] = {str: b"s", bytes: b"b", int: b"i"}
_TYPES: Final = {kind: cls for cls, kind in _KINDS.items()}
_OTHERS: Final = frozenset({type(None), bool, int, float, complex, str, bytes, tuple, frozenset, type})
_NOTHING: Final[dict[Any, Any]] = {}


def _as_stored(key: Any, kind: bytes) -> Any:
    """Return the key of the index's own type that equals a key of another type, None if there is none."""
    _NOTHING.get(key)  # raises Python's own TypeError for what cannot be hashed
    cls, wanted = type(key), _TYPES[kind]
    if issubclass(cls, wanted) and _compares_like(cls, wanted):
        return _EXACTLY[kind](key)
    if isinstance(key, np.bool_ | np.integer | np.floating) and cls.__module__ == "numpy":
        key = key.item()
        cls = type(key)
        if cls is wanted:
            return key
    if cls in _OTHERS:
        if kind != b"i":
            return None
        if cls is bool or (cls is float and key.is_integer()):
            return int(key)
        if cls is complex and not key.imag and key.real.is_integer():
            return int(key.real)
        return None
    raise LookupError(key)


def _compares_like(cls: type, wanted: type) -> bool:
    """Say whether a subclass leaves hash and equality as they are; numpy's own mean the same."""
    same = cls.__eq__ is wanted.__eq__ and cls.__hash__ is wanted.__hash__
    return same or cls in (np.str_, np.bytes_)


_EXACTLY: Final[dict[bytes, Callable[[Any], Any]]] = {
    b"s": str.__str__,
    b"b": lambda key: b"".join((key,)),
    b"i": int.__int__,
}
