"""Where the elements of a large container come from: a column, blocks, or a node each."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy.typing as npt

from mori.codecs.arrays import Arrays, ArraysCodec
from mori.codecs.containers import SequenceCodec
from mori.codecs.packed import Column
from mori.codecs.streams import Blocks, BlocksCodec
from mori.format.node import Node, decode
from mori.format.refcounts import is_held
from mori.objects.array import SharedArray
from mori.objects.containers.identity import Identity, References, damage_of, is_same
from mori.objects.containers.tracker import Tracker, lock
from mori.wire.compare import is_unchanged

__all__ = ["Source", "source_of"]

_AT_ONCE: Final = 128
"""Arrays that are returned together."""


class Source(Protocol):
    """The elements of a container."""

    @property
    def array(self) -> npt.NDArray[Any] | None:
        """The elements where they lie, read-only, if they are numbers or arrays of one shape."""

    kind: type
    """list or tuple."""
    is_column: bool
    """Whether the elements are numbers, strings or bytes, which cannot be written to."""

    def __len__(self) -> int: ...

    def get(self, index: int) -> Any:
        """Return an element."""

    def peek(self, index: int) -> Any:
        """Return an element that is looked at and let go: a write to it would be lost."""

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        """Yield the elements between two places, some at a time."""

    def is_changed(self) -> bool:
        """Return whether an element was written to."""

    def is_idle(self) -> bool:
        """Return whether nobody holds an element, and none was written to."""


class _Columns:
    """The elements of a column."""

    is_column = True

    def __init__(self, node: Node, column: Column) -> None:
        self._node = node
        self._column = column
        self.array = column.array
        self.kind: type = column.kind

    def __len__(self) -> int:
        return len(self._column)

    def get(self, index: int) -> Any:
        try:
            return self._column[index]
        except ValueError as error:
            raise self._node.decode_error(error) from error

    peek = get

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        while start < stop:
            try:
                block = self._column.block(start, stop)
            except ValueError as error:
                raise self._node.decode_error(error) from error
            start += len(block)
            yield block

    def is_changed(self) -> bool:
        return False

    def is_idle(self) -> bool:
        return True


class _Arrays:
    """The arrays of a column.

    An array tells when it is written to: it is kept from then on. What else was returned is known as long
    as anybody holds it, so that it is one object.
    """

    is_column = False

    def __init__(self, node: Node) -> None:
        self._node = node
        try:
            self._column = Arrays(node.meta, node.buffers(), SharedArray)
        except Exception as error:
            raise node.decode_error(error) from error
        self.kind: type = self._column.kind
        self._home = weakref.ref(self)
        self._written: dict[int, SharedArray] = {}  # they were written to
        self._returned: dict[int, weakref.ref[Any]] = {}
        self._most = _AT_ONCE  # entries of that table before those are removed that nobody holds

    @property
    def array(self) -> npt.NDArray[Any] | None:
        return None if self._written else self._column.stack

    def __len__(self) -> int:
        return self._column.length

    def get(self, index: int) -> Any:
        with lock:
            ref = self._returned.get(index)
            array = None if ref is None else ref()
            if array is None:
                try:
                    array = self._column[index]
                except _DAMAGE as error:
                    raise self._node.decode_error(error) from error
                self._hand_out(index, array)
            return array

    peek = get

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        while start < stop:
            end = min(start + _AT_ONCE, stop)
            with lock:
                try:
                    block: list[Any] = self._column.block(start, end)
                except _DAMAGE as error:
                    raise self._node.decode_error(error) from error
                for place, array in enumerate(block):
                    ref = self._returned.get(start + place)
                    held = None if ref is None else ref()
                    if held is None:
                        self._hand_out(start + place, array)
                    else:
                        block[place] = held
            start = end
            yield block
            del block  # arrays that nobody holds are let go when the next are asked for

    def _hand_out(self, index: int, array: Any) -> None:
        # As attributes, they would be looked at whether that writes to the array.
        attributes = array.__dict__
        attributes["_is_standalone"] = True
        attributes["_home"] = self._home, index
        returned = self._returned
        returned[index] = weakref.ref(array)
        if len(returned) > self._most:
            self._forget()

    def _forget(self) -> None:
        """Forget the arrays that nobody holds."""
        self._returned = {index: ref for index, ref in self._returned.items() if ref() is not None}
        self._most = 2 * len(self._returned) + _AT_ONCE

    def keep(self, index: int, array: SharedArray) -> None:
        """Keep an array that was written to."""
        with lock:
            self._written[index] = array
            self._returned[index] = weakref.ref(array)

    def is_changed(self) -> bool:
        return bool(self._written)

    def is_idle(self) -> bool:
        with lock:
            self._forget()
            return not self._returned


class _Blocks(Tracker):
    """The elements of blocks."""

    array: npt.NDArray[Any] | None = None
    is_column = False

    def __init__(self, node: Node, identity: Identity, owner: Any) -> None:
        super().__init__()
        self._node = node
        self._identity = identity
        try:
            self._blocks = Blocks(node.meta, node.buffers(), len(node))
        except Exception as error:
            raise node.decode_error(error) from error
        self.kind: type = list if self._blocks.kind == "list" else tuple
        self._length = self._blocks.length
        self._references = References(node, identity, self._blocks.reader)
        self._references.root = weakref.ref(owner)
        self._is_fixed = self._blocks.reader.is_fixed
        self._last: tuple[int, int, list[Any]] = 0, 0, []

    def __len__(self) -> int:
        return self._length

    def get(self, index: int) -> Any:
        if self._is_fixed:
            return self.peek(index)
        with lock:
            number = self._blocks.find(index)
            return self._block(number)[index - self._blocks.start(number)]

    def peek(self, index: int) -> Any:
        start, stop, block = self._last
        if not start <= index < stop:
            number = self._blocks.find(index)
            block = self._load(number)
            start = self._blocks.start(number)
            self._last = start, start + len(block), block
        return block[index - start]

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        while start < stop:
            number = self._blocks.find(start)
            first = self._blocks.start(number)
            if self._is_fixed:
                block = self._load(number)
                if start > first or first + len(block) > stop:
                    block = block[start - first : stop - first]
            else:
                with lock:
                    if number in self._read:  # or reading it drops some
                        self._drop_some()
                    block = self._block(number)[start - first : stop - first]
            start += len(block)
            yield block
            del block  # elements that nobody holds are let go when the next are asked for

    def _load(self, number: int, by: References | None = None) -> list[Any]:
        blocks, references = self._blocks, by or self._references
        try:
            stream = blocks.stream(number)
        except ValueError as error:
            raise self._node.decode_error(error) from error
        try:
            elements = blocks.reader.load(stream, references.persistent, references.part)
        except BaseException as error:
            if (found := damage_of(blocks.reader, error)) is None:
                raise
            raise self._node.decode_error(found) from error
        if type(elements) is not list or len(elements) != blocks.size(number):
            raise self._node.decode_error(f"block {number} has not the elements that belong to it")
        return elements

    def _is_same(self, number: int, block: list[Any]) -> bool:
        return is_same(
            block, self._blocks.stream(number), self._references, lambda by: self._load(number, by)
        )

    def _is_held(self, block: list[Any]) -> bool:
        return is_held(block, is_flat=self._blocks.reader.is_flat, known=self._identity.common_numbers)


class _Nodes(Tracker):
    """Elements that have a node each."""

    array: npt.NDArray[Any] | None = None
    is_column = False

    def __init__(self, node: Node, identity: Identity, kind: type) -> None:
        super().__init__()
        self._node = node
        self._identity = identity
        self.kind = kind
        self._length = len(node)

    def __len__(self) -> int:
        return self._length

    def get(self, index: int) -> Any:
        with lock:
            return self._block(index)[0]

    peek = get

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        for index in range(start, stop):
            yield [self.get(index)]

    def _load(self, index: int) -> list[Any]:
        return [self._identity.part(self._node.child(index))]

    def _is_same(self, index: int, block: list[Any]) -> bool:
        return is_unchanged(self._node.child(index), block[0])

    def _is_held(self, block: list[Any]) -> bool:
        return is_held(block, is_flat=False, known=self._identity.common_numbers)


_DAMAGE: Final = (ValueError, OverflowError, MemoryError)


def source_of(node: Node, identity: Identity, owner: Any) -> Source:
    """Return the elements of a node of a list or tuple; `owner` is the container that hands them out."""
    by = node.codec
    if isinstance(by, BlocksCodec):
        return _Blocks(node, identity, owner)
    if isinstance(by, SequenceCodec):
        return _Nodes(node, identity, by.kind)
    if isinstance(by, ArraysCodec):
        return _Arrays(node)
    column = decode(node)
    if not isinstance(column, Column):
        raise node.decode_error("it has no elements")
    return _Columns(node, column)
