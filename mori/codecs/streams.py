"""Python objects as pickles: one object in one stream, or many small elements in blocks of about a kilobyte.

A stream names no class but those that its node lists. What has a codec of its own inside an object (an array,
a frame, a large container) is a part: a child of the node, which the stream refers to by its number. What is
met in several streams is written once, in a node that all of them have as their last child.
"""

from __future__ import annotations

import base64
import contextlib
import copyreg
import functools
import hashlib
import io
import itertools
import operator
import pickle
import pickletools
import re
import sys
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mori import _progress as progress
from mori._imports import find_object, importing
from mori.codecs.faults import fault_in, path_to
from mori.codecs.guarded import GuardedUnpickler
from mori.errors import ClassNotFoundError
from mori.format import codec
from mori.format.atoms import kinds_of
from mori.format.codec import Buffers, ContainerCodec, Encoded, Pickled, UnpicklableError
from mori.format.layout import Id, from_json, to_json
from mori.format.plain import OtherNameError, other_name
from mori.format.survey import Common, Contents, Survey
from mori.store.base import MAX_STEPS

if TYPE_CHECKING:
    from mori.format.node import Node

__all__ = [
    "LEAST",
    "Blocks",
    "BlocksCodec",
    "Number",
    "ObjectStream",
    "PartNumberError",
    "Reader",
    "StreamCodec",
    "encode_blocks",
    "encode_object",
    "part",
    "redump",
    "reloaded",
    "void",
]

_LARGE: Final = 1 << 14  # bytes of a stream whose names are remembered
_REMEMBERED: Final = 100  # streams
_names: Final[dict[bytes, frozenset[tuple[str, str]]]] = {}  # by the digest of a stream
BLOCK: Final = 1024
"""Bytes that a block has, about."""

_PART: Final = 256  # bytes that a part counts as: reading a block opens all of its parts
_CHUNK: Final = 512  # elements that are looked at together, and are in one block, at most
_LARGE_CHUNK: Final = 1 << 14  # of those that nothing has to be looked for in
_FIRST: Final = 8  # elements of the first block that is tried
LEAST: Final = 1024
"""Bytes of a buffer that is worth a place of its own, and of a stream that is worth a reference."""

_WITH_NODES: Final = frozenset({"list", "tuple", "dict", "common"})
_MOST_PARTS: Final = 16  # of a small container: opening it opens all of them
_SELF: Final = -1  # what a stream calls the container whose content it is; parts are -2, -3 and so on


class PartNumberError(ValueError):
    """A stream that refers to what its node does not have."""


def part(number: int) -> Any:
    """Stand in a stream for a part of the object; the reader puts the node's child in its place."""
    raise pickle.UnpicklingError(f"part {number} of an object in a mori region is read by mori alone")


def void(dtype: np.dtype[Any], data: bytes) -> Any:
    """Return a record of numpy that can be written to: numpy's own drops what is written to one that was
    pickled.
    """
    return np.frombuffer(bytearray(data), dtype)[0]


def _of_void(obj: np.void) -> Any:
    if obj.dtype.hasobject or not obj.dtype.itemsize:
        return obj.__reduce__()
    return void, (obj.dtype, obj.tobytes())


_PART_NAME: Final = (part.__module__, part.__qualname__)


_NO_REDUCERS: Final[dict[type, Any]] = {}
"""For plain instances: mori itself may have registered a reducer of their class, and it would be called."""


class _Reducers(dict[type, Callable[[Any], Any]]):
    """A pickler's dispatch table that takes parts out.

    A pickler asks it for types that it does not know itself, so numbers, strings and builtin containers cost
    nothing.
    """

    def __init__(self, number: Number, table: Any) -> None:
        super().__init__({np.void: _of_void, np.record: _of_void})
        self._number = number
        self._table = table

    def __missing__(self, cls: type) -> Callable[[Any], Any]:
        if cls is io.TextIOWrapper:
            return _of_file
        by = codec.for_type(cls)
        if by is not None and (
            not isinstance(by, codec.ContainerCodec) or cls.__module__.startswith("mori.")
        ):
            reducer = functools.partial(_taken_out, self._number, self._table.get(cls, _reduce))
        elif issubclass(cls, type):  # the pickler has classes by their names
            return self._table[cls]  # type: ignore[no-any-return]
        else:
            reducer = self._table.get(cls, _reduce)
        self[cls] = reducer
        return reducer


