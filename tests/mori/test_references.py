"""A shared object, each of its parts and what is built around them cross processes as references."""

import concurrent.futures
import multiprocessing
import operator
import os
import pickle

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker

import mori
from tests.mori.pandas_versions import IS_LEGACY, NAN_STRINGS
from tests.worker import settings

pytestmark = pytest.mark.usefixtures("views")

PICKLERS = {
    "pickle 2": lambda x: pickle.dumps(x, 2),
    "pickle 5": lambda x: pickle.dumps(x, 5),
    "cloudpickle": cloudpickle.dumps,
    "multiprocessing": lambda x: bytes(multiprocessing.reduction.ForkingPickler.dumps(x)),
}
METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(scope="module", autouse=True)
def tracker_of_loky() -> None:
    resource_tracker.ensure_running()


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i": np.arange(1000),
            "f": np.arange(1000) / 2,
            "g": np.arange(1000) / 3,
            "s": pd.array([f"text {i}" for i in range(1000)], dtype=NAN_STRINGS),
            "t": pd.date_range("2024-01-01", periods=1000, freq="s"),
            "z": pd.date_range("2024-01-01", periods=1000, freq="s", tz="Europe/Berlin"),
            "d": pd.to_timedelta(np.arange(1000), "s"),
            "c": pd.Categorical.from_codes(np.arange(1000) % 3, ["x", "y", "z"]),
            "n": pd.array(np.arange(1000), dtype="Int64"),
            "b": pd.array(np.arange(1000) % 2 == 0, dtype="boolean"),
        },
        index=pd.Index(np.arange(1000) * 2, name="even"),
    )


VIEWS = {
    "slice": lambda x: x[10:20],
    "transposed": lambda x: x.T,
    "backwards": lambda x: x[::-1],
    "row": lambda x: x[3],
    "column": lambda x: x[:, 3],
    "steps both ways": lambda x: x[5:90:3, ::-2],
    "new axis": lambda x: x[:, np.newaxis, :4],
    "reshaped": lambda x: x.reshape(-1),
    "raveled": lambda x: x.ravel(),
    "slice of a slice": lambda x: x[10:][:5],
    "viewed as bytes": lambda x: x.view("u1"),
    "real part": lambda x: x.view("c16").imag,
    "diagonal": lambda x: x.diagonal(),
    "one element": lambda x: x[3:4, 3:4],
}
PARTS = {
    "frame": lambda x: x["frame"],
    "column of ints": lambda x: x["frame"]["i"],
    "one of several float columns": lambda x: x["frame"]["g"],
    "column of strings": lambda x: x["frame"]["s"],
    "column of times": lambda x: x["frame"]["t"],
    "column of times with a zone": lambda x: x["frame"]["z"],
    "column of durations": lambda x: x["frame"]["d"],
    "column of categories": lambda x: x["frame"]["c"],
    "nullable column": lambda x: x["frame"]["n"],
    "nullable column of bools": lambda x: x["frame"]["b"],
    "rows of a column": lambda x: x["frame"]["f"].iloc[100:200],
    "rows of strings": lambda x: x["frame"]["s"].iloc[100:200],
    "index": lambda x: x["frame"].index,
    "series": lambda x: x["series"],
    "index of a series": lambda x: x["series"].index,
    "array": lambda x: x["list"][0],
    "slice of an array": lambda x: x["list"][0][5:8],
    "array in a tuple": lambda x: x["list"][1][1],
}


def assert_equal(ours, theirs) -> None:
    if isinstance(theirs, pd.DataFrame):
        pdt.assert_frame_equal(ours, theirs)
    elif isinstance(theirs, pd.Series):
        pdt.assert_series_equal(ours, theirs, check_series_type=False)
    elif isinstance(theirs, pd.Index):
        pdt.assert_index_equal(ours, theirs)
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
    else:
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)


def tree() -> dict:
    dates = pd.Series(np.arange(50.0), pd.date_range("2024", periods=50, freq="D"), name="dated")
    return {
        "frame": frame(),
        "series": dates,
        "list": [np.arange(1000).reshape(200, 5), (np.ones(600), np.arange(800))],
    }


# R: 100, 101, 109
@pytest.mark.each_store
@pytest.mark.parametrize("how", PICKLERS)
def test_a_whole_object_is_a_reference_of_100_bytes_and_a_slice_of_160(store, how):
    dumps = PICKLERS[how]
    array = mori.share(np.arange(2000.0).reshape(100, 20))
    for whole in (array, mori.share(frame()), mori.share(frame()["s"]), mori.share(tree())):
        data = dumps(whole)
        assert len(data) <= 100 or how == "pickle 2"
        assert mori.is_shared(pickle.loads(data))
        assert mori.shared_name(pickle.loads(data)) == mori.shared_name(whole) is not None
    for view in VIEWS.values():
        assert len(dumps(view(array))) <= 160 or how == "pickle 2"


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_arrives_as_the_same_view_of_the_same_memory(store, worker, view):
    plain = np.arange(2000.0).reshape(100, 20)
    taken = VIEWS[view](mori.share(plain))
    assert mori.is_shared(taken)
    arrived, shared, strides = worker(lambda x: (x, mori.is_shared(x), x.strides), taken)
    assert shared
    assert strides == taken.strides
    for part in (taken, arrived):
        assert part.dtype == VIEWS[view](plain).dtype
        np.testing.assert_array_equal(part, VIEWS[view](plain))
        assert np.shares_memory(part, taken)


