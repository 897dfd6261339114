"""The bootstrap of column means over one large frame: ``python examples/dask_bootstrap.py --megabytes 400``.

Each task draws rows with replacement. Plain Dask copies the frame to every worker; shared, each task gets a
name of it, and all workers read the same pages.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from dask_ways import cluster, measured, options, report

import mori
import mori_dask

COLUMNS = ("load", "pressure", "temperature", "wind")


def measurements(rows: int) -> pd.DataFrame:
    """Make a frame of random numbers."""
    random = np.random.default_rng(1)
    return pd.DataFrame({name: random.standard_normal(rows) for name in COLUMNS})


def draw(frame: pd.DataFrame, seed: int) -> list[float]:
    """Return the mean of each column over as many rows as a hundredth of the frame has."""
    rows = np.random.default_rng(seed).integers(0, len(frame), max(1, len(frame) // 100))
    return [float(frame[name].to_numpy()[rows].mean()) for name in frame.columns]


def main() -> None:
    """Compare three ways."""
    chosen = options(__doc__, 400)
    frame = measurements(int(chosen.megabytes * 1e6 / (8 * len(COLUMNS))))
    seeds = range(8 * chosen.workers)
    rows = []
    for way in ("client.scatter", "mori_dask.scatter", "mori.share"):
        with cluster(chosen.workers) as client:

            def job(way: str = way) -> list[list[float]]:
                there: object
                if way == "client.scatter":
                    there = client.scatter(frame, broadcast=True, hash=False)
                elif way == "mori_dask.scatter":
                    there = mori_dask.scatter(client, frame)
                else:  # as an argument
                    there = mori.share(frame)
                return client.gather([client.submit(draw, there, seed, pure=False) for seed in seeds])

            rows.append(measured(client, way, job))
    title = f"{len(seeds)} draws from a frame of {chosen.megabytes:.0f} MB on {chosen.workers} workers"
    report(title, rows, lambda one, other: one == other)


if __name__ == "__main__":
    main()