def _taken_out(numbers: Number, reducer: Callable[[Any], Any], obj: Any) -> Any:
    number = numbers(obj)
    return reducer(obj) if number is None else (part, (number,))


_reduce: Final = operator.methodcaller("__reduce_ex__", 5)


def _of_file(obj: io.TextIOWrapper) -> Any:
    """Refuse an open file, of which cloudpickle makes a StringIO; the process's own streams have names."""
    for name in ("stdout", "stderr"):
        if obj is getattr(sys, name):
            return getattr, (sys, name)
    return obj.__reduce_ex__(5)


class _Pickler(pickle.Pickler):
    """A pickler that takes a persistent id of its own, which that of C does not from Python 3.13 on."""


class _Writer:
    """Writes the streams of one node."""

    def __init__(
        self,
        survey: Survey,
        container: object,
        *,
        root: object = None,
        is_common: bool = False,
        in_block: bool = False,
    ) -> None:
        self.parts: list[Any] = []
        self.names: set[tuple[str, str]] = set()
        self.may_name_any = False
        self.is_opaque = False
        self.is_fixed = True
        self.is_flat = True
        self.uses_common = False
        self.has_self = False
        self._container = container  # whose content is written
        self._root = root  # or what is written itself, though it may have a codec
        self._survey = survey
        self._is_common = is_common
        self._in_block = in_block
        self._numbers: dict[int, int] = {}
        self._named: dict[int, Any] = {}  # by id, the objects that streams have by name
        self._seen: list[Any] = []  # what the pickler met in the last stream
        self._ids: dict[int, Any] = {}  # the same by id, the content itself left out
        self._is_by_value = False  # whether the last stream has functions by value
        self._file = io.BytesIO()

    def number(self, obj: Any) -> int:
        """Return the number of a part."""
        number = self._numbers.setdefault(id(obj), len(self.parts))
        if number == len(self.parts):
            self.parts.append(obj)
        return number

    def forget(self, count: int) -> None:
        """Forget the parts from a number on: the stream that has them is written anew."""
        for obj in self.parts[count:]:
            del self._numbers[id(obj)]
        del self.parts[count:]

    def _number_of_mapped(self, obj: Any) -> int | None:
        if obj is self._root or not codec.is_part(obj, in_block=self._in_block):
            return None
        return self.number(obj)

    def _reference(self, special: dict[int, bool]) -> Number:
        """Return a pickler's persistent id: the number that stands for an object, None for none."""
        container, seen = self._container, self._seen
        apart, nodes = self._survey.apart, self._survey.nodes

        def persistent_id(obj: Any) -> int | None:
            if obj is container and obj is not None:
                self.has_self = True
                return _SELF
            key = id(obj)
            is_common = special.get(key)
            if is_common is False or key in nodes:
                return _SELF - 1 - self.number(obj)
            seen.append(obj)
            if (is_common or key in apart) and not self._is_common:
                self.uses_common = True
                return self._survey.common.number(obj)
            return None

        return persistent_id

    def pickler(
        self, contents: Contents, callback: Any = None, *, is_root: bool = False
    ) -> tuple[Any, Contents]:
        """Return a pickler for elements with some contents, and these; None for nothing but builtins.

        `is_root` says that there is no other stream, which could have an object in common with this one.
        """
        self.is_flat = self.is_flat and contents.is_flat
        self.is_fixed = self.is_fixed and contents.is_fixed
        self.is_opaque = self.is_opaque or contents.is_opaque
        if not (contents.is_opaque or contents.classes or contents.special or contents.has_root):
            return None, contents
        pickler = _Pickler(self._file, 5, buffer_callback=callback)
        if contents.is_opaque:
            pickler.dispatch_table = _Reducers(self._number_of_mapped, copyreg.dispatch_table)
        else:
            pickler.dispatch_table = _NO_REDUCERS
            self.names.update(map(_name_of, contents.classes))
        is_known = contents.is_opaque and (self._survey.apart or self._survey.nodes)
        if contents.special or contents.has_root or is_known:
            pickler.persistent_id = self._reference(contents.special)  # type: ignore[method-assign]
        elif contents.is_opaque and not is_root:
            pickler.persistent_id = self._seen.append  # type: ignore[method-assign]
        return pickler, contents

    def dump(self, by: tuple[Any, Contents], elements: object) -> bytes:
        """Return the stream of some elements."""
        pickler, contents = by
        if pickler is None:
            return pickle.dumps(elements, 5)
        self._is_by_value = False
        self._file.seek(0)
        self._file.truncate()
        self._ids.clear()
        try:
            pickler.dump(elements)
        except RecursionError:
            raise
        except Exception:
            self._seen.clear()
            if (cloudpickle := _cloudpickle()) is None:
                raise
            return self._dump_by_cloudpickle(cloudpickle, elements, contents)
        finally:
            pickler.clear_memo()
            if self._seen:
                self._take_seen()
        stream = self._file.getvalue()
        if contents.is_opaque:
            self._note_names(stream)
        return stream

    def _take_seen(self) -> None:
        """Have what the pickler met once each: one more reference to an object tells that others hold it."""
        seen = self._seen
        self._ids = dict(zip(map(id, seen), seen, strict=True))
        self._ids.pop(id(seen[0]), None)
        seen.clear()

    def accept(self, contents: Contents, elements: Sequence[Any] = (), holders: int = 1) -> None:
        """Take note of what the last stream has in common with others.

        `elements` are what it begins with, which `holders` refer to besides this list.
        """
        for key in self._named.keys() & self._ids.keys():  # one object wherever its name is looked up
            del self._ids[key]
        if self._ids and (self._is_by_value or (contents.is_opaque and not contents.is_fixed)):
            self._survey.take_pickled(
                self._ids,
                elements,
                holders,
                self._root,
                by_value=self._is_by_value,
                is_common=self._is_common,
                in_block=self._in_block,
            )
        self._ids.clear()

    def close(self, contents: Contents) -> None:
        """Take note of what the elements that were looked at together have in common with others."""
        if contents.is_fixed or not contents.is_opaque:
            self._survey.take(contents, is_common=self._is_common)

    def _note_names(self, stream: bytes) -> None:
        """Take note of the names in a stream.

        It is read only where it has more opcodes that look up a name than the pickler has met objects which
        are known to be pickled by name: classes and functions, but type variables and sentinels, too.
        """
        known = len(self._named.keys() & self._ids.keys())
        if stream.count(pickle.STACK_GLOBAL) != known != _lookups(stream):
            names = _names_in(stream)
            self.names |= names - {_PART_NAME}
            for name in names:
                with contextlib.suppress(ClassNotFoundError):  # who reads it says so; here it is read again
                    one = find_object(*name)
                    self._named[id(one)] = one

    def _dump_by_cloudpickle(self, cloudpickle: Any, elements: object, contents: Contents) -> bytes:
        """Return the stream of what plain pickle does not take: functions and classes that have no name."""
        table = _Reducers(self._number_of_mapped, cloudpickle.Pickler.dispatch_table)
        namespace = {
            "dispatch_table": table,
            "persistent_id": staticmethod(self._reference(contents.special)),
        }
        file = io.BytesIO()
        type("Pickler", (cloudpickle.Pickler,), namespace)(file, 5).dump(elements)
        if self._seen:
            self._take_seen()
        self.may_name_any = self.is_opaque = self._is_by_value = True
        self.is_fixed = self.is_flat = False  # a function may hold what it writes to
        return file.getvalue()

    def encoded(self, head: list[Any], buffers: list[Any], number: int) -> Encoded:
        """Return the node of the streams."""
        names = [_listed(*name) for name in sorted(self.names)]
        children = [*self.parts, self._survey.common] if self.uses_common else self.parts
        flags = self.is_flat | self.is_fixed << 1 | self.is_opaque << 2 | self.may_name_any << 3
        return Encoded(
            to_json([*head, flags | self.uses_common << 4 | self.has_self << 5, names]),
            buffers,
            children,
            number,
        )


