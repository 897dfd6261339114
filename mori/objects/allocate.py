"""`allocate`: an array that is produced straight into shared memory, and sealed without a copy.

Invariant: no address that an array was given is ever unmapped under it. What is behind the addresses changes:
writable pages of the region, then private copies of them, or nothing but zeros where the allocation was given
up.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import mmap
import operator
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from mori.codecs.ndarray import NdarrayCodec
from mori.format import layout, writer
from mori.format.layout import Id, to_json
from mori.format.node import open_node, root_of
from mori.format.plan import PlanNode, measure
from mori.memory import region
from mori.memory.mapping import Mapping as MappedRegion
from mori.memory.mmap import map_files, map_pages
from mori.memory.parallel_write import write_in_order
from mori.objects.array import SharedArray
from mori.store.base import ALIGNMENT, Header, opened, pack_header

__all__ = ["AllocatedArray", "AllocatedFrame", "allocate"]

_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE


class _Room:
    """The memory of a region that is not sealed yet, and the draft of it in the store."""

    def __init__(self, unsealed: region.Unsealed) -> None:
        self._unsealed: region.Unsealed | None = unsealed
        self._pid = os.getpid()
        self.header: Header = unsealed.header
        self.nbytes: int = unsealed.header.nbytes
        with self._opened(os.O_RDWR) as fd:
            address, self._owner = map_files((fd,), 0, 0, self.nbytes, _READ_WRITE, mmap.MAP_SHARED)
        self.address: int = address

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Any:
        """Open the draft to be mapped; a mapping keeps the lock of the open file that it was made from."""
        assert self._unsealed is not None
        draft = self._unsealed.draft
        if draft.path is None:
            yield draft.held.fds[0]
            return
        file = opened(os.open, draft.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield file.fileno()
        finally:
            file.close()

    def seal(self) -> MappedRegion | None:
        """Publish the region; None where it cannot be sealed and has to be copied.

        Arrays over this memory write to private copies of its pages from then on.
        """
        if self._unsealed is None or self._pid != os.getpid():
            return None  # a forked child: the draft is its parent's
        with self._opened(os.O_RDONLY) as fd:
            map_pages(fd, self.nbytes, _READ_WRITE, mmap.MAP_PRIVATE, self.address)
        unsealed, self._unsealed = self._unsealed, None
        try:
            return region.publish(unsealed)
        except OSError as error:
            if error.errno != errno.EBUSY:  # a forked child has it mapped, and may write
                raise
            return None

    def give_up(self) -> None:
        """Free the memory now, whoever still has an array over it."""
        self._discard()
        with contextlib.suppress(OSError):
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            map_pages(-1, self.nbytes, _READ_WRITE, flags, self.address)

    def _discard(self) -> None:
        unsealed, self._unsealed = self._unsealed, None
        if unsealed is None:
            return
        if self._pid == os.getpid():
            unsealed.home.discard(unsealed.draft)
        else:
            unsealed.draft.held.close()

    def __del__(self) -> None:
        self._discard()


class AllocatedArray(np.ndarray[Any, np.dtype[Any]]):
    """A writable array over shared memory that nobody else can open yet; see `mori.allocate`.

    Views of it and results of arithmetic are plain arrays.
    """

    _room: _Room | None
    _shared: SharedArray | None
    _lock: threading.Lock

    def __array_finalize__(self, obj: npt.NDArray[Any] | None) -> None:
        self._room = None
        self._shared = None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        if array is self:
            return self
        plain = array.view(np.ndarray)
        return plain[()] if return_scalar else plain

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        return item.view(np.ndarray) if isinstance(item, AllocatedArray) else item

    def __enter__(self) -> AllocatedArray:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._room is not None and self._shared is None:
            self._room.give_up()
            state: Any = (1, (0,), self.dtype, False, b"")
            # The room stays: views hold this array, and with it their addresses.
            self.__setstate__(state)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)

    def share(self) -> SharedArray:
        """Seal the memory and return the shared array; nothing is copied.

        Returns
        -------
        SharedArray
            The same one each time. This array is read-only from then on, and what is written through
            views that were taken of it before stays in this process, unseen by the shared array.

        Raises
        ------
        ValueError
            If the block was left before, or if this is no array that `mori.allocate` returned.

        Notes
        -----
        While a forked child has the memory mapped, it cannot be sealed, and is copied.
        """
        if self._room is None:
            raise ValueError("only the array that mori.allocate returned can be shared, not a part or a copy")
        with self._lock:
            if self._shared is not None:
                return self._shared
            if self.shape == (0,) and self.base is None:
                raise ValueError("the block was left without share(): its memory has been given back")
            mapping = self._room.seal()
            if mapping is None:
                mapping = writer.to_region(measure(self.view(np.ndarray)))
            self._shared = open_node(root_of(mapping))
            self.setflags(write=False)
            return self._shared


class _Elements:
    """Stands in a plan for elements that are yet to be written."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def _meta(shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> bytes:
    encoded = NdarrayCodec().encode(np.empty(0, dtype))
    if encoded is None or encoded.children or dtype.hasobject:
        raise TypeError(f"an array of {dtype} cannot be allocated: its elements are no plain bytes")
    plain = json.loads(encoded.meta)
    plain[1:3] = shape, order
    return to_json(plain)


