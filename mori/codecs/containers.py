"""Lists, tuples, dicts and sets: in one stream while they are small, else in columns, in blocks, or by nodes.

A large dict has two children, the lists of its keys and of its values; a large set has one, the list of its
elements. Beside them stands an index of the keys or elements, where they have one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final

from mori.codecs import arrays, packed, strings
from mori.codecs.faults import path_to
from mori.codecs.key_index import build
from mori.codecs.streams import encode_blocks, encode_object
from mori.format import codec
from mori.format.atoms import kinds_of
from mori.format.codec import Buffers, BuiltinCodec, ContainerCodec, Encoded, register
from mori.format.layout import Id
from mori.format.node import Node
from mori.format.survey import LARGE, Kind, Survey

__all__ = ["SMALL", "DictCodec", "Elements", "SequenceCodec", "SetCodec", "Values"]

SMALL: Final = 64
"""Elements of a container, at most, that is opened as a builtin's subclass which contains its elements."""

_SMALL_NBYTES: Final = 1 << 16
_HASHED_NBYTES: Final = 512  # of a block of keys: a lookup decodes one
_SIZED: Final = frozenset({list, tuple, dict, set, frozenset})


class Values(list[Any]):
    """The values of a dict, which know their keys for the sake of error messages."""

    of: Mapping[Any, Any]


def _values_of(obj: Mapping[Any, Any]) -> Values:
    values = Values(obj.values())
    values.of = obj
    return values


class Elements(list[Any]):
    """The elements of a set, or the keys of a dict: what is hashed has to be a builtin when it is read."""


def _small(obj: Any, kind: str, survey: Survey, *, is_root: bool) -> Encoded | None:
    """Return a small container in one stream, None for a larger one."""
    if not is_root or len(obj) > SMALL:
        return None
    return encode_object(obj, kind, survey, _SMALL_NBYTES)


class SequenceCodec(ContainerCodec):
    """A list or a tuple."""

    def __init__(self, number: int, kind: type[list[Any] | tuple[Any, ...]]) -> None:
        self.id = number
        self.kind = kind

    def encode_in(self, obj: Sequence[Any], survey: Survey, *, is_root: bool) -> Encoded:
        is_temporary = isinstance(obj, Values | Elements)
        if not is_temporary and (small := _small(obj, self.kind.__name__, survey, is_root=is_root)):
            return small
        kinds = kinds_of(obj)
        if (column := _column(obj, kinds)) is not None:
            return column
        holders = 2 if is_temporary else 1
        if isinstance(obj, Elements):
            return encode_blocks(obj, "list", survey, holders, has_nodes=False, nbytes=_HASHED_NBYTES)
        if (column := arrays.pack(obj, kinds, survey, holders)) is not None:
            return column
        if _are_nodes(obj, kinds, survey):
            return Encoded(b"", (), obj)
        return encode_blocks(obj, self.kind.__name__, survey, holders)

    def part(self, node: Node, number: int) -> Node:
        if number >= len(node):
            raise IndexError(f"out of bounds: there are {len(node)} elements")
        return node.child(number)

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...]:
        return (child.record.place,)

    def inside(self, obj: Any, number: int) -> Any:
        if number >= len(obj):
            raise IndexError(f"out of bounds: there are {len(obj)} elements")
        return obj[number]

    def step_to(self, obj: Any, index: int, child: object) -> str:
        if isinstance(obj, Elements):
            return ""
        if index < len(obj) and next(itertools.islice(obj, index, None)) is child:
            if isinstance(obj, Values):
                return f"[{next(itertools.islice(obj.of, index, None))!r}]"
            return f"[{index}]"
        return path_to(obj.of if isinstance(obj, Values) else obj, child)


def _column(obj: Sequence[Any], kinds: set[type]) -> Encoded | None:
    """Return what is of one kind, but for a few elements, as one node."""
    missing, odd = type(None) in kinds, dict[int, Any]()
    (cls, *others) = kinds - {type(None)} or {type(None)}
    if others:
        if (found := packed.without_odd(obj, kinds - {type(None)})) is None:
            return None
        obj, cls, odd = found
    column = strings.pack(obj, missing) if cls is str else packed.pack(obj, cls, missing)
    return column if column is None or not odd else packed.with_odd(column, odd)


def _are_nodes(obj: Sequence[Any], kinds: set[type], survey: Survey) -> bool:
    """Return whether each element is a node of its own: all are large, or have a codec."""
    if not all(cls in _SIZED or survey.kind(cls) is Kind.CODEC for cls in kinds):
        return False
    return all(len(one) > LARGE if type(one) in _SIZED else codec.is_part(one, in_block=True) for one in obj)


def _indexed(keys: Mapping[Any, Any] | Set[Any], values: Callable[[], Sequence[Any]]) -> Encoded:
    """Return keys or elements, with their index where they have one, and the values behind them."""
    numbers = packed.numbers(keys)
    if numbers is None:
        elements = Elements(keys)
        children = elements, *values()
        return Encoded(*build(elements), children)
    children = numbers, *values()
    if len(children) > 1 and not numbers.are(keys):  # another thread has changed the dict since
        raise RuntimeError(codec.CHANGED)
    return Encoded(*build(keys, numbers.array), children)


class DictCodec(ContainerCodec):
    """A dict, in its order."""

    id = Id.DICT
    makes_parts = True

    def encode_in(self, obj: dict[Any, Any], survey: Survey, *, is_root: bool) -> Encoded:
        if small := _small(obj, "dict", survey, is_root=is_root):
            return small
        return _indexed(obj, lambda: [packed.numbers(obj.values()) or _values_of(obj)])

    def step_to(self, obj: Any, index: int, child: object) -> str:
        if isinstance(child, Elements):
            return ".keys()"
        return "" if isinstance(child, Values | packed.Numbers) else path_to(obj, child)

    def part(self, node: Node, number: int) -> Node | None:
        values = node.child(len(node) - 1)
        return values.codec.part(values, number)

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...] | None:
        return () if child.record.place == len(node) - 1 else None

    def inside(self, obj: Any, number: int) -> Any:
        if number >= len(obj):
            raise IndexError(f"out of bounds: there are {len(obj)} elements")
        return next(itertools.islice(obj.values(), number, None))


class SetCodec(ContainerCodec):
    """A set or a frozenset."""

    makes_parts = True

    def __init__(self, number: int, kind: type[set[Any] | frozenset[Any]]) -> None:
        self.id = number
        self.kind = kind

    def encode_in(self, obj: Set[Any], survey: Survey, *, is_root: bool) -> Encoded:
        small = _small(obj, self.kind.__name__, survey, is_root=is_root)
        return small or _indexed(obj, tuple)

    def step_to(self, obj: Any, index: int, child: object) -> str:
        return "" if isinstance(child, Elements) else path_to(obj, child)


class AliasCodec(BuiltinCodec):
    """A further reference to an object: the distance back to its node, in the meta.

    The plan writes aliases, and the reader follows them when a child is asked for, so neither way leads
    through this codec: it stands for the id, and refuses an alias that is no child.
    """

    id = Id.ALIAS

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        raise ValueError("it is an alias that stands alone")


register(AliasCodec())