def _cloudpickle() -> Any:
    """Return the module; None where it is not installed."""
    try:
        with importing:
            import cloudpickle
    except ImportError:
        return None
    return cloudpickle


def _name_of(obj: Any) -> tuple[str, str]:
    module = obj.__module__
    if not isinstance(module, str):
        module = pickle.whichmodule(obj, obj.__qualname__)  # type: ignore[attr-defined]
    return module, obj.__qualname__


def _lookups(stream: bytes) -> int:
    """Return how many opcodes look up a name, or seem to: they stand behind one that memoizes the name, or
    gets it from the memo.
    """
    places = [match.start() for match in re.finditer(pickle.STACK_GLOBAL, stream)]
    return sum(
        stream[place - 1 : place] == pickle.MEMOIZE
        or stream[place - 2 : place - 1] == pickle.BINGET
        or stream[place - 5 : place - 4] == pickle.LONG_BINGET
        for place in places
    )


class _Part:
    """Stands for a part in what is skimmed."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class _Unknown:
    """Stands for what is no builtin in what is skimmed, and does nothing."""

    def __new__(cls, *args: object, **keywords: object) -> _Unknown:
        return object.__new__(cls)

    def __call__(self, *args: object, **keywords: object) -> _Unknown:
        return self

    def __setitem__(self, key: object, value: object) -> None: ...

    __setstate__ = append = extend = add = __call__


class _Skimmer(pickle.Unpickler):
    """Reads the builtins of a stream: what it names is noted, and neither imported nor called."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(io.BytesIO(stream), buffers=itertools.repeat(b""))
        self.names: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add((module, name))
        return _Part if (module, name) == _PART_NAME else _Unknown

    def persistent_load(self, reference: int) -> _Part:
        return _Part(_SELF - 1 - reference)


