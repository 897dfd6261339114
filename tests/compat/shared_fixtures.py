"""A pytest plugin: what the fixtures of pandas' own tests give is passed through `mori.share`.

Loaded with ``-p tests.compat.shared_fixtures``; `run.py` does, and runs the same tests without it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori

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
