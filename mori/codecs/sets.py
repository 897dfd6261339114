"""set and frozenset: one child, the list of the elements.

Imports codec, layout and the codec of lists. A small one that stands inside another container goes by
`small`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from mori.codecs.containers import Elements
from mori.format.codec import Buffers, BuiltinCodec, Encoded

__all__ = ["SetCodec"]


class SetCodec(BuiltinCodec):
    """A set or a frozenset."""

    def __init__(self, number: int, kind: type[set[Any] | frozenset[Any]]) -> None:
        self.id = number
        self.kind = kind

    def encode(self, obj: Set[Any]) -> Encoded:
        return Encoded(b"", (), (Elements(obj),))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        (elements,) = children
        return self.kind(elements)

    def step(self, obj: Any, index: int) -> str:
        return ""
