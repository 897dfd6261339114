"""Instances of namedtuples and dataclasses, rebuilt with their fields as parts.

Imports the codec, the reader, array and rebuilt. An instance is an ordinary one, so it can be written to
without telling anyone: who hands one out keeps it here, and looks when it is pickled.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mori import rebuilt
from mori.array import SharedArray
from mori.codecs.classes import Shape, fields_of, shape_of
from mori.errors import MoriError
from mori.layout import Codec as Id
from mori.reader import Node, open_node, opener

__all__ = ["INSTANCES", "Instance", "rebuild"]

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
    look = getattr(part, "_mori_is_intact", None) or getattr(part, "_is_intact", None)
    return look is None or bool(look())


class _Level:
    """A node on the way down, and the fields that are done."""

    __slots__ = ("node", "shape", "values")

    def __init__(self, node: Node) -> None:
        try:
            self.shape: Shape = shape_of(node.record.codec, node.meta)
            if len(self.shape.fields) != len(node):
                raise ValueError(f"{len(node)} values for {len(self.shape.fields)} fields")
        except MoriError:
            raise
        except Exception as error:
            raise node.decode_error(f"its class makes no sense ({type(error).__name__}: {error})") from error
        self.node = node
        self.values: list[Any] = []


def rebuild(node: Node) -> Instance:
    """Rebuild an instance and those inside it, however deep they lie; their other fields are opened."""
    levels, parts = [_Level(node)], []
    while True:
        level = levels[-1]
        if len(level.values) < len(level.node):
            child = level.node.child(len(level.values))
            if child.record.codec in INSTANCES:
                levels.append(_Level(child))
            else:
                level.values.append(open_node(child))
            continue
        obj = rebuilt.remember(level.shape.build(level.values), level.node)
        parts.append((obj, dict(zip(level.shape.fields, level.values, strict=True))))
        levels.pop()
        if not levels:
            return Instance(obj, parts)
        levels[-1].values.append(obj)


def _open(node: Node) -> Any:
    return rebuild(node).obj


for _id in INSTANCES:
    opener(_id)(_open)