def _names_in(stream: bytes) -> frozenset[tuple[str, str]]:
    """Return the names in a stream, as a reader of it would look them up.

    Those of a large one are remembered: what was shared is written again to see whether it has changed.
    """
    if len(stream) < _LARGE:
        return frozenset(_skimmed(stream))
    digest = hashlib.blake2b(stream, digest_size=32).digest()
    if (found := _names.get(digest)) is None:
        if len(_names) >= _REMEMBERED:
            _names.clear()
        found = _names[digest] = frozenset(_skimmed(stream))
    return found


def _skimmed(stream: bytes) -> set[tuple[str, str]]:
    skimmer = _Skimmer(stream)
    try:
        skimmer.load()
    except Exception:  # a class that the stream itself makes, or what is no key of a dict
        return {*_names_by_opcode(stream)}
    return skimmer.names


def _names_by_opcode(stream: bytes) -> Iterator[tuple[str, str]]:
    """Yield the names in a stream, which takes fifty times as long."""
    memo: list[Any] = []
    stack: list[Any] = [None, None]
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "MEMOIZE":
            memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument or 0])
        elif name == "STACK_GLOBAL":
            yield stack[-2], stack[-1]
            stack.append(None)
        elif name not in ("FRAME", "PROTO"):
            stack.append(argument if "UNICODE" in name else None)


def _listed(module: str, name: str) -> list[str]:
    """Return a name as a node lists it; a class of a script stands behind its own, for who runs another
    script.
    """
    if module != "__main__":
        return [module, name]
    with contextlib.suppress(Exception), importing:
        import cloudpickle

        return [module, name, base64.b64encode(cloudpickle.dumps(find_object(module, name))).decode()]
    return [module, name]


