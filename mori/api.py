"""The functions of mori's public surface.

Each does one thing to one object; options are keyword-only.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, overload

import numpy as np

from mori import store
from mori._imports import imported, importing, load
from mori._progress import meter, shown
from mori.codecs.streams import LEAST
from mori.errors import (
    CorruptRegionError,
    NotShareableError,
    PartNotFoundError,
    RegionNotFoundError,
    StoreError,
)
from mori.format import codec, origins, writer
from mori.format.atoms import NAMED, VALUES
from mori.format.node import Node, node_at, open_node, root_of
from mori.format.plan import PlanNode, buffer_nbytes, measure
from mori.memory import region
from mori.memory.mapping import Mapping, address_of, live, map_bytes, writable_mapping
from mori.objects import array
from mori.objects.array import SharedArray
from mori.objects.arrow_stream import is_stream, read, write_stream
from mori.objects.containers.small import Small
from mori.objects.containers.view import View
from mori.objects.materialize import private_copy
from mori.store.base import Entry, Name, Store, Where, format_name, parse_name
from mori.wire import picklers
from mori.wire.compare import is_by_reference
from mori.wire.transport import load_adapters, transport_var, use_transport

if TYPE_CHECKING:
    from mori.objects.bytes import SharedBytes
    from mori.objects.containers.mapping import SharedDict
    from mori.objects.containers.sequences import SharedList, SharedTuple
    from mori.objects.containers.sets import SharedFrozenSet, SharedSet

__all__ = [
    "by_value",
    "frombuffer",
    "is_shared",
    "map_shared",
    "materialize",
    "prune_shared",
    "r_attributes",
    "regions",
    "share",
    "shared_name",
    "writable",
]

_UNCHANGED: Final = tuple(cls for cls in (*VALUES, *NAMED, MethodType, np.generic) if cls is not bytes)

_NOTHING_MAPPED: Final = (
    "nothing in it can be mapped: it has no array, frame or buffer of 1 kB, and is small or a value"
)

region.watch(picklers.register_picklers)
picklers.when_imported("joblib.hashing", lambda module: load("mori.objects.hashing").patch(module))


K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


class _NamedTuple(Protocol):
    @property
    def _fields(self) -> tuple[str, ...]: ...


# What is an instance of a class of its own, though that is derived from a builtin container.
Instance = TypeVar(
    "Instance", bound=_NamedTuple | Counter[Any] | OrderedDict[Any, Any] | defaultdict[Any, Any]
)


# A container of up to 64 elements is a subclass of its builtin, which can do all that the type here can.
@overload
def share(obj: Instance, *, strings: str | None = None, progress: bool = False) -> Instance: ...  # type: ignore[overload-overlap]
@overload
def share(obj: list[T], *, strings: str | None = None, progress: bool = False) -> SharedList[T]: ...
@overload
def share(obj: tuple[T, ...], *, strings: str | None = None, progress: bool = False) -> SharedTuple[T]: ...
@overload
def share(obj: dict[K, V], *, strings: str | None = None, progress: bool = False) -> SharedDict[K, V]: ...
@overload
def share(obj: set[T], *, strings: str | None = None, progress: bool = False) -> SharedSet[T]: ...
@overload
def share(obj: frozenset[T], *, strings: str | None = None, progress: bool = False) -> SharedFrozenSet[T]: ...
@overload
def share(obj: bytes, *, strings: str | None = None, progress: bool = False) -> bytes | SharedBytes: ...
@overload
def share(
    obj: bytearray, *, strings: str | None = None, progress: bool = False
) -> bytearray | SharedBytes: ...
@overload
def share(obj: memoryview, *, strings: str | None = None, progress: bool = False) -> Any: ...
@overload
def share(obj: T, *, strings: str | None = None, progress: bool = False) -> T: ...
@overload
def share(obj: Any, *, layout: Literal["r", "r+bit64"], progress: bool = False) -> Any: ...
def share(obj: Any, *, strings: str | None = None, layout: str | None = None, progress: bool = False) -> Any:
    """Write an object once into shared memory and return its shared version.

    Parameters
    ----------
    obj : object
        Containers may hold anything that pickles, nested as deeply as pickle can follow. A stream of record
        batches (anything with ``__arrow_c_stream__`` that is no table or array: a
        `pyarrow.RecordBatchReader`, a query of DuckDB, a cursor of ADBC) is read and written batch by batch,
        and comes back as a pyarrow.Table.
    strings : {None, "arrow"}
        ``"arrow"`` converts a frame's columns of dtype object that hold strings to Arrow-backed
        ``str``, which is mapped instead of built anew in every process.
    layout : {None, "r", "r+bit64"}
        ``"r"`` writes it as R's package mori does, to be opened in R with ``mori::map_shared()`` by the name
        that `shared_name` gives (Linux). What comes back is what R's vectors, lists and frames are in Python;
        docs/r.md has the types. With ``"r+bit64"``, integers of 64 bits are those of R's package bit64.
    progress : bool
        Show on stderr how far it is, if it takes longer than a second: the elements that were measured, then
        the bytes that were written. By tqdm where it is installed, else as a line of text.

    Returns
    -------
    object
        Equal to `obj`, and pickled as a reference:

        - an array as a `SharedArray`, which is an ndarray; a frame, a series or an index in its own class;
        - a list, tuple, dict or set of up to 64 elements as a subclass of its builtin, a larger one as a
          `SharedList`, `SharedTuple`, `SharedDict`, `SharedSet` or `SharedFrozenSet`;
        - 4096 bytes or more as `SharedBytes`, and a memoryview of numbers as a SharedArray;
        - an object of a library that mori knows, or of a registered codec, as what it is;
        - anything else that pickles as an instance of its class, whose frames, arrays and out-of-band
          buffers (from 1024 bytes on) are mapped.

        None, numbers, strings, short bytes, functions, classes and modules come back as they are, and so does
        what does not pickle or has nothing to map; `explain` says why. What is shared already comes back as
        it is.

    Raises
    ------
    NotShareableError
        If a part of a container can be neither laid out nor pickled, or R cannot hold it; it names the path.
    StoreFullError
        If there is no room. Nothing is left behind.

    Notes
    -----
    The region lives as long as any process holds the object or a part of it. Safe on any thread.

    Examples
    --------
    >>> import mori, numpy, pickle
    >>> x = mori.share(numpy.arange(1_000_000))
    >>> int(x.sum()), len(pickle.dumps(x, 5)) <= 100
    (499999500000, True)
    """
    load_adapters()
    if strings not in (None, "arrow"):
        raise ValueError(f"strings={strings!r} is not known; expected None or 'arrow'")
    if layout is not None:
        return _share_for_r(obj, layout, progress)
    if isinstance(obj, _UNCHANGED) or (type(obj) is not np.ndarray and is_shared(obj)):
        return obj
    if hasattr(type(obj), "__arrow_c_stream__") and is_stream(obj):
        return _share_stream(obj, strings, progress=progress)
    if progress or meter() is not None:
        with shown(progress) as shown_by:
            plan = plan_or_reason(obj, strings)
            if shown_by is not None and not isinstance(plan, str):
                shown_by.writing(writer.region_nbytes(plan))
            return obj if isinstance(plan, str) else root_of(writer.to_region(plan)).open_first()
    plan = plan_or_reason(obj, strings)
    return obj if isinstance(plan, str) else root_of(writer.to_region(plan)).open_first()


def _share_for_r(obj: Any, layout: str, progress: bool) -> Any:
    if layout not in ("r", "r+bit64"):
        raise ValueError(f"layout={layout!r} is not known; expected None, 'r' or 'r+bit64'")
    if sys.platform != "linux":
        raise StoreError(
            store="R's shared memory", found=f"mori has none on {sys.platform}", remedy="Use Linux"
        )
    if (node := node_of(obj)) is not None and node.mapping.is_r and shared_name(obj) is not None:
        return obj
    with shown(progress):
        return load("mori.codecs.r").share(obj, layout)


def _share_stream(obj: Any, strings: str | None, *, progress: bool) -> Any:
    table, schema, batches = read(obj)
    if table is not None:
        return share(table, strings=strings, progress=progress)
    with shown(progress):
        mapping = write_stream(schema, batches)
    assert mapping is not None
    return root_of(mapping).open_first()


def plan_or_reason(obj: Any, strings: str | None) -> PlanNode | str:
    """Return the plan that `share` writes of an object, or why it returns the object as it is."""
    try:
        plan = plan_of(obj, strings)
    except NotShareableError as error:
        if codec.for_type(type(obj)) is None:  # it is the user's to know what pickles of an unknown class
            return str(error)
        raise
    if not (
        codec.TABLE[plan.codec].has_mapped(len(plan.children), len(plan.buffers))
        or isinstance(codec.for_type(type(obj)), codec.ContainerCodec)
        or _is_worth_a_reference(obj, plan)
    ):
        return _NOTHING_MAPPED
    return plan


def plan_of(obj: Any, strings: str | None, note_pickle: Callable[[str], None] | None = None) -> PlanNode:
    """Return the plan of an object; raises what `measure` does."""
    objects: Any = None

    def prepare(frame: Any, path: str) -> Any:
        nonlocal objects
        if objects is None:
            with importing:
                from mori.objects.pandas import Objects

            objects = Objects(strings)
        return objects.prepare(frame, path)

    token = transport_var.set("value")  # a region refers to no other
    try:
        return measure(obj, prepare, note_pickle)
    finally:
        transport_var.reset(token)
        if objects is not None:
            objects.warn()


def _is_worth_a_reference(obj: object, plan: PlanNode) -> bool:
    """Return whether an object without mapped parts is large enough, and can be remembered as what was opened
    (by a weak reference).
    """
    return type(obj).__weakrefoffset__ != 0 and sum(map(buffer_nbytes, plan.buffers)) >= LEAST


def node_of(obj: object) -> Node | None:
    """Return the node of a shared object or part, None for what is not shared."""
    if isinstance(obj, SharedArray):
        return array.node_of(obj)
    if isinstance(obj, View):
        return obj._node if obj._mori_is_intact() else None
    if isinstance(obj, Small):
        return obj._mori_node() if obj._mori_is_intact() else None
    if hasattr(type(obj), "_mori_is_intact"):
        return obj._mori.node if obj._mori_is_intact() else None  # type: ignore[attr-defined]
    # Nothing of pandas lies in a region before. What another thread imports just now may lack the function.
    of_pandas = getattr(sys.modules.get("mori.objects.pandas"), "node_of", None)
    if of_pandas is not None and (node := of_pandas(obj)) is not None:
        return node  # type: ignore[no-any-return]
    node = origins.node_of(obj)
    return node if node is not None and is_by_reference(node, obj) else None


def is_shared(x: object) -> bool:
    """Return whether an object, a part or a view of one lies in shared memory.

    Returns
    -------
    bool
        False again for what has been written to, and for what came by value. True for a plain
        DataFrame whose columns all lie in shared memory, such as ``frame.iloc[:10]`` of a shared one.
    """
    node = node_of(x)
    if node is not None:
        return node.mapping.shared
    if hasattr(type(x), "_mori_is_intact"):
        return False
    lies_in_region = getattr(sys.modules.get("mori.objects.pandas"), "lies_in_region", None)
    return lies_in_region is not None and lies_in_region(x)


def shared_name(x: object) -> str | None:
    """Return the name of a shared object or part.

    Returns
    -------
    str or None
        ``"/mori_4d1b_1"``, or ``"/mori_4d1b_1[2,0]"`` for element 0 of element 2, counted from 0; for a
        dict the place of the item, for a frame the place of the column. What is in R's layout has the
        name that R gives it, whose steps count from 1. None for what is not shared, for slices of an array,
        and for what lies deeper than 64 levels.
    """
    node = node_of(x)
    if node is None or not node.mapping.shared:
        return None
    inside = array.place_in(x, node) if isinstance(x, SharedArray) else ()
    if inside is None:
        return None
    # A column of R's has a node of its own, and what pandas has may be a slice of it: it is asked for below.
    is_of_pandas = node.mapping.is_r and type(x).__module__.partition(".")[0] == "pandas"
    name = None if is_of_pandas else node.name(inside)
    if name is None and imported("pandas") is not None:
        with importing:
            from mori.objects.pandas import name_of

        name = name_of(x)
    return None if name is None else format_name(name)


def map_shared(name: object) -> Any:
    """Open a shared object by its name.

    Parameters
    ----------
    name : str
        What `shared_name` gave, in any process of this user on this host: here, or in R (on Linux). The parts
        of what R made are counted from 1, as R does it.

    Returns
    -------
    object
        The shared object or part; None if `name` is not well formed. docs/r.md says what R's objects are
        here.

    Raises
    ------
    RegionNotFoundError
        If no process holds the region.
    PartNotFoundError
        If the path leads out of the object.
    CorruptRegionError, UnsafeRegionError
        If what lies under the name is no region of this user.
    """
    found = locate(name)
    if found is None:
        return None
    parsed, node, rest = found
    part = node.mapping.reopen(node.offset)
    if part is None:
        part = node.open_first()
    for depth, number in enumerate(rest, len(parsed.path) - len(rest) + 1):
        by = codec.for_type(type(part))
        try:
            if by is None:
                raise TypeError("what it leads into is not a container")
            part = by.inside(part, number)
        except (TypeError, IndexError) as error:
            here = format_name(parsed._replace(path=parsed.path[:depth]))
            raise PartNotFoundError(name=here, found=str(error)) from None
    return part


def locate(name: object) -> tuple[Name, Node, tuple[int, ...]] | None:
    """Return a name's parts, the node that it leads to, and the steps that are left inside of that node.

    None for what is no name. Steps are left where a node holds its elements without nodes of their own: the
    columns of a frame, packed lists, small containers. Raises what `map_shared` does.
    """
    parsed = parse_name(name)
    if parsed is None:
        return None
    home = store.current()
    if parsed.source is not None:
        mapping = _mapped_file(parsed.source)
    else:
        where = Where(parsed.pid, parsed.number)
        mapping = _live(parsed) or region.find(where, home.kind)
        if mapping is None and sys.platform == "linux":
            mapping = region.find(where, store.R)
    if mapping is None:
        name = format_name(parsed)
        raise RegionNotFoundError(name=name, store=home.name + " or R's" * (sys.platform == "linux"))
    node = root_of(mapping)
    for done, number in enumerate(parsed.path):
        try:
            part = node.codec.part(node, number - mapping.is_r)
        except (TypeError, IndexError) as error:
            here = format_name(parsed._replace(path=parsed.path[: done + 1]))
            raise PartNotFoundError(name=here, found=str(error)) from None
        if part is None:
            return parsed, node, parsed.path[done:]
        node = part
    return parsed, node, ()


def _live(name: Name) -> Mapping | None:
    wanted = (name.pid, name.number)
    return next((found for found in live() if found.shared and found.name[:2] == wanted), None)


def _mapped_file(path: str) -> Mapping | None:
    """Return the mapping of a file; pickles in it may be read where this process has loaded it so."""
    allows_pickles = any(found.source == path and found.allows_pickles for found in live())
    return region.find(Where(0, 0, path=path, allows_pickles=allows_pickles), store.PATH)


def r_attributes(x: object) -> dict[str, Any] | None:
    """Return the attributes that an object has in R: ``names``, ``dim``, ``dimnames``, ``class`` and others.

    Returns
    -------
    dict or None
        Of the vector, list or frame in R's layout that `x` is, or lies in. Text is a list of str and None,
        numbers are arrays, lists a list or a dict, and what is no data (a function) is None. None for what is
        not in R's layout.

    Examples
    --------
    >>> import mori, numpy
    >>> mori.r_attributes(mori.share(numpy.zeros((2, 3)), layout="r"))
    {'dim': array([2, 3], dtype=int32)}
    """
    node = node_of(x)
    return load("mori.format.r").attributes_of(node) if node is not None and node.mapping.is_r else None


def prune_shared() -> list[str]:
    """Remove what killed processes left behind.

    Returns
    -------
    list of str
        The names of the regions that were removed. In the `memfd` store the kernel frees them with
        their last holder, so there is never anything to do. What R made is R's to remove.
    """
    return [name for home in _stores() for name in home.prune()]


def _stores() -> list[Store]:
    """Return the store that `MORI_STORE` names, and R's where it can be looked into."""
    return [store.current(), *([store.of_kind(store.R)] if sys.platform == "linux" else [])]


