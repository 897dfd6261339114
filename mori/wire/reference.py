"""What a pickle carries: a reference of some forty bytes, or the node's bytes themselves.

Imports reader, writer, region, layout, identifier and errors. Emitting one has no side effect but to
mark the mapping for its grace: engines pickle an object up to three times. Reading one never raises
and never waits: what cannot be found becomes a `Lost` object that raises when it is used.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, NoReturn

import numpy as np

from mori.codecs.ndarray import dtype_from_plain
from mori.errors import CorruptRegionError, MoriError, RegionNotFoundError
from mori.format import layout, writer
from mori.format.layout import Codec as Id
from mori.format.node import Node, decode, node_at, open_node, root_of
from mori.format.plan import measure
from mori.memory import region
from mori.memory.lease import Hold
from mori.memory.region import Again, Mapping
from mori.store.base import FILES, MEMFD, Where
from mori.store.names import Name, format_name
from mori.wire import adapters

__all__ = [
    "Carrier",
    "Lost",
    "Strides",
    "Way",
    "again_of",
    "arrivals",
    "by_reference",
    "by_value",
    "hold",
    "identity",
    "is_by_value",
    "is_said",
    "is_wanted",
    "load",
    "load_from",
    "mapping_of",
    "raising",
    "receive",
    "region_of",
    "span",
    "travel",
    "view_of",
    "views_of",
    "way",
    "where_of",
]


class Carrier:
    """An adapter's own way for references: one that is taken is kept good by the adapter, without a grace."""

    __slots__ = ()

    def takes(self, mapping: Mapping) -> bool:
        """Take a reference to this region, or leave its parts to travel by value."""
        return True

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        """Return what ``__reduce_ex__`` returns; what it calls there calls `load` on the payload."""
        return load, (payload,)


Way = Literal["reference", "value"] | Carrier

arrivals: Final[list[Callable[[Mapping], Mapping]]] = []
"""Functions of adapters that say, in turn, which mapping is opened where a region has come as bytes."""

way: Final[ContextVar[Way | Callable[[], Way]]] = ContextVar("mori_way", default="reference")
"""What `travel` sets; who makes all messages of an engine sets it directly, which takes less."""
_raises: ContextVar[bool] = ContextVar("mori_raises", default=False)

# kind, region id, creator, its number, holder, its descriptor, node
_WHOLE: Final = struct.Struct("<B16sIIIIQ")
_VIEW: Final = 0x10  # shape and strides of an array follow
_PART: Final = 0x20  # start and length of an Arrow array follow
_KIND: Final = 0x0F  # of the store
_STORES: Final = {MEMFD: "memfd", FILES: "files"}
_START: Final = struct.Struct("<qB")  # offset in the node's buffer, dimensions
_RANGE: Final = struct.Struct("<QQ")
_MOST_DIMENSIONS: Final = 64


class Strides(NamedTuple):
    """The view of an array: where in the node's buffer it starts, and how it goes on."""

    offset: int
    dtype: str  # empty: the node's own
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@contextmanager
def travel(by: Way | Callable[[], Way]) -> Iterator[None]:
    """Pickle by reference or by value inside; adapters say which, by what they know of the other end.

    A function is asked when something is pickled that can be either: most messages have no such thing.
    """
    token = way.set(by)
    try:
        yield
    finally:
        way.reset(token)


def _current() -> Way:
    found = way.get()
    return found() if callable(found) else found


def is_wanted(mapping: Mapping) -> bool:
    """Say whether a part of this mapping is to be pickled as a reference now.

    Not so if an engine is met in the middle of its own dump: it has not said yet where that goes.
    """
    if not mapping.shared or adapters.meet():
        return False
    by = _current()
    return by == "reference" if isinstance(by, str) else by.takes(mapping)


def is_by_value() -> bool:
    """Say whether somebody has asked for bytes, such as the user with `mori.by_value`."""
    return _current() == "value"


def is_said() -> bool:
    """Say whether anybody, such as an engine's adapter, has said which way the dump under way is to take."""
    return way.get(None) is not None


