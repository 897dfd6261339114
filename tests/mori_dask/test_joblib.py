"""scikit-learn on joblib's Dask backend learns from shared data what it learns from plain ones."""

import joblib
import pytest
from distributed import Client

from tests import estimators


@pytest.mark.parametrize("kind", [pytest.param("arrays", marks=pytest.mark.slow), "frame"])
def test_estimators_learn_the_same_and_their_workers_map_the_data(client: Client, kind: str):
    with joblib.parallel_config("dask", n_jobs=2):
        estimators.check(kind)
