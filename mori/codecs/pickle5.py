"""Anything else that pickles: its pickle in one buffer, its out-of-band buffers in those behind.

Imports codec, layout and modules; cloudpickle where plain pickle cannot. The only place where mori unpickles
what a region holds; the stream is checked against its checksum first. What has a codec of its own
inside the object (arrays, frames) is a child of the node: it is mapped, and pickles as a reference.
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import pickle
import struct
import sys
import zlib
from collections import ChainMap, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from mori._imports import importing
from mori.format import codec
from mori.format.codec import Buffers, Codec, Encoded, Pickled, UnpicklableError
from mori.format.layout import Codec as Id
from mori.format.node import Node
from mori.format.origins import remember

__all__ = ["PickleCodec", "Pickles", "dumps", "is_intact", "part", "remake"]

_META: Final = struct.Struct("<I")
_LEAST: Final = 1024  # bytes of an array or a buffer that is worth a place of its own
_LOOKED_AT: Final = 10_000  # objects, on the way to a part that an error is to name


class Pickles(NamedTuple):
    """An object's stream, its out-of-band buffers, and the parts that have a codec of their own."""

    stream: bytes
    buffers: list[pickle.PickleBuffer]
    parts: list[Any]


def part(number: int) -> Any:
    """Stand in a stream for a part of the object; the reader puts the node's child in its place."""
    raise pickle.UnpicklingError(f"part {number} of an object in a mori region is read by mori alone")


def _is_part(obj: Any) -> bool:
    """Say whether an object is to be a child: an array, a frame, whatever of a library is mapped."""
    cls = type(obj)
    by = codec.for_type(cls)
    if by is None or by is _codec:
        return False
    if cls.__module__.startswith("mori."):
        return True
    if isinstance(obj, np.ndarray):
        return obj.nbytes >= _LEAST and not obj.dtype.hasobject
    return by.is_mapped


class _Reducers(dict[type, Callable[[Any], Any]]):
    """A pickler's dispatch table that takes parts out.

    A pickler asks it for types that it does not know itself, so that numbers, strings and builtin
    containers cost nothing; a persistent id would be a call of Python for each of them.
    """

    def __init__(self, root: object, parts: list[Any], *tables: Any) -> None:
        super().__init__()
        self._root = root
        self._parts = parts
        self._tables = ChainMap(*tables)

    def __missing__(self, cls: type) -> Callable[[Any], Any]:
        if cls is io.TextIOWrapper:
            return _of_file
        if codec.for_type(cls) is None:
            return self._tables[cls]  # type: ignore[no-any-return]
        return self._reduce

    def _reduce(self, obj: Any) -> Any:
        if obj is not self._root and _is_part(obj):
            self._parts.append(obj)
            return part, (len(self._parts) - 1,)
        plain = self._tables.get(type(obj))
        return obj.__reduce_ex__(5) if plain is None else plain(obj)


def _of_file(obj: io.TextIOWrapper) -> Any:
    """Refuse an open file, of which cloudpickle makes a StringIO; the process's own streams have names."""
    for name in ("stdout", "stderr"):
        if obj is getattr(sys, name):
            return getattr, (sys, name)
    return obj.__reduce_ex__(5)


