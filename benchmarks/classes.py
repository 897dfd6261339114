"""The classes of the objects in `benchmarks.catalogue`, where every process can import them."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, NamedTuple


class Colour(enum.Enum):
    """Three members with values of a str each."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Level(enum.IntEnum):
    """Members that are ints, too."""

    LOW = 1
    MIDDLE = 5
    HIGH = 9


Station = enum.Enum("Station", [f"S{i}" for i in range(200)], module=__name__)  # type: ignore[misc]


@dataclasses.dataclass
class Trade:
    """A dataclass of one number, one text and two floats."""

    number: int
    symbol: str
    price: float
    amount: float


@dataclasses.dataclass(slots=True)
class SlottedTrade:
    """The same with slots."""

    number: int
    symbol: str
    price: float
    amount: float


@dataclasses.dataclass(frozen=True)
class FrozenTrade:
    """The same, frozen."""

    number: int
    symbol: str
    price: float
    amount: float


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlottedTrade:
    """The same, frozen and with slots."""

    number: int
    symbol: str
    price: float
    amount: float


@dataclasses.dataclass
class Basket:
    """A dataclass that holds a list of others, and a dict."""

    name: str
    trades: list[Trade]
    notes: dict[str, Any]


class Plain:
    """An instance with a ``__dict__``."""

    def __init__(self, number: int, name: str, value: float) -> None:
        self.number = number
        self.name = name
        self.value = value


class Slotted:
    """An instance without one."""

    __slots__ = ("name", "number", "value")

    def __init__(self, number: int, name: str, value: float) -> None:
        self.number = number
        self.name = name
        self.value = value


class Customer(Plain):
    """Who orders: met in many orders."""


class Order:
    """An order of a customer."""

    def __init__(self, number: int, customer: Customer, amount: float) -> None:
        self.number = number
        self.customer = customer
        self.amount = amount


class Link:
    """A node of a linked ring."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.next: Link = self


class Branch:
    """A node of a tree that knows its parent."""

    def __init__(self, value: int, parent: Branch | None) -> None:
        self.value = value
        self.parent = parent
        self.children: list[Branch] = []


class Point(NamedTuple):
    """A namedtuple."""

    x: float
    y: float
    label: str


class Segment(NamedTuple):
    """A namedtuple of namedtuples."""

    start: Point
    end: Point


class Row(list):  # type: ignore[type-arg]
    """A subclass of list."""


class Settings(dict):  # type: ignore[type-arg]
    """A subclass of dict."""


class Word(str):
    """A subclass of str."""

    __slots__ = ()
