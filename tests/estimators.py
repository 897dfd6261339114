"""What scikit-learn fits with several jobs, for the tests of each of joblib's backends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.tree import DecisionTreeClassifier

import mori
from mori.memory import mapping as mappings

ROWS: Final = 30_000  # 2 MB of features: joblib would write them to a file


class Seeing(Ridge):  # type: ignore[misc]
    """A model that knows whether the process in which it was fitted has mapped a region."""

    def fit(self, x: Any, y: Any) -> Any:
        self.has_mapped_ = any(mapping.shared for mapping in mappings.live())
        return super().fit(x, y)


def data(kind: str) -> tuple[Any, Any]:
    """Return features and target as arrays, or as a frame and a series."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, 8))
    y = (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(int)
    return (pd.DataFrame(x, columns=list("abcdefgh")), pd.Series(y)) if kind == "frame" else (x, y)


def _cross_validated(x: Any, y: Any) -> Any:
    return cross_validate(Seeing(), x, y, cv=4, n_jobs=2, return_estimator=True)


def _searched(x: Any, y: Any) -> Any:
    return (
        GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, cv=2, n_jobs=2).fit(x, y).cv_results_["mean_test_score"]
    )


def _grown(x: Any, y: Any) -> Any:
    return RandomForestClassifier(4, max_depth=4, n_jobs=2, random_state=0).fit(x, y).predict_proba(x)


def _stacked(x: Any, y: Any) -> Any:
    parts = [("tree", DecisionTreeClassifier(max_depth=3, random_state=0)), ("line", LogisticRegression())]
    return clone(StackingClassifier(parts, n_jobs=2, cv=2)).fit(x, y).predict_proba(x)


FITS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "GridSearchCV": _searched,
    "RandomForestClassifier": _grown,
    "StackingClassifier": _stacked,
}


def check(kind: str, fits: Iterable[str] = FITS) -> None:
    """Fit estimators on plain and on shared data: the results are equal, and workers map the region."""
    plain = data(kind)
    shared = tuple(map(mori.share, plain))
    for name in fits:
        # Threads add the votes of a forest's trees in any order, so the last bit may differ.
        np.testing.assert_allclose(FITS[name](*plain), FITS[name](*shared), rtol=1e-12, err_msg=name)
    expected, found = _cross_validated(*plain), _cross_validated(*shared)
    assert np.array_equal(expected["test_score"], found["test_score"])
    assert [model.has_mapped_ for model in found["estimator"]] == [True] * 4
    assert all(map(mori.is_shared, shared))