def _dump(obj: object, cls: Any) -> Pickles:
    file, found = io.BytesIO(), Pickles(b"", [], [])

    def take(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < _LEAST:
                return True  # it stays in the stream
        found.buffers.append(buffer)
        return False

    if cls is pickle.Pickler:  # on the class, the table is the descriptor of an instance's
        pickler = cls(file, 5, buffer_callback=take)
        pickler.dispatch_table = _Reducers(obj, found.parts, copyreg.dispatch_table)
    else:  # cloudpickle's class has a table, which stands before an instance's
        table = _Reducers(obj, found.parts, cls.dispatch_table)
        pickler = type(cls.__name__, (cls,), {"dispatch_table": table})(file, 5, buffer_callback=take)
    pickler.dump(obj)
    return found._replace(stream=file.getvalue())


def dumps(obj: object) -> Pickles:
    """Pickle an object, its parts and buffers out of band; by cloudpickle where plain pickle fails."""
    try:
        found = _dump(obj, pickle.Pickler)
        if b"__main__" not in found.stream:  # another process has another __main__
            return found
    except Exception as error:
        fault: Exception | None = error
    else:
        fault = None
    try:
        with importing:
            import cloudpickle
    except ImportError:
        if fault is not None:
            raise fault from None
        return found
    return _dump(obj, cloudpickle.Pickler)


def remake(obj: object, change: Callable[[Any], Any]) -> Any:
    """Return a copy of an object in private memory, whose parts were changed by a function."""
    found = dumps(obj)
    buffers = [bytearray(buffer.raw()) for buffer in found.buffers]
    return _Unpickler(found.stream, buffers, [change(part) for part in found.parts]).load()


def is_intact(meta: bytes, buffers: Buffers) -> bool:
    """Say whether the pickle is the one that was written."""
    return bool(buffers) and meta == _META.pack(zlib.crc32(buffers[0]))


class PartNumberError(ValueError):
    """A stream that asks for a part that its node does not have."""


def _child(children: Sequence[Any], number: int) -> Any:
    if type(number) is not int or not 0 <= number < len(children):
        raise PartNumberError(f"there is no part {number!r} of {len(children)}")
    return children[number]


class _Unpickler(pickle.Unpickler):
    """Puts a node's children where the stream has parts."""

    def __init__(self, stream: Any, buffers: Any, children: Sequence[Any]) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        # Not a method: this unpickler's memo would refer to it, and keep the region until a collection.
        self._part = partial(_child, children)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (part.__module__, part.__qualname__):
            return self._part
        return super().find_class(module, name)


class PickleCodec(Codec):
    """An object by protocol 5."""

    id = Id.PICKLE
    is_mapped = False

    def encode(self, obj: Any) -> Encoded:
        value = obj.value if isinstance(obj, Pickled) else obj
        try:
            found = dumps(value)
        except Exception as error:
            way, fault = _fault(value, error)
            raise UnpicklableError(way, fault) from error
        arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in found.buffers]
        stream = np.frombuffer(found.stream, np.uint8)
        return Encoded(_META.pack(zlib.crc32(found.stream)), [stream, *arrays], found.parts)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        stream, *rest = buffers
        if not children:
            return pickle.loads(stream, buffers=rest)
        return _Unpickler(stream, rest, children).load()

    def read(self, node: Node) -> Any:
        """Unpickle what has passed its checksum: what its own classes raise then is theirs to say."""
        if not is_intact(node.meta, node.buffers()):
            raise node.decode_error("the checksum of its pickle does not match")
        return super().read(node)

    def is_damage(self, error: BaseException) -> bool:
        return isinstance(error, PartNumberError) or type(error).__name__ == "PanicException"

    def open(self, node: Node) -> Any:
        """Rebuild an object; what has nothing mapped may be a constant of its module, such as an enum's."""
        obj = self.read(node)
        return remember(obj, node) if self.has_mapped(len(node), node.record.buffers) else obj

    def has_mapped(self, children: int, buffers: int) -> bool:
        return children > 0 or buffers > 1  # the first buffer is the stream

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return remake(obj, change)

    def step(self, obj: Any, index: int) -> str:
        value = obj.value if isinstance(obj, Pickled) else obj
        wanted = dumps(value).parts[index]
        return next((way for way, found in _below(value) if found is wanted), f".part({index})")


def _items(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object is made of, as far as that can be seen, and how a user writes the way there."""
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield f".keys()[{key!r}]", key
            yield f"[{key!r}]", value
    elif isinstance(obj, list | tuple | deque):
        for index, value in enumerate(obj):
            yield f"[{index}]", value
    if isinstance(obj, type):
        return
    for name, value in getattr(obj, "__dict__", {}).items():
        yield f".{name}", value
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):
                yield f".{name}", getattr(obj, name)


def _below(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield everything below an object, the nearest first, each once, up to a limit."""
    seen, waiting = {id(obj)}, deque([("", obj)])
    while waiting and len(seen) < _LOOKED_AT:
        above, current = waiting.popleft()
        for step, value in _items(current):
            if id(value) not in seen:
                seen.add(id(value))
                waiting.append((above + step, value))
                yield above + step, value


def _fault(obj: Any, error: Exception) -> tuple[str, str]:
    """Return the way to the innermost part that does not pickle, and what is wrong with it."""
    way, seen = "", {id(obj)}
    while len(seen) < _LOOKED_AT:
        for step, value in _items(obj):
            if id(value) in seen:
                continue
            seen.add(id(value))
            try:
                dumps(value)
            except Exception as inner:
                way, obj, error = way + step, value, inner
                break
        else:
            break
    return way, f"it is a {type(obj).__qualname__} that does not pickle ({error})"


_codec = PickleCodec()
codec.register(_codec, Pickled)
