"""A file of `mori.save` goes through Ray as its path, and the workers of the host map it."""

import numpy as np
import pytest
import ray

import mori
from mori.memory import mapping as mappings
from tests.mori_ray.tasks import call

pytestmark = pytest.mark.usefixtures("one_node")


def source_and_sum(x):
    from mori.memory import mapping as mappings

    mapping = mappings.held_by(np.asarray(x))
    return mapping.source, float(np.asarray(x).sum())


def test_each_worker_maps_the_file(tmp_path):
    path = tmp_path / "x.mori"
    mori.save(np.arange(200_000.0), path)
    x = mori.load(path)
    expected = str(path), float(np.arange(200_000.0).sum())
    assert ray.get(call.remote(source_and_sum, x)) == expected
    assert ray.get(call.remote(source_and_sum, ray.put(x))) == expected
    assert mappings.held_by(np.asarray(ray.get(ray.put(x)))).source == str(path)
