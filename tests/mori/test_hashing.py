"""joblib's hashes know a shared object as its plain equal, and so does `joblib.Memory`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

import mori


@dataclasses.dataclass
class Point:
    """A record with an array."""

    a: Any
    b: Any


def _estimator(x: Any) -> Any:
    return KNeighborsClassifier().fit(x, np.arange(len(x)) % 2)


RANDOM = np.random.default_rng(0).random((50, 10))
HASHED: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(1000.0),
    "Fortran": lambda: np.asfortranarray(RANDOM),
    "times": lambda: np.arange(5).astype("M8[s]"),
    "objects": lambda: np.array(["a", None, 3], dtype=object),
    "frame": lambda: pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9)}),
    "block": lambda: pd.DataFrame(RANDOM),
    "strings": lambda: pd.DataFrame({"s": list("abc"), "c": pd.Categorical(list("xyx"))}),
    "dates": lambda: pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2024", periods=2)),
    "series": lambda: pd.Series(np.arange(9)),
    "index": lambda: pd.Index(np.arange(9.0)),
    "list": lambda: [*range(1000)],
    "records": lambda: [{"a": i, "b": str(i)} for i in range(300)],
    "nested": lambda: {"x": [1, (2, "a"), {"y": RANDOM.copy()}]},
    "set": lambda: set(range(300)),
    "bytes": lambda: bytes(9000),
    "dataclass": lambda: Point(RANDOM.copy(), [1, 2]),
}


@pytest.mark.parametrize("kind", HASHED)
def test_joblib_knows_a_shared_object_as_its_plain_equal(kind: str) -> None:
    plain, one, other = HASHED[kind](), mori.share(HASHED[kind]()), mori.share(HASHED[kind]())
    expected = joblib.hash(plain)
    assert joblib.hash(one) == joblib.hash(other) == expected
    assert joblib.hash({"x": [one]}) == joblib.hash({"x": [plain]})
    assert joblib.hash([one, one]) == joblib.hash([plain, plain])


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x[::2, 1:],
        np.asarray,
        lambda x: pd.DataFrame(x)[3],
        _estimator,
        lambda x: {"m": _estimator(x)},
    ],
)
def test_joblib_knows_what_is_made_of_a_shared_object(take: Callable[[Any], Any]) -> None:
    assert joblib.hash(take(mori.share(RANDOM))) == joblib.hash(take(RANDOM.copy()))


@pytest.mark.parametrize("take", [lambda f: f["a"], lambda f: f.iloc[3:9], lambda f: f.index[1:]])
def test_joblib_knows_what_is_taken_from_a_shared_frame(take: Callable[[Any], Any]) -> None:
    def make() -> pd.DataFrame:
        return pd.DataFrame({"a": np.arange(50.0), "b": np.arange(50)}, index=np.arange(50) * 2)

    assert joblib.hash(take(mori.share(make()))) == joblib.hash(take(make()))


def test_a_cache_finds_a_shared_argument_again(tmp_path: Path) -> None:
    calls = []
    memory = joblib.Memory(tmp_path, verbose=0)

    @memory.cache
    def total(x: Any) -> float:
        calls.append(1)
        return float(np.asarray(x).sum())

    for make in (np.array, mori.share, mori.share):
        assert total(make(np.arange(9.0))) == 36
    assert len(calls) == 1
