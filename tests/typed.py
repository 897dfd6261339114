"""What type checkers know of the public surface: mypy and pyright read it in `make lint`, nothing runs it."""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_type

import numpy as np
import numpy.typing as npt
import pandas as pd

import mori


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Model:
    weights: npt.NDArray[np.float64]


def arrays(floats: npt.NDArray[np.float64], shared: mori.SharedArray) -> None:
    assert_type(mori.share(floats), npt.NDArray[np.float64])
    assert_type(mori.share(floats)[0], Any)
    assert_type(mori.share(shared), mori.SharedArray)
    assert_type(mori.writable(floats), npt.NDArray[np.float64])
    assert_type(mori.materialize(floats), npt.NDArray[np.float64])
    assert_type(mori.allocate((3, 2), "f4").share(), mori.SharedArray)


def frames(frame: pd.DataFrame, index: pd.Index) -> None:
    assert_type(mori.share(frame), pd.DataFrame)
    assert_type(mori.share(frame, strings="arrow"), pd.DataFrame)
    assert_type(mori.share(index), pd.Index)


def containers(words: dict[str, list[int]], record: tuple[int, str]) -> None:
    numbers = mori.share([1, 2, 3])
    assert_type(numbers, mori.SharedList[int])
    assert_type(numbers[0], int)
    assert_type([number for number in numbers], list[int])  # noqa: C416 (it is the iteration that is looked at)
    assert_type(numbers.copy(), list[int])
    assert_type(mori.materialize(numbers), list[int])
    assert_type(mori.writable(mori.share({"a": 1})), dict[str, int])
    assert_type(mori.share(words), mori.SharedDict[str, list[int]])
    assert_type(mori.share(words)["one"], list[int])
    assert_type(mori.share(words).get("one"), list[int] | None)
    assert_type(mori.share(words).get("one", 0), list[int] | int)
    assert_type(mori.share((1, 2)), mori.SharedTuple[int])
    assert_type(mori.share({1, 2}), mori.SharedSet[int])
    assert_type(mori.share(frozenset([1.0])), mori.SharedFrozenSet[float])
    assert_type(mori.share(b"bytes"), bytes | mori.SharedBytes)


def instances(counter: Counter[str], ordered: OrderedDict[str, int], default: defaultdict[str, int]) -> None:
    assert_type(mori.share(Point(1, 2)), Point)
    assert_type(mori.share(Model(np.zeros(3))), Model)
    assert_type(mori.share(counter), Counter[str])
    assert_type(mori.share(ordered), OrderedDict[str, int])
    assert_type(mori.share(default), defaultdict[str, int])
    assert_type(mori.share("text"), str)
    assert_type(mori.share(None), None)


def questions(x: object) -> None:
    assert_type(mori.is_shared(x), bool)
    assert_type(mori.shared_name(x), str | None)
    assert_type(mori.map_shared("/mori_4d1b_1"), Any)
    assert_type(mori.prune_shared(), list[str])
