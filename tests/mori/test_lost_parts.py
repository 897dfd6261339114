"""What pandas puts together of references does not raise where a pool unpickles it, and loses the task."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
from distributed.protocol.pickle import loads as read_as_engine
from joblib.externals.loky.backend import reduction as loky

import mori
from mori.memory import lease
from mori.wire import transport
from mori.wire.lost import Lost

_N = 3000


def _frame() -> Any:
    return mori.share(
        pd.DataFrame(
            {
                "f": np.arange(float(_N)),
                "g": np.arange(float(_N)),
                "s": pd.array(["x"] * _N, dtype="str" if pd.__version__ >= "3" else "string[pyarrow]"),
                "c": pd.Categorical(["a", "b", "c"] * (_N // 3)),
                "n": pd.array([1, None, 3] * (_N // 3), dtype="Int64"),
                "t": pd.date_range("2020", periods=_N, tz="UTC"),
            },
            index=pd.date_range("2020", periods=_N),
        )
    )


def _written() -> Any:
    frame = _frame()
    frame.loc[frame.index[0], "f"] = 7.0
    return frame


def _labelled(index: Any) -> Any:
    return mori.share(pd.Series(np.arange(float(len(index))), index=index))


_PARTS: dict[str, Callable[[], Any]] = {
    **{f"column {name}": lambda name=name: _frame()[name] for name in "fscnt"},
    "slice": lambda: _frame().iloc[10:20],
    "frame that was written to": _written,
    "dates": lambda: _frame().index,
    "index": lambda: _labelled(pd.Index(np.arange(_N) * 2)).index,
    "periods": lambda: _labelled(pd.period_range("2020", periods=_N)).index,
    "deltas": lambda: _labelled(pd.timedelta_range("1s", periods=_N)).index,
    "categories": lambda: _labelled(pd.CategoricalIndex(["a", "b", "c"] * (_N // 3))).index,
    "intervals": lambda: _labelled(pd.interval_range(0, _N)).index,
    "levels": lambda: _labelled(pd.MultiIndex.from_product([range(60), range(50)])).index,
}
if pd.__version__ >= "3":  # pandas 2 copies the columns, and keeps objects for text
    _PARTS["frame of some columns"] = lambda: _frame()[["f", "c"]]
    _PARTS["text"] = lambda: _labelled(pd.Index([f"k{number}" for number in range(_N)])).index


@pytest.mark.parametrize("dumps", [ForkingPickler.dumps, loky.dumps], ids=["multiprocessing", "loky"])
@pytest.mark.parametrize("kind", _PARTS)
def test_a_part_that_is_gone_is_lost_and_one_that_is_there_is_equal(kind: str, dumps: Any) -> None:
    part = _PARTS[kind]()
    pickled = bytes(dumps([part, 1]))
    assert len(pickled) < 10_000 or kind in ("text", "frame that was written to")
    got = pickle.loads(pickled)[0]
    check: Any = pdt.assert_index_equal if isinstance(part, pd.Index) else None
    check = check or (pdt.assert_series_equal if isinstance(part, pd.Series) else pdt.assert_frame_equal)
    check(part, got)
    assert type(got) is type(part) or kind == "frame that was written to"
    del got, part, check
    lease.expire_graces()
    with pytest.raises(mori.RegionNotFoundError, match="not found"):
        pickle.loads(pickled)
    lost, one = read_as_engine(pickled)
    assert one == 1
    assert type(lost) is Lost
    with pytest.raises(mori.RegionNotFoundError, match="not found"):
        len(lost)


def test_plain_pandas_pickles_as_it_did_before() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}, index=["k", "l"])
    for plain in (frame, frame["a"], frame.index, pd.MultiIndex.from_product([[1, 2], [3]])):
        assert b"mori" not in bytes(ForkingPickler.dumps(plain))
    part = _frame()["f"]
    with mori.by_value():
        assert len(ForkingPickler.dumps(part)) > part.nbytes


def _total(x: Any) -> float:
    return float(x.sum())


class _Pickled:
    """Unpickles as what was pickled before."""

    def __init__(self, obj: Any) -> None:
        with transport.use_transport("reference"):  # not as a part of a message, which would hold it
            self._pickled = bytes(ForkingPickler.dumps(obj))

    def __reduce__(self) -> Any:
        return pickle.loads, (self._pickled,)


def test_a_pool_does_not_wait_for_a_task_whose_column_is_gone() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        gone = _Pickled(_frame()["f"])
        lease.expire_graces()
        with pytest.raises(mori.RegionNotFoundError, match="not found"):
            pool.apply_async(_total, (gone,)).get(timeout=30)
        assert pool.apply(_total, (_frame()["f"],)) == _N * (_N - 1) / 2
        pool.close()
        pool.join()
