"""list and tuple: nodes with one child an element, decoded by the views when they are asked.

Imports codec and layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mori import codec
from mori.codec import Buffers, Encoded
from mori.layout import Codec as Id

__all__ = ["SequenceCodec", "Values"]


class Values(list[Any]):
    """The values of a dict, which know their keys for the sake of error messages."""

    keys: list[Any]


class SequenceCodec:
    """A list or a tuple."""

    def __init__(self, number: int) -> None:
        self.id = number

    def encode(self, obj: Sequence[Any]) -> Encoded:
        return Encoded(b"", (), obj)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        items = list(children)
        return tuple(items) if self.id == Id.TUPLE else items

    def step(self, obj: Any, index: int) -> str:
        return f"[{obj.keys[index]!r}]" if isinstance(obj, Values) else f"[{index}]"


codec.register(SequenceCodec(Id.LIST), list, Values)
codec.register(SequenceCodec(Id.TUPLE), tuple)
