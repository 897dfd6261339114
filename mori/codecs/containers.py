"""list and tuple: nodes with one child an element, decoded by the views when they are asked.

Imports codec and layout.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mori.codecs import packed, strings
from mori.codecs.kinds import kinds_of
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.node import Node

__all__ = ["Elements", "SequenceCodec", "Values"]


class Values(list[Any]):
    """The values of a dict, which know their keys for the sake of error messages."""

    of: Mapping[Any, Any]


class Elements(list[Any]):
    """The elements of a set, which have no places that a user would know."""


class SequenceCodec(BuiltinCodec):
    """A list or a tuple."""

    def __init__(self, number: int, kind: type[list[Any] | tuple[Any, ...]]) -> None:
        self.id = number
        self.kind = kind

    def encode(self, obj: Sequence[Any]) -> Encoded:
        column = _packed(obj)
        return Encoded(b"", (), obj) if column is None else column

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        return self.kind(children)

    def step(self, obj: Any, index: int) -> str:
        if isinstance(obj, Elements):
            return ""
        return (
            f"[{next(itertools.islice(obj.of, index, None))!r}]" if isinstance(obj, Values) else f"[{index}]"
        )

    def part(self, node: Node, number: int) -> Node:
        if number >= len(node):
            raise IndexError(f"out of bounds: there are {len(node)} elements")
        return node.child(number)

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...]:
        return (child.record.place,)

    def inside(self, obj: Any, number: int) -> Any:
        if number >= len(obj):
            raise IndexError(f"out of bounds: there are {len(obj)} elements")
        return obj[number]


def _packed(obj: Sequence[Any]) -> Encoded | None:
    """Return what is all of one kind as one node."""
    kinds = kinds_of(obj)
    missing = type(None) in kinds
    kinds.discard(type(None))
    if len(kinds) != 1:
        return None
    (cls,) = kinds
    return strings.pack(obj, missing) if cls is str else packed.pack(obj, cls, missing)
