"""A further reference to a node of the same region: the distance back to it, in the meta.

Imports codec and layout. The plan writes aliases, and the reader follows them when a child is asked
for, so neither way leads through this codec: it stands for the id, and refuses an alias that is no child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from mori.format import codec
from mori.format.codec import Buffers, BuiltinCodec
from mori.format.layout import Codec as Id

__all__ = ["AliasCodec"]


class AliasCodec(BuiltinCodec):
    """A further reference to an object."""

    id = Id.ALIAS

    def encode(self, obj: Any) -> NoReturn:
        raise AssertionError("no type is written as an alias")

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> NoReturn:
        raise ValueError("it is an alias that stands alone")


codec.register(AliasCodec())
