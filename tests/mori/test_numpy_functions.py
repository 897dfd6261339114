"""What numpy computes of a shared array is what it computes of a plain one: value, dtype, shape and class."""

from __future__ import annotations

import io
import operator
from typing import Any

import numpy as np
import pytest

import mori

VIEWS = {
    "slice": lambda x: x[1:3],
    "steps": lambda x: x[::-1, ::2],
    "row": lambda x: x[1],
    "T": lambda x: x.T,
    "transpose": np.transpose,
    "swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "moveaxis": lambda x: np.moveaxis(x, 0, 1),
    "reshape": lambda x: x.reshape(5, 4),
    "reshape function": lambda x: np.reshape(x, (2, 10)),
    "ravel": lambda x: x.ravel(),
    "ravel function": np.ravel,
    "real": lambda x: x.real,
    "view dtype": lambda x: x.view("i8"),
    "diagonal": lambda x: x.diagonal(),
    "diagonal function": np.diagonal,
    "squeeze": lambda x: x[np.newaxis].squeeze(),
    "expand_dims": lambda x: np.expand_dims(x, 0),
    "flip": np.flip,
    "rot90": np.rot90,
    "newaxis": lambda x: x[:, np.newaxis],
    "ellipsis": lambda x: x[...],
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 4, 5), subok=True),
    "split": lambda x: np.split(x, 2),
    "array_split": lambda x: np.array_split(x, 3),
    "atleast_3d": np.atleast_3d,
    "conj": lambda x: x.conj(),
    "real_if_close": np.real_if_close,
}

_UFUNCS = "sqrt exp isnan sign negative floor modf frexp"
_METHODS = """
    sum mean std var min max argmin argmax prod cumsum cumprod any all copy flatten tolist tobytes argsort
    nonzero trace round byteswap
"""
_FUNCTIONS = """
    sum mean median std ptp sort argsort unique diff gradient cumsum nansum nanmedian copy zeros_like
    ones_like count_nonzero flatnonzero argwhere isfinite around nan_to_num ediff1d average corrcoef cov
    tril triu array2string array_repr array_str sinc i0 angle isreal iscomplexobj
"""

COMPUTED = {
    **{f"ufunc {name}": getattr(np, name) for name in _UFUNCS.split()},
    **{f"method {name}": operator.methodcaller(name) for name in _METHODS.split()},
    **{f"function {name}": getattr(np, name) for name in _FUNCTIONS.split()},
    "add": lambda x: x + 1,
    "radd": lambda x: 1 + x,
    "matmul": lambda x: x @ x.T,
    "rmatmul": lambda x: np.ones(4) @ x,
    "compare": lambda x: x > 3,
    "divmod": lambda x: divmod(x, 3),
    "reduce": lambda x: np.add.reduce(x, axis=1),
    "accumulate": np.maximum.accumulate,
    "reduceat": lambda x: np.add.reduceat(x, [0, 2]),
    "outer": lambda x: np.multiply.outer(x, x),
    "where argument": lambda x: np.add(x, 1, where=x > 3, out=np.zeros((4, 5))),
    "where": lambda x: np.where(x > 3, x, -x),
    "select": lambda x: np.select([x > 3], [x], 0),
    "clip": lambda x: np.clip(x, 2, 5),
    "take": lambda x: np.take(x, [0, 2], axis=0),
    "fancy": lambda x: x[[0, 2]],
    "mask": lambda x: x[x > 3],
    "mixed": lambda x: x[1:, [0, 1]],
    "compress": lambda x: np.compress([True, False], x, axis=0),
    "concatenate": lambda x: np.concatenate([x, x]),
    "stack": lambda x: np.stack([x, x]),
    "vstack": lambda x: np.vstack([x, x]),
    "tile": lambda x: np.tile(x, 2),
    "repeat": lambda x: np.repeat(x, 2),
    "roll": lambda x: np.roll(x, 1),
    "pad": lambda x: np.pad(x, 1),
    "insert": lambda x: np.insert(x, 0, 9, axis=0),
    "append": lambda x: np.append(x, 9),
    "delete": lambda x: np.delete(x, 0, axis=0),
    "partition": lambda x: np.partition(x, 2),
    "searchsorted": lambda x: np.searchsorted(x[0], 3),
    "digitize": lambda x: np.digitize(x, [1, 5]),
    "bincount": lambda x: np.bincount(x.ravel().astype(int)),
    "histogram": np.histogram,
    "interp": lambda x: np.interp([1.5], x[0], x[1]),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x),
    "einsum trace": lambda x: np.einsum("ij->j", x),
    "dot": lambda x: x.dot(x.T),
    "inner": lambda x: np.inner(x, x),
    "vdot": lambda x: np.vdot(x, x),
    "tensordot": lambda x: np.tensordot(x, x, axes=2),
    "kron": lambda x: np.kron(x, x),
    "cross": lambda x: np.cross(x[:, :3], x[:, 1:4]),
    "svd": np.linalg.svd,
    "qr": np.linalg.qr,
    "norm": np.linalg.norm,
    "solve": lambda x: np.linalg.solve(x[:, :4] + np.eye(4) * 50, x[:, 0]),
    "lstsq": lambda x: np.linalg.lstsq(x, x[:, 0], rcond=None)[0],
    "fft": np.fft.fft,
    "rfft2": np.fft.rfft2,
    "percentile": lambda x: np.percentile(x, [10, 90], overwrite_input=True),
    "median in place": lambda x: np.median(x, overwrite_input=True),
    "quantile": lambda x: np.quantile(x, 0.3, axis=0),
    "apply_along_axis": lambda x: np.apply_along_axis(np.sum, 0, x),
    "vectorize": np.vectorize(lambda value: value + 1),
    "meshgrid": lambda x: np.meshgrid(x[0], x[1]),
    "ix": lambda x: x[np.ix_([0, 1], [1, 2])],
    "nditer": lambda x: [float(value) for value in np.nditer(x)],
    "ndenumerate": lambda x: [*np.ndenumerate(x)],
    "flat": lambda x: (list(x.flat), x.flat[3], x.flat[2:4], len(x.flat), x.flat == 3),
    "isin": lambda x: np.isin(x, [1, 2]),
    "intersect1d": lambda x: np.intersect1d(x, [1, 2]),
    "lexsort": np.lexsort,
    "piecewise": lambda x: np.piecewise(x, [x > 3], [1, 2]),
    "polyfit": lambda x: np.polyfit(x[0], x[1], 1),
    "polyval": lambda x: np.polyval([1, 2], x),
    "trapezoid": getattr(np, "trapezoid", None) or np.trapz,
    "sliding": lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 2)).sum(),
    "astype": lambda x: x.astype("f4"),
    "choose": lambda x: np.choose(x.astype(int) % 2, [x, -x]),
    "put copy": lambda x: np.random.default_rng(1).permutation(x),
    "item": lambda x: x.item(3),
    "scalar": lambda x: x[1, 2],
    "array_equal": lambda x: np.array_equal(x, x),
    "allclose": lambda x: np.allclose(x, x + 1e-12),
    "float": lambda x: float(x[1, 1]),
    "result_type": lambda x: np.result_type(x, "f4"),
    "shares_memory": lambda x: np.shares_memory(x, x[1:]),
    "linalg namedtuple": lambda x: np.linalg.slogdet(x[:, :4]),
}


