"""Results that numpy puts into a shared array: it becomes private; a part of one is refused."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import mori

GRID = np.arange(12.0).reshape(3, 4) % 5
SQUARE = np.arange(9.0).reshape(3, 3)
BOOLS = GRID > 2
FUNCTIONS = {
    "all": lambda out: np.all(BOOLS, 0, out),
    "amax": lambda out: np.amax(GRID, 0, out),
    "any": lambda out: np.any(BOOLS, 0, out),
    "argmax": lambda out: np.argmax(GRID, 0, out),
    "argmin": lambda out: np.argmin(GRID, axis=0, out=out),
    "around": lambda out: np.around(GRID / 3, 1, out),
    "choose": lambda out: np.choose(BOOLS.astype(int), [GRID, -GRID], out),
    "clip": lambda out: np.clip(GRID, 1, 3, out),
    "compress": lambda out: np.compress([True, False, True], GRID, 0, out),
    "concatenate": lambda out: np.concatenate([GRID, GRID], 0, out),
    "cumprod": lambda out: np.cumprod(GRID, 1, None, out),
    "cumsum": lambda out: np.cumsum(GRID, 1, None, out),
    "dot": lambda out: np.dot(SQUARE, SQUARE, out),
    "einsum": lambda out: np.einsum("ij->j", GRID, out=out),
    "fix": lambda out: np.trunc(GRID / 3, out),
    "isneginf": lambda out: np.isneginf(GRID, out),
    "matmul": lambda out: np.matmul(SQUARE, SQUARE, out),
    "max": lambda out: np.max(GRID, 0, out),
    "mean": lambda out: np.mean(GRID, 0, None, out),
    "median": lambda out: np.median(GRID, 0, out),
    "min": lambda out: np.min(GRID, 0, out),
    "multi_dot": lambda out: np.linalg.multi_dot([SQUARE, SQUARE, SQUARE], out=out),
    "nanmean": lambda out: np.nanmean(GRID, 0, None, out),
    "nanmedian": lambda out: np.nanmedian(GRID, 0, out),
    "nanpercentile": lambda out: np.nanpercentile(GRID, 30, 0, out),
    "nansum": lambda out: np.nansum(GRID, 0, None, out),
    "percentile": lambda out: np.percentile(GRID, 30, 0, out),
    "prod": lambda out: np.prod(GRID, 0, None, out),
    "ptp": lambda out: np.ptp(GRID, 0, out),
    "quantile": lambda out: np.quantile(GRID, 0.3, 0, out),
    "reduce": lambda out: np.add.reduce(GRID, 0, None, out),
    "round": lambda out: np.round(GRID / 3, 1, out),
    "stack": lambda out: np.stack([GRID, GRID], 0, out),
    "std": lambda out: np.std(GRID, 0, None, out),
    "sum": lambda out: np.sum(GRID, 0, None, out),
    "take": lambda out: np.take(GRID, [0, 2], 1, out),
    "trace": lambda out: np.trace(GRID, 0, 0, 1, None, out),
    "var": lambda out: np.var(GRID, 0, None, out),
}
METHODS = {
    "all": lambda x, out: x.all(0, None, out),
    "any": lambda x, out: x.any(0, out=out),
    "argmax": lambda x, out: x.argmax(0, out),
    "argmin": lambda x, out: x.argmin(0, out=out),
    "choose": lambda x, out: mori.share((x % 2).astype(int)).choose([GRID, -GRID], out=out),
    "clip": lambda x, out: x.clip(1, 3, out),
    "compress": lambda x, out: x.compress([True, False, True], 0, out),
    "cumprod": lambda x, out: x.cumprod(1, None, out),
    "cumsum": lambda x, out: x.cumsum(1, None, out),
    "dot": lambda x, out: x.dot(GRID.T, out),
    "max": lambda x, out: x.max(0, out),
    "mean": lambda x, out: x.mean(0, None, out),
    "min": lambda x, out: x.min(0, out=out),
    "prod": lambda x, out: x.prod(0, None, out),
    "round": lambda x, out: x.round(1, out),
    "std": lambda x, out: x.std(0, None, out),
    "sum": lambda x, out: x.sum(0, None, out),
    "take": lambda x, out: x.take([0, 2], 1, out),
    "trace": lambda x, out: x.trace(0, 0, 1, None, out),
    "var": lambda x, out: x.var(0, None, out),
}


def like(result: Any) -> Any:
    """Return an array for this result, with other elements."""
    return np.full_like(np.asarray(result), 1)


def assert_put_into_a_private_array(compute: Any, expected: Any) -> None:
    shared = mori.share(like(expected))
    name, before = mori.shared_name(shared), shared[...]
    assert compute(shared) is shared
    np.testing.assert_array_equal(shared, expected)
    assert shared.dtype == np.asarray(expected).dtype
    assert not mori.is_shared(shared)
    np.testing.assert_array_equal(before, like(expected))
    np.testing.assert_array_equal(mori.map_shared(name), like(expected))


def assert_a_part_is_refused(compute: Any, expected: Any) -> None:
    whole = mori.share(np.stack([like(expected)] * 2))
    with pytest.raises(mori.ReadOnlyViewError):
        compute(whole[0:1].reshape(np.shape(expected)))
    np.testing.assert_array_equal(whole, np.stack([like(expected)] * 2))
    assert mori.is_shared(whole)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_function_puts_into_a_shared_array_makes_it_private(name):
    compute = FUNCTIONS[name]
    expected = compute(None)
    assert_put_into_a_private_array(compute, expected)
    if name != "reduce":  # where an operand raises, numpy's reductions never give up their `out`
        assert_a_part_is_refused(compute, expected)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_of_a_shared_array_puts_into_another_makes_that_private(name):
    source = mori.share(GRID)
    expected = METHODS[name](GRID, None)
    assert_put_into_a_private_array(lambda out: METHODS[name](source, out), expected)
    assert_a_part_is_refused(lambda out: METHODS[name](source, out), expected)
    assert mori.is_shared(source)


def test_choices_given_one_by_one_are_no_outs():
    one, other = mori.share(np.zeros(3)), mori.share(np.ones(3))
    assert mori.share(np.array([0, 1, 0])).choose(one, other).tolist() == [0, 1, 0]
    assert mori.is_shared(one)
    assert mori.is_shared(other)


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">c16", ">U3", ">M8[s]", [("a", ">i2"), ("b", "<f4")]])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("rows", [2, 600])  # numpy sets the state of large arrays in another way
def test_a_write_keeps_the_order_of_the_bytes(store, dtype, order, rows):
    plain = np.zeros((rows, 3), dtype, order)
    plain[1:] = np.arange(1, 4).astype("U1" if dtype == ">U3" else "i8").astype(dtype)
    for shared in (mori.share(plain), mori.share(np.ma.array(plain))):
        strides = shared.strides
        shared[0, 0] = shared[1, 1]
        assert not mori.is_shared(shared)
        expected = plain.copy(order="K")
        expected[0, 0] = expected[1, 1]
        assert (shared.dtype, shared.strides) == (plain.dtype, strides)
        assert shared.dtype.str == plain.dtype.str
        np.testing.assert_array_equal(np.asarray(shared), expected)


def test_concatenate_keeps_the_dtype_and_checks_the_casting():
    x = mori.share(np.array([1.5, 2.5]))
    assert np.concatenate([x, x], dtype=">f8").dtype.str == ">f8"
    out = mori.share(np.zeros(4, ">f8"))
    assert np.concatenate([x, x], out=out) is out
    assert out.dtype.str == ">f8"
    assert out.tolist() == [1.5, 2.5, 1.5, 2.5]
    for target in ({"dtype": ">f8"}, {"out": mori.share(np.zeros(4, ">f8"))}):
        with pytest.raises(TypeError, match="according to the rule 'no'"):
            np.concatenate([x, x], casting="no", **target)


def test_what_another_library_answers_to_a_ufunc_is_the_result():
    class Answering:
        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
            return ufunc.__name__, method, [one is self for one in kwargs.get("out", ())]

    shared = mori.share(np.arange(3.0))
    assert np.sin(shared, Answering()) == ("sin", "__call__", [True])
    assert np.sin(shared, out=Answering()) == ("sin", "__call__", [True])
    assert np.modf(shared, None, Answering()) == ("modf", "__call__", [False, True])
    assert np.add(shared, Answering()) == ("add", "__call__", [])
    assert mori.is_shared(shared)


def test_one_of_two_outs_is_given_back_and_the_other_is_made():
    shared = mori.share(np.array([1.25, 2.5]))
    out = mori.share(np.zeros(2))
    parts, whole = np.modf(shared, None, out)
    assert whole is out
    assert type(parts) is np.ndarray
    assert (parts.tolist(), whole.tolist()) == ([0.25, 0.5], [1, 2])


def test_the_flat_iterator_as_an_array_is_over_the_region_and_cannot_be_written_to():
    shared = mori.share(np.arange(20.0).reshape(4, 5))
    array = np.asarray(shared.flat)
    assert np.shares_memory(array, shared)
    steps = np.asarray(shared[::2, ::2].flat)
    assert steps.tolist() == [0, 2, 4, 10, 12, 14]
    for one in (array, steps):
        with pytest.raises(ValueError, match="read-only"):
            one[0] = 1
    for one in (np.array(shared.flat), shared.flat.copy(), np.asarray(shared.flat, "f4")):
        one[0] = 9
        assert one.dtype in ("f8", "f4")
    assert shared[0, 0] == 0


def test_concat_of_the_operator_module_does_what_it_does_with_any_subclass_of_ndarray():
    class Sub(np.ndarray):
        pass

    plain = np.array([1, 2])
    expected = operator.concat(plain.view(Sub), plain)
    assert operator.concat(mori.share(plain), plain).tolist() == expected.tolist()
