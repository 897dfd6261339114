"""The contract of a codec, and the two lookups: type to codec, id to codec.

Imports layout and modules. A codec is chosen by the exact type when writing and by its id when
reading; its module is imported when one of its types is met for the first time.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mori._imports import load
from mori.format.layout import Codec as Id

__all__ = [
    "CHANGED",
    "Buffer",
    "Buffers",
    "Codec",
    "Encoded",
    "Late",
    "PartNumberError",
    "Pickled",
    "UnpicklableError",
    "for_id",
    "for_type",
    "is_of_pandas",
    "known",
    "register",
]


class Late:
    """Bytes that are made, block by block, when they are written, and never lie in memory together.

    Whoever measures the object makes each block once and tells of it; it is compared when it is written.

    Raises
    ------
    RuntimeError
        When it is written, if the blocks are others by then.
    """

    __slots__ = ("_make", "_sums", "nbytes")

    def __init__(self, make: Callable[[], Iterable[npt.NDArray[Any] | bytes]]) -> None:
        self.nbytes = 0
        self._make = make
        self._sums: list[int] = []

    def measured(self, block: npt.NDArray[Any] | bytes) -> None:
        """Take down the next block, as it is now."""
        self.nbytes += memoryview(block).nbytes
        self._sums.append(zlib.crc32(block))

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        sums = iter(self._sums)
        for block in self._make():
            if zlib.crc32(block) != next(sums, None):
                raise RuntimeError(CHANGED)
            yield np.frombuffer(block, np.uint8)
        if next(sums, None) is not None:
            raise RuntimeError(CHANGED)


CHANGED: Final = (
    "a part of the object was changed by another thread while it was being shared. Nothing was shared; "
    "share a copy, or keep the other thread from it meanwhile"
)

Buffer = npt.NDArray[Any] | Sequence[npt.NDArray[Any]] | Late
"""What a codec wants written: an array of any strides (its elements in C or F order, whichever is its
own), pieces that are to stand one behind the other, or such as are made when they are written."""


class Encoded(NamedTuple):
    """An object taken apart: plain bytes, buffers that are written as they are, and further objects.

    `codec` is the id of the node where that is not the one of the codec that took it apart.
    """

    meta: bytes
    buffers: Sequence[Buffer] = ()
    children: Sequence[object] = ()
    codec: int | None = None


class Buffers(list[npt.NDArray[np.uint8]]):
    """A node's buffers, read-only views of the region.

    `trusted` says that a codec of mori's made them on this host, and that nobody can have changed them since.
    What is not trusted has to be checked in full before it is handed to code that follows it.
    """

    trusted: bool = False


class Codec(Protocol):
    """A type's way into a region and out of it."""

    id: int

    def encode(self, obj: Any) -> Encoded | None:
        """Take an object apart; None if this one has to go by pickle."""

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        """Put it together again. Whatever it raises on damaged bytes becomes a CorruptRegionError."""

    def step(self, obj: Any, index: int) -> str:
        """Return how a user writes the way from an object to its child, such as ``["a"]``."""


