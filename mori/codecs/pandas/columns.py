"""Columns of any type of Arrow: the chunked array, which has a codec of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mori.codecs.pandas.parts import Parts, need
from mori.codecs.pandas.versions import pa
from mori.format.codec import Buffers, Encoded
from mori.format.layout import Codec as Id

__all__ = ["ArrowColumnCodec"]


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
