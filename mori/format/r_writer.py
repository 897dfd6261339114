"""The writer of R's layout: vectors and lists go to a region in order, straight from their buffers.

Attributes are a pairlist for R before 4.6, and a named list from then on: neither reads the other's form. A
region ends with a header of mori's, by which its store knows it (mori.store.r); R does not look at it.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mori import settings
from mori.format import r_values
from mori.format.r import (
    CHARACTER,
    ENTRY,
    LIST,
    LIST_HEAD,
    LIST_MAGIC,
    STRINGS_HEAD,
    STRINGS_MAGIC,
    VECTOR_HEAD,
    VECTOR_MAGIC,
)
from mori.memory.parallel_write import Sink
from mori.store.base import ALIGNMENT, HEADER, Header, align, pack_header

__all__ = ["Layout", "RList", "RVector", "wants_pairs"]


class RVector(NamedTuple):
    """A vector, or an object in R's serialization: its type, its length, its bytes and its attributes."""

    type: int
    length: int
    pieces: Sequence[npt.NDArray[Any]]
    attributes: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes without the attributes."""
        return sum(piece.nbytes for piece in self.pieces)


class RList(NamedTuple):
    """A list or data frame."""

    children: Sequence[RVector | RList]
    attributes: Mapping[str, Any]


class Layout:
    """Where everything stands; attributes are a pairlist where `pairs` says so, else a named list."""

    def __init__(self, *, pairs: bool) -> None:
        self._pairs = pairs
        self._sizes: dict[int, int] = {}
        self._position = 0

    def region_nbytes(self, root: RVector | RList) -> int:
        """Return the size of a region, with the header of mori's that it ends with."""
        return align(self._head(root) + self._size(root)) + HEADER.size

    @staticmethod
    def _head(root: RVector | RList) -> int:
        if isinstance(root, RList):
            return 0
        return STRINGS_HEAD.size if root.type == CHARACTER else VECTOR_HEAD.size

    def _attributes(self, node: RVector | RList) -> bytes:
        return r_values.write(node.attributes, pairs=self._pairs) if node.attributes else b""

    def _size(self, node: RVector | RList) -> int:
        """Return the bytes of an element, its attributes included."""
        if isinstance(node, RVector):
            return node.nbytes + len(self._attributes(node))
        size = self._sizes.get(id(node))
        if size is None:
            size = align(LIST_HEAD.size + ENTRY.size * len(node.children))
            size += sum(align(self._size(child)) for child in node.children)
            size = self._sizes[id(node)] = size + align(len(self._attributes(node)))
        return size

    def write(self, root: RVector | RList, header: Header, put: Sink) -> None:
        """Pass the bytes of a region to `put`, in order."""
        self._put, self._position = put, 0
        if isinstance(root, RVector):
            attributes = len(self._attributes(root))
            if root.type == CHARACTER:
                self._write(STRINGS_HEAD.pack(STRINGS_MAGIC, attributes, root.length, root.nbytes))
            else:
                self._write(VECTOR_HEAD.pack(VECTOR_MAGIC, root.type, root.length, attributes))
        self._element(root)
        self._pad()
        self._write(pack_header(header._replace(root=ALIGNMENT)))

    def _element(self, node: RVector | RList) -> None:
        if isinstance(node, RList):
            self._list(node)
            return
        for piece in node.pieces:
            if piece.nbytes:
                self._write(piece.view(np.uint8), borrowed=True)
        self._write(self._attributes(node))

    def _list(self, node: RList) -> None:
        attributes = self._attributes(node)
        at = align(LIST_HEAD.size + ENTRY.size * len(node.children))
        entries = []
        for child in node.children:
            size = self._size(child)
            if isinstance(child, RList):
                entries.append(ENTRY.pack(at, size, LIST, 0, len(child.children)))
            else:
                entries.append(ENTRY.pack(at, size, child.type, size - child.nbytes, child.length))
            at += align(size)
        self._write(LIST_HEAD.pack(LIST_MAGIC, len(entries), at, len(attributes)) + b"".join(entries))
        self._pad()
        for child in node.children:
            self._element(child)
            self._pad()
        self._write(attributes)
        self._pad()

    def _write(self, data: Any, *, borrowed: bool = False) -> None:
        if len(data):
            self._put(data, borrowed=borrowed)
            self._position += len(data)

    def _pad(self) -> None:
        self._write(bytes(-self._position % ALIGNMENT))


def wants_pairs() -> bool:
    """Return whether the R of this machine is older than 4.6, which reads other attributes."""
    version = settings.r_version() or _installed_version(os.environ.get("R_HOME"), shutil.which("R"))
    return version is not None and version < (4, 6)


@functools.lru_cache(maxsize=8)
def _installed_version(home: str | None, program: str | None) -> tuple[int, int] | None:
    """Return the version of R, as its files say it; None where none is found."""
    homes = [] if home is None else [Path(home)]
    if program is not None:
        prefix = Path(os.path.realpath(program)).parents[1]
        homes += [prefix, prefix / "lib/R", prefix / "lib64/R"]
    for place in homes:
        try:
            said = (place / "library/base/DESCRIPTION").read_text("utf-8", "replace")
        except OSError:
            continue
        if (match := re.search(r"^Version: (\d+)\.(\d+)", said, re.MULTILINE)) is not None:
            return int(match[1]), int(match[2])
    return None