def _is_listed(name: Any) -> bool:
    """Return whether something is a name as a node lists it."""
    return type(name) is list and len(name) in (2, 3) and all(type(text) is str for text in name)


def encode_object(
    obj: Any, kind: str, survey: Survey, most: int | None = None, *, is_root: bool = True
) -> Encoded | None:
    """Return an object as one stream; None if it has more than `most` bytes, or many parts with it.

    `kind` says which builtin the stream is the content of; "object" for any other object, "common" for the
    list of what several streams refer to.
    """
    content: Any = obj
    container: Any = None
    if kind == "dict":
        content, container = dict(obj), obj
        examined, holders = [*obj.values()], 2
    elif kind == "list":
        content, container = list(obj), obj
        examined, holders = content, 1
    elif kind == "object":
        examined, holders = [obj], 1 << 30  # who else refers to it does not matter
    else:
        examined, holders = list(obj), 1
    is_common = kind == "common"
    writer = _Writer(survey, container, root=obj, is_common=is_common)
    contents = survey.contents(examined, holders, obj, has_nodes=kind in _WITH_NODES, is_common=is_common)
    if kind == "dict":
        contents = contents.joined(survey.contents([*obj], 2, obj, has_nodes=False))
    del examined
    buffers: list[pickle.PickleBuffer] = []

    def take(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < LEAST:
                return True  # it stays in the stream
        buffers.append(buffer)
        return False

    try:
        stream = writer.dump(writer.pickler(contents, take, is_root=is_root), content)
        if is_root and writer.parts:  # which may have something in common with it
            writer.forget(0)
            buffers.clear()
            stream = writer.dump(writer.pickler(contents, take), content)
    except Exception as error:
        raise UnpicklableError(*fault_in(obj, error, _dump)) from error
    if most is not None and (len(stream) > most or len(writer.parts) > _MOST_PARTS):
        return None
    if kind == "list":
        writer.accept(contents, content)
    elif kind == "dict":
        writer.accept(contents, [*content.values()], 2)
    else:
        writer.accept(contents)
    writer.close(contents)
    arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
    head = [kind, zlib.crc32(stream)]
    return writer.encoded(head, [np.frombuffer(stream, np.uint8), *arrays], Id.PICKLE)


def encode_blocks(
    obj: Any, kind: str, survey: Survey, holders: int = 1, *, has_nodes: bool = True, nbytes: int = BLOCK
) -> Encoded:
    """Return the elements of a list or tuple as blocks.

    `holders` is how many containers refer to each element: two where `obj` is made anew of another's.
    `has_nodes` says whether large builtins in them are nodes of their own, `nbytes` how many bytes a block
    has, about.
    """
    writer = _Writer(survey, obj, root=obj, in_block=True)
    meter = progress.meter()
    starts, ends, sums, data = [0], [0], list[int](), bytearray()
    count = _FIRST
    iterator = iter(obj)
    size = _LARGE_CHUNK if survey.are_values(kinds_of(obj)) else _CHUNK
    while chunk := list(itertools.islice(iterator, size)):
        contents = survey.contents(chunk, holders, obj, has_nodes=has_nodes, in_block=True)
        by = writer.pickler(contents)
        first = 0
        while first < len(chunk):
            parts = len(writer.parts)
            elements = chunk[first : first + count]
            try:
                stream = writer.dump(by, elements)
            except Exception as error:
                raise _fault_of(elements, starts[-1], error) from error
            cost = len(stream) + _PART * (len(writer.parts) - parts)
            done = len(elements)
            count = max(1, min(_CHUNK, int(done * nbytes / cost)))
            if done > 2 * count and cost > 2 * nbytes:  # elements are larger from here on
                writer.forget(parts)
                continue
            writer.accept(contents, elements, holders + 1)
            first += done
            starts.append(starts[-1] + done)
            ends.append(ends[-1] + len(stream))
            sums.append(zlib.crc32(stream))
            data += stream
        writer.close(contents)
        if meter is not None:
            meter.did(len(chunk))
    table = np.array([*starts, *ends, *sums], "<i8")
    return writer.encoded([kind, starts[-1]], [table, np.frombuffer(data, np.uint8)], Id.BLOCKS)


def _fault_of(elements: list[Any], first: int, error: Exception) -> UnpicklableError:
    path, fault = fault_in(elements, error, _dump)
    number, bracket, rest = path[1:].partition("]")
    if path[:1] == "[" and number.isdigit():
        path = f"[{first + int(number)}{bracket}{rest}"
    return UnpicklableError(path, fault)


Get = Callable[[int], Any]
"""Returns what a number in a stream stands for."""

Number = Callable[[Any], int | None]
"""Returns the number by which a stream refers to an object; None for what it contains."""


class _Unpickler(pickle.Unpickler):
    """Reads a stream that names what its node lists."""

    reader: Reader
    persistent: Get
    part: Get  # no method of this: its memo would refer to it, and keep the region until a collection

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _PART_NAME:
            return self.part
        if self.reader.may_name_any:
            return super().find_class(module, name)
        return self.reader.find(module, name)

    def persistent_load(self, number: int) -> Any:
        return self.persistent(number)


class Reader:
    """Reads the streams of one node.

    Raises
    ------
    ValueError
        If what was written beside the streams makes no sense.
    """

    def __init__(self, flags: int, names: list[Any], children: int, *, allows_pickles: bool = True) -> None:
        if type(flags) is not int or not 0 <= flags < 64:
            raise ValueError(f"flags {flags!r:.80}, of which 0 to 63 are known")
        if not (type(names) is list and all(map(_is_listed, names))):
            raise ValueError(f"{names!r:.80} is no list of names")
        if not allows_pickles and (name := other_name(flags, names)) is not None:
            raise OtherNameError(name)
        self.is_guarded: bool = not allows_pickles
        self.is_flat: bool = bool(flags & 1)
        self.is_fixed: bool = bool(flags & 2)
        self.is_opaque: bool = bool(flags & 4)
        self.may_name_any: bool = bool(flags & 8)
        self.uses_common: bool = bool(flags & 16)
        self.has_self: bool = bool(flags & 32)
        self.parts: int = children - self.uses_common
        self._listed = {(name[0], name[1]): name[2:] for name in names}
        self._found: dict[tuple[str, str], Any] = {}

    def find(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        key = module, name
        if key not in self._found:
            if key not in self._listed:
                raise pickle.UnpicklingError(
                    f"a stream names {module[:80]}.{name[:80]}, which its node does not list"
                )
            by_value = self._listed[key]
            try:
                self._found[key] = find_object(module, name)
            except Exception:
                if not by_value:
                    raise
                self._found[key] = pickle.loads(base64.b64decode(by_value[0]))
        return self._found[key]

    @property
    def names_any(self) -> bool:
        """Whether the streams name anything, which is called when they are read."""
        return bool(self._listed) or self.may_name_any

    def load(self, stream: bytes, persistent: Get, part: Get, buffers: Any = None) -> Any:
        """Return what a stream says."""
        cls: Any = GuardedUnpickler if self.is_guarded and self._listed else _Unpickler
        unpickler = cls(io.BytesIO(stream), buffers=buffers)
        unpickler.reader, unpickler.persistent, unpickler.part = self, persistent, part
        return unpickler.load()

    def number(self, reference: int) -> int | None:
        """Return which part a persistent id refers to, None for what other streams refer to, too."""
        if type(reference) is not int or (reference >= 0 and not self.uses_common):
            raise PartNumberError(f"there is no object with the number {reference!r}")
        return None if reference >= 0 else self.checked(_SELF - 1 - reference)

    def checked(self, number: int) -> int:
        """Return the number of a part.

        Raises
        ------
        PartNumberError
            If the node has no such part.
        """
        if type(number) is not int or not 0 <= number < self.parts:
            raise PartNumberError(f"there is no part {number!r} of {self.parts}")
        return number


def redump(elements: object, reader: Reader, number: Number, reference: Number | None) -> bytes:
    """Return the stream of elements that were read from one, to be compared with it.

    `number` gives the numbers of parts, and `reference` those of persistent ids.
    """
    if not reader.names_any and not reader.is_opaque and reference is None:
        return pickle.dumps(elements, 5)
    file = io.BytesIO()
    if reader.may_name_any:
        import cloudpickle

        namespace: dict[str, Any] = {"dispatch_table": _Reducers(number, cloudpickle.Pickler.dispatch_table)}
        pickler = type("Pickler", (cloudpickle.Pickler,), namespace)(file, 5)
    else:
        pickler = _Pickler(file, 5)
        pickler.dispatch_table = (
            _Reducers(number, copyreg.dispatch_table) if reader.is_opaque else _NO_REDUCERS
        )
    if reference is not None:
        pickler.persistent_id = reference
    pickler.dump(elements)
    return file.getvalue()


def _dump(obj: Any, number: Number | None = None, restart: Callable[[], None] = lambda: None) -> bytes:
    """Return the stream of an object by itself, by cloudpickle where plain pickle fails.

    `number` gives the numbers of parts, and `restart` is called before it gives them once more.
    """
    numbers = number or (lambda part: 0 if part is not obj and codec.is_part(part) else None)
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5)
    pickler.dispatch_table = _Reducers(numbers, copyreg.dispatch_table)
    try:
        pickler.dump(obj)
    except Exception:
        if (cloudpickle := _cloudpickle()) is None:
            raise
        restart()
        file = io.BytesIO()
        table = _Reducers(numbers, cloudpickle.Pickler.dispatch_table)
        type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})(file, 5).dump(obj)
    return file.getvalue()


