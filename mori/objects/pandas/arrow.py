"""Arrow-backed columns over a region, which travel.

Imports reference, reader, region and the pandas codecs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mori.codecs import pandas as codecs
from mori.format import codec
from mori.format.layout import Codec as Id
from mori.format.node import Node, decode, opener, root_of
from mori.memory import region
from mori.wire import reference

__all__ = ["node_of_arrow"]


class _Column:
    """An Arrow-backed column over a region; slices of it pickle as references."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        node = node_of_arrow(self)
        part = None if node is None else _part(self, node)
        if node is not None and part is not None and reference.is_wanted(node.mapping):
            return reference.by_reference(node.mapping, node.offset, part)
        return _same, (_over(_PLAIN[type(self)], self),)


def _same(values: Any) -> Any:
    return values


def _over(cls: Any, strings: Any) -> Any:
    """Return an array of another class over the same memory."""
    made = cls.__new__(cls)
    made.__dict__.update(vars(strings))
    return made


def _chunks(strings: Any) -> Sequence[Any]:
    array = strings.__arrow_array__()
    return array.chunks if isinstance(array, codecs.pa.ChunkedArray) else [array]


def node_of_arrow(values: Any) -> Node | None:
    """Return the node that an Arrow-backed array lies in; None for derived ones, and for any other."""
    if not isinstance(values, _Column):
        return None
    for chunk in _chunks(values):
        for buffer in chunk.buffers():
            if buffer is not None and buffer.size:
                mapping = region.at(buffer.address, buffer.size)
                node = None if mapping is None else root_of(mapping).under(buffer.address - mapping.address)
                while node is not None and node.record.codec not in _COLUMNS:
                    node = node.parent()
                return node
    return None


_COLUMNS: Final = (Id.STRING_ARRAY, Id.ARROW_COLUMN)


def _part(values: Any, node: Node) -> tuple[int, int] | None:
    """Return start and length of a slice of a column of one chunk, or of all of one that has more."""
    whole, chunks = _chunks(decode(node)), _chunks(values)
    if len(whole) == len(chunks) == 1:
        return chunks[0].offset, len(chunks[0])
    if [_where(chunk) for chunk in chunks] == [_where(chunk) for chunk in whole]:
        return 0, len(values)
    return None


def _where(chunk: Any) -> Any:
    buffers = [None if buffer is None else buffer.address for buffer in chunk.buffers()]
    return chunk.offset, len(chunk), buffers


def _open(node: Node) -> Any:
    column = decode(node)
    return _over(_SHARED[type(column)], column)


for _id in _COLUMNS:
    opener(_id)(_open)


_SHARED: Final[dict[type, Any]] = {
    plain: type(f"Shared{plain.__name__}", (_Column, plain), {"__module__": __name__})
    for plain in codecs.ARROW_ARRAYS
}
_PLAIN: Final = {shared: plain for plain, shared in _SHARED.items()}
for _shared, _plain in _PLAIN.items():
    _codec = codec.for_type(_plain)
    assert _codec is not None
    codec.register(_codec, _shared)
