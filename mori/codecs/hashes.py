"""Hashes of keys that are the same in every process: equal keys have equal ones, whatever their types.

Python salts the hash of text, bytes and times, and makes that of None of an address. Numbers it hashes by
value and across types, and tuples and frozensets by the hashes of what is in them: so the hash here is
Python's own, where what it salts is replaced by a number. A type is known here if it compares by value and
its hash can be told from that, classes that inherit both `__eq__` and `__hash__` from one among them.
"""

from __future__ import annotations

import datetime as dt
import enum
import operator
import sys
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

__all__ = ["PROBE", "UnequalError", "hashes_of_array", "stable_hash", "stable_hashes"]

PROBE: Final = hash((1, 0.5, frozenset((2, 3))))
"""A Python that has another for this has other hashes for numbers, tuples or sets."""

_BITS: Final = 61
_MODULUS: Final = (1 << _BITS) - 1  # of the hashes of numbers, which makes a power of two a rotation
_EPOCH: Final = dt.datetime(1970, 1, 1)
_UTC_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NO_TIME: Final = dt.timedelta()


class UnequalError(Exception):
    """A key that equals nothing but itself: a NaN, or an object that compares by identity."""


def stable_hash(key: Any) -> int:
    """Return the hash of a key.

    Raises
    ------
    LookupError
        For a key that has none here, such as one that cannot be hashed, or is of a class that is not known.
    UnequalError
        For a key that equals no other.
    """
    cls = type(key)
    return (_HASHERS.get(cls) or _hasher_of(cls))(key)


def stable_hashes(keys: list[Any]) -> Iterable[int]:
    """Return the hashes of many keys; what cannot be hashed raises when it is reached."""
    hashers = {_HASHERS.get(cls) or _hasher_of(cls) for cls in {*map(type, keys)}}
    if len(hashers) == 1:
        (hasher,) = hashers
        return _MANY[hasher](keys) if hasher in _MANY else map(hasher, keys)
    return map(stable_hash, keys)


