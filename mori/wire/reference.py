"""References: what a pickle carries, some forty bytes, or the bytes of a node.

Making a reference has no side effect but to mark the lease for its grace: engines pickle an object up to
three times. Opening one never waits. What cannot be found raises; in the deserializer of an engine it becomes
a `Lost` object, which raises when it is used.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from mori import store
from mori.errors import CorruptRegionError, LimitError, RegionNotFoundError, SavedRegionNotFoundError
from mori.format import layout, writer
from mori.format.codec import Range, Strides
from mori.format.node import Node, node_at, open_node, root_of
from mori.format.plan import measure
from mori.memory import receipts, region
from mori.memory.lease import Lease
from mori.memory.mapping import Bytes, Mapping, map_bytes, mapping_at
from mori.store.base import FILES, HEADER, MEMFD, NO_PICKLES, PATH, R, Where, pack_header
from mori.wire import destination
from mori.wire.lost import Lost
from mori.wire.transport import Transport, current, is_wanted, load_adapters, transport_var, use_transport

__all__ = [
    "REGION_ID",
    "by_reference",
    "by_value",
    "identity",
    "lease_of",
    "load",
    "load_from",
    "lost_or_raise",
    "map_bytes_of",
    "memory_of",
    "on_receive",
    "open_region",
    "raising",
    "receive",
    "refer_to_memory",
    "reference_to_region",
    "use_lost_objects",
    "where_of",
    "with_receipt",
]

_receivers: Final[list[Callable[[Mapping], Mapping]]] = []
_raises: ContextVar[bool | None] = ContextVar("mori_raises", default=None)  # None: as those who read want it

# The fixed part: kind, region id, creator, its number, holder, its descriptor, node
_FIXED: Final = struct.Struct("<B16sIIIIQ")
REGION_ID: Final = slice(1, 17)
"""Where in a reference the id of its region is."""
# Of a region in a file that a user named, this follows: the length of the path, and the path. Holder and
# descriptor are the size there.
_PATH_NBYTES: Final = struct.Struct("<H")
_VIEW: Final = 0x10  # shape and strides of an array follow
_PART: Final = 0x20  # start and length of an Arrow array follow
_RECEIPT: Final = 0x40  # where the receiver is to say that it has arrived follows, at the end
_NO_PICKLES: Final = 0x80  # its pickles are not to be read: the file was loaded so
_RECEIPT_NBYTES: Final = 8
_KIND: Final = 0x0F  # of the store
_STORES: Final = {MEMFD: "memfd", FILES: "files", PATH: "path", R: "R's"}
_START: Final = struct.Struct("<qB")  # offset in the node's buffer, dimensions
_RANGE: Final = struct.Struct("<QQ")
_MOST_DIMENSIONS: Final = 64


def by_reference(mapping: Mapping, offset: int, view: Strides | Range | None = None) -> Any:
    """Return what ``__reduce_ex__`` returns for a node, or for a view of one.

    `view` is the view of an array, or start and length of strings.
    """
    lease = mapping.lease
    assert lease is not None
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
    holder, fd, path = os.getpid(), lease.fd, b""
    if mapping.source is not None:
        kind |= _NO_PICKLES if header.flags & NO_PICKLES else 0
        holder, fd = divmod(header.nbytes, 1 << 32)
        path = os.fsencode(mapping.source)
        path = _PATH_NBYTES.pack(len(path)) + path
    fixed = _FIXED.pack(kind, header.region_id, header.pid, header.number, holder, fd, offset) + path
    # Where nobody has chosen, `is_wanted` has just looked who pickles.
    by = "reference" if transport_var.get() is destination.transport_of_frames else current()
    if isinstance(by, str):
        lease.needs_grace = True
    elif (reduced := by.reduce(fixed + tail)) is not None:
        return reduced
    return load, (fixed + tail,)


def by_value(node: Node, protocol: int) -> Any:
    """Return what ``__reduce_ex__`` returns for a node whose bytes are sent, in the region's own layout.

    The bytes are not copied under protocol 5 with out-of-band buffers. A part is sent with the 64
    bytes before it, which stand in for a header, so that it keeps its alignment; one with an alias to
    what stands outside of it is written anew.
    """
    if node.mapping.is_r:
        return receive, (_buffer(memoryview(_anew(node)), protocol),)
    data = memoryview(node.mapping.bytes())
    header = node.mapping.header
    size = HEADER.size
    if node.offset == header.root:
        head = pack_header(header)
        if data[:size] == head:
            return receive, (_buffer(data, protocol),)
        return receive, (_buffer(data, protocol), head)  # a part that has come by value itself
    if node.record.flags & layout.REFERS_OUTSIDE:
        return receive, (_buffer(memoryview(_anew(node)), protocol),)
    start, end = node.offset - size, node.offset + node.extent
    part = header._replace(nbytes=end - start, root=size, region_id=os.urandom(16))
    return receive, (_buffer(data[start:end], protocol), pack_header(part))


def _anew(node: Node) -> bytearray:
    """Return a region of a part that holds an alias to what stands outside of it, or is in R's layout."""
    with use_transport("value"):
        plan = measure(open_node(node))
    return writer.to_bytes(plan, writer.header_of(plan, os.urandom(16), *node.mapping.name[:2]))


