"""Estimators of scikit-learn and statsmodels, fitted on shared arrays and frames with two jobs.

What they learn is what they learn from private ones, to the last bit, and the inputs stay shared.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori

pytest.importorskip("sklearn", reason="scikit-learn is missing")

from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

ROWS = 600


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, 6))
    return x, (x[:, 0] + x[:, 1] ** 2 + rng.normal(scale=0.1, size=ROWS) > 0.5).astype(int)


def inputs(kind: str) -> tuple[Any, Any]:
    """Return features and target as arrays, as arrays by columns, or as a frame and a series."""
    x, y = data()
    if kind == "frame":
        return pd.DataFrame(x, columns=list("abcdef")), pd.Series(y, name="target")
    return (np.asfortranarray(x) if kind == "columns" else x), y


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "random forest": lambda: RandomForestClassifier(20, n_jobs=2, random_state=0),
    "grid search": lambda: GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, n_jobs=2),
    "k-means": lambda: KMeans(3, n_init=2, random_state=0),
    "linear regression": lambda: LinearRegression(n_jobs=2),
    "logistic regression": LogisticRegression,
    "scaled logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "principal components, neighbours": lambda: make_pipeline(PCA(3), KNeighborsClassifier(n_jobs=2)),
    "decision tree": lambda: DecisionTreeRegressor(random_state=0),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=10, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "support vectors": SVC,
}


@pytest.mark.parametrize("kind", ["array", "columns", "frame"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_learns_from_shared_data_what_it_learns_from_private(name: str, kind: str) -> None:
    x, y = inputs(kind)
    shared_x, shared_y = mori.share(x), mori.share(y)
    names = mori.shared_name(shared_x), mori.shared_name(shared_y)
    plain = ESTIMATORS[name]().fit(x, y)
    ours = ESTIMATORS[name]().fit(shared_x, shared_y)
    np.testing.assert_array_equal(ours.predict(shared_x), plain.predict(x))
    np.testing.assert_array_equal(ours.predict(x), plain.predict(x))
    assert (mori.shared_name(shared_x), mori.shared_name(shared_y)) == names != (None, None)
    fitted = pickle.loads(pickle.dumps(ours))  # whatever it kept of its inputs
    np.testing.assert_array_equal(fitted.predict(x), plain.predict(x))


@pytest.mark.parametrize("kind", ["array", "columns", "frame"])
def test_cross_validation_in_processes_scores_alike(kind: str) -> None:
    x, y = inputs(kind)
    scores = cross_val_score(LogisticRegression(), mori.share(x), mori.share(y), cv=4, n_jobs=2)
    np.testing.assert_array_equal(scores, cross_val_score(LogisticRegression(), x, y, cv=4))


@pytest.mark.parametrize("kind", ["array", "columns", "frame"])
def test_a_split_gives_the_rows_it_gives_of_private_data(kind: str) -> None:
    x, y = inputs(kind)
    plain = train_test_split(x, y, random_state=3)
    ours = train_test_split(mori.share(x), mori.share(y), random_state=3)
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_pipeline_over_columns_of_a_shared_frame_with_strings_and_categories() -> None:
    x, y = inputs("frame")
    x["word"] = pd.array(np.array(["red", "green", "blue"])[np.arange(ROWS) % 3], dtype="str")
    x["class"] = pd.Categorical(np.array(["u", "v"])[np.arange(ROWS) % 2])

    def make() -> Any:
        columns = [("one hot", OneHotEncoder(), ["word", "class"]), ("scaled", StandardScaler(), list("abc"))]
        return make_pipeline(ColumnTransformer(columns, n_jobs=2), LogisticRegression())

    shared = mori.share(x)
    ours, plain = make().fit(shared, y), make().fit(x, y)
    np.testing.assert_array_equal(ours.predict_proba(shared), plain.predict_proba(x))
    assert mori.is_shared(shared)


@pytest.mark.parametrize("model", ["OLS", "Logit"])
@pytest.mark.parametrize("kind", ["array", "frame"])
def test_a_model_of_statsmodels_has_the_same_parameters(model: str, kind: str) -> None:
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is missing")
    x, y = inputs(kind)
    options = {"disp": 0} if model == "Logit" else {}

    def fit(y: Any, x: Any) -> Any:
        return getattr(api, model)(y, api.add_constant(x)).fit(**options)

    ours, plain = fit(mori.share(y), mori.share(x)), fit(y, x)
    np.testing.assert_array_equal(np.asarray(ours.params), np.asarray(plain.params))
    np.testing.assert_array_equal(np.asarray(ours.bse), np.asarray(plain.bse))
    assert str(ours.summary().tables[1]) == str(plain.summary().tables[1])


def test_a_formula_of_statsmodels_reads_a_shared_frame() -> None:
    formula = pytest.importorskip("statsmodels.formula.api", reason="statsmodels is missing")
    x, y = inputs("frame")
    frame = x.assign(y=y)
    ours, plain = (formula.ols("y ~ a + b + a:c", table).fit() for table in (mori.share(frame), frame))
    pd.testing.assert_series_equal(ours.params, plain.params)
