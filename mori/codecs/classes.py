"""namedtuples and dataclasses: the class by its name in the meta, each field a child.

Imports codec, layout and errors. What comes back is an instance of the class, made without its
``__init__`` as pickle makes it. A class that its name does not lead to (in ``__main__``, inside a
function), or that has ways of its own to be made or pickled, goes by pickle. Reading imports the module
that the bytes name: see docs/format.md, "What is not covered".
"""

from __future__ import annotations

import collections
import copyreg
import functools
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from mori.errors import ClassNotFoundError
from mori.format.codec import Buffers, BuiltinCodec, Encoded
from mori.format.layout import Codec as Id
from mori.format.node import Node

__all__ = [
    "DataclassCodec",
    "NamedTupleCodec",
    "Shape",
    "changed",
    "fields_of",
    "find_class",
    "is_plain",
    "shape_of",
]

_REDUCE: Final = ("__reduce__", "__reduce_ex__")
_STATE: Final = ("__getstate__", "__setstate__")
_NEW: Final = ("__getnewargs__", "__getnewargs_ex__")
_UNSET: Final = object()


class Shape(NamedTuple):
    """A class and the names of its instance's fields, in the order of a node's children."""

    cls: type
    fields: tuple[str, ...]

    def build(self, values: Sequence[Any]) -> Any:
        """Return an instance of the class; nothing of its own runs."""
        if len(values) != len(self.fields):
            raise ValueError(f"{len(values)} values for {len(self.fields)} fields")
        if issubclass(self.cls, tuple):
            return tuple.__new__(self.cls, values)
        obj = object.__new__(self.cls)
        slots = _slots(self.cls)
        for name, value in zip(self.fields, values, strict=True):
            if name in slots:
                object.__setattr__(obj, name, value)
            else:
                obj.__dict__[name] = value
        return obj


def fields_of(obj: Any) -> dict[str, Any]:
    """Return the fields of an instance that have a value, attributes beyond its class's fields included."""
    if isinstance(obj, tuple):
        return dict(zip(type(obj)._fields, obj, strict=True))  # type: ignore[attr-defined]
    found = {}
    for name in _slots(type(obj)):
        if (value := getattr(obj, name, _UNSET)) is not _UNSET:
            found[name] = value
    return found | getattr(obj, "__dict__", {})


def changed(obj: Any, change: Callable[[Any], Any]) -> Any:
    """Return an instance whose fields were changed by a function; the instance itself where none was."""
    before = fields_of(obj)
    after = {name: change(value) for name, value in before.items()}
    if all(after[name] is value for name, value in before.items()) or _has_more(obj):
        return obj
    return Shape(type(obj), tuple(after)).build(list(after.values()))


def is_plain(cls: type) -> bool:
    """Say whether a class is a namedtuple or a dataclass whose instances are their fields."""
    if hasattr(cls, "__dataclass_fields__"):
        return _is_plain_dataclass(cls)
    return issubclass(cls, tuple) and _is_plain_namedtuple(cls)


def _has_more(obj: Any) -> bool:
    """Say whether a namedtuple has attributes beyond its fields."""
    return isinstance(obj, tuple) and bool(getattr(obj, "__dict__", None))


def _slots(cls: type) -> Sequence[str]:
    found: Sequence[str] = copyreg._slotnames(cls)  # type: ignore[attr-defined]
    return found


def _is_named(module: object, name: object) -> bool:
    """Say whether a module and a name can be imported: they are identifiers, and mean the same everywhere."""
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return False
    return all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def find_class(module: object, name: object) -> type:
    """Return the class of a name; the one place where mori imports what bytes name.

    Raises
    ------
    ClassNotFoundError
        If there is no such class here.
    """
    asked = f"{module}.{name}"[:200]
    if not _is_named(module, name):
        raise ClassNotFoundError(cls=asked, found="that is no name of a class")
    try:
        found: Any = importlib.import_module(str(module))
        for part in str(name).split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ClassNotFoundError(cls=asked, found=f"{type(error).__name__}: {error}"[:300]) from error
    if not isinstance(found, type):
        raise ClassNotFoundError(cls=asked, found=f"that is a {type(found).__name__}")
    return found


