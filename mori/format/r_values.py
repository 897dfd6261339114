"""R's serialization of attributes, as R's mori writes it: version 3, binary, of this machine's byte order.

`read` returns plain values and evaluates nothing: what is no data (a function, an environment, an external
pointer) is passed over, and None stands for it. Check, slice, allocate, in that order: no more memory is
asked for than there are bytes, and the depth is bounded. `write` makes the few types that `mori.share` needs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

__all__ = ["NULL", "TYPES", "OpaqueError", "Texts", "decode_text", "read", "serialized_type", "write"]

TYPES: Final = {
    0: "NULL",
    1: "symbol",
    2: "pairlist",
    3: "closure",
    4: "environment",
    5: "promise",
    6: "language",
    7: "special",
    8: "builtin",
    10: "logical",
    13: "integer",
    14: "double",
    15: "complex",
    16: "character",
    17: "...",
    18: "any",
    19: "list",
    20: "expression",
    21: "bytecode",
    22: "externalptr",
    23: "weakref",
    24: "raw",
    25: "S4",
}
"""R's names of its types, as `typeof` has them."""

_SYMBOL, _PAIRLIST, _ENVIRONMENT, _CHARACTERS, _STRINGS, _LIST, _EXPRESSION = 1, 2, 4, 9, 16, 19, 20
_PAIRS: Final = frozenset({2, 3, 5, 6, 17})  # pairlists, and what is written as one
_NUMBERS: Final[dict[int, np.dtype[Any]]] = {
    10: np.dtype("i4"),
    13: np.dtype("i4"),
    14: np.dtype("f8"),
    15: np.dtype("c16"),
}
_RAW: Final = 24
_NIL, _REFERENCE, _ALTREP = 254, 255, 238
_SINGLE: Final = {241: 4, 242: 4, 250: 4, 251: 1, 252: 1, 253: 4}  # by type: environments and symbols
_NAMED: Final = {247: 4, 248: 4, 249: 4}  # environments that are written as their names
_POINTER, _WEAK, _S4, _BYTECODE = 22, 23, 25, 21
_HAS_ATTRIBUTES, _HAS_TAG = 0x200, 0x400
_DEPTH: Final = 100
_INT: Final = struct.Struct("=i")
_LATIN1, _BYTES = 4, 2  # of a string's levels
_NA: Final = -(2**31)
_NA_WORD: Final = 1954  # the low one of a double that is NA

NULL: Final = b"B\n" + struct.pack("=3ii5si", 3, 0x00040602, 0x00030500, 5, b"UTF-8", _NIL)
"""R's NULL."""
_HEADER: Final = NULL[:-4]


class OpaqueError(ValueError):
    """Says that a value has a part whose form only R knows, such as a function's bytecode."""


class Texts(Sequence[str]):
    """Consecutive numbers as strings: R writes the names "1", "2", ... so, in a few bytes."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        found = self._numbers[index]
        return Texts(found) if isinstance(found, range) else str(found)


def decode_text(data: bytes, encoding: int) -> str:
    """Return a string by its encoding, as R's ``cetype_t`` has it; bytes that are no text as R shows them."""
    if encoding == 2:
        return data.decode("latin-1")
    return data.decode("ascii" if encoding in (3, 4) else "utf-8", "backslashreplace")


def serialized_type(data: bytes) -> str:
    """Return R's type of a serialized object."""
    reader = _Reader(data)
    reader.head()
    flags = reader.number()
    number = flags & 0xFF
    number = {**_SINGLE, **_NAMED, _NIL: 0}.get(number, number)
    return TYPES.get(number, "object")


def read(data: bytes) -> Any:
    """Return a serialized value.

    Strings are a sequence of str and None, numbers an array or a range, NULL is None; a list or pairlist is a
    dict if it has names that are distinct, and a list otherwise. Other attributes of values are not kept.

    Raises
    ------
    OpaqueError
        If only R can read on somewhere in it.
    ValueError
        If the bytes are no such serialization.
    """
    reader = _Reader(data)
    reader.head()
    return reader.item(0)