def by_reference(mapping: Mapping, offset: int, view: Strides | tuple[int, int] | None = None) -> Any:
    """Return what ``__reduce_ex__`` returns for a node, or for a view of one.

    `view` is the view of an array, or start and length of strings.
    """
    hold = mapping.hold
    assert hold is not None
    header = mapping.header
    kind = mapping.kind
    tail = b""
    if isinstance(view, Strides):
        kind |= _VIEW
        code = "q" if any(abs(length) >> 31 for length in (*view.shape, *view.strides)) else "i"
        dimensions = len(view.shape)
        tail = (
            _START.pack(view.offset, dimensions)
            + code.encode()
            + struct.pack(f"<{2 * dimensions}{code}", *view.shape, *view.strides)
            + view.dtype.encode()
        )
    elif view is not None:
        kind |= _PART
        tail = _RANGE.pack(*view)
    whole = _WHOLE.pack(kind, header.region_id, header.pid, header.number, os.getpid(), hold.fd, offset)
    by = _current()
    if not isinstance(by, str):
        return by.reduce(whole + tail)
    hold.pickled = True
    return load, (whole + tail,)


def by_value(node: Node, protocol: int) -> Any:
    """Return what ``__reduce_ex__`` returns for a node whose bytes travel, in the region's own layout.

    The bytes are not copied under protocol 5 with out-of-band buffers. A part travels with the 64
    bytes before it, which stand in for a header, so that it keeps its alignment; one with an alias to
    what stands outside of it is written anew.
    """
    data = memoryview(node.mapping.bytes())
    header = node.mapping.header
    size = layout.HEADER.size
    if node.offset == header.root:
        head = layout.pack_header(header)
        if data[:size] == head:
            return receive, (_buffer(data, protocol),)
        return receive, (_buffer(data, protocol), head)  # a part that has come by value itself
    if node.record.flags & layout.LEANS:
        return receive, (_buffer(memoryview(_anew(node)), protocol),)
    start, end = node.offset - size, node.offset + node.extent
    part = header._replace(nbytes=end - start, root=size, region_id=os.urandom(16))
    return receive, (_buffer(data[start:end], protocol), layout.pack_header(part))


def _anew(node: Node) -> bytearray:
    """Return a region of a part that holds an alias to what stands outside of it."""
    plan = measure(open_node(node))
    nbytes = writer.region_nbytes(plan)
    header = node.mapping.header._replace(nbytes=nbytes, root=writer.ROOT, region_id=os.urandom(16))
    return writer.to_bytes(plan, header)


def _buffer(data: memoryview, protocol: int) -> Any:
    return pickle.PickleBuffer(data) if protocol >= 5 else bytes(data)


class _Names(Carrier):
    """The way of references that are no more than names, the same in every process."""

    def __init__(self) -> None:
        self.count = 0

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        kind, region_id, _, _, _, _, offset = _WHOLE.unpack_from(payload)
        self.count += 1
        return str, (f"{kind}-{region_id.hex()}-{offset}-{payload[_WHOLE.size :].hex()}",)


def identity(obj: Any) -> bytes | None:
    """Return what says which shared object or view this is, the same in every process that has it.

    None for what does not pickle as references.
    """
    names, buffers = _Names(), list[pickle.PickleBuffer]()
    with travel(names):
        pickled = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    return pickled if names.count and not buffers else None


def receive(buffer: object, header: bytes | None = None) -> Any:
    """Return the object whose bytes came by value.

    It lies in the buffer, which is kept, unless an adapter has landed it in the store.
    """
    try:
        adapters.meet()
        mapping = region.over(buffer, header)
        for call in arrivals:
            mapping = call(mapping)
        return open_node(root_of(mapping))
    except Exception as error:  # see `load`
        return Lost(error, b"")


def span(payload: bytes, offset: int, nbytes: int) -> region.Bytes:
    """Return some bytes of the region of a reference.

    Raises
    ------
    RegionNotFoundError, CorruptRegionError
        If it is gone, or does not have these bytes.
    """
    data = mapping_of(payload).bytes()
    if not 0 <= offset <= offset + nbytes <= data.nbytes:
        found = f"a reference asks for bytes {offset} to {offset + nbytes} of {data.nbytes}"
        raise CorruptRegionError(name="of a reference", found=found)
    return data[offset : offset + nbytes]


