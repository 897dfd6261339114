"""Small containers inside others: one node of plain tagged bytes, which opens as the exact builtin.

Imports codec and layout. A record of a few fields costs one node instead of one a field. Only lists,
tuples, dicts, sets and frozensets of None, bool, int, float, complex, str and bytes, exact types, and of
such containers again; whatever is lazy or larger keeps its container a view.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Sequence
from typing import Any, Final

from mori.format import codec
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.layout import Codec as Id
from mori.format.node import Node

__all__ = ["DEEPEST", "MOST", "SmallCodec", "encode", "is_fixed", "pack"]

MOST: Final = 512
"""Bytes that a small container has, at most."""
DEEPEST: Final = 16
"""Containers that stand in each other, at most."""

_COUNT: Final = struct.Struct("<H")
_FLOAT: Final = struct.Struct("<d")
_COMPLEX: Final = struct.Struct("<dd")
_MUTABLE: Final = (list, dict, set)


class _TooMuch(Exception):  # noqa: N818
    pass


class _Writer:
    """The bytes of one container; counts them, so that little is done for what turns out to be large."""

    __slots__ = ("apart", "left", "parts", "seen")

    def __init__(self, apart: Container[int] = ()) -> None:
        self.apart = apart
        self.parts: list[bytes] = []
        self.left = MOST
        self.seen: dict[int, Any] = {}

    def put(self, obj: Any, depth: int) -> None:
        write = _WRITERS.get(type(obj))
        if write is None:
            raise _TooMuch
        data = write(obj)
        self.left -= len(data)
        if self.left < 0:
            raise _TooMuch
        self.parts.append(data)
        if type(obj) in _CONTAINERS:
            if depth == DEEPEST or len(obj) > self.left:
                raise _TooMuch
            self._inside(obj, depth + 1)

    def _inside(self, obj: Any, depth: int) -> None:
        cls = type(obj)
        if cls in _MUTABLE:
            # One list in two places is one list.
            if id(obj) in self.seen or (depth > 1 and id(obj) in self.apart):
                raise _TooMuch
            self.seen[id(obj)] = obj
        put = self.put
        if cls is dict:
            for key, value in obj.items():
                put(key, depth)
                put(value, depth)
        elif cls is list or cls is tuple:
            for element in obj:
                put(element, depth)
        else:
            self._put_sorted(obj, depth)

    def _put_sorted(self, obj: Any, depth: int) -> None:
        """Sink the elements of a set by their bytes: two processes have them in two orders."""
        parts, elements = self.parts, []
        for element in obj:
            self.parts = []
            self.put(element, depth)
            elements.append(b"".join(self.parts))
        self.parts = parts
        parts += sorted(elements)


def _sized(tag: bytes) -> Callable[[Any], bytes]:
    def write(obj: Any) -> bytes:
        if len(obj) > MOST:
            raise _TooMuch
        return tag + _COUNT.pack(len(obj))

    return write


def _with_length(tag: bytes, body: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def write(obj: Any) -> bytes:
        data = body(obj)
        if len(data) > MOST:
            raise _TooMuch
        return tag + _COUNT.pack(len(data)) + data

    return write


def _of_int(obj: int) -> bytes:
    nbytes = obj.bit_length() // 8 + 1
    if nbytes > MOST:
        raise _TooMuch
    return obj.to_bytes(nbytes, "little", signed=True)


def _of_str(obj: str) -> bytes:
    if len(obj) > MOST:
        raise _TooMuch
    return obj.encode("utf-8", "surrogatepass")


_CONTAINERS: Final = {list: b"[", tuple: b"(", dict: b"{", set: b"<", frozenset: b">"}
_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda obj: b"n",
    bool: lambda obj: b"t" if obj else b"f",
    int: _with_length(b"i", _of_int),
    float: lambda obj: b"d" + _FLOAT.pack(obj),
    complex: lambda obj: b"c" + _COMPLEX.pack(obj.real, obj.imag),
    str: _with_length(b"s", _of_str),
    bytes: _with_length(b"b", bytes),
    **{cls: _sized(tag) for cls, tag in _CONTAINERS.items()},
}


def encode(obj: Any) -> bytes | None:
    """Return the bytes of a small container, None for one that is not small, or holds anything else."""
    writer = _Writer()
    try:
        writer.put(obj, 0)
    except _TooMuch:
        return None
    return b"".join(writer.parts)


def pack(obj: Any, apart: Container[int]) -> tuple[Encoded, dict[int, Any]] | None:
    """Take a small container apart; None for one that is not.

    Parameters
    ----------
    obj : object
        Whatever stands inside a container.
    apart : container of int
        Ids of the lists, dicts and sets that may not stand inside another small container.

    Returns
    -------
    tuple of Encoded and dict, or None
        With the lists, dicts and sets in it, itself included, by their ids.
    """
    if type(obj) not in _CONTAINERS:
        return None
    writer = _Writer(apart)
    try:
        writer.put(obj, 0)
    except _TooMuch:
        return None
    return Encoded(b"".join(writer.parts), (), (), Id.SMALL), writer.seen


def is_fixed(obj: Any) -> bool:
    """Say whether a small container, and all that is in it, is immutable."""
    cls = type(obj)
    return cls not in _MUTABLE and (cls is not tuple or all(map(is_fixed, obj)))


class _Reader:
    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, nbytes: int) -> bytes:
        piece = self.data[self.at : self.at + nbytes]
        if len(piece) != nbytes:
            raise ValueError(f"it ends after {len(self.data)} bytes")
        self.at += nbytes
        return piece

    def value(self, depth: int) -> Any:
        tag = self.take(1)
        if tag in b"ntf":
            return {b"n": None, b"t": True, b"f": False}[tag]
        if tag == b"d":
            return _FLOAT.unpack(self.take(8))[0]
        if tag == b"c":
            return complex(*_COMPLEX.unpack(self.take(16)))
        (count,) = _COUNT.unpack(self.take(2))
        if tag == b"s":
            return self.take(count).decode("utf-8", "surrogatepass")
        if tag == b"i":
            return int.from_bytes(self.take(count), "little", signed=True)
        if tag == b"b":
            return self.take(count)
        if depth == DEEPEST:
            raise ValueError(f"more than {DEEPEST} containers in each other")
        value, depth = self.value, depth + 1
        if tag == b"{":
            items = {value(depth): value(depth) for _ in range(count)}
            return self._distinct(items, count)
        elements = [value(depth) for _ in range(count)]
        if tag == b"[":
            return elements
        if tag == b"(":
            return tuple(elements)
        if tag in b"<>":
            return self._distinct(set(elements) if tag == b"<" else frozenset(elements), count)
        raise ValueError(f"there is no tag {tag!r}")

    def _distinct(self, made: Any, count: int) -> Any:
        if len(made) != count:
            raise ValueError("keys or elements that are not distinct")
        return made


class SmallCodec(BuiltinCodec):
    """A small container inside another."""

    id = Id.SMALL

    pack = staticmethod(pack)

    def encode(self, obj: Any) -> Encoded | None:
        meta = encode(obj)
        return None if meta is None else Encoded(meta, (), (), Id.SMALL)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        if len(meta) > MOST or meta[:1] not in (b"[", b"(", b"{", b"<", b">"):
            raise ValueError(f"no container, or one of {len(meta)} bytes")
        reader = _Reader(meta)
        obj = reader.value(0)
        if reader.at != len(meta):
            raise ValueError(f"{len(meta) - reader.at} bytes too many")
        return obj

    def part(self, node: Node, number: int) -> None:
        """Return None: its elements have no nodes of their own."""

    def step(self, obj: Any, index: int) -> str:
        raise AssertionError("a small container has no parts that could fail")


codec.register(SmallCodec())
