"""numpy arrays: dtype, shape and order in the meta, the elements in one buffer.

Imports codec and layout. A dtype is plain data, so no bytes can make it anything but a dtype.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori import codec
from mori.codec import Buffers, Encoded
from mori.layout import Codec as Id

__all__ = ["NdarrayCodec", "dtype_from_plain", "dtype_to_plain", "is_plain"]

_SIMPLE: Final = re.compile(r"[<>|=][?biufcSUVmM]\d{1,12}(\[\d{0,9}[a-zA-Zμ]{1,7}(/\d{1,9})?\])?|[<>|=]\?")


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Say whether the elements of a dtype are bytes that mean the same in every process."""
    return not dtype.hasobject and dtype.kind != "T" and dtype.type.__module__ == "numpy"


def dtype_to_plain(dtype: np.dtype[Any]) -> Any:
    """Return a dtype as strings, numbers and lists; `dtype_from_plain` gives it back, padding included."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_to_plain(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    assert dtype.fields is not None
    fields = []
    for name in dtype.names:
        kind, offset, *title = dtype.fields[name]
        fields.append([name, dtype_to_plain(kind), offset, title[0] if title else None])
    plain = {"fields": fields, "itemsize": dtype.itemsize, "align": dtype.isalignedstruct}
    if dtype.type is np.record:
        plain["record"] = True
    return plain


def dtype_from_plain(plain: Any) -> np.dtype[Any]:
    """Return the dtype that plain data describe; ValueError for anything that is none."""
    if isinstance(plain, str):
        if not _SIMPLE.fullmatch(plain):
            raise ValueError(f"{plain[:40]!r} is no dtype")
        dtype = np.dtype(plain)
    elif "base" in plain:
        dtype = np.dtype((dtype_from_plain(plain["base"]), tuple(plain["shape"])))
    else:
        fields = plain["fields"]
        if type(plain["align"]) is not bool or type(plain["itemsize"]) is not int:
            raise ValueError("a structure that is none")
        dtype = np.dtype(
            {
                "names": [field[0] for field in fields],
                "formats": [dtype_from_plain(field[1]) for field in fields],
                "offsets": [field[2] for field in fields],
                "titles": [field[3] for field in fields],
                "itemsize": plain["itemsize"],
            },
            align=plain["align"],
        )
        if plain.get("record"):
            dtype = np.dtype((np.record, dtype))
    if not is_plain(dtype):
        raise ValueError(f"{dtype} has no plain elements")
    return dtype


def _is_titled(dtype: np.dtype[Any]) -> bool:
    """Whether all titles are strings; other titles are objects, and the array goes by pickle."""
    if dtype.subdtype is not None:
        return _is_titled(dtype.subdtype[0])
    return all(
        (len(field) == 2 or isinstance(field[2], str)) and _is_titled(field[0])
        for field in (dtype.fields or {}).values()
    )


class NdarrayCodec:
    """An array of any dtype without objects."""

    id = Id.NDARRAY

    def encode(self, obj: npt.NDArray[Any]) -> Encoded | None:
        dtype = obj.dtype
        if not is_plain(dtype) or dtype.metadata or not _is_titled(dtype):
            return None
        array = obj.view(np.ndarray)
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        meta = json.dumps([dtype_to_plain(dtype), array.shape, order], separators=(",", ":"))
        return Encoded(meta.encode(), (array,))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> npt.NDArray[Any]:
        plain, shape, order = json.loads(meta)
        dtype = dtype_from_plain(plain)
        (buffer,) = buffers
        if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
            raise ValueError(f"{shape} is no shape")
        if math.prod(shape) * dtype.itemsize != buffer.nbytes:
            raise ValueError(f"an array of {shape} {dtype} does not have {buffer.nbytes} bytes")
        return np.ndarray(tuple(shape), dtype, buffer, order="F" if order == "F" else "C")

    def step(self, obj: Any, index: int) -> str:
        raise AssertionError("an array has no parts")


codec.register(NdarrayCodec(), np.ndarray, np.memmap)