def load(payload: bytes) -> Any:
    """Return the object of a reference; a `Lost` one where its region is gone or damaged."""
    try:
        adapters.meet()
        return _load(mapping_of(payload), payload)
    except Exception as error:  # also of a missing library, or of a class of the user's
        if _raises.get():
            raise
        return Lost(error, payload)


@contextmanager
def raising() -> Iterator[None]:
    """Have `load` raise in this context: for what makes one `Lost` object of several references."""
    token = _raises.set(True)
    try:
        yield
    finally:
        _raises.reset(token)


def region_of(payload: bytes) -> tuple[bytes, bytes]:
    """Return the id of the region that a reference is to, and a reference to the region as a whole."""
    return payload[1:17], bytes((payload[0] & _KIND,)) + payload[1 : _WHOLE.size]


def hold(payload: bytes) -> Hold | None:
    """Hold the region of a reference without mapping it; None where that cannot be."""
    try:
        return region.hold(*where_of(payload))
    except Exception:  # see `load`: what cannot be held is noticed by who opens it
        return None


def where_of(payload: bytes) -> tuple[Where, int]:
    """Return where to look for the region of a reference, and in which kind of store.

    Raises
    ------
    CorruptRegionError
        If the payload is no reference.
    """
    try:
        kind, region_id, pid, number, holder, fd, _ = _WHOLE.unpack_from(payload)
    except (struct.error, TypeError) as error:
        raise CorruptRegionError(name="of a reference", found=f"it is no reference ({error})") from error
    form, place = kind & ~_KIND, kind & _KIND
    if form not in (0, _VIEW, _PART) or place not in _STORES:
        name = format_name(Name(pid, number))
        raise CorruptRegionError(name=name, found=f"a reference of the kind {kind:#x}, of a later mori")
    where: Where = tuple.__new__(Where, (pid, number, region_id, holder, fd))
    return where, place


def mapping_of(payload: bytes) -> Mapping:
    """Return the mapping of the region of a reference, mapped now if need be.

    Raises
    ------
    RegionNotFoundError
        If no process of this domain holds the region.
    CorruptRegionError
        If the payload is no reference.
    """
    where, place = where_of(payload)
    mapping = region.find(where, place)
    if mapping is None:
        raise RegionNotFoundError(name=format_name(Name(where.pid, where.number)), store=_STORES[place])
    return mapping


def load_from(mapping: Mapping, payload: bytes) -> Any:
    """Return the object of a reference out of a mapping of its region; a `Lost` one if that is damaged."""
    try:
        adapters.meet()
        return _load(mapping, payload)
    except Exception as error:
        return Lost(error, payload)


def _load(mapping: Mapping, payload: bytes) -> Any:
    form, offset = payload[0] & ~_KIND, _WHOLE.unpack_from(payload)[-1]
    if not form:
        found = mapping.again(offset)
        return _open(node_at(mapping, offset)) if found is None else found
    return (_load_view if form == _VIEW else _load_part)(node_at(mapping, offset), payload[_WHOLE.size :])


def _open(node: Node) -> Any:
    found = open_node(node)
    by = _agains.get(node.record.codec)
    if by is not None and (again := by(node, found)) is not None:
        node.mapping.remember(node.offset, again)
    return found


