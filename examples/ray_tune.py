"""Hyper-parameter search with Ray Tune: every trial reads one shared training set.

``pip install 'ray[tune]'``, then ``python examples/ray_tune.py --rows 200_000 --trials 12``
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
import ray
from ray import tune

import mori


def training_set(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(rows, 20))
    weights = np.where(np.arange(20) < 5, rng.normal(size=20), 0)
    return {"x": x, "y": x @ weights + rng.normal(scale=3, size=rows), "train": rows * 3 // 4}


def ridge(config: dict[str, float], data: Any) -> dict[str, Any]:
    """Fit on the first rows, and report the error on the others."""
    x, y, train = data["x"], data["y"], data["train"]
    gram = x[:train].T @ x[:train] + config["penalty"] * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x[:train].T @ y[:train])
    error = float(np.mean((x[train:] @ weights - y[train:]) ** 2))
    return {"error": error, "name": mori.shared_name(data)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)

    data = mori.share(training_set(options.rows))
    with tempfile.TemporaryDirectory() as directory:
        tuner = tune.Tuner(
            tune.with_parameters(ridge, data=data),  # the trials get its name
            param_space={"penalty": tune.loguniform(1e-2, 1e5)},
            tune_config=tune.TuneConfig(metric="error", mode="min", num_samples=options.trials),
            run_config=tune.RunConfig(storage_path=directory, verbose=0),
        )
        results = tuner.fit()
        best = results.get_best_result()
        names = {result.metrics["name"] for result in results}
    print(
        f"best of {len(results)} trials: penalty {best.config['penalty']:.3g}, "
        f"error {best.metrics['error']:.4f}"
    )
    if names == {mori.shared_name(data)}:
        print(f"every trial has read {mori.shared_name(data)}")
    else:
        print("the trials have read copies: the cluster has several nodes")


if __name__ == "__main__":
    main()
