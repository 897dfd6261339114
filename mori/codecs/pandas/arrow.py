"""Arrow-backed columns: strings, as Arrow's large_string lays them out, and chunked arrays of any type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mori.codecs.pandas.parts import Parts, need
from mori.codecs.pandas.versions import has_nan, pa, string_dtype
from mori.format.codec import Buffer, Buffers, Encoded
from mori.format.layout import Id, from_json, to_json

__all__ = ["ArrowColumnCodec", "StringCodec"]


class StringCodec(Parts):
    """Arrow-backed strings: validity, offsets and UTF-8, as Arrow's large_string lays them out."""

    id = Id.STRING_ARRAY

    def encode(self, obj: Any) -> Encoded | None:
        nan = has_nan(obj.dtype)
        if nan is None:
            return None
        array = obj.__arrow_array__()
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        chunks = [chunk.cast(pa.large_string()) for chunk in chunks if len(chunk)]
        missing = sum(chunk.null_count for chunk in chunks)
        pieces: list[npt.NDArray[Any]] = []
        ends = [np.zeros(1, "<i8")]
        for chunk in chunks:
            offsets = np.frombuffer(chunk.buffers()[1], "<i8")[chunk.offset :][: len(chunk) + 1]
            text = chunk.buffers()[2]
            if text is not None:
                pieces.append(np.frombuffer(text, np.uint8)[offsets[0] : offsets[-1]])
            shift = ends[-1][-1] - offsets[0]
            ends.append(offsets[1:] if not shift else offsets[1:] + shift)
        validity = np.empty(0, np.uint8)
        if missing:
            valid = [np.asarray(chunk.is_valid()) for chunk in chunks]
            validity = np.packbits(np.concatenate(valid), bitorder="little")
        meta = to_json({"length": len(obj), "missing": missing, "na": "nan" if nan else "NA"})
        buffers: list[Buffer] = [validity, ends, pieces]
        return Encoded(meta, buffers)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        if pa is None:
            raise ImportError("this region holds strings in Arrow's layout: install mori[arrow]")
        plain = from_json(meta)
        length, missing = plain["length"], plain["missing"]
        validity, offsets, text = buffers
        if offsets.nbytes != 8 * (length + 1) or not 0 <= missing <= length:
            raise ValueError(f"{offsets.nbytes} bytes of offsets for {length} strings")
        if validity.nbytes != ((length + 7) // 8 if missing else 0):
            raise ValueError(f"{validity.nbytes} bytes of validity for {length} strings")
        array = pa.LargeStringArray.from_buffers(
            length,
            pa.py_buffer(offsets) if length else pa.py_buffer(bytes(8)),  # Arrow validates no only one
            pa.py_buffer(text),
            pa.py_buffer(validity) if missing else None,
            missing,
        )
        # O(1) on trusted memory; what came from elsewhere, or could have been changed, is read through once.
        array.validate(full=not buffers.trusted)
        return string_dtype(nan=plain["na"] != "NA").__from_arrow__(array)


class ArrowColumnCodec(Parts):
    """An ArrowExtensionArray: its chunked array."""

    id = Id.ARROW_COLUMN

    def encode(self, obj: Any) -> Encoded:
        return Encoded(b"", (), (obj.__arrow_array__(),))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        if pa is None:
            raise ImportError("this region holds columns in Arrow's layout: install mori[arrow]")
        (array,) = children
        need(isinstance(array, pa.ChunkedArray), f"{type(array).__name__} for a column of Arrow")
        return pd.arrays.ArrowExtensionArray(array)
