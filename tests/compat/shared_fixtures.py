"""A pytest plugin: what the fixtures of pandas' own tests give is passed through `mori.share`.

Loaded with ``-p tests.compat.shared_fixtures``; `run.py` does, and runs the same tests without it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori
from mori.objects.pandas import SharedDataFrame, SharedSeries

SHARED = (pd.DataFrame, pd.Series, pd.Index, np.ndarray)


def share(value: Any) -> Any:
    """Return an array or frame in shared memory, and anything else as it is."""
    if not isinstance(value, SHARED) or type(value).__module__.partition(".")[0] not in ("pandas", "numpy"):
        return value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mori.ObjectColumnWarning)
        return mori.share(value)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Any:
    value = yield
    shared = share(value)
    if shared is not value:
        fixturedef.cached_result = (shared, *fixturedef.cached_result[1:])
    return shared


def plain(value: Any) -> Any:
    """Return a shared frame or series as what pandas derives from it, which is of pandas' own class."""
    if isinstance(value, SharedDataFrame | SharedSeries):
        return value.copy(deep=False)
    return value


def comparing(assert_equal: Callable[..., None]) -> Callable[..., None]:
    """Return an assertion that compares everything but the class of what is shared."""

    @functools.wraps(assert_equal)
    def compare(left: Any, right: Any, *args: Any, **kwargs: Any) -> None:
        assert_equal(plain(left), plain(right), *args, **kwargs)

    return compare


def pytest_configure() -> None:
    import pandas._testing as testing
    from pandas._testing import asserters

    for name in ("assert_frame_equal", "assert_series_equal", "assert_equal"):
        compare = comparing(getattr(testing, name))
        setattr(testing, name, compare)
        setattr(asserters, name, compare)
