"""Classes for the tests, in a module that other processes can import."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import enum
import functools
import threading
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pandas as pd

T = TypeVar("T")

Pair = collections.namedtuple("Pair", "first second")
Renamed = collections.namedtuple("Renamed", ["a", "def", "_b"], rename=True)
Nothing = collections.namedtuple("Nothing", [])
Other = collections.namedtuple("Elsewhere", "x")


class Point(NamedTuple):
    x: Any
    y: Any = 0

    def norm(self) -> float:
        return float((self.x**2 + self.y**2) ** 0.5)


class Named(Pair):
    """A namedtuple with methods, and room for attributes."""

    def swapped(self) -> Named:
        return Named(self.second, self.first)


class Slim(Pair):
    __slots__ = ()


class Checked(Pair):
    """A namedtuple that is made in its own way."""

    def __new__(cls, first: Any, second: Any = 5) -> Checked:
        return super().__new__(cls, first, second)


class Looks(tuple):
    """A tuple that has fields and is no namedtuple."""

    _fields = ("a",)


@dataclasses.dataclass
class Fit:
    name: str
    data: Any
    made: ClassVar[int] = 0

    def __post_init__(self) -> None:
        type(self).made += 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Slots:
    a: Any
    b: Any = 2


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    a: Any
    b: Any = 2


@dataclasses.dataclass
class Below(Fit):
    extra: Any = None
    late: int = dataclasses.field(init=False)

    @functools.cached_property
    def length(self) -> int:
        return len(self.data)


class Undecorated(Fit):
    pass


@dataclasses.dataclass(eq=False)
class Box(Generic[T]):
    held: T
    ref: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class Node:
    """A node of a tree that knows its parent."""

    value: Any
    parent: Any = None
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Reduced:
    """A dataclass that pickles in its own way."""

    a: Any

    def __reduce__(self) -> Any:
        return Reduced, (self.a,)


@dataclasses.dataclass
class Stateful:
    a: Any
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    def __getstate__(self) -> Any:
        return {"a": self.a}

    def __setstate__(self, state: Any) -> None:
        self.a, self.lock = state["a"], threading.Lock()


@dataclasses.dataclass
class Made:
    a: Any

    def __new__(cls, *args: Any) -> Made:
        return super().__new__(cls)


@dataclasses.dataclass
class Listed(list):  # type: ignore[type-arg]
    a: Any = 1


class Outer:
    @dataclasses.dataclass
    class Inner:
        a: Any


class Colour(enum.Enum):
    RED = 1


class Mark:
    """A sentinel, which pickles by its name and has none itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> str:
        return self.name


START, STOP, SKIP, LAST = (Mark(name) for name in ("START", "STOP", "SKIP", "LAST"))
Word = TypeVar("Word")
Value = TypeVar("Value")


class Metered(pd.DataFrame):
    """A frame with a unit."""

    _metadata: ClassVar = ["unit"]

    @property
    def _constructor(self) -> type[Metered]:
        return Metered


def fields_of(obj: Any) -> dict[str, Any]:
    """Return the fields of an instance that have a value."""
    if isinstance(obj, tuple):
        return obj._asdict()  # type: ignore[attr-defined,no-any-return]
    slots = {name: getattr(obj, name) for name in copyreg._slotnames(type(obj)) if hasattr(obj, name)}  # type: ignore[attr-defined]
    return slots | getattr(obj, "__dict__", {})


class Key:
    """A key that can be written to."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.tags: list[Any] = []

    def __hash__(self) -> int:
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.number == other.number
