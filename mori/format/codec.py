"""Codecs: what one is, and the one table in which they are found by type, by id and by name.

A codec is chosen by the exact type of an object when writing, and by the id in a node when reading. Its
module is imported when a type of its library, or its id, is met for the first time.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mori._imports import load
from mori.errors import EXTRAS, MoriError
from mori.format.layout import Id
from mori.format.origins import node_of, remember

if TYPE_CHECKING:
    from mori.format.node import Node

__all__ = [
    "CHANGED",
    "TABLE",
    "Buffer",
    "Buffers",
    "BuiltinCodec",
    "Codec",
    "Encoded",
    "Joined",
    "LibraryCodec",
    "Pickled",
    "Range",
    "Strides",
    "UnpicklableError",
    "for_id",
    "for_type",
    "register",
    "registered",
]


class Joined:
    """Many values that are joined, some at a time, when they are written, and never lie in memory together.

    Parameters
    ----------
    values
        The values, in a list that nobody else has.
    ends
        How many items are before each value, and how many there are.
    join
        Returns the bytes of some values.
    itemsize
        Bytes of an item.

    Raises
    ------
    RuntimeError
        When it is written, if a value has another length by then.
    """

    def __init__(
        self,
        values: Sequence[Any],
        ends: npt.NDArray[np.int64],
        join: Callable[[Sequence[Any]], npt.NDArray[Any] | bytes],
        itemsize: int = 1,
    ) -> None:
        self.nbytes: int = int(ends[-1]) * itemsize
        self._values = values
        self._ends = ends
        self._join = join
        self._itemsize = itemsize

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        ends, start = self._ends, 0
        most = max(1, _JOINED_NBYTES // self._itemsize)
        while start < len(self._values):
            stop = max(start + 1, int(np.searchsorted(ends, int(ends[start]) + most, "right")) - 1)
            joined = np.frombuffer(self._join(self._values[start:stop]), np.uint8)
            if joined.nbytes != int(ends[stop] - ends[start]) * self._itemsize:
                raise RuntimeError(CHANGED)
            yield joined
            start = stop


_JOINED_NBYTES: Final = 1 << 18  # at once: they stay in the processor's cache

CHANGED: Final = (
    "a part of the object was changed by another thread while it was being shared. Nothing was shared; "
    "share a copy, or keep the other thread from it meanwhile"
)

Buffer = npt.NDArray[Any] | Sequence[npt.NDArray[Any]] | Joined
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
    What is not trusted has to be checked in full before it is given to code that follows it.
    """

    trusted: bool = False
    allows_pickles: bool = True
    """Whether pickles that name more than plain data may be read."""


class Strides(NamedTuple):
    """A view of an array, as a reference has it: where in the node's buffer it starts, and how it goes on."""

    offset: int
    dtype: str  # empty: the node's own
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Range(NamedTuple):
    """A view of a column, as a reference has it: consecutive elements."""

    start: int
    length: int


