"""Arrow-backed columns over a region, which pickle as references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mori.codecs.pandas.arrow import ArrowColumnCodec, StringCodec
from mori.codecs.pandas.versions import ARROW_ARRAYS, STRING_ARRAYS, pa
from mori.format.codec import Codec, Range, Strides, register
from mori.format.node import Node, decode, root_of
from mori.memory.mapping import mapping_at
from mori.wire import reference, transport

__all__ = ["is_same_column", "node_of_arrow", "plain_column"]


class _Column:
    """An Arrow-backed column over a region; slices of it pickle as references."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        node = node_of_arrow(self)
        part = None if node is None else _part(self, node)
        if node is not None and part is not None and transport.is_wanted(node.mapping):
            return reference.by_reference(node.mapping, node.offset, part)
        return _same, (plain_column(self),)


def _same(values: Any) -> Any:
    return values


def _over(cls: Any, strings: Any) -> Any:
    """Return an array of another class over the same memory."""
    made = cls.__new__(cls)
    made.__dict__.update(vars(strings))
    return made


def plain_column(values: Any) -> Any:
    """Return pandas' own array over the same memory; None for what is no column of mori's."""
    return _over(_PLAIN[type(values)], values) if isinstance(values, _Column) else None


def _chunks(strings: Any) -> Sequence[Any]:
    array = strings.__arrow_array__()
    return array.chunks if isinstance(array, pa.ChunkedArray) else [array]


def node_of_arrow(values: Any) -> Node | None:
    """Return the node that an Arrow-backed array lies in; None for derived ones, and for any other."""
    if not isinstance(values, _Column):
        return None
    for chunk in _chunks(values):
        for buffer in chunk.buffers():
            if buffer is not None and buffer.size:
                mapping = mapping_at(buffer.address, buffer.size)
                node = None if mapping is None else root_of(mapping).under(buffer.address - mapping.address)
                while node is not None and node.codec not in (_STRINGS, _COLUMNS):
                    node = node.parent()
                return node
    return None


def is_same_column(one: Any, other: Any) -> bool:
    """Return whether two arrays are the same elements of the same column of a region."""
    return isinstance(one, _Column) and list(map(_where, _chunks(one))) == list(map(_where, _chunks(other)))


def _part(values: Any, node: Node) -> Range | None:
    """Return start and length of a slice of a column of one chunk, or of all of one that has more."""
    whole, chunks = _chunks(decode(node)), _chunks(values)
    if len(whole) == len(chunks) == 1:
        return Range(chunks[0].offset, len(chunks[0]))
    if list(map(_where, chunks)) == list(map(_where, whole)):
        return Range(0, len(values))
    return None


def _where(chunk: Any) -> Any:
    buffers = [None if buffer is None else buffer.address for buffer in chunk.buffers()]
    return chunk.offset, len(chunk), buffers


class _Columns(Codec):
    """How columns of Arrow are opened, and parts of them."""

    def open(self, node: Node) -> Any:
        column = self.read(node)
        return _over(_SHARED[type(column)], column)

    def view(self, node: Node, view: Strides | Range) -> Any:
        if not isinstance(view, Range):
            raise node.decode_error("a reference takes it for an array")
        whole, (start, length) = self.open(node), view
        if start + length > len(whole):
            raise node.decode_error("a reference asks for a part that leaves it")
        return whole[start : start + length]


class _StringCodec(_Columns, StringCodec):
    """Columns of strings."""


class _ArrowColumnCodec(_Columns, ArrowColumnCodec):
    """Columns of any type of Arrow."""


_SHARED: Final[dict[type, Any]] = {
    plain: type(f"Shared{plain.__name__}", (_Column, plain), {"__module__": __name__})
    for plain in ARROW_ARRAYS
}
_PLAIN: Final = {shared: plain for plain, shared in _SHARED.items()}
_OWN: Final = tuple(cls for cls in ARROW_ARRAYS if cls not in STRING_ARRAYS)
_STRINGS, _COLUMNS = _StringCodec(), _ArrowColumnCodec()
register(_STRINGS, *STRING_ARRAYS, *(_SHARED[cls] for cls in STRING_ARRAYS if cls in _SHARED))
register(_COLUMNS, *_OWN, *(_SHARED[cls] for cls in _OWN))
