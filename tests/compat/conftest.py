"""Estimators keep their pools of processes: what they leave is ended once, after the last test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """Stand in for the check of the other tests, which would take the pools of joblib for a leak."""


@pytest.fixture(scope="session", autouse=True)
def no_pool_is_left_behind() -> Iterator[None]:
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
