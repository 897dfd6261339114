"""A masked array is shared with its mask, comes back with all that it had, and is written to locally."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mori

ARRAYS = {
    "plain": np.ma.array([1.5, 2.5, 3.5], mask=[0, 1, 0]),
    "no mask": np.ma.array([1, 2, 3]),
    "all false": np.ma.array([1, 2, 3], mask=False),
    "fill value": np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=99),
    "hard": np.ma.array([1, 2, 3], mask=[0, 1, 0], hard_mask=True),
    "F order": np.ma.array(np.asfortranarray(np.arange(12.0).reshape(3, 4)), mask=np.eye(3, 4, dtype=bool)),
    "strided": np.ma.array(np.arange(20), mask=np.arange(20) % 3 == 0)[::-3],
    "0-d": np.ma.array(5, mask=True),
    "empty": np.ma.array(np.empty((0, 2)), mask=np.empty((0, 2), bool)),
    "structured": np.ma.array(
        [(1, 2.5), (3, 4.5)],
        [("a", "i4"), ("b", "f8")],
        mask=[(True, False), (False, True)],
        fill_value=(7, 8.5),
    ),
    "nested": np.ma.zeros(3, [("a", [("x", "i2"), ("y", "f4", 2)]), ("b", "U3")]),
    "dates": np.ma.array(["2020-01-01", "NaT"], "M8[D]", mask=[1, 0]),
    "text": np.ma.array(["a", "bc"], mask=[0, 1], fill_value="?"),
}


def state(array: Any) -> Any:
    with np.errstate(over="ignore"):  # numpy's default does not fit into a float16
        fill = np.asarray(array.fill_value, array.dtype)
    return (
        *(array.dtype.str, array.shape, np.asarray(array.data).tobytes(), array.flags.f_contiguous),
        array.mask is np.ma.nomask or (array.mask.dtype, array.mask.shape, array.mask.tobytes()),
        (fill.dtype, fill.tobytes()),
        bool(array.hardmask),
        array._optinfo,
    )


def packed(array: Any) -> Any:
    """Return it in the order in which it is written."""
    return array if array.flags.forc else array.copy()


@pytest.mark.parametrize("name", ARRAYS)
def test_a_masked_array_comes_back_with_its_mask(store, worker, name):
    array = packed(ARRAYS[name])
    shared = mori.share(ARRAYS[name])
    assert isinstance(shared, np.ma.MaskedArray)
    assert state(shared) == state(array)
    assert state(pickle.loads(pickle.dumps(shared))) == state(array)
    assert state(mori.share({"k": [array]})["k"][0]) == state(array)
    assert state(mori.materialize(shared)) == state(array)
    assert state(copy.deepcopy(shared)) == state(array)
    assert type(mori.materialize(shared)) is np.ma.MaskedArray
    assert repr(worker(lambda x: x, shared)) == repr(array)
    with mori.by_value():
        assert state(pickle.loads(pickle.dumps(shared))) == state(array)
    if array.size:
        assert mori.is_shared(shared)
        assert mori.share(shared) is shared
        assert len(pickle.dumps(shared, 5)) <= 100
        assert worker(mori.is_shared, shared)
        assert state(mori.map_shared(mori.shared_name(shared))) == state(array)
        assert mori.is_shared(shared.data)
        assert not shared.data.flags.writeable
        if array.mask is not np.ma.nomask:
            assert mori.is_shared(shared.mask)


def test_the_optinfo_of_a_masked_array_is_kept(store):
    array = np.ma.array([1, 2], mask=[0, 1])
    array._optinfo["unit"] = "m"
    assert mori.share(array)._optinfo == {"unit": "m"}


def test_a_slice_of_a_masked_array_travels_as_references(store, worker):
    array = np.ma.array(np.arange(100_000.0), mask=np.arange(100_000) % 7 == 0, fill_value=-1)
    shared = mori.share(array)
    part = shared[10:90_000:3]
    assert len(pickle.dumps(part, 5)) < 1000
    assert state(pickle.loads(pickle.dumps(part))) == state(array[10:90_000:3])
    assert worker(lambda x: (x.sum(), mori.is_shared(x.data)), part) == (array[10:90_000:3].sum(), True)


COMPUTED = {
    "add": lambda x: x + 1,
    "radd": lambda x: 1 + x,
    "between": lambda x: x * x,
    "compare": lambda x: x > 2,
    "ufunc": np.sqrt,
    "ma ufunc": np.ma.log,
    "reduce": lambda x: x.sum(axis=0),
    "mean": lambda x: x.mean(),
    "filled": lambda x: x.filled(0),
    "compressed": lambda x: x.compressed(),
    "copy": lambda x: x.copy(),
    "fancy": lambda x: x[[0, 1]],
    "boolean": lambda x: x[x > 1],
    "concatenate": lambda x: np.ma.concatenate([x, x]),
    "where": lambda x: np.ma.where(x > 2, x, -x),
    "astype": lambda x: x.astype("f4"),
    "sorted": np.ma.sort,
    "median": np.ma.median,
    "masked_where": lambda x: np.ma.masked_where(np.asarray(x) > 2, x),
    "anom": lambda x: x.anom(),
    "dot": lambda x: np.ma.dot(x, x.T),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_of_a_masked_array_is_plain_and_right(store, name):
    array = np.ma.array(np.arange(1.0, 13.0).reshape(3, 4), mask=np.eye(3, 4, dtype=bool))
    got, expected = COMPUTED[name](mori.share(array)), COMPUTED[name](array)
    assert type(got) is type(expected)
    np.testing.assert_array_equal(np.ma.getdata(got), np.ma.getdata(expected))
    np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(expected))


WRITES = {
    "item": lambda x: x.__setitem__(0, 7),
    "mask an item": lambda x: x.__setitem__(0, np.ma.masked),
    "slice": lambda x: x.__setitem__(slice(0, 2), 7),
    "by a mask": lambda x: x.__setitem__(x > 3, 0),
    "add": lambda x: x.__iadd__(1),
    "divide": lambda x: x.__itruediv__(2),
    "power": lambda x: x.__ipow__(2),
    "sort": lambda x: x.sort(),
    "put": lambda x: x.put([0, 1], 9),
    "fill": lambda x: x.fill(3),
    "mask": lambda x: setattr(x, "mask", [1, 1, 0, 0, 0, 0]),
    "mask all": lambda x: setattr(x, "mask", True),
    "out": lambda x: np.add(x, 1, out=x),
    "copyto": lambda x: np.copyto(x, 5),
    "ma put": lambda x: np.ma.put(x, [0], [4]),
    "unshare": lambda x: x.unshare_mask().__setitem__(0, np.ma.masked),
    "flat": lambda x: setattr(x, "flat", 4.0),
}


@pytest.mark.parametrize("how", WRITES)
def test_a_write_to_a_masked_array_is_local(store, worker, how):
    plain = np.ma.array([5.0, 1, 4, 2, 3, 0], mask=[0, 1, 0, 0, 0, 1])
    shared = mori.share(plain)
    name, part, data = mori.shared_name(shared), shared[1:4], pickle.dumps(shared)
    expected = plain.copy()
    WRITES[how](expected)
    WRITES[how](shared)
    assert state(shared)[:-2] == state(expected)[:-2]
    assert type(shared) is np.ma.MaskedArray
    assert not mori.is_shared(shared)
    assert state(part)[2:5] == state(plain[1:4])[2:5]
    assert state(mori.map_shared(name)) == state(plain)
    assert repr(worker(lambda x: x, shared)) == repr(expected)
    assert repr(worker(pickle.loads, data)) == repr(plain)
    again = copy.deepcopy(shared)
    del shared
    assert state(again)[:-2] == state(expected)[:-2]


def test_a_write_through_a_part_of_a_masked_array_is_refused(store):
    shared = mori.share(np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]]))
    for write in (
        lambda: shared[0].__setitem__(0, 5),
        lambda: shared[0].__setitem__(0, np.ma.masked),
        lambda: shared.data.__setitem__((0, 0), 5),
        lambda: shared.mask.__setitem__((0, 0), True),
        lambda: setattr(shared[0], "mask", True),
        shared.T.sort,
    ):
        with pytest.raises(mori.ReadOnlyViewError):
            write()
    with pytest.raises(ValueError, match="read-only"):
        np.ma.putmask(shared, [[1, 0], [0, 0]], [4])  # writes to what numpy keeps inside
    assert mori.is_shared(shared)
    assert shared.tolist() == [[1, None], [3, 4]]


def test_a_fill_value_set_anew_is_not_lost(store, worker):
    shared = mori.share(np.ma.array(np.arange(10_000), mask=np.arange(10_000) % 2))
    shared.fill_value = 42
    shared.harden_mask()
    assert not mori.is_shared(shared)
    assert len(pickle.dumps(shared, 5)) < 1000  # the elements are references all the same
    assert worker(lambda x: (int(x.fill_value), x.hardmask), shared) == (42, True)


def test_a_write_to_a_masked_array_in_a_container_reaches_the_container(store):
    shared = mori.share({"a": np.ma.array([1, 2], mask=[0, 1])})
    shared["a"][0] = 9
    assert pickle.loads(pickle.dumps(shared))["a"].tolist() == [9, None]


masked = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(), hnp.array_dtypes()),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # numpy's default fill value of a float16
@given(data=masked, draw=st.data(), hard=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_masked_array_is_shared_is_what_comes_back(store, data, draw, hard):
    dtype = np.ma.make_mask_descr(data.dtype)
    mask = draw.draw(st.one_of(st.just(np.ma.nomask), hnp.arrays(dtype, data.shape)))
    array = np.ma.array(data, mask=mask, hard_mask=hard)
    shared = mori.share(array)
    assert state(shared) == state(array)
    assert state(pickle.loads(pickle.dumps(shared))) == state(array)
    if array.ndim:
        part = draw.draw(hnp.basic_indices(array.shape, allow_newaxis=True))
        got, expected = shared[part], array[part]
        if isinstance(expected, np.ma.MaskedArray) and expected is not np.ma.masked:
            assert state(pickle.loads(pickle.dumps(got)))[2] == state(expected)[2]
            np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(expected))
