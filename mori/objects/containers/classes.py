"""Instances of namedtuples and dataclasses, rebuilt with their fields as parts.

Imports the codec, the reader, the opening, array and rebuilt. An instance is an ordinary one, so it can
be written to without telling anyone: the opening that hands one out keeps it, and looks when it is pickled.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mori.codecs.classes import DataclassCodec, NamedTupleCodec, Shape, fields_of, shape_of
from mori.errors import MoriError
from mori.format import layout, origins
from mori.format.codec import BuiltinCodec, register
from mori.format.layout import Codec as Id
from mori.format.node import Node
from mori.objects.array import SharedArray
from mori.objects.containers.atoms import is_atom
from mori.objects.containers.handed import has_held_dict, holders, is_as_written, is_held
from mori.objects.containers.opening import Opening
from mori.objects.containers.remade import is_reached, is_remade, is_unchanged

__all__ = ["INSTANCES", "Instance", "instance"]

INSTANCES: Final = (Id.NAMEDTUPLE, Id.DATACLASS)

_HOLDERS: Final = 2  # of a field's value: the instance, and the note of its fields
_BUILTINS: Final = (list, tuple, dict, set, frozenset)


class _Fields(NamedTuple):
    """An instance, and what its fields were when it was handed out."""

    obj: Any
    node: Node
    values: dict[str, Any]

    def is_intact(self) -> bool:
        now = fields_of(self.obj)
        if now.keys() != self.values.keys():
            return False
        for index, (name, value) in enumerate(self.values.items()):
            if now[name] is not value or not _is_intact(value):
                return False
            if type(value) in _BUILTINS:
                child = self.node.child(index)
                if child.record.codec == Id.SMALL and not is_as_written(child, value):
                    return False
            elif not is_atom(value) and not self._is_unchanged(index, value):
                return False
        return True

    def _is_unchanged(self, index: int, value: Any) -> bool:
        child = self.node.child(index)  # an aliased one is kept by itself
        is_own = not child.record.flags & layout.ALIASED and is_remade(child, value)
        return not is_own or is_unchanged(child, value)

    def is_held(self, inside: set[int]) -> bool:
        """Say whether anybody holds a field, or all by the instance's ``__dict__``.

        An aliased one is kept by itself, or known while it is held.
        """
        if has_held_dict(self.obj):
            return True
        for index, name in enumerate(self.values):
            value = self.values[name]
            if is_atom(value) or id(value) in inside:
                continue
            if self.node.child(index).record.flags & layout.ALIASED:
                continue
            if type(value) in _BUILTINS:
                del value
                if is_held({name: self.values[name]}, _HOLDERS + 1):
                    return True
            elif isinstance(value, SharedArray) or type(value).__module__.startswith("mori."):
                del value
                if holders(self.values, name) > _HOLDERS:
                    return True
            else:
                box = [value]
                del value
                if is_reached(box, _HOLDERS):
                    return True
        return False


class Instance:
    """An instance that was handed out, with the instances that are fields in it, and their opening."""

    __slots__ = ("_parts", "below")

    nbytes = 0
    """Its fields lie in the region."""

    def __init__(self, parts: list[_Fields], below: Opening) -> None:
        self._parts = parts  # itself last
        self.below = below

    @property
    def obj(self) -> Any:
        """The instance."""
        return self._parts[-1].obj

    def is_intact(self) -> bool:
        """Say whether no field has been assigned to, and no part of one has become private."""
        return all(part.is_intact() for part in self._parts)

    def is_held(self) -> bool:
        """Say whether anybody else holds the instance, an instance in it, or what a field is."""
        last = len(self._parts) - 1
        for number in range(len(self._parts)):
            # An instance that is a field is held by the one that it is in, and by the note of its fields.
            if holders(self._parts[number], 0) > (1 if number == last else 1 + _HOLDERS):
                return True
        inside = {id(part.obj) for part in self._parts}
        return any(part.is_held(inside) for part in self._parts)


def _is_intact(part: Any) -> bool:
    if isinstance(part, SharedArray):
        return not part.flags.writeable
    if not str(type(part).__module__).startswith("mori."):
        return True
    look = getattr(part, "_mori_is_intact", None)
    return getattr(part, "_own", None) is None and (look is None or bool(look()))


class _Level:
    """A node on the way down, and the fields that are done."""

    __slots__ = ("first", "node", "shape", "values")

    def __init__(self, node: Node, first: int) -> None:
        try:
            self.shape: Shape = shape_of(node.record.codec, node.meta)
            if len(self.shape.fields) != len(node):
                raise ValueError(f"{len(node)} values for {len(self.shape.fields)} fields")
        except MoriError:
            raise
        except Exception as error:
            raise node.decode_error(f"its class makes no sense ({type(error).__name__}: {error})") from error
        self.node = node
        self.first = first  # of the instances inside it, in the order in which they are done
        self.values: list[Any] = []


def instance(node: Node, opening: Opening) -> Any:
    """Return the instance of a node: the one that this opening has handed out, or a new one."""
    kept = opening.instance(node)
    return _rebuild(node, opening, Opening(opening.root())) if kept is None else kept


def _rebuild(node: Node, opening: Opening, below: Opening) -> Any:
    """Rebuild an instance and those inside it, however deep they lie; their other fields are opened."""
    levels = [_Level(node, 0)]
    parts: list[_Fields] = []
    while True:
        level = levels[-1]
        if len(level.values) < len(level.node):
            child = level.node.child(len(level.values))
            if child.record.codec not in INSTANCES:
                level.values.append(below.field(child))
            elif (kept := opening.instance(child)) is not None:
                level.values.append(kept)
            else:
                levels.append(_Level(child, len(parts)))
            continue
        obj = origins.remember(level.shape.build(level.values), level.node)
        parts.append(_Fields(obj, level.node, dict(zip(level.shape.fields, level.values, strict=True))))
        levels.pop()
        if not levels or level.node.record.flags & layout.ALIASED:
            obj = opening.keep(level.node, Instance(parts[level.first :], below))
            below.found(level.node.offset, obj)
        if not levels:
            return obj
        levels[-1].values.append(obj)


class _Instances(BuiltinCodec):
    """How instances of classes are opened, which are made of their fields."""

    def open(self, node: Node) -> Any:
        return _rebuild(node, Opening(), Opening())


class _NamedTupleCodec(_Instances, NamedTupleCodec):
    """Namedtuples."""


class _DataclassCodec(_Instances, DataclassCodec):
    """Instances of dataclasses."""


register(_NamedTupleCodec())
register(_DataclassCodec())
