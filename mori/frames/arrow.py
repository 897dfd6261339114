"""Arrow-backed columns over a region, which travel.

Imports reference, reader, region and the pandas codecs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mori import codec, reference, region
from mori.codecs import pandas as codecs
from mori.layout import Codec as Id
from mori.reader import Node, decode, opener, root_of

__all__ = ["node_of_arrow"]


class _Strings:
    """Arrow-backed strings over a region; slices of them pickle as references."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        node = node_of_arrow(self)
        if node is not None and reference.is_wanted(node.mapping):
            (chunk,) = _chunks(self)
            return reference.by_reference(node.mapping, node.offset, (chunk.offset, len(chunk)))
        return _same, (_over(_PLAIN[type(self)], self),)


def _same(values: Any) -> Any:
    return values


def _over(cls: Any, strings: Any) -> Any:
    """Return an array of another class over the same memory."""
    made = cls(strings.__arrow_array__())
    made._dtype = strings.dtype
    return made


def _chunks(strings: Any) -> Sequence[Any]:
    array = strings.__arrow_array__()
    return array.chunks if isinstance(array, codecs.pa.ChunkedArray) else [array]


def node_of_arrow(values: Any) -> Node | None:
    """Return the node that an Arrow-backed array lies in; None for derived ones, and for any other."""
    if not isinstance(values, _Strings):
        return None
    chunks = _chunks(values)
    if len(chunks) != 1 or (offsets := chunks[0].buffers()[1]) is None:
        return None
    mapping = region.at(offsets.address, offsets.size)
    if mapping is None:
        return None
    node = root_of(mapping).under(offsets.address - mapping.address)
    return node if node.record.codec == Id.STRING_ARRAY else None


@opener(Id.STRING_ARRAY)
def _open_strings(node: Node) -> Any:
    strings = decode(node)
    return _over(_SHARED[type(strings)], strings)


_SHARED: Final[dict[type, Any]] = {
    plain: type(f"Shared{plain.__name__}", (_Strings, plain), {"__module__": __name__})
    for plain in codecs.STRING_ARRAYS
}
_PLAIN: Final = {shared: plain for plain, shared in _SHARED.items()}
_codec = codec.for_id(Id.STRING_ARRAY)
assert _codec is not None
codec.register(_codec, *_PLAIN)
