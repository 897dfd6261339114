"""What travels by value outlives its region; a reference to a region that is gone says so when it is read."""

import concurrent.futures
import gc
import os
import pickle

import distributed.protocol.pickle
import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

import mori
from mori.memory import mapping as mappings
from mori.memory import region
from tests.mori.pandas_versions import NAN_STRINGS


def tree() -> dict:
    frame = pd.DataFrame(
        {"i": range(5), "s": pd.array([*"abcd", None], dtype=NAN_STRINGS), "c": pd.Categorical([*"xyxyx"])},
        index=pd.date_range("2024", periods=5, freq="D"),
    )
    return {"array": np.arange(40).reshape(8, 5), "frame": frame, "list": [1, ("a", np.ones(3))]}


PARTS = {
    "array": lambda x: x["array"],
    "view": lambda x: x["array"][2:5, ::-1],
    "frame": lambda x: x["frame"],
    "numbers": lambda x: x["frame"]["i"],
    "strings": lambda x: x["frame"]["s"],
    "categories": lambda x: x["frame"]["c"],
    "rows": lambda x: x["frame"].iloc[1:3],
    "index": lambda x: x["frame"].index,
}


@pytest.mark.parametrize("part", PARTS)
def test_by_value_carries_the_bytes(store, part, wait):
    shared, expected = mori.share(tree()), PARTS[part](tree())
    name = mori.shared_name(shared)
    with mori.by_value():
        data = pickle.dumps([PARTS[part](shared), shared])
    del shared
    gc.collect()
    wait(lambda: is_gone(name))
    arrived, whole = pickle.loads(data)
    for one in (arrived, PARTS[part](whole)):
        assert not mori.is_shared(one)
        assert mori.shared_name(one) is None
        if isinstance(expected, pd.DataFrame):
            pdt.assert_frame_equal(one, expected)
        elif isinstance(expected, pd.Series):
            pdt.assert_series_equal(one, expected)
        else:
            np.testing.assert_array_equal(one, expected)
    assert whole["list"][1][0] == "a"
    assert mori.shared_name(whole) is None


def test_by_value_ends_with_its_block_and_holds_for_its_thread_alone(store):
    shared = mori.share(np.arange(1000))
    with mori.by_value():
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            assert len(threads.submit(lambda: pickle.dumps(shared)).result()) < 200
        assert len(pickle.dumps(shared)) > 8000
    assert len(pickle.dumps(shared)) < 200


def is_gone(name: str) -> bool:
    try:
        mori.map_shared(name)
    except mori.RegionNotFoundError:
        return True
    return False


def test_a_lost_reference_raises_when_it_is_read(store, wait):
    shared = mori.share(np.arange(10))
    name, data = mori.shared_name(shared), pickle.dumps([shared[2:]])
    del shared
    wait(lambda: is_gone(name))
    with pytest.raises(mori.RegionNotFoundError, match="not found") as caught:
        pickle.loads(data)
    assert caught.value.name == name
    assert pickle.loads(pickle.dumps(caught.value)).name == name


def test_a_reference_that_is_lost_here_is_passed_on_to_where_the_region_is(
    store, worker, monkeypatch, tmp_path
):
    shared = mori.share(np.arange(10))
    data = pickle.dumps(shared)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def lose(data, setting):
        os.environ["MORI_STORE"] = setting
        return pickle.dumps(distributed.protocol.pickle.loads(data))

    again = worker(lose, data, f"files:{elsewhere}")
    assert pickle.loads(again) is shared or pickle.loads(again).tolist() == [*range(10)]


def test_a_reference_never_opens_another_region_of_that_name(store, monkeypatch, wait):
    shared = mori.share(np.arange(10))
    name, data = mori.shared_name(shared), pickle.dumps(shared)
    number = shared_number(shared)
    del shared
    wait(lambda: is_gone(name))
    monkeypatch.setattr(region, "_numbers", iter([number]))
    other = mori.share(np.arange(10) + 100)
    assert mori.shared_name(other) == name
    with pytest.raises(mori.RegionNotFoundError):
        pickle.loads(data)
    assert other[0] == 100


def shared_number(array) -> int:
    return mappings.held_by(array).header.number
