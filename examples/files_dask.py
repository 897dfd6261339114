"""A Dask graph over a file: each worker maps it, and tasks get rows of it as references.

Run it: python examples/files_dask.py
"""

import os
import tempfile

import numpy as np
import pandas as pd
from distributed import Client, LocalCluster

import mori
import mori_dask  # noqa: F401  (before the cluster starts)

ROWS = 1_000_000


def revenue(rows: pd.DataFrame) -> float:
    return float((rows["price"] * rows["count"]).sum())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "orders.mori")
        rng = np.random.default_rng(0)
        frame = pd.DataFrame({"price": rng.random(ROWS), "count": rng.integers(1, 9, ROWS)})
        mori.save(frame, path)
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            orders = mori.load(path)
            parts = [orders.iloc[start : start + ROWS // 10] for start in range(0, ROWS, ROWS // 10)]
            total = sum(client.gather(client.map(revenue, parts)))
        print(f"{ROWS:,} orders, and their sum is right: {np.isclose(total, revenue(frame))}")