# R: 102, 103, 104, 106, 111, 112, 113, 114, 115, 116
@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_passed_on_to_a_third_process_and_stays_the_same_memory(store, worker, third, part):
    shared = mori.share(tree())
    taken = PARTS[part](shared)
    assert mori.is_shared(taken)
    data = pickle.dumps(taken)
    assert len(data) < 2000
    at_worker = worker(lambda x: (mori.is_shared(x), mori.shared_name(x), len(pickle.dumps(x)), x), taken)
    assert at_worker[:2] == (True, mori.shared_name(taken))
    assert at_worker[2] < 2000
    passed_on = worker(lambda x: cloudpickle.dumps((lambda y: (mori.is_shared(y), y), (x,)), 5), taken)
    is_shared, back = third.call_pickled(passed_on)
    assert is_shared
    for arrived in (at_worker[3], back):
        assert mori.is_shared(arrived)
        assert mori.shared_name(arrived) == mori.shared_name(taken)
        assert_equal(mori.materialize(arrived), PARTS[part](tree()))


TAKEN = {
    "rows": lambda x: x.iloc[100:900],
    "columns": lambda x: x.loc[:, "i":"t"],
    "renamed": lambda x: x.rename(columns=str.upper),
    "shallow copy": lambda x: x.copy(deep=False),
}


@pytest.mark.parametrize("how", TAKEN)
def test_a_frame_taken_from_a_frame_travels_as_references_to_its_columns(store, worker, how):
    plain = frame()
    if IS_LEGACY and not any(
        np.shares_memory(plain["f"].to_numpy(), part.to_numpy())
        for _, part in TAKEN[how](plain).items()
        if part.dtype == float
    ):
        pytest.skip(f"pandas {pd.__version__} copies the columns, of a plain frame, too")
    taken = TAKEN[how](mori.share(frame()))
    assert type(taken) is pd.DataFrame
    assert len(pickle.dumps(taken)) < 4000
    arrived, shared = worker(lambda x: (x, [mori.is_shared(x[name]) for name in x]), taken)
    assert shared == [True] * len(taken.columns)
    pdt.assert_frame_equal(arrived, TAKEN[how](frame()))


@pytest.mark.each_store
@pytest.mark.each_start
def test_an_ordinary_container_around_parts_carries_them_as_references(store, worker):
    shared = mori.share(tree())
    bundle = {
        "a": shared["frame"]["f"],
        "b": [shared["list"][0][2:], (shared, 7)],
        "c": shared["frame"][["f", "g"]],
    }
    copied = bundle["c"].to_numpy().nbytes if IS_LEGACY else 0  # pandas 2 copies columns that are listed
    assert len(pickle.dumps(bundle)) < 2000 + copied

    def look(x):
        return (
            mori.is_shared(x["a"]),
            mori.is_shared(x["b"][0]),
            mori.is_shared(x["b"][1][0]),
            x["c"].sum().tolist(),
        )

    assert worker(look, bundle) == (True, True, True, frame()[["f", "g"]].sum().tolist())


@pytest.mark.each_store
@pytest.mark.each_start
def test_what_is_computed_travels_by_value(store, worker):
    array = mori.share(np.arange(1000.0))
    for derived in (
        array + 1,
        array[[1, 2]],
        array[array > 5],
        array.copy(),
        array.astype("f4"),
        np.sort(array),
    ):
        assert type(derived) is np.ndarray
        assert not mori.is_shared(derived)
        np.testing.assert_array_equal(worker(lambda x: x, derived), derived)
    assert type(array.sum()) is np.float64
    assert type(array[3]) is np.float64


@pytest.mark.each_store
@pytest.mark.parametrize("method", METHODS)
def test_pool_and_process_and_executor_carry_references(store, method):
    context = multiprocessing.get_context(method)
    shared = mori.share({"x": np.arange(1000), "frame": frame()})
    parts = [shared["x"], shared["frame"]]
    names = [mori.shared_name(part) for part in parts]
    # What a fork server starts inherits the settings of the time when the server was started.
    begin = {"initializer": set_up, "initargs": (settings(),)}
    with context.Pool(1, **begin) as pool:
        assert pool.map(mori.shared_name, parts) == names
        assert pool.apply(operator.getitem, ({"k": shared["x"][::-1]}, "k")).tolist() == [*range(999, -1, -1)]
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context, **begin) as executor:
        assert [*executor.map(mori.is_shared, [shared["x"][5:9], shared["frame"]["s"]])] == [True, True]
        returned = executor.submit(mori.share, np.arange(5)).result()
        assert mori.is_shared(returned)
        assert returned.tolist() == [0, 1, 2, 3, 4]
    if method == "forkserver" and store != "memfd":
        return
    queue = context.SimpleQueue()
    process = context.Process(target=put_name, args=(queue, shared["x"]))
    process.start()
    assert queue.get() == names[0]
    process.join()
    process.close()
    queue.close()


def set_up(environment) -> None:
    os.environ.update(environment)


def put_name(queue, x) -> None:
    queue.put(mori.shared_name(x))


@pytest.mark.each_store
def test_joblib_carries_references(store):
    shared = mori.share({"x": np.arange(200_000), "frame": frame()})
    try:
        run = joblib.Parallel(n_jobs=2)
        parts = [shared["x"], shared["x"][10:], shared["frame"], shared["frame"]["f"]]
        assert run(joblib.delayed(mori.is_shared)(part) for part in parts) == [True] * 4
        assert run(joblib.delayed(mori.shared_name)(part) for part in parts) == [
            *map(mori.shared_name, parts)
        ]
        assert run([joblib.delayed(operator.getitem)([shared["x"]], 0)])[0].sum() == shared["x"].sum()
    finally:
        get_reusable_executor().shutdown(wait=True)