def _copy_with(obj: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of an object, whose parts were changed by a function; the object itself where it has
    none.
    """
    stream, parts = _taken_apart(obj)
    return _put_together(stream, [*map(change, parts)]) if parts else obj


def reloaded(obj: Any) -> Any:
    """Return an object as it is unpickled, with the same parts.

    Python has one string for each name of an attribute. So a string in the object that equals such a name is
    the same object as the name, or another one, by what this process has unpickled before. In what is
    reloaded it always is another one.
    """
    return _put_together(*_taken_apart(obj))


def _taken_apart(obj: Any) -> tuple[bytes, list[Any]]:
    parts: list[Any] = []

    def number(one: Any) -> int | None:
        if one is obj or not codec.is_part(one):
            return None
        parts.append(one)
        return len(parts) - 1

    return _dump(obj, number, parts.clear), parts


def _put_together(stream: bytes, parts: list[Any]) -> Any:
    return Reader(8, [], 0).load(stream, parts.__getitem__, parts.__getitem__)


class Blocks:
    """The blocks of a node.

    Raises
    ------
    ValueError
        When it is made, if the table has not the length that belongs to it; from a method, if a block lies
        outside of the data, or is not the one that was written.
    """

    def __init__(self, meta: bytes, buffers: Buffers, children: int) -> None:
        kind, length, flags, names = from_json(meta)
        self.reader: Reader = Reader(flags, names, children, allows_pickles=buffers.allows_pickles)
        table, data = buffers
        if kind not in ("list", "tuple") or type(length) is not int or length < 0:
            raise ValueError(f"{length!r} elements of a {kind!r}")
        count, rest = divmod(table.nbytes // 8 - 2, 3)
        if rest or table.nbytes % 8 or count < 0:
            raise ValueError(f"a table of {table.nbytes} bytes")
        self.kind: str = kind
        self.length: int = length
        self.count: int = count
        numbers = table.data.cast("q")
        self._starts = numbers[: self.count + 1]
        self._ends = numbers[self.count + 1 : 2 * self.count + 2]
        self._sums = numbers[2 * self.count + 2 :]
        self._data = data.data
        self._is_trusted = buffers.trusted
        if self._starts[0] != 0 or self._starts[self.count] != self.length:
            raise ValueError(f"blocks of {self._starts[self.count]} elements for {self.length}")

    def find(self, index: int) -> int:
        """Return the number of the block that an element is in."""
        return bisect_right(self._starts, index, 1, self.count + 1) - 1

    def start(self, number: int) -> int:
        """Return the index of a block's first element."""
        return self._starts[number]

    def stream(self, number: int) -> bytes:
        """Return the bytes of a block."""
        start, end = self._ends[number], self._ends[number + 1]
        if not 0 <= start <= end <= len(self._data):
            raise ValueError(f"block {number} from byte {start} to {end} of {len(self._data)}")
        stream = bytes(self._data[start:end])
        if not self._is_trusted and zlib.crc32(stream) != self._sums[number]:
            raise ValueError(f"the checksum of block {number} does not match")
        return stream

    def size(self, number: int) -> int:
        """Return how many elements a block has."""
        return self._starts[number + 1] - self._starts[number]


class StreamCodec(ContainerCodec):
    """An object in one stream."""

    id = Id.PICKLE

    def is_intact(self, node: Node, obj: Any) -> None:
        """Return None: it is of any class."""

    def encode_in(self, obj: Any, survey: Survey, *, is_root: bool) -> Encoded:
        if isinstance(obj, Common):
            encoded = encode_object(obj.objects, "common", survey, is_root=False)
        else:
            value = obj.value if isinstance(obj, Pickled) else obj
            encoded = encode_object(value, "object", survey, is_root=is_root)
        assert encoded is not None
        return encoded

    def has_mapped(self, children: int, buffers: int) -> bool:
        return children > 0 or buffers > 1  # the first buffer is the stream

    def step_to(self, obj: Any, index: int, child: object) -> str:
        return path_to(obj.value if isinstance(obj, Pickled) else obj, child)

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...] | None:
        stream = ObjectStream(node.meta, node.buffers(), len(node))
        return _steps_to(_Skimmer(stream.stream).load(), child.record.place, ())

    def part(self, node: Node, number: int) -> None:
        """Return None: its elements have no nodes of their own."""

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return _copy_with(obj, change)


