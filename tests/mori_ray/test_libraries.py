"""Libraries over Ray send references, too: its Pool, its Dask scheduler, and ray.data."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import ray
from ray.util.multiprocessing import Pool

import mori
from tests import estimators
from tests.mori_ray.tasks import mapped, name_of
from tests.mori_ray.test_lifetime import assert_freed

pytestmark = pytest.mark.usefixtures("one_node")

SUM = float(np.arange(100_000.0).sum())


def shared() -> Any:
    return mori.share([np.arange(100_000.0), "two"])


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pool_of_ray_sends_references_and_returns_them() -> None:
    x = shared()
    name = mori.shared_name(x)
    with Pool(1) as pool:
        assert pool.map(name_of, [x, x]) == [name, name]
        assert pool.starmap(lambda x, i: (name_of(x), i), [(x, i) for i in range(3)])[2] == (name, 2)
        assert pool.apply(lambda: name_of(x)) == name
        assert [mori.shared_name(back) for back in pool.map(lambda x: x, [x, x[0]])] == [
            name,
            mori.shared_name(x[0]),
        ]


def test_a_task_that_writes_a_file_writes_the_data(tmp_path: Path) -> None:
    @ray.remote
    def write(x: Any) -> None:
        joblib.dump({"x": x}, tmp_path / "joblib")
        with (tmp_path / "pickle").open("wb") as file:
            pickle.dump(x, file)

    ray.get(write.remote(shared()))
    for got in (joblib.load(tmp_path / "joblib")["x"], pd.read_pickle(tmp_path / "pickle")):
        assert got[0].sum() == SUM
        assert not mori.is_shared(got)


def test_dask_on_ray_sends_references() -> None:
    dask = pytest.importorskip("dask")
    from ray.util.dask import ray_dask_get

    x = shared()
    name = mori.shared_name(x)
    look = dask.delayed(lambda x, part: (name_of(x), name in mapped(), float(part.sum())))
    nested = dask.delayed(lambda found: found)
    tasks = [look(x, x[0]), nested(look(x, x[0][10:]))]
    found = dask.compute(*tasks, scheduler=ray_dask_get)
    assert found == ((name, True, SUM), (name, True, SUM - 45))
    del x, look, tasks
    assert_freed(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ray.data sets options that it has deprecated
def test_what_a_function_of_ray_data_captures_is_a_reference() -> None:
    data = pytest.importorskip("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    table = mori.share({f"k{i}": i * i for i in range(2000)})
    name = mori.shared_name(table)

    def look_up(batch: Any, other: Any) -> Any:
        found = [table[f"k{i}"] for i in batch["id"]]
        names = [f"{mori.shared_name(table)} {mori.shared_name(other)}"] * len(found)
        return {"square": np.array(found), "name": np.array(names)}

    numbers = data.range(2000, override_num_blocks=2)
    rows = numbers.map_batches(look_up, fn_kwargs={"other": table}).take_all()
    assert sorted(row["square"] for row in rows) == [i * i for i in range(2000)]
    assert {row["name"] for row in rows} == {f"{name} {name}"}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["arrays", "frame"])
def test_estimators_learn_the_same_over_ray_and_their_workers_map_the_data(kind: str) -> None:
    from ray.util.joblib import register_ray

    register_ray()
    with joblib.parallel_config("ray", n_jobs=2):
        estimators.check(kind, ["GridSearchCV"])