def regions() -> list[Entry]:
    """List what is alive in this domain: in the store that `MORI_STORE` names, and R's, of this user.

    Returns
    -------
    list of named tuples
        Oldest first: ``name``; ``nbytes``; ``age``, seconds since it was written; ``owner``, the pid of the
        process that wrote it, which may be gone; ``holders``, the pids of the processes that hold it; and
        ``region_id``, where the store knows it.

    Notes
    -----
    Nothing is opened and nothing is held by asking. Holders are those that ``/proc`` shows: not the
    processes of other pid namespaces, and none on a system without it. What killed processes left in a
    `files` store is removed first.

    Examples
    --------
    >>> import mori, numpy, os
    >>> x = mori.share(numpy.arange(1000))
    >>> (entry,) = [entry for entry in mori.regions() if entry.name == mori.shared_name(x)]
    >>> entry.nbytes > x.nbytes, entry.owner == os.getpid(), os.getpid() in entry.holders
    (True, True, True)
    """
    found: list[Entry] = []
    for home in _stores():
        home.prune()
        found += home.entries()
    return sorted(found, key=lambda entry: -entry.age)


def frombuffer(buffer: Any) -> Any:
    """Open a buffer that holds a region: bytes, an mmap, a Ray buffer, whatever exports one.

    Parameters
    ----------
    buffer : bytes-like
        The region, from its first byte on; other bytes may follow. A shared object pickled with
        `by_value` and protocol 5 hands its region out as its one out-of-band buffer, and a file of
        the `files` store is one.

    Returns
    -------
    object
        What `share` gave for it. It lies in the buffer, which it keeps, and is not shared: `is_shared` is
        False, and it pickles by value. Where the buffer does not start at a multiple of 8 bytes it
        is copied once.

    Raises
    ------
    CorruptRegionError
        If the buffer does not hold a whole region, or a damaged one.
    TypeError
        If it is no buffer.

    Notes
    -----
    A buffer may have been changed since it was written, so what C code would trust is read through
    once (offsets of strings, codes of categories). An object that was pickled is unpickled: open no
    buffer that you would not unpickle. The buffer must not change while the object is in use.

    Examples
    --------
    >>> import mori, numpy, pickle
    >>> x, buffers = mori.share(numpy.arange(1000)), []
    >>> with mori.by_value():
    ...     head = pickle.dumps(x, 5, buffer_callback=buffers.append)
    >>> int(mori.frombuffer(buffers[0])[-1])
    999
    """
    load_adapters()
    with memoryview(buffer) as view:
        if not view.contiguous:
            raise CorruptRegionError(name="in a buffer", found="its bytes do not stand one behind the other")
        if not view.nbytes:
            raise CorruptRegionError(name="in a buffer", found="it is empty")
    return open_node(root_of(map_bytes(buffer)))