class Pickled:
    """Marks a part that its codec wants pickled, whatever its type."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class UnpicklableError(TypeError):
    """Says which part of an object does not pickle: how a user writes the way to it, and why."""

    def __init__(self, way: str, found: str) -> None:
        super().__init__(found)
        self.way = way


class PartNumberError(ValueError):
    """A stream that asks for a part that its node does not have."""


_BUILT_IN: Final = "mori.codecs.builtin"
_NAMED: Final = "mori.codecs.named"
_PANDAS: Final = "mori.codecs.pandas"
_MASKED: Final = "mori.codecs.masked"
_ARROW: Final = "mori.codecs.arrow"
_POLARS: Final = "mori.codecs.polars"
_SCIPY: Final = "mori.codecs.scipy"
_TORCH: Final = "mori.codecs.torch"
_MODULES_BY_LIBRARY: Final = {
    "builtins": _BUILT_IN,
    "numpy": _BUILT_IN,
    "mori": _BUILT_IN,
    "pandas": _PANDAS,
    "pyarrow": _ARROW,
    "polars": _POLARS,
    "scipy": _SCIPY,
    "torch": _TORCH,
}
_MODULES_BY_ID: Final = (  # the first id of each, in order; None for those that no codec has
    (Id.NAMED, _NAMED),
    (1, _BUILT_IN),
    (16, _PANDAS),
    (26, _BUILT_IN),
    (27, _PANDAS),
    (32, _MASKED),
    (33, _BUILT_IN),
    (34, None),
    (36, _ARROW),
    (40, _POLARS),
    (44, _SCIPY),
    (48, None),
    (52, _TORCH),
    (53, None),
)
_EXTRAS: Final = {
    _PANDAS: "pandas",
    _ARROW: "arrow",
    _POLARS: "polars",
    _SCIPY: "scipy",
    _TORCH: "torch",
}

_imported: set[str] = set()  # to the end: another thread may be about to
_by_type: dict[type, Codec] = {}
_by_base: dict[type, Codec] = {}
_by_id: dict[int, Codec] = {}


def register(codec: Codec, *types: type) -> None:
    """Make a codec known by its id, and as the one for these exact types."""
    _by_id[codec.id] = codec
    for cls in types:
        _by_type[cls] = codec


def register_base(codec: Codec, *bases: type) -> None:
    """Make a codec known by its id, and as the one for classes derived from these that have none."""
    _by_id[codec.id] = codec
    for base in bases:
        _by_base[base] = codec


def for_type(cls: type) -> Codec | None:
    """Return the codec of a type, of a base whose codec takes what is derived from it, or of its kind.

    None if there is none, and it goes by pickle.
    """
    codec = _by_type.get(cls)
    if codec is None:
        _meet(cls)
        codec = _by_type.get(cls)
    if codec is None:
        for base in cls.__mro__[1:-1]:
            if base not in _by_base:
                _meet(base)
            if base in _by_base:
                return _by_base[base]
    if codec is None:
        number = _family(cls)
        codec = None if number is None else for_id(number)
    return codec


def _meet(cls: type) -> None:
    """Import the codecs of the library that a class comes from: mori's own, or what was announced for it."""
    where = cls.__module__
    if not isinstance(where, str):  # the descriptor of Cython's functions, which have modules of their own
        return
    library = where.partition(".")[0]
    module = _MODULES_BY_LIBRARY.get(library)
    if where in ("numpy.ma", "numpy.ma.core"):
        module = _MASKED
    if (module or _NAMED) not in _imported:
        load(module or _NAMED)
        _imported.add(module or _NAMED)
    if module is None:
        sys.modules[_NAMED].load(library)


def _family(cls: type) -> int | None:
    """Return the codec's id for a class of the user's that is known by how it was made."""
    if hasattr(cls, "__dataclass_fields__"):
        return Id.DATACLASS
    return Id.NAMEDTUPLE if issubclass(cls, tuple) and hasattr(cls, "_fields") else None


def known(cls: type) -> Codec | None:
    """Return the codec that is registered for an exact type, without looking for one."""
    return _by_type.get(cls)


def for_id(number: int) -> Codec | None:
    """Return the codec of an id, None for an id that this mori does not know.

    Raises
    ------
    ImportError
        If the library of its objects is not installed; it names the extra.
    """
    codec = _by_id.get(number)
    if codec is None and 0 <= number < 64:
        module = next(module for first, module in reversed(_MODULES_BY_ID) if first <= number)
        if module is not None:
            _import(module)
            codec = _by_id.get(number)
    return codec


def is_of_pandas(number: int) -> bool:
    """Say whether an id is of a codec for pandas, whose objects `mori.objects.pandas` hands out."""
    return Id.DATAFRAME <= number < 32 and number != Id.OBJECT_ARRAY


def _import(module: str) -> None:
    try:
        load(module)
    except ModuleNotFoundError as error:
        if module not in _EXTRAS:
            raise
        extra = _EXTRAS[module]
        raise ImportError(
            f"this region holds what only {error.name} can open: install mori[{extra}]", name=error.name
        ) from error