class AllocatedFrame(Mapping[str, npt.NDArray[Any]]):
    """The columns of a frame in shared memory that nobody else can open yet; see `mori.allocate`.

    A mapping of names to writable arrays, in their order.
    """

    def __init__(self, room: _Room, columns: dict[str, npt.NDArray[Any]]) -> None:
        self._room = room
        self._columns = columns
        self._shared: Any = None
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __enter__(self) -> AllocatedFrame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shared is None:
            self._room.give_up()
            self._columns = {}

    def share(self) -> Any:
        """Seal the memory and return the shared DataFrame; nothing is copied.

        Returns
        -------
        pandas.DataFrame
            The same one each time. What is written to the arrays from then on stays in this process.

        Raises
        ------
        ValueError
            If the block was left before.
        """
        with self._lock:
            if self._shared is not None:
                return self._shared
            if not self._columns:
                raise ValueError("the block was left without share(): its memory has been given back")
            mapping = self._room.seal()
            if mapping is None:  # a forked child has it mapped
                import pandas as pd

                mapping = writer.to_region(measure(pd.DataFrame(self._columns, copy=False)))
            self._shared = open_node(root_of(mapping))
            for column in self._columns.values():
                column.setflags(write=False)
            return self._shared


def _allocate_frame(columns: Mapping[str, npt.DTypeLike], rows: int, path: str | None) -> AllocatedFrame:
    import pandas as pd

    kinds = {name: np.dtype(dtype) for name, dtype in columns.items()}
    for name, dtype in kinds.items():
        if dtype.kind not in "biufcmM":
            raise TypeError(
                f"a column of {dtype} cannot be allocated ({name!r}): no fixed place for its elements. Write "
                "text as it comes: mori.share or mori.save of a stream of Arrow's record batches"
            )
    # Zeros that take no memory, to plan with: what is written of them are the region's own.
    plan = measure(
        pd.DataFrame(
            {name: np.broadcast_to(np.zeros((), dtype), rows) for name, dtype in kinds.items()},
            index=pd.RangeIndex(rows),
            copy=False,
        )
    )
    nbytes = writer.region_nbytes(plan)

    def write(fd: int, header: Header) -> None:
        write_in_order(fd, lambda put: writer.write(plan, header, put))

    room = _Room(region.begin(nbytes, write, writer.ROOT, path))
    frame = open_node(root_of(_writable_over(room)))
    arrays = {name: _column(frame, place) for place, name in enumerate(kinds)}
    return AllocatedFrame(room, arrays)


def _writable_over(room: _Room) -> MappedRegion:
    """Return the region over memory that is not sealed, for arrays that write to it."""
    mapping = MappedRegion(room.header, room.address, None, room)
    mapping.is_writable = True
    return mapping


