"""set and frozenset: one child, the list of the elements.

Imports codec, layout and the codec of lists. A small one that stands inside another container goes by
`small`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from mori.codecs.containers import Elements
from mori.format import codec
from mori.format.codec import Buffers, Encoded
from mori.format.layout import Codec as Id

__all__ = ["SetCodec"]


class SetCodec:
    """A set or a frozenset."""

    def __init__(self, number: int) -> None:
        self.id = number

    def encode(self, obj: Set[Any]) -> Encoded:
        return Encoded(b"", (), (Elements(obj),))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        (elements,) = children
        return (set if self.id == Id.SET else frozenset)(elements)

    def step(self, obj: Any, index: int) -> str:
        return ""


codec.register(SetCodec(Id.SET), set)
codec.register(SetCodec(Id.FROZENSET), frozenset)
