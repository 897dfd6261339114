"""What is in R's layout goes through Ray as a reference, and the workers of the host map it."""

import numpy as np
import pandas as pd
import pytest
import ray

import mori
from tests.mori_ray.tasks import call
from tests.r_placed import data_of, placed

pytestmark = pytest.mark.usefixtures("one_node")


def name_and_sum(x):
    import mori

    return mori.shared_name(x), float(x["x"].sum())


def test_workers_map_what_r_has_written_and_what_is_written_for_it():
    frame = mori.share(pd.DataFrame({"x": np.arange(50_000.0)}), layout="r")
    expected = mori.shared_name(frame), float(np.arange(50_000.0).sum())
    assert ray.get(call.remote(name_and_sum, frame)) == expected
    assert ray.get(call.remote(name_and_sum, ray.put(frame))) == expected
    with placed(data_of("data_frame")) as name:
        assert ray.get(call.remote(name_and_sum, mori.map_shared(name))) == (name, 4.5)