class _Reader:
    """Walks over serialized bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._known: list[Any] = []  # symbols, environments and the like, which are referred to by number
        self._native = 0

    def head(self) -> None:
        if self.take(2) != b"B\n":
            raise ValueError("a serialization that is not in this machine's binary form")
        version, _, _ = self.number(), self.number(), self.number()
        if version not in (2, 3):
            raise ValueError(f"a serialization of version {version}")
        if version == 3:
            encoding = self.take(self.count(1))
            self._native = 2 if encoding in (b"ISO-8859-1", b"latin1", b"CP1252") else 0

    def take(self, nbytes: int) -> bytes:
        end = self._at + nbytes
        if not 0 <= nbytes <= len(self._data) - self._at:
            raise ValueError(f"a serialization that ends at byte {len(self._data)}, and asks for {end}")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self) -> int:
        return _INT.unpack(self.take(4))[0]  # type: ignore[no-any-return]

    def count(self, nbytes: int) -> int:
        """Return a number of elements, each of which has so many bytes at least."""
        count = self.number()
        if count == -1:
            count = (self.number() << 32) + self.number()
        if not 0 <= count <= (len(self._data) - self._at) // nbytes:
            raise ValueError(f"a serialization with {count} elements, which it has no bytes for")
        return count

    def item(self, depth: int) -> Any:
        if depth > _DEPTH:
            raise ValueError(f"a serialization that is nested deeper than {_DEPTH} levels")
        flags = self.number()
        number = flags & 0xFF
        if number in _PAIRS:
            return self._pairs(flags, depth)
        if number == _CHARACTERS:
            return self._text(flags)
        if number == _REFERENCE:
            place = flags >> 8 or self.number()
            if not 0 < place <= len(self._known):
                raise ValueError(f"a serialization that refers to object {place} of {len(self._known)}")
            return self._known[place - 1]
        if number == _SYMBOL:
            self._known.append(None)
            place = len(self._known) - 1
            self._known[place] = self.item(depth + 1)
            return self._known[place]
        if number == _ALTREP:
            return self._altrep(depth)
        value: Any
        if number in _NUMBERS:
            dtype = _NUMBERS[number]
            value = np.frombuffer(self.take(self.count(dtype.itemsize) * dtype.itemsize), dtype)
        elif number == _RAW:
            value = np.frombuffer(self.take(self.count(1)), "u1")
        elif number == _STRINGS:
            value = [self._string() for _ in range(self.count(8))]
        elif number in (_LIST, _EXPRESSION):
            value = [self.item(depth + 1) for _ in range(self.count(4))]
        elif number == _NIL or number in _SINGLE:
            return None
        elif number == _ENVIRONMENT or number in _NAMED:
            return self._environment(number, depth)
        else:
            value = None
            self._skip(number, depth)
        if flags & _HAS_ATTRIBUTES:
            names = self._names(self.item(depth + 1))
            if number == _LIST and names is not None and len(names) == len(value):
                return _keyed(names, value)
        return value

    def _string(self) -> str | None:
        flags = self.number()
        if flags & 0xFF != _CHARACTERS:
            raise ValueError(f"a serialization with an object of type {flags & 0xFF} for a string")
        return self._text(flags)

    def _text(self, flags: int) -> str | None:
        length = self.number()
        if length == -1:
            return None
        levels = flags >> 12
        encoding = 2 if levels & _LATIN1 else 3 if levels & _BYTES else 1 if levels & 0x48 else self._native
        return decode_text(self.take(length), encoding)

    def _pairs(self, flags: int, depth: int) -> Any:
        """Return a pairlist, which is a chain: the rest of it is no deeper."""
        number = flags & 0xFF
        names: list[Any] = []
        values: list[Any] = []
        while flags & 0xFF in _PAIRS:
            if flags & _HAS_ATTRIBUTES:
                self.item(depth + 1)
            names.append(self.item(depth + 1) if flags & _HAS_TAG else "")
            values.append(self.item(depth + 1))
            flags = self.number()
        if flags & 0xFF != _NIL:  # a dotted pair: a function's body, or what a short form stands for
            self._at -= 4
            last = self.item(depth + 1)
            return [*values, last] if number == _PAIRLIST else None
        return _keyed(names, values) if number == _PAIRLIST else None

    def _environment(self, number: int, depth: int) -> None:
        self._known.append(None)
        self.number()
        if number == _ENVIRONMENT:
            for _ in range(4):
                self.item(depth + 1)
        else:
            for _ in range(self.count(8)):
                self._string()

    def _skip(self, number: int, depth: int) -> None:
        """Pass over what is no data and may have attributes."""
        if number in (_POINTER, _WEAK):
            self._known.append(None)
        if number == _POINTER:
            self.item(depth + 1)
            self.item(depth + 1)
        elif number in (7, 8):  # a function of R's own, by its name
            self.take(self.count(1))
        elif number == _BYTECODE:
            raise OpaqueError("bytecode")
        elif number not in (_WEAK, _S4):
            raise ValueError(f"a serialization with an object of type {number}")

    def _altrep(self, depth: int) -> Any:
        """Return an object that R wrote in a short form: a sequence, numbers as strings, a wrapper."""
        info, state = _values(self.item(depth + 1)), self.item(depth + 1)
        self.item(depth + 1)
        name = info[0] if info else None
        if name in ("compact_intseq", "compact_realseq"):
            count, first, step = map(int, state)
            if count < 0 or step not in (-1, 1):
                raise ValueError(f"a sequence of {count} numbers from {first} by {step}")
            return range(first, first + step * count, step)
        if name == "deferred_string":
            numbers, (scipen,) = _values(state)
            if isinstance(numbers, range):
                return Texts(numbers)
            if numbers.dtype == _NUMBERS[13]:
                return [None if number == _NA else str(number) for number in numbers.tolist()]
            missing = np.isnan(numbers) & (numbers.view(np.uint64) & 0xFFFFFFFF == _NA_WORD)
            return [
                None if gone else _shortest(number, int(scipen))
                for number, gone in zip(numbers.tolist(), missing.tolist(), strict=True)
            ]
        if isinstance(name, str) and name.startswith("wrap_"):
            return _values(state)[0]
        raise OpaqueError(f"an object of the form {name!r}")

    @staticmethod
    def _names(attributes: Any) -> Any:
        return attributes.get("names") if isinstance(attributes, dict) else None


def _shortest(number: float, scipen: int) -> str:
    """Return a double as R's ``as.character`` does: 15 digits at most, in the shorter of two notations."""
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Inf" if number > 0 else "-Inf"
    digits = next(n for n in range(15) if n == 14 or float(f"{number:.{n}e}") == float(f"{number:.14e}"))
    scientific = f"{number:.{digits}e}"
    fixed = f"{number:.{max(0, digits - int(scientific.partition('e')[2]))}f}"
    return fixed if len(fixed) <= len(scientific) + scipen else scientific


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else list(value or ())