def _has_name(cls: type) -> bool:
    """Say whether the name of a class leads to it."""
    if not _is_named(cls.__module__, cls.__qualname__):
        return False
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def _is_plain_namedtuple(cls: type) -> bool:
    """Say whether a class was made by namedtuple or typing.NamedTuple, or adds nothing but methods to one."""
    for base in cls.__mro__:
        own = base.__dict__
        if "_fields" in own and tuple in base.__bases__:
            # Their code says who made them, whatever the class is called now.
            made = getattr(own.get("__getnewargs__"), "__code__", None)
            return (
                made is not None
                and made.co_filename == collections.namedtuple.__code__.co_filename
                and str(base.__new__.__module__).startswith("namedtuple_")
                and not any(name in own for name in (*_REDUCE, *_STATE))
            )
        if any(name in own for name in ("__new__", *_REDUCE, *_STATE, *_NEW)):
            return False
    return False


def _is_plain_dataclass(cls: type) -> bool:
    """Say whether nothing but its fields makes an instance of a dataclass."""
    import dataclasses  # slow to import, and there already where a class is one

    if getattr(cls, "__new__", None) is not object.__new__ or cls in copyreg.dispatch_table:
        return False
    if any(getattr(cls, name) is not getattr(object, name) for name in _REDUCE):
        return False
    if any(hasattr(cls, name) for name in _NEW):
        return False
    for name in _STATE:  # frozen dataclasses with slots have theirs from the decorator
        found = getattr(cls, name, None)
        if found not in (
            None,
            getattr(object, name, None),
            getattr(dataclasses, f"_dataclass{name[1:-2]}", None),
        ):
            return False
    return True


@functools.lru_cache(maxsize=512)
def _meta(module: str, name: str, fields: tuple[str, ...]) -> bytes:
    plain = {"module": module, "name": name, "fields": fields}
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()


def shape_of(number: int, meta: bytes) -> Shape:
    """Return the class and the fields that a meta names.

    Raises
    ------
    ClassNotFoundError
        If there is no such class here, or one of another shape.
    """
    plain = json.loads(meta)
    fields = tuple(plain["fields"])
    if not all(isinstance(field, str) for field in fields) or len({*fields}) != len(fields):
        raise ValueError(f"{fields} are no fields")
    cls = find_class(plain["module"], plain["name"])
    asked = f"{cls.__module__}.{cls.__qualname__}"
    if number == Id.NAMEDTUPLE:
        if not issubclass(cls, tuple) or not _is_plain_namedtuple(cls):
            raise ClassNotFoundError(cls=asked, found="that is no namedtuple")
        if cls._fields != fields:  # type: ignore[attr-defined]
            raise ClassNotFoundError(cls=asked, found=f"its fields are {', '.join(cls._fields)}")  # type: ignore[attr-defined]
    elif not hasattr(cls, "__dataclass_fields__") or not _is_plain_dataclass(cls):
        raise ClassNotFoundError(cls=asked, found="that is no dataclass")
    elif not cls.__dictoffset__ and not {*fields} <= {*_slots(cls)}:
        raise ClassNotFoundError(cls=asked, found=f"its fields are {', '.join(_slots(cls))}")
    return Shape(cls, fields)


class _Fields(BuiltinCodec):
    """Instances of a class, by their fields."""

    def _take_apart(self, obj: Any) -> Encoded:
        cls, fields = type(obj), fields_of(obj)
        return Encoded(_meta(cls.__module__, cls.__qualname__, tuple(fields)), (), list(fields.values()))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        return shape_of(self.id, meta).build(list(children))

    def step(self, obj: Any, index: int) -> str:
        return f".{list(fields_of(obj))[index]}"

    def part(self, node: Node, number: int) -> Node:
        if number >= len(node):
            raise IndexError(f"out of bounds: there are {len(node)} elements")
        return node.child(number)

    def steps_to(self, node: Node, child: Node) -> tuple[int, ...]:
        return (child.record.place,)

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        return changed(obj, change) if is_plain(type(obj)) else obj


class NamedTupleCodec(_Fields):
    """A namedtuple."""

    id = Id.NAMEDTUPLE

    def encode(self, obj: Any) -> Encoded | None:
        cls = type(obj)
        if not _is_plain_namedtuple(cls) or not _has_name(cls) or _has_more(obj):
            return None
        return self._take_apart(obj)


class DataclassCodec(_Fields):
    """An instance of a dataclass."""

    id = Id.DATACLASS
    pickles_cycles = True

    def encode(self, obj: Any) -> Encoded | None:
        cls = type(obj)
        return self._take_apart(obj) if _is_plain_dataclass(cls) and _has_name(cls) else None
