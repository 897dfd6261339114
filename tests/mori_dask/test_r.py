"""What is in R's layout goes through Dask as a reference, and each worker of the host maps it."""

import numpy as np
import pandas as pd
from distributed import Client

import mori
from tests.r_placed import data_of, placed


def name_and_sum(x):
    return mori.shared_name(x), float(x["x"].sum())


def test_workers_map_what_r_has_written_and_what_is_written_for_it():
    frame = mori.share(pd.DataFrame({"x": np.arange(50_000.0), "s": ["a", None] * 25_000}), layout="r")
    expected = mori.shared_name(frame), float(np.arange(50_000.0).sum())
    with placed(data_of("data_frame")) as name:
        of_r = mori.map_shared(name)
        with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
            workers = [*client.scheduler_info()["workers"]]
            futures = [client.submit(name_and_sum, frame, workers=[worker], pure=False) for worker in workers]
            assert client.gather(futures) == [expected] * 2
            assert client.submit(name_and_sum, client.scatter(frame)).result() == expected
            assert client.submit(name_and_sum, of_r).result() == (name, 4.5)
            opened = client.submit(mori.map_shared, name)
            assert client.submit(name_and_sum, opened).result() == (name, 4.5)
            assert name_and_sum(opened.result()) == (name, 4.5)
            del futures, opened
        del of_r
