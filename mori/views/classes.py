"""Instances of namedtuples and dataclasses, rebuilt with their fields as parts.

Imports the codec, the reader, the opening, array and rebuilt. An instance is an ordinary one, so it can
be written to without telling anyone: who hands one out keeps it in its opening, and looks when it is pickled.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mori import layout, rebuilt
from mori.array import SharedArray
from mori.codecs.classes import Shape, fields_of, shape_of
from mori.errors import MoriError
from mori.layout import Codec as Id
from mori.reader import Node, opener
from mori.views.opening import Opening

__all__ = ["INSTANCES", "Instance", "instance"]

INSTANCES: Final = (Id.NAMEDTUPLE, Id.DATACLASS)


class Instance(NamedTuple):
    """An instance that was handed out, and the fields that it and the instances in it had then."""

    obj: Any
    parts: list[tuple[Any, dict[str, Any]]]

    def _mori_is_intact(self) -> bool:
        """Say whether no field has been assigned to, and no part of one has become private."""
        for obj, before in self.parts:
            now = fields_of(obj)
            if now.keys() != before.keys() or any(now[name] is not value for name, value in before.items()):
                return False
            if not all(map(_is_intact, before.values())):
                return False
        return True


def _is_intact(part: Any) -> bool:
    if isinstance(part, SharedArray):
        return not part.flags.writeable
    if not type(part).__module__.startswith("mori."):
        return True
    # What lies deeper in a container, its opening knows.
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
    kept = opening.kept(node.offset)
    return _rebuild(node, opening) if kept is None else kept.obj


def _rebuild(node: Node, opening: Opening) -> Any:
    """Rebuild an instance and those inside it, however deep they lie; their other fields are opened."""
    levels = [_Level(node, 0)]
    parts: list[tuple[Any, dict[str, Any]]] = []
    while True:
        level = levels[-1]
        if len(level.values) < len(level.node):
            child = level.node.child(len(level.values))
            if child.record.codec not in INSTANCES:
                level.values.append(opening.field(child))
            elif (kept := opening.kept(child.offset)) is not None:
                level.values.append(kept.obj)
            else:
                levels.append(_Level(child, len(parts)))
            continue
        obj = rebuilt.remember(level.shape.build(level.values), level.node)
        parts.append((obj, dict(zip(level.shape.fields, level.values, strict=True))))
        levels.pop()
        if not levels or level.node.record.flags & layout.ALIASED:
            opening.keep(level.node.offset, Instance(obj, parts[level.first :]))
        if not levels:
            return obj
        levels[-1].values.append(obj)


def _open(node: Node) -> Any:
    return instance(node, Opening())


for _id in INSTANCES:
    opener(_id)(_open)