@overload
def materialize(x: SharedList[T]) -> list[T]: ...
@overload
def materialize(x: SharedTuple[T]) -> tuple[T, ...]: ...
@overload
def materialize(x: SharedDict[K, V]) -> dict[K, V]: ...
@overload
def materialize(x: SharedSet[T]) -> set[T]: ...
@overload
def materialize(x: SharedFrozenSet[T]) -> frozenset[T]: ...
@overload
def materialize(x: SharedBytes) -> Any: ...
@overload
def materialize(x: T) -> T: ...
def materialize(x: Any) -> Any:
    """Return a private deep copy in ordinary types: ndarray, DataFrame, list, tuple, dict.

    What is not shared comes back as it is; builtin containers are looked through. What is one object in `x`
    is one in the copy, as with `copy.deepcopy`; the depth is bounded by memory alone.
    """
    return private_copy(x)


@overload
def writable(x: SharedList[T]) -> list[T]: ...
@overload
def writable(x: SharedTuple[T]) -> tuple[T, ...]: ...
@overload
def writable(x: SharedDict[K, V]) -> dict[K, V]: ...
@overload
def writable(x: SharedSet[T]) -> set[T]: ...
@overload
def writable(x: SharedFrozenSet[T]) -> frozenset[T]: ...
@overload
def writable(x: SharedBytes) -> Any: ...
@overload
def writable(x: T) -> T: ...
def writable(x: Any) -> Any:
    """Return a private version of a shared object in ordinary types, whose arrays can be written to.

    Its arrays and frames lie over the pages of the region, and a page is copied when it is written to for
    the first time: for code that insists on writable arrays, or changes its input. Other processes, `x`
    itself and further calls see no write. What is not shared, or was written to, is copied as `materialize`
    copies it; so are bytes, Arrow, polars and torch.

    The result pickles by value, with what was written. It keeps the region alive.

    Examples
    --------
    >>> import mori, numpy
    >>> x = mori.share(numpy.arange(1_000_000))
    >>> y = mori.writable(x)
    >>> y[0] = 7
    >>> int(x[0]), type(y).__name__
    (0, 'ndarray')
    """
    node = node_of(x)
    if node is None or not node.mapping.shared:
        return private_copy(x)
    private = writable_mapping(node.mapping)
    if isinstance(x, SharedArray) and x._origin is None:
        start = address_of(x) - node.mapping.address
        over_pages = np.ndarray(x.shape, x.dtype, private.bytes(), start, x.strides)
        return over_pages.view(x._ordinary)
    return private_copy(open_node(node_at(private, node.offset)))


def by_value() -> AbstractContextManager[None]:
    """Pickle by value inside: for other machines, and for bytes that are read when the region may be gone.

    What is written to a file carries its data without it.

    Examples
    --------
    >>> import mori, numpy, pickle
    >>> x = mori.share(numpy.arange(1000))
    >>> with mori.by_value():
    ...     len(pickle.dumps(x, 5)) > x.nbytes
    True
    """
    return use_transport("value")
