"""A write changes the object it is made to: nobody else's, no other column, and it is never lost."""

import copy
import pickle

import numpy as np
import pytest

import mori

pytestmark = pytest.mark.each_store

WRITES = {
    "item": lambda x: x.__setitem__(0, 7),
    "slice": lambda x: x.__setitem__(slice(2, 5), 7),
    "mask": lambda x: x.__setitem__(x > 3, 0),
    "all": lambda x: x.__setitem__(..., 1),
    "add": lambda x: x.__iadd__(1),
    "multiply": lambda x: x.__imul__(2),
    "sort": lambda x: x.sort(),
    "fill": lambda x: x.fill(3),
    "put": lambda x: x.put([0, 1], 9),
    "partition": lambda x: x.partition(3),
    "byteswap": lambda x: x.byteswap(inplace=True),
    "resize": lambda x: x.resize(4, refcheck=False),
    "ufunc out": lambda x: np.add(x, 1, out=x),
    "ufunc at": lambda x: np.add.at(x, [0, 0], 5),
    "cumsum out": lambda x: np.cumsum(np.ones(10), out=x),
    "method out": lambda x: np.arange(10.0).cumsum(out=x),
    "clip out": lambda x: np.clip(x, 2, 5, out=x),
    "copyto": lambda x: np.copyto(x, 5),
    "putmask": lambda x: np.putmask(x, x > 3, 0),
    "place": lambda x: np.place(x, x > 3, [0]),
    "flat item": lambda x: x.flat.__setitem__(0, 7),
    "flat": lambda x: setattr(x, "flat", 7),
    "real": lambda x: setattr(x, "real", 7),
    "setfield": lambda x: x.setfield(7, "f8"),
    "copyto by name": lambda x: np.copyto(dst=x, src=5),
    "put function": lambda x: np.put(x, [0], 5),
    "put along axis": lambda x: np.put_along_axis(x, np.array([1]), 5, 0),
    "positional out": lambda x: np.cumsum(np.ones(10), 0, None, x),
    "positional out of a method": lambda x: np.arange(10.0).view(mori.SharedArray).cumsum(0, None, x),
    "dot out": lambda x: np.dot(np.ones((10, 3)), np.ones(3), x),
    "take out": lambda x: np.take(np.arange(20.0), range(10), 0, x),
    "concatenate out": lambda x: np.concatenate([np.ones(4), np.zeros(6)], out=x),
    "einsum out": lambda x: np.einsum("i,i->i", np.ones(10), np.ones(10), out=x),
    "mean out": lambda x: np.mean(np.ones((10, 3)), 1, None, x),
    "two outs": lambda x: np.divmod(np.arange(10.0), 3, x, np.empty(10)),
    "nan to num": lambda x: np.nan_to_num(x, copy=False),
    "setflags": lambda x: (x.setflags(write=True), x.__setitem__(3, 9)),
}


# R: 105, 110
@pytest.mark.parametrize("how", WRITES)
def test_a_write_to_a_whole_array_makes_it_private_and_changes_no_other(store, worker, how):
    plain = np.arange(10.0)[::-1].copy()
    shared = mori.share(plain)
    name, view, data = mori.shared_name(shared), shared[2:5], pickle.dumps(shared)
    other = mori.share([shared])[0]
    WRITES[how](shared)
    expected = plain.copy()
    WRITES[how](expected)
    np.testing.assert_array_equal(shared, expected)
    assert not mori.is_shared(shared)
    assert mori.shared_name(shared) is None
    assert type(worker(lambda x: x, shared)) is np.ndarray
    np.testing.assert_array_equal(worker(lambda x: x, shared), expected)
    np.testing.assert_array_equal(view, plain[2:5])
    np.testing.assert_array_equal(other, plain)
    np.testing.assert_array_equal(mori.map_shared(name), plain)
    np.testing.assert_array_equal(worker(pickle.loads, data), plain)
    shared[:1] = 3  # and again, now in private memory
    assert shared[0] == 3


THROUGH_A_PART = [
    *(lambda x: x[3].__setitem__(0, 1), lambda x: x[1:3].__iadd__(1), lambda x: x.T.__setitem__((0, 0), 1)),
    *(lambda x: x[0].sort(), lambda x: x[:, 1].fill(0), lambda x: np.add(x[0], 1, out=x[0])),
    *(
        lambda x: np.copyto(x[0], 1),
        lambda x: x.reshape(-1).__setitem__(0, 1),
        lambda x: x[:].__setitem__(0, 1),
    ),
    *(lambda x: x[0].setflags(write=True), lambda x: x[0].flat.__setitem__(0, 1)),
]


@pytest.mark.parametrize("how", THROUGH_A_PART)
def test_a_write_through_a_part_of_an_array_is_refused(store, how):
    shared = mori.share(np.arange(20.0).reshape(4, 5))
    with pytest.raises((mori.ReadOnlyViewError, ValueError), match=r"copy|read-only"):
        how(shared)
    np.testing.assert_array_equal(shared, np.arange(20.0).reshape(4, 5))
    assert mori.is_shared(shared)


def test_a_view_that_arrived_alone_may_be_written_to(store, worker):
    shared = mori.share(np.arange(20).reshape(4, 5))

    def write(row):
        row[0] = 100
        return row.tolist()

    assert worker(write, shared[1]) == [100, 6, 7, 8, 9]
    assert shared[1, 0] == 5


def test_a_private_array_writes_through_its_own_views(store):
    shared = mori.share(np.arange(6).reshape(2, 3))
    shared[0, 0] = 9
    shared[1][2] = 7
    shared.T[0, 1] = 8
    assert shared.tolist() == [[9, 1, 2], [8, 4, 7]]


def test_a_copy_is_private_and_plain(store):
    shared = mori.share(np.arange(3))
    for made in (
        shared.copy(),
        copy.copy(shared),
        copy.deepcopy(shared),
        np.array(shared),
        mori.materialize(shared),
    ):
        made[0] = 9
        assert type(made) is np.ndarray
    assert shared[0] == 0
