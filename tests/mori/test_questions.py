"""Where libraries ask for a builtin, they refuse a shared container; what the documents advise works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.class_weight import compute_sample_weight

import mori

NUMBERS = list(range(20_000))
WORDS = [f"word {i}" for i in NUMBERS]
DOUBLE = {i: 2.0 * i for i in NUMBERS}
FRAME = pd.DataFrame({"a": NUMBERS})
HOLES = pd.Series(NUMBERS).where(lambda x: x % 2 == 0)

REFUSED: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "groupby": (NUMBERS, lambda x: FRAME.groupby(x).a.sum(), np.asarray),
    "set_index": (WORDS, lambda x: FRAME.set_index([x]).a, np.asarray),
    "fillna": (DOUBLE, HOLES.fillna, dict),
    "stop_words": (WORDS, lambda x: CountVectorizer(stop_words=x).fit(["a bb cc"]).vocabulary_, list),
    "class_weight": (DOUBLE, lambda x: compute_sample_weight(x, NUMBERS), dict),
    "from_array": (NUMBERS, lambda x: da.from_array(x, chunks=5000).compute(scheduler="sync"), np.asarray),
    "dask's take": (
        NUMBERS,
        lambda x: da.arange(20_000, chunks=5000)[x].compute(scheduler="sync"),
        np.asarray,
    ),
}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, pd.Series):
        return bool(one.equals(other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


@pytest.mark.parametrize("call", REFUSED)
def test_it_is_refused_and_what_is_advised_does_what_the_builtin_does(call: str) -> None:
    plain, ask, advised = REFUSED[call]
    shared = mori.share(plain)
    with pytest.raises((TypeError, ValueError, AttributeError)):
        ask(shared)
    expected = ask(plain) if call != "from_array" else ask(np.asarray(plain))
    assert _equal(ask(advised(shared)), expected)


def test_dask_takes_a_shared_list_as_what_to_look_for() -> None:
    frame = dd.from_pandas(FRAME, npartitions=4)
    shared = mori.share(NUMBERS[::3])
    expected = int(FRAME.a.isin(NUMBERS[::3]).sum())
    for asked in (shared, list(shared), np.asarray(shared)):
        assert frame.a.isin(asked).sum().compute(scheduler="sync") == expected
    assert dask.delayed(sum)(shared).compute(scheduler="sync") == sum(NUMBERS[::3])