def _keyed(names: Sequence[Any], values: list[Any]) -> Any:
    named = dict(zip(names, values, strict=True))
    return named if len(named) == len(values) and None not in named else values


def write(attributes: Mapping[str, Any], *, pairs: bool) -> bytes:
    """Return serialized attributes: a pairlist, as R before 4.6 wants it, or a named list.

    Values are lists of str and None, arrays of int32 or float64, None for NULL, and tuples of these.
    """
    if pairs:
        return _HEADER + _pairlist(attributes)
    items = b"".join(map(_item, attributes.values()))
    names = _pairlist({"names": [*attributes]})
    return _HEADER + _INT.pack(_LIST | _HAS_ATTRIBUTES) + _INT.pack(len(attributes)) + items + names


def _pairlist(named: Mapping[str, Any]) -> bytes:
    parts = (
        _INT.pack(_PAIRLIST | _HAS_TAG) + _INT.pack(_SYMBOL) + _string(name) + _item(value)
        for name, value in named.items()
    )
    return b"".join(parts) + _INT.pack(_NIL)


def _item(value: Any) -> bytes:
    if value is None:
        return _INT.pack(_NIL)
    if isinstance(value, np.ndarray):
        number = {"i4": 13, "f8": 14}[value.dtype.str[1:]]
        return _INT.pack(number) + _INT.pack(len(value)) + value.tobytes()
    number, each = (_LIST, _item) if isinstance(value, tuple) else (_STRINGS, _string)
    return _INT.pack(number) + _INT.pack(len(value)) + b"".join(map(each, value))


def _string(text: str | None) -> bytes:
    if text is None:
        return _INT.pack(_CHARACTERS) + _INT.pack(-1)
    data = text.encode()
    level = 64 if text.isascii() else 8
    return _INT.pack(_CHARACTERS | level << 12) + _INT.pack(len(data)) + data
