"""Arrow arrays taken apart into plain data and buffers, and put together over the buffers of a region.

The layout of a type is Arrow's own (its columnar format), normalized: every array starts at its first
element, and a slice has the buffers of a slice. What is whole is written straight from its source; a slice
copies bits that start inside a byte, and offsets that do not start at 0.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from mori.memory.mapping import address_of

__all__ = [
    "Pieces",
    "check_missing",
    "checked",
    "put_together",
    "schema_from_plain",
    "schema_to_plain",
    "take_apart",
]

_INLINE: Final = 12  # bytes of a string view that stand in the view itself
_BLOCK: Final = 1 << 16  # views that are looked at together
_NONE: Final = -1  # a buffer that is not there
_NO_OFFSETS: Final = pa.py_buffer(bytes(8))  # of an array that has no elements


class Pieces(list[npt.NDArray[Any]]):
    """The buffers of what is taken apart, each once: chunks often share a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[int, int], int] = {}

    def add(self, piece: npt.NDArray[Any]) -> int:
        """Return the place of a buffer."""
        where = address_of(piece), piece.nbytes
        if piece.nbytes and where in self._places:
            return self._places[where]
        self._places[where] = len(self)  # what is in the list is not freed: no other has its address
        self.append(piece)
        return len(self) - 1


def schema_to_plain(schema: pa.Schema) -> str:
    """Return a schema as text; ValueError for one that Arrow would not give back as it is.

    That is so for extension types that are not registered, and for types nested too deeply.
    """
    data = schema.serialize().to_pybytes()
    if not pa.ipc.read_schema(pa.py_buffer(data)).equals(schema, check_metadata=True):
        raise ValueError("its type is not registered with pyarrow")
    return base64.b64encode(data).decode()


def schema_from_plain(plain: str) -> pa.Schema:
    """Return the schema that `schema_to_plain` wrote; ValueError for one whose names are no text."""
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(plain, validate=True)))
    for field in schema:
        _read_names(field)
    return schema


def _read_names(field: pa.Field) -> None:
    """Read what Arrow decodes only when somebody asks for it, which would raise there."""
    _ = field.name
    kind = field.type
    while isinstance(kind, pa.BaseExtensionType) or types.is_dictionary(kind):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    if types.is_timestamp(kind):
        _ = kind.tz
    elif types.is_run_end_encoded(kind):
        _read_names(pa.field("", kind.value_type))
    else:
        for number in range(kind.num_fields):
            _read_names(kind.field(number))


