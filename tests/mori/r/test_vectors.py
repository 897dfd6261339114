"""What R's mori states in test-vectors.R: vectors of every type, and matrices."""

import numpy as np
import pandas as pd
import pytest

import mori

VECTORS = {
    "doubles": np.linspace(-1, 1, 1000),
    "ints": np.arange(-500, 500),
    "raw": np.arange(256, dtype="u1"),
    "complex": np.arange(100) * (1 + 2j),
    "matrix": np.arange(12.0).reshape(3, 4),
    "matrix by columns": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "none at all": np.array([]),
    "none of a matrix": np.empty((0, 3), "i4"),
}


# R: 134, 135, 137, 138, 139, 140, 142
@pytest.mark.parametrize("kind", VECTORS)
def test_a_vector_or_matrix_round_trips_with_its_shape(store, there, kind):
    plain = VECTORS[kind]
    shared = mori.share(plain)
    np.testing.assert_array_equal(shared, plain)
    arrived = there(lambda x: (len(x), x.shape, x.dtype, x.flags.f_contiguous, x.sum(), x.tolist()), shared)
    assert arrived == (
        len(plain),
        plain.shape,
        plain.dtype,
        plain.flags.f_contiguous,
        plain.sum(),
        plain.tolist(),
    )


# R: 136
@pytest.mark.parametrize("form", [list, lambda x: pd.Series(x, dtype="boolean")], ids=["list", "series"])
def test_truth_has_three_values(store, there, form):
    values = [True, None, False, True]

    def look(x):
        return [None if value is None or value is pd.NA else bool(value) for value in x]

    shared = mori.share(form(values))
    assert look(shared) == values
    assert there(look, shared) == values


# R: 137
def test_bytes_in_a_list_are_the_bytes_they_were(store, there):
    shared = mori.share([bytes(range(256)), b""])
    assert there(lambda x: (bytes(x[0]), bytes(x[1])), shared) == (bytes(range(256)), b"")


# R: 141
def test_what_share_returns_is_a_vector_to_work_with(store):
    shared = mori.share(np.arange(10.0))
    assert isinstance(shared, np.ndarray)
    assert (shared.mean(), (shared * 2).max(), shared[-1]) == (4.5, 18.0, 9.0)
    assert mori.is_shared(shared)
