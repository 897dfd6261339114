"""dict: its values in a child, its keys in an index of its own, or in a child where they cannot have one.

Imports codec, layout, the lists and the index. The values are the last child.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from mori.codecs import packed
from mori.codecs.containers import Values
from mori.codecs.index import Index, build
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.layout import Codec as Id
from mori.format.node import Node

__all__ = ["DictCodec"]


class DictCodec(BuiltinCodec):
    """A dict, in its order."""

    id = Id.DICT
    has_keys = True

    def encode(self, obj: dict[Any, Any]) -> Encoded:
        index = build(obj)
        if index is not None and (numbers := packed.numbers(obj.values())) is not None:
            return Encoded(index.meta, index.buffers, (numbers,))
        values = Values(obj.values())
        values.of = obj
        if index is not None:
            return Encoded(index.meta, index.buffers, (values,))
        return Encoded(b"", (), (list(obj), values))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> dict[Any, Any]:
        *keys, values = children
        return dict(zip(Index(meta, buffers) if meta else keys[0], values, strict=True))

    def step(self, obj: Any, index: int) -> str:
        # Only keys that have no index are a child, and they alone can fail.
        return ".keys()" if index == 0 and build(obj) is None else ""

    def part(self, node: Node, number: int) -> Node | None:
        values = node.child(len(node) - 1)
        return values.codec.part(values, number)

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...] | None:
        return () if child.record.place == len(node) - 1 else None

    def inside(self, obj: Any, number: int) -> Any:
        if number >= len(obj):
            raise IndexError(f"out of bounds: there are {len(obj)} elements")
        return next(itertools.islice(obj.values(), number, None))