def take_apart(array: pa.Array, into: Pieces) -> list[Any]:
    """Return an array as plain data, ``[length, nulls, places of its buffers, its children]``.

    Its buffers are put into `into`; those of its first dimensions come first, as Arrow orders them.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return take_apart(array.storage, into)
    if types.is_run_end_encoded(kind):
        return _take_runs(array, into)
    own = array.buffers()
    start, length = array.offset, len(array)
    nulls = 0 if types.is_union(kind) else array.null_count
    places = [_NONE]
    if nulls and not types.is_null(kind):
        places[0] = into.add(_bits(own[0], start, length))
    children: list[pa.Array] = []
    rest: list[npt.NDArray[Any]] = []
    if types.is_dictionary(kind):
        rest = [_elements(own[1], kind.index_type.bit_width, start, length)]
        children = [array.dictionary]
    elif types.is_struct(kind):
        children = [array.field(number) for number in range(kind.num_fields)]
    elif types.is_fixed_size_list(kind):
        children = [array.values.slice(start * kind.list_size, length * kind.list_size)]
    elif types.is_union(kind):
        rest, children = _take_union(array)
    elif _is_list_view(kind):
        rest, children = _take_list_view(array)
    elif _is_view(kind):
        rest = _take_views(array)
    elif _has_offsets(kind):
        offsets, first, last = _offsets(own[1], _is_large(kind), start, length)
        rest = [offsets]
        if _is_text(kind):
            rest.append(_bytes(own[2])[first:last])
        else:
            children = [array.values.slice(first, last - first)]
    elif not types.is_null(kind):
        rest = [_elements(own[1], kind.bit_width, start, length)]
    places += [into.add(piece) for piece in rest]
    return [length, nulls, places, [take_apart(child, into) for child in children]]


def put_together(kind: pa.DataType, plain: Any, buffers: Sequence[npt.NDArray[np.uint8]]) -> pa.Array:
    """Return the array that `take_apart` took apart, over the same memory; it is not `checked` yet."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(put_together(kind.storage_type, plain, buffers))
    length, nulls, places, parts = plain
    if not (type(length) is type(nulls) is int and 0 <= nulls <= length < 1 << 62):
        raise ValueError(f"{nulls} of {length} elements are missing")
    if not all(type(place) is int and _NONE <= place < len(buffers) for place in places):
        raise ValueError(f"buffers {places} of {len(buffers)}")
    own = [None if place == _NONE else pa.py_buffer(buffers[place]) for place in places]
    # Arrow, which looks at their number elsewhere, reads past those of a dictionary, ends the process where a
    # union has a bitmap of what is missing, and reads views, types and offsets that are not there.
    if types.is_run_end_encoded(kind):
        fits = True
    elif _is_view(kind):
        fits = len(own) >= kind.num_buffers and _NONE not in places[1:]
    elif types.is_union(kind):
        fits = len(own) == kind.num_buffers and own[0] is None and _NONE not in places[1:]
    else:
        fits = len(own) == kind.num_buffers
    if not fits:
        raise ValueError(f"buffers {places} for an array of {kind}")
    if not length and _has_offsets(kind):
        # The only offset is not validated, but followed into the children, also where it is missing.
        first = b"" if places[1] == _NONE else bytes(buffers[places[1]][:8])
        if len(first) < (8 if _is_large(kind) else 4) or any(first):
            own[1] = _NO_OFFSETS
    if types.is_dictionary(kind):
        (part,) = parts
        dictionary = put_together(kind.value_type, part, buffers)
        if hasattr(pa.DictionaryArray, "from_buffers"):
            return pa.DictionaryArray.from_buffers(kind, length, own, dictionary, nulls)
        codes = pa.Array.from_buffers(kind.index_type, length, own, nulls)
        return pa.DictionaryArray.from_arrays(codes, dictionary, ordered=kind.ordered, safe=False)
    if types.is_run_end_encoded(kind):
        inner = [kind.run_end_type, kind.value_type]
        children = [put_together(*child, buffers) for child in zip(inner, parts, strict=True)]
        return pa.RunEndEncodedArray.from_buffers(kind, length, [None], 0, 0, children)
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    children = [put_together(*child, buffers) for child in zip(inner, parts, strict=True)]
    return pa.Array.from_buffers(kind, length, own, nulls, 0, children or None)


def checked(array: Any, *, trusted: bool) -> Any:
    """Return an array that is safe to use; pa.ArrowInvalid for one that is not.

    That costs nothing for trusted memory; what came from elsewhere, or could have been changed, is read
    through once.
    """
    array.validate(full=not trusted)
    return array


def check_missing(array: pa.Array) -> None:
    """Check the views of missing strings, too, at every depth; pa.ArrowInvalid for one that leads outside.

    Arrow passes over them, whatever they hold. polars reads them.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        check_missing(array.storage)
    elif types.is_dictionary(kind):
        check_missing(array.dictionary)
    elif types.is_struct(kind):
        for number in range(kind.num_fields):
            check_missing(array.field(number))
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        check_missing(array.values)
    elif _is_view(kind) and array.null_count:
        _, *own = array.buffers()
        pa.Array.from_buffers(kind, len(array), [None, *own], 0, array.offset).validate(full=True)


def _is_large(kind: pa.DataType) -> bool:
    return bool(types.is_large_list(kind) or types.is_large_string(kind) or types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_binary(kind)) or (
        _is_large(kind) and not types.is_large_list(kind)
    )


def _has_offsets(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind))


def _is_view(kind: pa.DataType) -> bool:
    return hasattr(types, "is_string_view") and bool(types.is_string_view(kind) or types.is_binary_view(kind))


def _is_list_view(kind: pa.DataType) -> bool:
    return hasattr(types, "is_list_view") and bool(types.is_list_view(kind) or types.is_large_list_view(kind))


def _bytes(buffer: pa.Buffer | None) -> npt.NDArray[np.uint8]:
    """Return a buffer's bytes, none for one that is not there."""
    if buffer is None or not buffer.size:
        return np.empty(0, np.uint8)
    if not buffer.is_cpu:
        raise ValueError("it does not lie in this machine's memory")
    return np.frombuffer(buffer, np.uint8)


