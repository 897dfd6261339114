"""Where the elements of a large container come from: a column, blocks, or a node each."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Protocol

import numpy.typing as npt

from mori.codecs.containers import SequenceCodec
from mori.codecs.packed import Column
from mori.codecs.streams import Blocks, BlocksCodec
from mori.format.node import Node, decode
from mori.format.refcounts import is_held
from mori.objects.containers.identity import Identity, References, is_intact, is_same, raise_as_ours
from mori.objects.containers.tracker import Tracker, lock

__all__ = ["Source", "source_of"]


class Source(Protocol):
    """The elements of a container."""

    array: npt.NDArray[Any] | None
    """The elements where they lie, read-only, if they are numbers none of which is missing."""
    kind: type
    """list or tuple."""
    is_column: bool
    """Whether the elements are numbers, strings or bytes, which cannot be written to."""

    def __len__(self) -> int: ...

    def get(self, index: int) -> Any:
        """Return an element."""

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
            raise _damaged(self._node, error) from error

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        while start < stop:
            try:
                block = self._column.block(start, stop)
            except ValueError as error:
                raise _damaged(self._node, error) from error
            start += len(block)
            yield block

    def is_changed(self) -> bool:
        return False

    def is_idle(self) -> bool:
        return True


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
            raise _damaged(node, error) from error
        self.kind: type = list if self._blocks.kind == "list" else tuple
        self._length = self._blocks.length
        self._references = References(node, identity, self._blocks.reader)
        self._references.root = weakref.ref(owner)
        self._is_fixed = self._blocks.reader.is_fixed
        self._last: tuple[int, int, list[Any]] = 0, 0, []

    def __len__(self) -> int:
        return self._length  # type: ignore[no-any-return]

    def get(self, index: int) -> Any:
        if not self._is_fixed:
            with lock:
                number = self._blocks.find(index)
                return self._block(number)[index - self._blocks.start(number)]
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
                    block = self._block(number)[start - first : stop - first]
            start += len(block)
            yield block
            del block  # elements that nobody holds are let go when the next are asked for

    def _load(self, number: int, by: References | None = None) -> list[Any]:
        blocks, references = self._blocks, by or self._references
        try:
            stream = blocks.stream(number)
        except ValueError as error:
            raise _damaged(self._node, error) from error
        try:
            elements = blocks.reader.load(stream, references.persistent, references.part)
        except BaseException as error:
            raise_as_ours(self._node, blocks.reader, error)
        if type(elements) is not list or len(elements) != blocks.size(number):
            raise self._node.decode_error(f"block {number} has not the elements that belong to it")
        return elements

    def _is_same(self, number: int, block: list[Any]) -> bool:
        return is_same(
            block, self._blocks.stream(number), self._references, lambda by: self._load(number, by)
        )

    def _is_held(self, block: list[Any]) -> bool:
        return is_held(block, is_flat=self._blocks.reader.is_flat, known=self._identity.common_ids)


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

    def read(self, start: int, stop: int) -> Iterator[list[Any]]:
        for index in range(start, stop):
            yield [self.get(index)]

    def _load(self, index: int) -> list[Any]:
        return [self._identity.part(self._node.child(index))]

    def _is_same(self, index: int, block: list[Any]) -> bool:
        return is_intact(block[0], self._node.child(index))

    def _is_held(self, block: list[Any]) -> bool:
        return is_held(block, is_flat=False, known=self._identity.common_ids)


def _damaged(node: Node, error: Exception) -> Exception:
    return node.decode_error(f"its content makes no sense ({type(error).__name__}: {error})")


def source_of(node: Node, identity: Identity, owner: Any) -> Source:
    """Return the elements of a node of a list or tuple; `owner` is the container that hands them out."""
    by = node.codec
    if isinstance(by, BlocksCodec):
        return _Blocks(node, identity, owner)
    if isinstance(by, SequenceCodec):
        return _Nodes(node, identity, by.kind)
    column = decode(node)
    if not isinstance(column, Column):
        raise node.decode_error("it has no elements")
    return _Columns(node, column)
