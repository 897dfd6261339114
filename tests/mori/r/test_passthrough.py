"""What R's mori states in test-passthrough.R: what cannot be shared."""

import threading

import numpy as np
import pytest

import mori


def double(x):
    return 2 * x


# R: 87, 88
@pytest.mark.parametrize(
    "thing",
    [None, double, np, int, 3.5, threading.Lock(), (i for i in ())],
    ids=lambda thing: type(thing).__name__,
)
def test_what_cannot_be_shared_comes_back_as_the_same_object(store, thing):
    assert mori.share(thing) is thing


# R: 89, 90
def test_what_only_pickles_survives_inside_a_list_next_to_a_vector(store, worker, there):
    offset = 10
    shared = mori.share([double, lambda x: x + offset, {"k": {1, 2}}, np.arange(1000)])
    look = lambda x: (x[0](2), x[1](2), x[2]["k"], mori.is_shared(x[3]), x[3].sum())  # noqa: E731
    expected = (4, 12, {1, 2}, True, 499500)
    assert look(shared) == expected
    assert there(look, shared) == expected
    assert worker(look, shared) == expected  # and through a pickle
