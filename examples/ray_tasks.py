"""Ray tasks over one shared frame: each task maps it, reads what it needs, and is sent a name.

``python examples/ray_tasks.py --rows 5_000_000 --tasks 16``
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import ray

import mori


def measurements(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    station = pd.Categorical.from_codes(rng.integers(0, 5, rows), ["Oslo", "Rome", "Kyoto", "Lima", "Bern"])
    return pd.DataFrame(
        {"station": station, "celsius": rng.normal(12, 8, rows), "hour": rng.integers(0, 24, rows)}
    )


@ray.remote
def bootstrap(frame: pd.DataFrame, seed: int) -> pd.Series:
    """Return the mean by station of as many rows as there are, drawn with replacement."""
    rows = np.random.default_rng(seed).integers(0, len(frame), len(frame))
    drawn = frame.take(rows)
    return drawn.groupby("station", observed=True)["celsius"].mean()


@ray.remote
def by_hour(columns: pd.DataFrame, hour: int) -> float:
    return float(columns["celsius"][columns["hour"] == hour].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=8)
    options = parser.parse_args()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)

    frame = mori.share(measurements(options.rows))
    size = frame.memory_usage(index=True).sum() / 1e6
    print(f"{size:.0f} MB shared as {mori.shared_name(frame)}")

    start = time.perf_counter()
    means = pd.DataFrame(ray.get([bootstrap.remote(frame, seed) for seed in range(options.tasks)]))
    print(f"{options.tasks} tasks over all of it: {time.perf_counter() - start:.1f} s")
    print(pd.DataFrame({"mean": means.mean(), "error": means.std()}).round(4).to_string())

    # A part of a shared frame is a name, too.
    part = frame[["celsius", "hour"]]
    warmest = max(zip(ray.get([by_hour.remote(part, hour) for hour in range(24)]), range(24), strict=True))
    print(f"warmest hour: {warmest[1]}, {warmest[0]:.2f} degrees")


if __name__ == "__main__":
    main()