class BlocksCodec(ContainerCodec):
    """The elements of a list or tuple in blocks."""

    id = Id.BLOCKS

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...] | None:
        blocks = Blocks(node.meta, node.buffers(), len(node))
        for number in range(blocks.count):
            steps = _steps_to(_Skimmer(blocks.stream(number)).load(), child.record.place, ())
            if steps is not None:
                return (*steps[:-1], steps[-1] + blocks.start(number))
        return None


def _steps_to(obj: Any, part: int, steps: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the places that lead to a part, the last one first."""
    if isinstance(obj, _Part):
        return steps if obj.number == part else None
    if type(obj) not in (list, tuple, dict) or len(steps) >= MAX_STEPS:
        return None
    elements = obj.values() if type(obj) is dict else obj
    found = (_steps_to(element, part, (place, *steps)) for place, element in enumerate(elements))
    return next((one for one in found if one is not None), None)


class ObjectStream:
    """The stream of one object.

    Raises
    ------
    ValueError
        If it is not the one that was written.
    """

    def __init__(self, meta: bytes, buffers: Buffers, children: int) -> None:
        kind, checksum, flags, names = from_json(meta)
        self.reader: Reader = Reader(flags, names, children, allows_pickles=buffers.allows_pickles)
        data, *rest = buffers
        self.kind: str = kind
        self.buffers: list[npt.NDArray[np.uint8]] = rest
        self.stream: bytes = data.tobytes()
        if kind not in _KINDS or zlib.crc32(self.stream) != checksum:
            raise ValueError("the checksum of its pickle does not match")

    def load(self, persistent: Get, part: Get) -> Any:
        """Return the object, or the content of the container."""
        return self.reader.load(self.stream, persistent, part, self.buffers)


_KINDS: Final = frozenset({"object", "common", "list", "dict", "tuple", "set", "frozenset"})