def hashes_of_array(keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the hashes of bools, int64 or float64."""
    hashes: npt.NDArray[np.int64]
    if keys.dtype.kind == "f":
        hashes = _hashes_of_floats(keys)
    else:
        hashes = keys.astype("<i8")
        if ((hashes >= _MODULUS) | (hashes <= -_MODULUS)).any():
            return np.fromiter(map(hash, hashes.tolist()), "<i8", len(hashes))
    hashes[hashes == -1] = -2
    return hashes


def _hashes_of_floats(keys: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    if np.isnan(keys).any():
        raise UnequalError
    parts, exponents = np.frexp(np.abs(keys))
    is_finite = np.isfinite(keys)
    whole = np.where(is_finite, parts, 0) * (1 << 53)
    mantissas = whole.astype("<u8")
    shifts = ((exponents - 53) % _BITS).astype("<u8")
    hashes = (mantissas << shifts & np.uint64(_MODULUS) | mantissas >> np.uint64(_BITS) - shifts).view("<i8")
    hashes[~is_finite] = sys.hash_info.inf
    signed: npt.NDArray[np.int64] = np.where(keys < 0, -hashes, hashes)
    return signed


def _hasher_of(cls: Any) -> Callable[[Any], int]:
    """Return what hashes the objects of a class that is not in the table."""
    base: Any
    for base in cls.__mro__:
        if hasher := _HASHERS.get(base) or _BY_NAME.get(f"{base.__module__}.{base.__qualname__}"):
            if cls.__eq__ is base.__eq__ and cls.__hash__ is base.__hash__:
                return hasher
            raise LookupError(cls)
    if hasattr(cls, "__dataclass_fields__"):
        return _of_fields
    if cls.__eq__ is object.__eq__ and cls.__hash__ is object.__hash__:
        raise UnequalError
    raise LookupError(cls)


def _of_number(key: Any) -> int:
    hashed = hash(key)  # first: a signaling NaN has neither hash nor comparison
    if key != key:  # noqa: PLR0124
        raise UnequalError
    return hashed


def _of_numbers(keys: list[Any]) -> Iterable[int]:
    if any(map(operator.ne, keys, keys)):
        raise UnequalError
    return map(hash, keys)


def _of_text(key: str) -> int:
    try:
        return crc32(str.encode(key))
    except UnicodeEncodeError:  # lone surrogates
        return crc32(str.encode(key, "utf-8", "surrogatepass"))


def _of_texts(keys: list[str]) -> Iterable[int]:
    try:
        return map(crc32, [*map(str.encode, keys)])
    except UnicodeEncodeError:
        return map(_of_text, keys)


def _of_bytes(key: bytes) -> int:
    return crc32(bytes.__getitem__(key, slice(None)))


def _of_tuple(key: tuple[Any, ...]) -> int:
    return hash(tuple([stable_hash(part) for part in tuple.__iter__(key)]))


def _of_tuples(keys: list[tuple[Any, ...]]) -> Iterable[int]:
    (length, *others) = {*map(tuple.__len__, keys)}
    if others or not length:
        return map(_of_tuple, keys)
    # By places, since `zip(*keys)` makes an iterator a key, whose number starts garbage collections.
    columns = [[*map(tuple.__getitem__, keys, repeat(place))] for place in range(length)]
    return map(hash, zip(*map(stable_hashes, columns), strict=True))


def _of_frozenset(key: frozenset[Any]) -> int:
    return hash(frozenset([stable_hash(part) for part in frozenset.__iter__(key)]))


def _of_datetime(key: dt.datetime) -> int:
    if key.fold:  # it makes no difference for what is equal
        key = key.replace(fold=0)
    return hash(key - (_EPOCH if key.utcoffset() is None else _UTC_EPOCH))


def _of_time(key: dt.time) -> int:
    if key.fold:
        key = key.replace(fold=0)
    since = dt.timedelta(0, key.second, key.microsecond, 0, key.minute, key.hour)
    return hash(since - (key.utcoffset() or _NO_TIME))


def _of_fields(key: Any) -> int:
    """Return the hash of a dataclass that has the hash of its fields."""
    from dataclasses import fields as fields_of

    compared = [f.name for f in fields_of(key) if (f.compare if f.hash is None else f.hash)]
    fields = tuple([getattr(key, name) for name in compared])
    try:
        is_theirs = hash(key) == hash(fields)
    except TypeError:
        raise LookupError(type(key)) from None
    if not is_theirs:
        raise LookupError(type(key))
    return _of_tuple(fields)


_NUMBERS: Final = {cls for cls in np.sctypeDict.values() if issubclass(cls, np.number | np.bool_)} - {
    np.timedelta64  # it equals times, which have other hashes
}
_HASHERS: Final[dict[type, Callable[[Any], int]]] = {
    **dict.fromkeys((int, bool, dt.timedelta), hash),
    **dict.fromkeys((float, complex), _of_number),
    **{cls: _of_number if issubclass(cls, np.inexact) else hash for cls in _NUMBERS},
    str: _of_text,
    np.str_: _of_text,
    bytes: crc32,
    np.bytes_: _of_bytes,
    tuple: _of_tuple,
    frozenset: _of_frozenset,
    type(None): lambda _: 0xFCA86420,  # as Python has it from 3.12 on
    dt.date: dt.date.toordinal,
    dt.datetime: _of_datetime,
    dt.time: _of_time,
    enum.Enum: lambda key: stable_hash(key._name_),
}


def _of_path(key: Any) -> int:
    return _of_text(str(key))


_BY_NAME: Final[dict[str, Callable[[Any], int]]] = {  # of modules that `import mori` does not import
    "decimal.Decimal": _of_number,
    "fractions.Fraction": hash,
    "uuid.UUID": hash,
    "pathlib.PurePosixPath": _of_path,
    "pathlib._local.PurePosixPath": _of_path,
}
_MANY: Final[dict[Callable[[Any], int], Callable[[list[Any]], Iterable[int]]]] = {
    _of_number: _of_numbers,
    _of_text: _of_texts,
    _of_tuple: _of_tuples,
}