class Codec:
    """How objects of a type are written into a region, and opened, viewed, reopened and copied.

    A codec is one object without state, which the table has by its id, by the types that it writes, and by
    its name where a third party wrote it. Those who write one need `encode` and `decode`; the other methods
    have defaults that do for objects which are put together again in their own class.

    Attributes
    ----------
    id : int
        What nodes have for their codec. It is the format: an id is never given twice.
    name : str
        Of a third party's codec, whose id is `Codec.id`: the name stands before its meta.

    Notes
    -----
    The methods are called on any thread, several at a time.
    """

    id: int = Id.NAMED
    name: str = ""
    head: bytes = b""
    """What stands before the meta of each node: `register_codec` sets it, from the name."""

    is_value: bool = False
    """Its objects have no identity: one that is met twice is written twice."""
    is_prepared: bool = False
    """Its objects go through `measure`'s `prepare` first, those that stand directly inside one excepted."""
    is_mapped: bool = True
    """Its objects become parts of a pickle that holds them, instead of being pickled."""
    is_independent: bool = False
    """Its objects may be one with others, even where they are a part of what owns its parts."""
    owns_parts: bool = False
    """The parts of its objects belong to each of them, whatever else refers to them."""
    makes_parts: bool = False
    """Its children are made anew each time: no other object refers to them."""

    # Writing

    def nbytes(self, obj: Any) -> int:
        """Return about how many bytes an object's pickle has; by default as many as make it worth a node."""
        return sys.maxsize

    def encode(self, obj: Any) -> Encoded | None:
        """Return the parts of an object; None if this one has to go by pickle."""
        raise NotImplementedError

    def step(self, obj: Any, index: int) -> str:
        """Return how a user writes the way from an object to a child, for errors: ``["a"]``."""
        return f".children[{index}]"

    def has_mapped(self, children: int, buffers: int) -> bool:
        """Return whether an object of so many parts has anything that is worth a region."""
        return True

    # Opening

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        """Put an object together. Whatever it raises on damaged bytes becomes a CorruptRegionError."""
        raise NotImplementedError

    def read(self, node: Node) -> Any:
        """Return what `decode` makes of a node.

        Raises
        ------
        CorruptRegionError
            If the node's content makes no sense to `decode`.
        """
        try:
            return self.decode(
                node.meta[len(self.head) :], node.buffers(), node.children() if node.record.children else ()
            )
        except (MoriError, ImportError):
            raise
        except BaseException as error:
            if not self.is_damage(error):
                raise
            raise node.decode_error(error) from error

    def is_damage(self, error: BaseException) -> bool:
        """Return whether what `decode` raised says that the bytes are damaged."""
        # A panic of Rust's (of polars, or of whatever a third party's codec calls) is no Exception: it would
        # pass through all who read references, and through engines. The others of its kind, such as an
        # interrupt or the end of a coroutine, say nothing of the bytes.
        return isinstance(error, Exception) or type(error).__name__ == "PanicException"

    def open(self, node: Node) -> Any:
        """Return the object that a user holds of a node."""
        return self.read(node)

    def open_in(self, node: Node, identity: Any) -> Any:
        """Return the object that a user holds of a node inside another, whose identity map is given."""
        return self.open(node)

    def view(self, node: Node, view: Strides | Range) -> Any:
        """Return the object that a user holds of a view of a node.

        Raises
        ------
        CorruptRegionError
            If there is no such view of it: the numbers come from a reference, which may be damaged.
        """
        raise node.decode_error("a reference takes it for an array, or for a column of Arrow")

    def wrap(self, node: Node, array: npt.NDArray[Any]) -> Any:
        """Return what a user holds of an array over the buffer of a node; None where that is no array."""
        return None

    def note_opened(self, node: Node, obj: Any) -> None:
        """Record with the mapping how a node that was opened as `obj` is opened again, in fewer steps."""

    def is_intact(self, node: Node, obj: Any) -> bool | None:
        """Return whether an object that was opened from a node still is what that says.

        None where it can be written to without telling anybody: it is compared with the node.
        """
        return None

    # Parts, by the numbers in their names

    def part(self, node: Node, number: int) -> Node | None:
        """Return the node of a part; None where the parts have no nodes of their own.

        Raises
        ------
        TypeError
            If the objects of this codec have no parts.
        IndexError
            If this one has fewer.
        """
        raise TypeError("what it leads into is not a container")

    def inside(self, obj: Any, number: int) -> Any:
        """Return a part that has no node of its own, of an opened object; raises what `part` does."""
        raise TypeError("what it leads into is not a container")

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...] | None:
        """Return the numbers that lead from a node to its child, none where both are one object to the user.

        None for a child that is no part.
        """
        return None

    # Copying

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        """Return a copy in private memory and ordinary types; `change` returns that of a part.

        What neither lies in a region nor has a part that does comes back as it is.
        """
        encoded = self.encode(obj)
        if encoded is None:
            return obj
        pieces = [
            [*buffer] if isinstance(buffer, Sequence | Joined) else [buffer] for buffer in encoded.buffers
        ]
        private = Buffers(
            np.frombuffer(bytearray(b"".join(part.tobytes("A") for part in piece)), np.uint8)
            for piece in pieces
        )
        return self.decode(encoded.meta, private, [change(child) for child in encoded.children])