def _load_view(node: Node, tail: bytes) -> Any:
    if node.record.codec not in _views:
        raise node.decode_error("a reference takes it for an array")
    whole = decode(node)
    try:
        offset, dimensions = _START.unpack_from(tail)
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{dimensions} dimensions")
        code = tail[_START.size : _START.size + 1].decode()
        if code not in ("i", "q"):
            raise ValueError(f"numbers of the form {code!r}")
        numbers = struct.Struct(f"<{2 * dimensions}{code}")
        start = _START.size + 1
        lengths = numbers.unpack_from(tail, start)
        name = tail[start + numbers.size :].decode()
        plain = json.loads(name) if name.startswith("{") else name
        dtype = dtype_from_plain(plain) if plain else whole.dtype
        shape, strides = lengths[:dimensions], lengths[dimensions:]
        buffer = node.buffers()[0]
        # numpy's own check of the bounds wraps around at 2**63.
        reach = [(length - 1) * step for length, step in zip(shape, strides, strict=True)]
        first = offset + sum(step for step in reach if step < 0)
        last = offset + sum(step for step in reach if step > 0) + dtype.itemsize
        if min(shape, default=1) < 0:
            raise ValueError(f"a shape of {shape}")
        if 0 in shape:  # numpy takes no strides for what has no elements
            array: Any = np.ndarray(shape, dtype, buffer[:0])
        elif 0 <= first <= last <= buffer.nbytes:
            array = np.ndarray(shape, dtype, buffer, offset, strides)
        else:
            raise ValueError(f"bytes {first} to {last} of {buffer.nbytes}")
    except (struct.error, ValueError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise node.decode_error(f"a reference asks for a view that leaves it ({error})") from error
    return view_of(node, array)


def _load_part(node: Node, tail: bytes) -> Any:
    if node.record.codec not in (Id.STRING_ARRAY, Id.ARROW_COLUMN) or len(tail) != _RANGE.size:
        raise node.decode_error("a reference takes it for a column of Arrow")
    start, length = _RANGE.unpack(tail)
    whole = open_node(node)
    if start + length > len(whole):
        raise node.decode_error("a reference asks for a part that leaves it")
    return whole[start : start + length]


_views: dict[int, Any] = {}


def views_of(number: int, make: Any) -> None:
    """Register how a view of a node is handed to the user; `array` does."""
    _views[number] = make


def view_of(node: Node, array: np.ndarray[Any, Any]) -> Any:
    """Return what a user holds of an array over the buffer of a node."""
    return _views[node.record.codec](node, array)


_agains: dict[int, Callable[[Node, Any], Again | None]] = {}


def again_of(number: int, make: Callable[[Node, Any], Again | None]) -> None:
    """Register what says how the objects of a codec are opened once more; None for one that is read anew.

    It is asked right after a node was opened by a reference, with the node and what was handed to the user.
    """
    _agains[number] = make


def _lost(name: str) -> Any:
    def method(self: Lost, *args: object, **kwargs: object) -> NoReturn:
        _raise(self)

    method.__name__ = name
    return method


def _raise(lost: Lost) -> NoReturn:
    # Without what it went through where it was used before, or each use would add to its traceback, and
    # keep that one's frames.
    raise lost._mori_error.with_traceback(lost._mori_traceback)


class Lost:
    """Stands for a shared object that could not be opened, and says why as soon as it is used.

    Unpickling must not raise: an exception inside an engine's deserializer loses the task, or the
    worker, instead of failing it.
    """

    _mori_error: Exception
    _mori_traceback: TracebackType | None

    def __init__(self, error: Exception, payload: bytes) -> None:
        if isinstance(error, MoriError):  # it says all that there is to say: engines print each traceback
            error.__traceback__ = error.__context__ = None
        object.__setattr__(self, "_mori_error", error)
        object.__setattr__(self, "_mori_traceback", error.__traceback__)
        object.__setattr__(self, "_mori_payload", payload)

    def __repr__(self) -> str:
        return f"<lost mori object: {self._mori_error}>"

    def __reduce_ex__(self, protocol: object) -> Any:
        # Another process may be able to open it.
        payload: bytes = object.__getattribute__(self, "_mori_payload")
        return (load, (payload,)) if payload else (Lost, (self._mori_error, b""))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):  # protocols that engines look for
            raise AttributeError(name)
        _raise(self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        _raise(self)


_OPERATORS: Final = (
    *("abs", "add", "and", "bool", "call", "contains", "delitem", "divmod", "enter", "eq", "float"),
    *("floordiv", "ge", "getitem", "gt", "iadd", "index", "int", "invert", "iter", "le", "len", "lt"),
    *("array", "matmul", "mod", "mul", "ne", "neg", "next", "or", "pow", "radd", "reversed", "rmul"),
    *("rsub", "rtruediv", "setitem", "sub", "truediv", "xor"),
    *("bytes", "ceil", "complex", "delattr", "floor", "lshift", "pos", "rand", "rdivmod", "rfloordiv"),
    *("rlshift", "rmatmul", "rmod", "ror", "round", "rpow", "rrshift", "rshift", "rxor", "trunc"),
)
for _name in _OPERATORS:
    setattr(Lost, f"__{_name}__", _lost(f"__{_name}__"))
Lost.__hash__ = object.__hash__  # type: ignore[method-assign]
