"""Everyday operations that read an object, and the objects that they read.

Each operation is an expression of ``x``; ``other`` is an equal object in private memory, ``small`` what
it is combined with.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd

from mori.codecs.pandas.versions import string_dtype

__all__ = ["OPERATIONS", "build", "evaluate", "small"]

OPERATIONS: dict[str, list[str]] = {
    "array": [
        "x[5, 3]",
        "x[7]",
        "x[:5]",
        "x[100:2000]",
        "x[::2]",
        "x[:, 3]",
        "x.T",
        "x.reshape(-1)",
        "x[[1, 5, 9]]",
        "x[x[:, 0] > 0.99]",
        "x > 0.5",
        "x == other",
        "np.array_equal(x, other)",
        "x.sum()",
        "x.mean(axis=0)",
        "x.std()",
        "x.argmax()",
        "np.sort(x[:, 0])",
        "np.argsort(x[:, 0])",
        "np.median(x[:, 0])",
        "x @ small",
        "x.T @ x",
        "x + 1",
        "np.sqrt(x)",
        "np.where(x > 0.5, 1.0, 0.0)",
        "np.cumsum(x[:, 0])",
        "np.isnan(x).any()",
        "np.concatenate([x[:10], x[:10]])",
        "x.astype('f4')",
        "np.asarray(x)",
        "sum(row[0] for row in x[:1000])",
        "repr(x)",
        "len(x)",
        "pickle.dumps(x)",
        "pickle.dumps(x[10:20])",
    ],
    "frame": [
        "x.head()",
        "x.tail()",
        "x.iloc[5]",
        "x.loc[20]",
        "x.iloc[100:2000]",
        "x['a']",
        "x[['a', 'b']]",
        "x['s'].iloc[3]",
        "x['a'] > 0.5",
        "x[x['a'] > 0.99]",
        "x.query('a > 0.99 and key == 3')",
        "x['a'].sum()",
        "x[['a', 'b', 'c']].mean()",
        "x.describe()",
        "x['key'].value_counts()",
        "x.groupby('key')['a'].sum()",
        "x.groupby('cat', observed=True)[['a', 'b']].mean()",
        "x.merge(small, on='key')",
        "x.sort_values('a')",
        "x['s'].str.len()",
        "x['a'].isna().sum()",
        "x['a'].to_numpy()",
        "x.assign(new=1.0)",
        "x.drop(columns='a')",
        "x.rename(columns=str.upper)",
        "x[['a', 'b']].corr()",
        "x.equals(other)",
        "x['a'] == other['a']",
        "sum(row.a for row in x.head(1000).itertuples())",
        "repr(x)",
        "len(x)",
        "x.dtypes",
        "pickle.dumps(x)",
        "pickle.dumps(x['a'])",
    ],
    "list": [
        "x[5]",
        "x[-1]",
        "x[:5]",
        "len(x)",
        "small in x",
        "x.index(small)",
        "x.count(small)",
        "sum(len(word) for word in x)",
        "x == other",
        "max(x)",
        "sorted(x)",
        "repr(x)[:70]",
        "pickle.dumps(x)",
    ],
    "dict": [
        "x['key 3']",
        "x['key 3'][:10]",
        "'key 5' in x",
        "x.get('no such key')",
        "len(x)",
        "list(x)",
        "sum(array[0] for array in x.values())",
        "max(x.items(), key=lambda item: item[1][0])[0]",
        "all((x[key] == other[key]).all() for key in other)",
        "{key: array.sum() for key, array in x.items()}",
        "x.keys() & {'key 1', 'none'}",
        "repr(x)[:70]",
        "pickle.dumps(x)",
        "pickle.dumps(x['key 3'])",
    ],
}


def build(kind: str, nbytes: int) -> Any:
    """Return an array, a frame, a list of strings or a dict of arrays, of about so many bytes."""
    rng = np.random.default_rng(1)
    if kind == "array":
        return rng.random((nbytes // 80, 10))
    if kind == "list":
        return [f"{i:0200d}" for i in range(max(nbytes // 200, 10))]
    if kind == "dict":
        return {f"key {i}": rng.random(50_000) for i in range(max(nbytes // 400_000, 20))}
    rows = max(nbytes // 85, 100)
    frame = pd.DataFrame(
        {name: rng.random(rows) for name in "abcd"},
        index=pd.Index(np.arange(rows) * 2, name="even"),
    )
    frame["i"], frame["j"] = np.arange(rows), np.arange(rows)[::-1]
    frame["key"] = rng.integers(0, 100, rows)
    frame["s"] = pd.array(np.char.mod("text %d", np.arange(rows)), dtype=string_dtype(nan=True))
    frame["cat"] = pd.Categorical.from_codes(rng.integers(0, 5, rows), list("vwxyz"))
    return frame.copy()


def small(kind: str, x: Any) -> Any:
    """Return what an object is combined with."""
    if kind == "array":
        return np.arange(30.0).reshape(10, 3)
    if kind == "frame":
        return pd.DataFrame({"key": np.arange(100), "weight": np.linspace(0, 1, 100)})
    return x[len(x) // 2] if kind == "list" else None


def evaluate(code: str, x: Any, other: Any, combined: Any) -> Any:
    """Return what an operation gives."""
    return eval(code, {"np": np, "pickle": pickle, "x": x, "other": other, "small": combined})
