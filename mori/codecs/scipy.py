"""scipy.sparse: matrices and arrays in compressed rows, columns or blocks, in coordinates, in diagonals.

The arrays inside are children and come back as SharedArrays; what scipy knows of their order is kept, so that
nothing is sorted again. Lists of lists and dicts of keys go by pickle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy import sparse

from mori.format import codec
from mori.format.codec import Buffers, Encoded, LibraryCodec
from mori.format.layout import Id, from_json, to_json

__all__ = ["CompressedCodec", "CoordinatesCodec", "DiagonalsCodec"]

_FLAGS: Final = ("_has_sorted_indices", "_has_canonical_format")  # where scipy has looked already


def _need(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)


def _is_of_scipy(data: Any) -> bool:
    return isinstance(data, np.ndarray) and data.dtype.isnative and data.dtype.char in "?bBhHiIlLqQfdgFDG"


def _check_integers(array: Any, size: int | None = None) -> None:
    _need(
        isinstance(array, np.ndarray) and array.dtype.char in "ilq" and array.ndim == 1, "indices of no kind"
    )
    _need(size is None or len(array) == size, f"{len(array)} indices for {size}")


def _check_inside(indices: Any, length: int) -> None:
    """scipy's C++ takes indices on trust."""
    if len(indices) and not 0 <= indices.min() <= indices.max() < length:
        raise ValueError(f"indices that are not inside {length}")


class _Sparse(LibraryCodec):
    """What the codecs of this file have in common."""

    def __init__(self, number: int, *names: str) -> None:
        self.id = number
        self._classes = {
            name: getattr(sparse, name)
            for stem in names
            for name in (f"{stem}_matrix", f"{stem}_array")
            if hasattr(sparse, name)
        }
        codec.register(self, *self._classes.values())

    def nbytes(self, obj: Any) -> int:
        return sum(part.nbytes for part in vars(obj).values() if isinstance(part, np.ndarray))

    def _encoded(self, obj: Any, *parts: Any, **plain: Any) -> Encoded | None:
        if not _is_of_scipy(obj.data):
            return None
        plain = {"class": type(obj).__name__, "shape": [int(length) for length in obj.shape], **plain}
        return Encoded(to_json(plain), (), parts)

    def _made(self, plain: dict[str, Any], dimensions: tuple[int, ...]) -> Any:
        """Return a matrix of a class and a shape that has no arrays yet: the constructors would read them."""
        shape = plain["shape"]
        _need(
            all(type(length) is int and 0 <= length < 1 << 62 for length in shape)
            and len(shape) in dimensions
            and math.prod(shape) < 1 << 124,
            f"a shape of {shape}",
        )
        made = self._classes[plain["class"]](tuple(1 for _ in shape))
        made._shape = tuple(shape)
        return made

    def step(self, obj: Any, index: int) -> str:
        return (".data", ".indices", ".indptr")[index]


class CompressedCodec(_Sparse):
    """Compressed rows, columns or blocks of rows."""

    def encode(self, obj: Any) -> Encoded | None:
        known = [obj.__dict__.get(name) for name in _FLAGS]
        known = [None if flag is None else bool(flag) for flag in known]
        return self._encoded(obj, obj.data, obj.indices, obj.indptr, known=known)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        plain = from_json(meta)
        made = self._made(plain, (1, 2))
        data, indices, pointers = children
        major, minor = (1, *made.shape)[-2:]
        blocks = made.format == "bsr"
        _need(_is_of_scipy(data) and data.ndim == (3 if blocks else 1), "values of no kind")
        if blocks:
            high, wide = data.shape[1:]
            _need(high > 0 and wide > 0 and not major % high and not minor % wide, "blocks that do not fit")
            major, minor = major // high, minor // wide
        elif made.format == "csc":
            major, minor = minor, major
        _check_integers(pointers, major + 1)
        _check_integers(indices)
        _need(indices.dtype == pointers.dtype, "indices of two kinds")
        used = int(pointers[-1])
        _need(int(pointers[0]) == 0 <= used <= min(len(indices), len(data)), f"{used} of {len(data)} values")
        if not buffers.trusted:
            _need(bool((np.diff(pointers) >= 0).all()), "rows that end before they start")
            _check_inside(indices[:used], minor)
        made.data, made.indices, made.indptr = data, indices, pointers
        for name, flag in zip(_FLAGS, plain["known"], strict=True):
            made.__dict__.pop(name, None)
            if flag is not None:
                made.__dict__[name] = bool(flag)
        return made


class CoordinatesCodec(_Sparse):
    """Coordinates of any number of dimensions."""

    def encode(self, obj: Any) -> Encoded | None:
        return self._encoded(obj, obj.data, *obj.coords, canonical=bool(obj.has_canonical_format))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        plain = from_json(meta)
        made = self._made(plain, (1, 2) if len(plain["shape"]) < 3 else (len(plain["shape"]),))
        data, *coords = children
        _need(_is_of_scipy(data) and data.ndim == 1, "values of no kind")
        for length, indices in zip(made.shape, coords, strict=True):
            _check_integers(indices, len(data))
            _need(indices.dtype == coords[0].dtype, "indices of two kinds")
            if not buffers.trusted:
                _check_inside(indices, length)
        made.data, made.coords = data, tuple(coords)
        made.has_canonical_format = plain["canonical"] is True
        return made

    def step(self, obj: Any, index: int) -> str:
        return f".coords[{index - 1}]" if index else ".data"


class DiagonalsCodec(_Sparse):
    """Diagonals, and which they are."""

    def encode(self, obj: Any) -> Encoded | None:
        return self._encoded(obj, obj.data, obj.offsets)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        made = self._made(from_json(meta), (2,))
        data, offsets = children
        _need(_is_of_scipy(data) and data.ndim == 2, "values of no kind")
        _check_integers(offsets, len(data))
        if not buffers.trusted and len(offsets):  # scipy's C++ adds them to the lengths, in their own dtype
            reach = max(-int(offsets.min()), int(offsets.max())) + max(*made.shape, data.shape[1])
            _need(reach <= np.iinfo(offsets.dtype).max, "diagonals that lie too far outside")
        made.data, made.offsets = data, offsets
        return made

    def step(self, obj: Any, index: int) -> str:
        return (".data", ".offsets")[index]


CompressedCodec(Id.SPARSE_COMPRESSED, "csr", "csc", "bsr")
CoordinatesCodec(Id.SPARSE_COORDINATES, "coo")
DiagonalsCodec(Id.SPARSE_DIAGONALS, "dia")