def plain() -> Any:
    return np.arange(20.0).reshape(4, 5) % 7


def assert_equal(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, np.ndarray | np.generic):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(got, expected)
    elif isinstance(expected, str):
        assert got.replace("SharedArray", "array").split() == expected.split()
    else:
        assert got == expected


# R: 141
@pytest.mark.parametrize("name", COMPUTED)
def test_a_result_is_plain_and_equals_the_one_of_a_plain_array(name):
    shared = mori.share(plain())
    assert_equal(COMPUTED[name](shared), COMPUTED[name](plain()))
    assert mori.is_shared(shared)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_equals_the_one_of_a_plain_array_and_stays_a_reference(name):
    shared = mori.share(plain())
    got, expected = VIEWS[name](shared), VIEWS[name](plain())
    for one, other in zip(*((x if isinstance(x, list) else [x]) for x in (got, expected)), strict=True):
        assert type(one) is mori.SharedArray
        assert mori.is_shared(one)
        assert (one.dtype, one.shape, one.strides) == (other.dtype, other.shape, other.strides)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_asarray_and_the_protocols_are_without_a_copy():
    shared = mori.share(plain())
    address = shared.__array_interface__["data"]
    for made in (
        np.asarray(shared),
        np.asanyarray(shared),
        np.frombuffer(shared),
        np.asarray(memoryview(shared)),
    ):
        assert made.__array_interface__["data"] == address
        assert not made.flags.writeable
    assert memoryview(shared).readonly
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(shared)[0, 0] = 1


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_an_array_is_saved_as_a_plain_one(save):
    shared, ours, theirs = mori.share(plain()), io.BytesIO(), io.BytesIO()
    save(ours, shared)
    save(theirs, plain())
    ours.seek(0)
    loaded = np.load(ours)
    np.testing.assert_array_equal(loaded if save is np.save else loaded["arr_0"], plain())


def test_a_shuffle_of_a_shared_array_is_refused_and_of_a_copy_done():
    shared = mori.share(plain())
    for shuffle in (np.random.default_rng(1).shuffle, np.random.RandomState(1).shuffle):
        with pytest.raises(ValueError, match="read-only"):
            shuffle(shared)
        shuffle(shared.copy())
    np.testing.assert_array_equal(shared, plain())
