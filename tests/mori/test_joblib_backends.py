"""scikit-learn on joblib's own backends learns from shared data what it learns from plain ones."""

from __future__ import annotations

import joblib
import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker

from tests import estimators


@pytest.fixture(autouse=True, scope="module")
def what_stays() -> None:
    """Start loky's process before a test is asked what it leaves behind."""
    resource_tracker.ensure_running()


@pytest.mark.parametrize("kind", ["arrays", pytest.param("frame", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_estimators_learn_the_same_and_their_workers_map_the_data(backend: str, kind: str) -> None:
    with joblib.parallel_config(backend, n_jobs=2):
        estimators.check(kind)
    if backend == "loky":
        get_reusable_executor().shutdown(wait=True)