def _buffer(data: memoryview, protocol: int) -> Any:
    return pickle.PickleBuffer(data) if protocol >= 5 else bytes(data)


class _Names(Transport):
    """References that are no more than names, the same in every process."""

    def __init__(self) -> None:
        self.count = 0

    def reduce(self, payload: bytes) -> tuple[Any, ...]:
        kind, region_id, _, _, _, _, offset = _FIXED.unpack_from(payload)
        self.count += 1
        return str, (f"{kind}-{region_id.hex()}-{offset}-{payload[_FIXED.size :].hex()}",)  # with a path


def identity(obj: Any) -> bytes | None:
    """Return what says which shared object or view this is, the same in every process that has it.

    None for what does not pickle as references.
    """
    names, buffers = _Names(), list[pickle.PickleBuffer]()
    with use_transport(names):
        pickled = pickle.dumps(obj, 5, buffer_callback=buffers.append)
    return pickled if names.count and not buffers else None


def receive(buffer: object, header: bytes | None = None) -> Any:
    """Return the object whose bytes came by value.

    It lies in the buffer, which is kept, unless an adapter has put it into the store.
    """
    try:
        load_adapters()
        mapping = map_bytes(buffer, header)
        for call in _receivers:
            mapping = call(mapping)
        return open_node(root_of(mapping))
    except Exception as error:  # see `load`
        return lost_or_raise(error)


def on_receive(call: Callable[[Mapping], Mapping]) -> None:
    """Call a function for each region that arrives as bytes; it returns the one that is opened instead."""
    if call not in _receivers:
        _receivers.append(call)


def refer_to_memory(address: int, nbytes: int) -> tuple[bytes, int, int] | None:
    """Return what `memory_of` takes for memory that lies in a region; None where it does not.

    None, too, where the transport of the pickle under way wants bytes, or references of its own.
    """
    mapping = mapping_at(address, nbytes)
    if mapping is None or not is_wanted(mapping):
        return None
    function, arguments = by_reference(mapping, mapping.header.root)[:2]
    return (arguments[0], address - mapping.address, nbytes) if function is load else None


def memory_of(payload: bytes, offset: int, nbytes: int) -> Bytes:
    """Return some bytes of the region of a reference.

    Raises
    ------
    RegionNotFoundError, CorruptRegionError
        If it is gone, or does not have these bytes.
    """
    data = open_region(payload).bytes()
    if not 0 <= offset <= offset + nbytes <= data.nbytes:
        found = f"a reference asks for bytes {offset} to {offset + nbytes} of {data.nbytes}"
        raise CorruptRegionError(name="of a reference", found=found)
    return data[offset : offset + nbytes]


def load(payload: bytes) -> Any:
    """Return the object of a reference.

    Raises
    ------
    RegionNotFoundError, CorruptRegionError
        If its region is gone or damaged. An engine's deserializer gets a `Lost` object instead.
    """
    try:
        load_adapters()
        if type(payload) is bytes and len(payload) > _FIXED.size and payload[0] & _RECEIPT:
            payload, receipt = _with_receipt_taken(payload)
            mapping = open_region(payload)
            receipts.leave(store.of_kind(payload[0] & _KIND), _FIXED.unpack_from(payload)[4], receipt)
        else:
            mapping = open_region(payload)
        return _load(mapping, payload)
    except Exception as error:  # also of a missing library, or of a class of the user's
        return lost_or_raise(error, (load, (payload,)))


def lost_or_raise(error: Exception, reduced: tuple[Any, ...] | None = None) -> Lost:
    """Return what stands for an object that could not be opened, if an engine reads; else raise the error."""
    raises = _raises.get()
    if raises or (raises is None and not destination.is_read_by_engine()):
        try:
            raise error
        finally:
            del error  # this frame is in its traceback: a cycle would keep what all of those frames hold
    return Lost(error, reduced)


def with_receipt(payload: bytes, receipt: bytes) -> bytes:
    """Return a reference that asks its receiver for a receipt."""
    return bytes((payload[0] | _RECEIPT,)) + payload[1:] + receipt


def _with_receipt_taken(payload: bytes) -> tuple[bytes, bytes]:
    """Return a reference that asks for none, and what `receipts.leave` takes."""
    return bytes((payload[0] ^ _RECEIPT,)) + payload[1:-_RECEIPT_NBYTES], payload[-_RECEIPT_NBYTES:]


@contextmanager
def raising() -> Iterator[None]:
    """Make `load` raise inside the context, for callers that make one `Lost` object of several references."""
    token = _raises.set(True)
    try:
        yield
    finally:
        _raises.reset(token)