def _bits(buffer: pa.Buffer, start: int, length: int) -> npt.NDArray[np.uint8]:
    data = _bytes(buffer)[start // 8 : (start + length + 7) // 8]
    if not (shift := start % 8):
        return data
    moved = data >> np.uint8(shift)
    moved[:-1] |= data[1:] << np.uint8(8 - shift)
    return moved[: (length + 7) // 8]


def _elements(buffer: pa.Buffer | None, bits: int, start: int, length: int) -> npt.NDArray[np.uint8]:
    if bits == 1 and buffer is not None:
        return _bits(buffer, start, length)
    return _bytes(buffer)[start * bits // 8 : (start + length) * bits // 8]


def _integers(buffer: pa.Buffer | None, dtype: str, start: int, length: int) -> npt.NDArray[Any]:
    width = np.dtype(dtype).itemsize
    return _bytes(buffer)[start * width : (start + length) * width].view(dtype)


def _offsets(buffer: pa.Buffer | None, large: bool, start: int, length: int) -> Any:
    """Return the offsets of a slice, from 0, and what they started and ended at."""
    dtype = "<i8" if large else "<i4"
    if not length:  # an empty array may have none
        return np.zeros(1, dtype), 0, 0
    offsets = _integers(buffer, dtype, start, length + 1)
    first, last = int(offsets[0]), int(offsets[-1])
    return (offsets - offsets[0] if first else offsets), first, last


def _take_runs(array: pa.Array, into: Pieces) -> list[Any]:
    first = array.find_physical_offset()
    count = array.find_physical_length()
    ends, values = array.run_ends.slice(first, count), array.values.slice(first, count)
    if array.offset or (count and ends[-1].as_py() > len(array)):
        logical = np.minimum(ends.to_numpy() - array.offset, len(array))
        ends = pa.array(logical, ends.type)
    return [len(array), 0, [_NONE], [take_apart(ends, into), take_apart(values, into)]]


def _take_union(array: pa.UnionArray) -> tuple[list[npt.NDArray[Any]], list[pa.Array]]:
    kind, start, length = array.type, array.offset, len(array)
    own = array.buffers()
    ids = _elements(own[1], 8, start, length)
    children = [array.field(number) for number in range(kind.num_fields)]
    if kind.mode == "sparse":
        return [ids], children
    offsets = _integers(own[2], "<i4", start, length)
    windows = []
    for code in kind.type_codes:
        used = offsets[ids.view(np.int8) == code]
        windows.append((int(used.min()), int(used.max()) + 1) if len(used) else (0, 0))
    if 2 * sum(last - first for first, last in windows) < sum(map(len, children)):
        offsets = offsets.copy()
        for code, (first, _) in zip(kind.type_codes, windows, strict=True):
            offsets[ids.view(np.int8) == code] -= first
        children = [
            child.slice(first, last - first) for child, (first, last) in zip(children, windows, strict=True)
        ]
    return [ids, offsets], children


def _take_list_view(array: pa.Array) -> tuple[list[npt.NDArray[Any]], list[pa.Array]]:
    own, start, length = array.buffers(), array.offset, len(array)
    dtype = "<i8" if types.is_large_list_view(array.type) else "<i4"
    offsets = _integers(own[1], dtype, start, length)
    sizes = _integers(own[2], dtype, start, length)
    some = sizes > 0
    first = int(offsets[some].min()) if some.any() else 0
    last = int((offsets[some] + sizes[some]).max()) if some.any() else 0
    values = array.values
    if 2 * (last - first) < len(values):
        values = values.slice(first, last - first)
        offsets = np.where(some, offsets - offsets.dtype.type(first), 0).astype(dtype)
    return [offsets, sizes], [values]


def _take_views(array: pa.Array) -> list[npt.NDArray[Any]]:
    """Return views and the text that they refer to; anew where they leave most of it out."""
    _, views, *texts = array.buffers()
    fields = _integers(views, "<i4", 4 * array.offset, 4 * len(array)).reshape(-1, 4)
    used = 0
    for place in range(0, len(fields), _BLOCK):
        lengths = fields[place : place + _BLOCK, 0]
        used += int(lengths[lengths > _INLINE].sum(dtype=np.int64))
    if 2 * used < sum(text.size for text in texts):
        flat = pa.large_string() if types.is_string_view(array.type) else pa.large_binary()
        try:
            _, views, *texts = array.cast(flat).cast(array.type).buffers()
        except pa.ArrowException:  # more than a view can refer to, or a pyarrow that does not know it
            return [fields, *map(_bytes, texts)]
        fields = _integers(views, "<i4", 0, 4 * len(array))
    return [fields, *map(_bytes, texts)]