class BuiltinCodec(Codec):
    """A codec whose objects are values, or of classes of mori's own, which know when they are written to."""

    is_mapped = False

    def is_intact(self, node: Node, obj: Any) -> bool | None:
        """Return what the object itself says; values are what they were."""
        check = getattr(obj, "_mori_is_intact", None)
        return check is None or bool(check())

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        """Return the object, which is a value, or private already."""
        return obj


class ContainerCodec(BuiltinCodec):
    """A codec that has to know what else is met while an object is measured."""

    def encode_in(self, obj: Any, survey: Any, *, is_root: bool) -> Encoded:
        """Return the parts of an object; `survey` is the `Survey` of the whole."""
        raise NotImplementedError

    def step_to(self, obj: Any, index: int, child: object) -> str:
        """Return how a user writes the way from an object to a child, by its place or by itself."""
        return self.step(obj, index)


class LibraryCodec(Codec):
    """A codec whose objects are of a library's own class, which has no room for where they came from."""

    def open(self, node: Node) -> Any:
        """Return the object, remembered as that of the node."""
        return remember(self.read(node), node)

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        """Return a copy as pickle makes one; the object itself if it was not opened from a region."""
        pickled = for_type(Pickled)
        return obj if node_of(obj) is None or pickled is None else pickled.copy(obj, change)


class Pickled:
    """Marks a part that its codec wants pickled, whatever its type."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value: object = value


class UnpicklableError(TypeError):
    """Says which part of an object does not pickle: how a user writes the way to it, and why."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(found)
        self.path = path


class _Library(NamedTuple):
    """The module that registers the codecs of a library, when one of its types or ids is met."""

    module: str
    libraries: tuple[str, ...]
    ids: tuple[int, ...]


_LIBRARIES: Final = (
    # `import mori` has registered the codecs of these two, and so all of their ids.
    _Library("mori.codecs.named", (), ()),
    _Library("mori.codecs.scalars", ("builtins", "numpy", "mori"), ()),
    _Library("mori.objects.masked", ("numpy.ma", "numpy.ma.core"), (Id.NUMPY_MASKED,)),
    _Library(
        "mori.objects.pandas",
        ("pandas",),
        (
            *(Id.DATAFRAME, Id.SERIES, Id.INDEX, Id.RANGE_INDEX, Id.MULTI_INDEX, Id.CATEGORICAL),
            *(Id.DATETIME_ARRAY, Id.TIMEDELTA_ARRAY, Id.MASKED_ARRAY, Id.STRING_ARRAY, Id.PERIOD_ARRAY),
            *(Id.INTERVAL_ARRAY, Id.SPARSE_ARRAY, Id.ARROW_COLUMN, Id.PANDAS_SUBCLASS),
        ),
    ),
    _Library(
        "mori.codecs.arrow",
        ("pyarrow",),
        (Id.ARROW_ARRAY, Id.ARROW_CHUNKED_ARRAY, Id.ARROW_RECORD_BATCH, Id.ARROW_TABLE),
    ),
    _Library("mori.codecs.polars", ("polars",), (Id.POLARS_FRAME, Id.POLARS_SERIES)),
    _Library(
        "mori.codecs.scipy",
        ("scipy",),
        (Id.SPARSE_COMPRESSED, Id.SPARSE_COORDINATES, Id.SPARSE_DIAGONALS),
    ),
    _Library("mori.codecs.torch", ("torch",), (Id.TORCH_TENSOR,)),
)
_NAMED: Final = _LIBRARIES[0]
_homes: Final[dict[int | str, _Library]] = {}
for _library in _LIBRARIES:
    _homes.update(dict.fromkeys(_library.ids, _library))
    _homes.update(dict.fromkeys(_library.libraries, _library))