def _column(frame: Any, place: int) -> npt.NDArray[Any]:
    """Return the array of a frame's column, which pandas hands out read-only."""
    manager = frame._mgr
    values = manager.blocks[manager.blknos[place]].values
    array: npt.NDArray[Any] = getattr(values, "_ndarray", values)  # of dates and times
    column: npt.NDArray[Any] = array.view(np.ndarray)[manager.blklocs[place]]
    return column


@overload
def allocate(
    shape: Mapping[str, npt.DTypeLike], *, rows: int, path: str | os.PathLike[str] | None = None
) -> AllocatedFrame: ...
@overload
def allocate(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    path: str | os.PathLike[str] | None = None,
) -> AllocatedArray: ...
def allocate(
    shape: Any,
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    rows: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Return a writable array of zeros in shared memory, to be filled and then shared without a copy.

    Parameters
    ----------
    shape : int or tuple of int or dict
        Elements along each dimension. Of a frame, the dtypes of its columns by their names: numbers, bool,
        dates and times.
    dtype : dtype_like
        Any dtype without objects.
    order : {"C", "F"}
        Which index changes slowest, as numpy has it.
    rows : int
        Of a frame.
    path : path_like, optional
        A file that it becomes, as by `mori.save`, in place of shared memory. It is there with ``share()``.

    Returns
    -------
    AllocatedArray or AllocatedFrame
        A writable ndarray with a method ``share()``, and a context manager: a block that is left
        without ``share()``, by an exception or not, gives the memory back. The array is empty then, and views
        that were taken of it read zeros.

    Raises
    ------
    TypeError
        For a dtype whose elements are objects.
    ValueError
        For a shape that is none.
    StoreFullError
        If there is no room. It is reserved here, so that writing to the array cannot fail.

    Notes
    -----
    A child that is forked inside the block writes to the same memory.

    Examples
    --------
    >>> import mori
    >>> with mori.allocate((1000, 3), "f4") as a:
    ...     a[...] = 1
    ...     x = a.share()
    >>> float(x.sum()), mori.is_shared(x)
    (3000.0, True)
    """
    file = None if path is None else os.path.realpath(os.fsdecode(path))
    if isinstance(shape, Mapping):
        if rows is None or rows < 0:
            raise ValueError(f"rows={rows!r}: a frame has to be told how many rows it has")
        return _allocate_frame(shape, operator.index(rows), file)
    if order not in ("C", "F"):
        raise ValueError(f"order={order!r} is not known; expected 'C' or 'F'")
    sizes = (shape,) if isinstance(shape, SupportsIndex) else tuple(shape)
    lengths = tuple(map(operator.index, sizes))
    kind = np.dtype(dtype)
    if kind.subdtype is not None:
        kind, more = kind.subdtype
        lengths += more
    if min(lengths, default=0) < 0:
        raise ValueError("negative dimensions are not allowed")
    np.empty((0,) * len(lengths))  # says how many dimensions there may be
    plan = PlanNode(Id.NDARRAY, _meta(lengths, kind, order), ())
    elements: Any = _Elements(math.prod(lengths) * kind.itemsize)
    plan.buffers, plan.alignment = (elements,), ALIGNMENT
    plan.close()
    nbytes = writer.region_nbytes(plan)

    def write(fd: int, header: Header) -> None:
        # First, since it proves whose file it is if this process is killed now.
        head = layout.pack_head(plan.codec, plan.meta, plan.table, 0, plan.extent, 0, 0)
        os.pwrite(fd, pack_header(header).ljust(writer.ROOT, b"\0") + head, 0)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, nbytes)
        else:
            os.ftruncate(fd, nbytes)

    room = _Room(region.begin(nbytes, write, writer.ROOT, file))
    ((offset, _),) = plan.table
    start = writer.ROOT + offset
    data = np.asarray(room)[start : start + elements.nbytes]
    array = np.ndarray.__new__(AllocatedArray, lengths, kind, data, order="F" if order == "F" else "C")
    array._room, array._lock = room, threading.Lock()
    return array
