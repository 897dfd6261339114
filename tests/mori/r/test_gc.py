"""What R's mori states in test-gc.R: a region goes with the last reference to it."""

import gc

import numpy as np
import pandas as pd
import pytest

import mori

pytestmark = pytest.mark.each_store

OBJECTS = {
    "vector": np.arange(1000.0),
    "table": pd.DataFrame({"a": np.arange(100), "b": np.arange(100) / 2}),
    "strings": [f"word {i}" for i in range(1000)],
}


def assert_gone(name: str) -> None:
    gc.collect()
    with pytest.raises(mori.RegionNotFoundError, match="not found"):
        mori.map_shared(name)


# R: 53, 54, 55
@pytest.mark.parametrize("kind", OBJECTS)
def test_the_last_reference_dropped_takes_the_region_with_it(store, kind):
    shared = mori.share(OBJECTS[kind])
    name = mori.shared_name(shared)
    assert mori.map_shared(name) is not None
    del shared
    assert_gone(name)


# R: 56
def test_a_column_keeps_the_region_and_its_name_alive_and_goes_with_it(store):
    table = mori.share(OBJECTS["table"])
    name, column = mori.shared_name(table), table["b"]
    path = mori.shared_name(column)
    del table
    gc.collect()
    assert mori.shared_name(column) == path == f"{name}[1]"
    assert mori.map_shared(path)[99] == column[99] == 49.5
    del column
    assert_gone(name)
