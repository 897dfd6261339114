"""The memory of an array, replaced in place: by bytes, or by pages that are copied when they are written to.

numpy gives no array other memory, but for ``__setstate__``, which takes bytes. So the pages are put in by the
two fields of its C structure that say where the elements are and who owns them. The structure is part of
numpy's binary interface; where it is not as expected, nothing is put in, and the array is copied.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mori.memory.mapping import Mapping, address_of, writable

__all__ = ["FIELDS_ARE_KNOWN", "follow", "give_memory", "give_pages"]

_LEAST: Final = 1 << 18  # bytes of an array that is not copied: a few pages are faster copied than mapped


class _Fields(ctypes.Structure):
    """The beginning of PyArrayObject_fields (numpy/ndarraytypes.h), behind the head of a Python object."""

    _fields_ = (
        *(("data", ctypes.c_void_p), ("nd", ctypes.c_int)),
        *(("dimensions", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("base", ctypes.c_void_p)),
    )


def _fields(array: npt.NDArray[Any]) -> _Fields:
    return _Fields.from_address(id(array) + object.__basicsize__)


def _are_fields_known() -> bool:
    owner = np.arange(6.0).reshape(2, 3)
    array = owner[1:]
    fields = _fields(array)
    return (fields.data, fields.nd, fields.base) == (address_of(array), 2, id(array.base))


FIELDS_ARE_KNOWN: Final = _are_fields_known()


def give_pages(array: npt.NDArray[Any], mapping: Mapping) -> bool:
    """Replace the memory of an array by private pages of the same region; return whether that was done.

    A page is copied when it is written to for the first time. Not done for few bytes, for elements that do
    not stand close together, and where no more can be mapped.
    """
    is_together = array.flags.c_contiguous or array.flags.f_contiguous
    if array.nbytes < _LEAST or not is_together or not mapping.shared or not FIELDS_ARE_KNOWN:
        return False
    start = address_of(array) - mapping.address
    try:
        pages = writable(np.ndarray((array.nbytes,), np.uint8, mapping.bytes(), start))
    except OSError:
        return False
    fields = _fields(array)
    former = ctypes.cast(fields.base, ctypes.py_object)  # a reference of its own: the array's goes
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(pages))
    fields.data, fields.base = address_of(pages), id(pages)
    ctypes.pythonapi.Py_DecRef(former)
    np.ndarray.setflags(array, write=True)
    return True


def follow(view: npt.NDArray[Any], array: npt.NDArray[Any]) -> None:
    """Make a view in one dimension show the memory that its array has now."""
    fields = _fields(view)
    former = ctypes.cast(fields.base, ctypes.py_object)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(array))
    ctypes.cast(fields.strides, ctypes.POINTER(ctypes.c_ssize_t))[0] = array.strides[0]
    fields.data, fields.base = address_of(array), id(array)
    ctypes.pythonapi.Py_DecRef(former)


# numpy may give this a name of its own, and deprecate the setter for everybody else.
_set_dtype: Final[Any] = getattr(np.ndarray, "_set_dtype", None) or np.ndarray.dtype.__set__  # type: ignore[attr-defined]


def give_memory(
    array: npt.NDArray[Any],
    dtype: np.dtype[Any],
    fortran: bool,
    data: Any,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Replace the memory of an array, in place, by private memory with these elements of that dtype."""
    # `__setstate__` turns what it reads into the byte order of the machine, the dtype included.
    swapped = not dtype.isnative and not dtype.hasobject and dtype.kind != "T"
    read = np.dtype((np.void, dtype.itemsize)) if swapped else dtype
    state: Any = (1, array.shape if shape is None else shape, read, fortran, data)
    np.ndarray.__setstate__(array, state)
    if swapped:
        _set_dtype(array, dtype)