@contextmanager
def use_lost_objects() -> Iterator[None]:
    """Unpickle what cannot be opened as `Lost` objects inside the context: for an engine's deserializer.

    An exception in there may cost an engine the task, or the worker. Dask, Ray, and the pools of
    multiprocessing, concurrent.futures and joblib are known without it.
    """
    token = _raises.set(False)
    try:
        yield
    finally:
        _raises.reset(token)


def reference_to_region(payload: bytes) -> tuple[bytes, bytes]:
    """Return the id of the region that a reference is to, and a reference to the region as a whole."""
    kind = payload[0] & (_KIND | _NO_PICKLES)
    return payload[REGION_ID], bytes((kind,)) + payload[1 : _FIXED.size + _path_nbytes(payload)]


def _path_nbytes(payload: bytes) -> int:
    """Return how many bytes of a reference a path takes: none but of a region in a file that a user named."""
    if payload[0] & _KIND != PATH:
        return 0
    return _PATH_NBYTES.size + int(_PATH_NBYTES.unpack_from(payload, _FIXED.size)[0])


def lease_of(payload: bytes) -> Lease | None:
    """Lease the region of a reference without mapping it; None where that cannot be."""
    try:
        return region.lease(*where_of(payload))
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
        kind, region_id, pid, number, holder, fd, _ = _FIXED.unpack_from(payload)
        end = _path_nbytes(payload)
        path = payload[_FIXED.size :][_PATH_NBYTES.size : end]
        if end and not (len(payload) >= _FIXED.size + end and path.startswith(b"/") and b"\0" not in path):
            raise struct.error(f"{bytes(path)!r:.80} is no path")
    except (struct.error, TypeError) as error:
        raise CorruptRegionError(name="of a reference", found=f"it is no reference ({error})") from error
    place = kind & _KIND
    if place == PATH:
        form = kind & ~(_KIND | _NO_PICKLES)
        fields: tuple[Any, ...] = region_id, 0, -1, os.fsdecode(path), not kind & _NO_PICKLES
    else:
        form = kind & ~_KIND
        fields = region_id, holder, fd, None, True
    where: Where = tuple.__new__(Where, (pid, number, *fields))
    if form not in (0, _VIEW, _PART) or place not in _STORES:
        raise CorruptRegionError(
            name=where.shown, found=f"a reference of the kind {kind:#x}, of a later mori"
        )
    return where, place


def open_region(payload: bytes) -> Mapping:
    """Return the mapping of the region of a reference, mapped now if need be.

    Raises
    ------
    RegionNotFoundError
        If no process of this domain holds the region.
    CorruptRegionError
        If the payload is no reference.
    """
    where, place = where_of(payload)
    try:
        mapping = region.find(where, place)
    except LimitError:
        raise
    except OSError as error:
        if where.path is None:
            raise
        raise SavedRegionNotFoundError(path=where.path, found=error.strerror or str(error)) from error
    if mapping is not None:
        return mapping
    if where.path is not None:
        raise SavedRegionNotFoundError(path=where.path, found="it is another file now, saved since")
    raise RegionNotFoundError(name=where.shown, store=_STORES[place])


def map_bytes_of(payload: bytes, buffer: object) -> Mapping:
    """Return a mapping over the bytes of a reference's region, which somebody has read there and sent.

    What may not be read of a file where the reference was pickled may not be read here.
    """
    mapping = map_bytes(buffer)
    if where_of(payload)[0].allows_pickles or not mapping.allows_pickles:
        return mapping
    header = mapping.header._replace(flags=mapping.header.flags | NO_PICKLES)
    return map_bytes(buffer, pack_header(header))


def load_from(mapping: Mapping, payload: bytes) -> Any:
    """Return the object of a reference out of a mapping of its region; a `Lost` one if that is damaged."""
    try:
        load_adapters()
        return _load(mapping, payload)
    except Exception as error:
        return Lost(error, (load, (payload,)))


def _load(mapping: Mapping, payload: bytes) -> Any:
    form, offset = payload[0] & (_VIEW | _PART), _FIXED.unpack_from(payload)[-1]
    if form:
        node = node_at(mapping, offset)
        return node.codec.view(node, _view_of(node, form, payload[_FIXED.size + _path_nbytes(payload) :]))
    found = mapping.reopen(offset)
    return node_at(mapping, offset).open_first() if found is None else found


def _view_of(node: Node, form: int, tail: bytes) -> Strides | Range:
    """Return the view that the rest of a payload describes."""
    try:
        if form == _PART:
            return Range(*_RANGE.unpack(tail))
        offset, dimensions = _START.unpack_from(tail)
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{dimensions} dimensions")
        code = tail[_START.size : _START.size + 1].decode()
        if code not in ("i", "q"):
            raise ValueError(f"numbers of the form {code!r}")
        numbers = struct.Struct(f"<{2 * dimensions}{code}")
        start = _START.size + 1
        lengths = numbers.unpack_from(tail, start)
        dtype = tail[start + numbers.size :].decode()
    except (struct.error, ValueError) as error:
        raise node.decode_error(f"a reference asks for a view that is none ({error})") from error
    return Strides(offset, dtype, lengths[:dimensions], lengths[dimensions:])