TABLE: Final[dict[int | type | str, Codec]] = {}
"""The codecs, by id, by type and by a third party's name."""
_derived: Final[dict[type, Codec]] = {}
"""Those that write what is derived from a class and has no codec of its own."""
_unknown: Final = weakref.WeakSet[type]()
"""Classes for which no codec was found when one was looked for."""
_imported: Final[set[str]] = set()  # to the end: another thread may be about to


def register(codec: Codec, *types: type, derived_from: tuple[type, ...] = ()) -> None:
    """Put a codec into the table: by its id and name, and as the one for these exact types.

    `derived_from` are classes whose subclasses it takes, where these have no codec of their own.
    """
    _unknown.clear()
    TABLE[codec.name or codec.id] = codec
    for cls in types:
        TABLE[cls] = codec
    for base in derived_from:
        _derived[base] = codec


def for_type(cls: type) -> Codec | None:
    """Return the codec of a type, or of a base whose codec takes what is derived from it.

    None if there is none, and it goes by pickle.
    """
    codec = TABLE.get(cls)
    if codec is None and cls not in _unknown:
        _import_codecs(cls)
        codec = TABLE.get(cls)
        if codec is None:
            for base in cls.__mro__[1:-1]:
                if base not in _derived:
                    _import_codecs(base)
                if base in _derived:
                    return _derived[base]
            _unknown.add(cls)
    return codec


def _import_codecs(cls: type) -> None:
    """Import the codecs of the library that a class comes from: mori's own, or what was announced for it."""
    where = cls.__module__
    if not isinstance(where, str):  # the descriptor of Cython's functions, which have modules of their own
        return
    name = where.partition(".")[0]
    library = _homes.get(where) or _homes.get(name)
    module = (library or _NAMED).module
    if module not in _imported:
        load(module)
        _imported.add(module)
    if library is None:
        sys.modules[module].load(name)


registered: Final[Callable[[int | type | str], Codec | None]] = TABLE.get
"""Returns the codec of an id, of an exact type or of a name; None where none has been registered yet."""


def for_id(number: int) -> Codec | None:
    """Return the codec of an id, None for an id that this mori does not know.

    Raises
    ------
    ImportError
        If the library of its objects is not installed; it names the extra.
    """
    codec = TABLE.get(number)
    if codec is None and (library := _homes.get(number)) is not None:
        try:
            load(library.module)
        except ModuleNotFoundError as error:
            if (extra := EXTRAS.get(library.libraries[0])) is None:
                raise
            raise ImportError(
                f"this region holds what only {error.name} can open: install mori[{extra}]",
                name=error.name,
            ) from error
        codec = TABLE.get(number)
    return codec


_PART_NBYTES: Final = 1024  # of an array that is worth a node of its own
_PART_IN_BLOCK_NBYTES: Final = 4096  # of what is worth one though there are many like it


def is_part(obj: Any, *, in_block: bool = False) -> bool:
    """Return whether an object inside another is a node of its own, such as an array or a frame.

    `in_block` says that it stands in a block: to open a node takes longer than to copy a few kilobytes.
    """
    by = for_type(type(obj))
    if by is None:
        return False
    if type(obj).__module__.startswith("mori."):
        return True
    if isinstance(obj, np.ndarray):
        if obj.dtype.hasobject or obj.dtype.kind == "T":
            return False
        # Pickle forgets which of two types of one size it was, masks that are none, and the like.
        least = _PART_IN_BLOCK_NBYTES if in_block else _PART_NBYTES
        return obj.nbytes >= least or type(obj) is not np.ndarray or obj.dtype.char in "qQc"
    if in_block and by.nbytes(obj) < _PART_IN_BLOCK_NBYTES:
        return False
    return by.is_mapped or isinstance(obj, memoryview)
