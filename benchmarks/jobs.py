"""The objects that the runner publishes: how each is built, and what a reader does with it.

Payload is what the values themselves take: 8 bytes a number, the UTF-8 bytes of a string.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["JOBS", "Job"]

Read = Callable[[Any], float]


@dataclass(frozen=True)
class Job:
    """One kind of object. `build` takes the fraction of the full size; 0 gives one of 100 elements."""

    name: str
    title: str
    build: Callable[[float], Any]
    payload: Callable[[Any], int]
    first: Read  # what a reader reads first
    reads: str  # the same in words
    scan: Read  # all of it
    look_up: Callable[[Any, int], float] | None = None  # so many keys, one after the other


def _count(full: int, scale: float) -> int:
    return max(1, round(full * scale)) if scale else 100


def _words(count: int) -> list[str]:
    return [f"word number {i}" for i in range(count)]


def _array(scale: float) -> Any:
    return np.random.default_rng(1).random(_count(25_000_000, scale))


def _frame(scale: float) -> Any:
    import pandas as pd

    rows = _count(5_000_000, scale)
    return pd.DataFrame(np.random.default_rng(1).random((5, rows)).T, columns=list("abcde"))


def _text_frame(scale: float) -> Any:
    import pandas as pd

    words = _words(_count(1_000_000, scale))
    return pd.DataFrame(
        {
            "number": np.arange(len(words), dtype="f8"),
            "word": pd.array(words, dtype="str"),
            "kind": pd.array([word[-2:] for word in words], dtype="str"),
        }
    )


def _arrays(scale: float) -> Any:
    values = np.random.default_rng(1).random((_count(100_000, scale), 100))
    return {f"key {i}": row.copy() for i, row in enumerate(values)}


def _records(scale: float) -> Any:
    return [{"id": i, "x": i / 2, "name": f"name {i % 1000}"} for i in range(_count(300_000, scale))]


def _text_bytes(words: Any) -> int:
    return sum(len(word.encode()) for word in words)


def _spread(x: Sequence[Any] | Mapping[Any, Any], count: int) -> range:
    """Return indices from one end to the other; a mapping's keys are made of them."""
    return range(0, len(x), max(1, len(x) // count))[:count]


def _ten(x: Any) -> float:
    return float(sum(len(x[i]) for i in _spread(x, 10)))


def _ten_words(x: Any) -> float:
    return float(sum(x[f"word number {i}"] for i in _spread(x, 10)))


def _ten_numbers(x: Any) -> float:
    return float(sum(x[3 * i] for i in _spread(x, 10)))


def _look_up_words(x: Any, count: int) -> float:
    return float(sum(x[f"word number {i}"] for i in _spread(x, count)))


def _look_up_numbers(x: Any, count: int) -> float:
    return float(sum(x[3 * i] for i in _spread(x, count)))


def _three_arrays(x: Any) -> float:
    return float(sum(x[f"key {i}"][0] for i in _spread(x, 3)))


def _all_values(x: Any) -> float:
    return float(sum(x.values()))


def _numbers(x: Any) -> Any:
    return x.memory_usage(index=False, deep=False).sum()


JOBS: Final = {
    job.name: job
    for job in (
        Job(
            "array",
            "200 MB of float64, an array",
            _array,
            lambda x: int(x.nbytes),
            lambda x: float(x[0]),
            "one element",
            lambda x: float(x.sum()),
        ),
        Job(
            "frame",
            "200 MB of float64, a frame of 5 columns",
            _frame,
            lambda x: int(_numbers(x)),
            lambda x: float(x["a"].iloc[0]),
            "one value",
            lambda x: float(x.sum().sum()),
        ),
        Job(
            "text frame",
            "A frame of 1,000,000 rows: one column of float64, two of str",
            _text_frame,
            lambda x: int(x["number"].nbytes) + _text_bytes(x["word"]) + _text_bytes(x["kind"]),
            lambda x: float(len(x["word"].iloc[0])),
            "one string",
            lambda x: float(x["number"].sum() + x["word"].str.len().sum() + x["kind"].str.len().sum()),
        ),
        Job(
            "strings",
            "A list of 1,000,000 str",
            lambda scale: _words(_count(1_000_000, scale)),
            _text_bytes,
            _ten,
            "ten elements",
            lambda x: float(sum(map(len, x))),
        ),
        Job(
            "dict",
            "A dict of 1,000,000 str to int",
            lambda scale: {word: i for i, word in enumerate(_words(_count(1_000_000, scale)))},
            lambda x: _text_bytes(x) + 8 * len(x),
            _ten_words,
            "ten entries",
            _all_values,
            _look_up_words,
        ),
        Job(
            "int dict",
            "A dict of 1,000,000 int to int",
            lambda scale: {3 * i: i for i in range(_count(1_000_000, scale))},
            lambda x: 16 * len(x),
            _ten_numbers,
            "ten entries",
            _all_values,
            _look_up_numbers,
        ),
        Job(
            "arrays",
            "A dict of 100,000 arrays of 100 float64",
            _arrays,
            lambda x: _text_bytes(x) + 800 * len(x),
            _three_arrays,
            "an element of three of them",
            lambda x: float(sum(array.sum() for array in x.values())),
        ),
        Job(
            "records",
            "300,000 records, a list of dicts",
            _records,
            lambda x: 16 * len(x) + _text_bytes(record["name"] for record in x),
            lambda x: float(sum(x[i]["x"] for i in _spread(x, 10))),
            "a field of ten of them",
            lambda x: float(sum(record["id"] for record in x)),
        ),
    )
}
