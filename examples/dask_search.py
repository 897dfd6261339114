"""A search for hyper-parameters with scikit-learn on joblib's Dask backend.

Each candidate is fitted on parts of the same matrix. joblib has Dask send the matrix to each worker that
fits; shared, it goes as a name, and no line of the search changes.
``python examples/dask_search.py --megabytes 200``
"""

from __future__ import annotations

import warnings

import joblib
import numpy as np
from dask_ways import cluster, measured, options, report
from sklearn.linear_model import SGDRegressor
from sklearn.model_selection import GridSearchCV

import mori

FEATURES = 50


def problem(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a linear problem with noise."""
    random = np.random.default_rng(1)
    features = random.standard_normal((rows, FEATURES))
    return features, features @ random.standard_normal(FEATURES) + random.standard_normal(rows)


def search(features: np.ndarray, target: np.ndarray) -> list[float]:
    """Fit every candidate; return the scores."""
    grid = {"alpha": [1e-5, 1e-3, 1e-1], "penalty": ["l1", "l2"]}
    found = GridSearchCV(SGDRegressor(max_iter=3, tol=None, random_state=0), grid, cv=3, refit=False)
    with joblib.parallel_config(backend="dask"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a large graph, where it is plain
        found.fit(features, target)
    return [float(score) for score in found.cv_results_["mean_test_score"]]


def main() -> None:
    """Compare the two ways."""
    chosen = options(__doc__, 200)
    features, target = problem(int(chosen.megabytes * 1e6 / (8 * FEATURES)))
    rows = []
    for way in ("plain", "mori.share"):
        with cluster(chosen.workers) as client:

            def job(way: str = way) -> list[float]:
                if way == "plain":
                    return search(features, target)
                return search(mori.share(features), mori.share(target))

            rows.append(measured(client, way, job))
    title = f"6 candidates, 3 folds, a matrix of {chosen.megabytes:.0f} MB on {chosen.workers} workers"
    report(title, rows, np.allclose)


if __name__ == "__main__":
    main()
