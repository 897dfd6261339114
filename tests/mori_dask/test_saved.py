"""A file of `mori.save` goes through Dask as its path, and each worker of the host maps it."""

import numpy as np
from distributed import Client

import mori
from mori.memory import mapping as mappings


def source_and_sum(x):
    mapping = mappings.held_by(np.asarray(x))
    return mapping.source, float(np.asarray(x).sum())


def test_each_worker_maps_the_file(tmp_path):
    path = tmp_path / "x.mori"
    mori.save(np.arange(200_000.0), path)
    x = mori.load(path)
    expected = str(path), float(np.arange(200_000.0).sum())
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
        workers = [*client.scheduler_info()["workers"]]
        futures = [client.submit(source_and_sum, x, workers=[worker], pure=False) for worker in workers]
        assert client.gather(futures) == [expected] * 2
        future = client.scatter(x)
        assert client.submit(source_and_sum, future).result() == expected
        loaded = client.submit(mori.load, str(path))
        assert client.submit(source_and_sum, loaded).result() == expected
        assert source_and_sum(loaded.result()) == expected
