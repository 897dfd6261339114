"""Shared arrays among what works on arrays: DLPack, files, libraries with protocols of their own."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.lib.recfunctions as rf
import pandas as pd
import pytest

import mori

KNOWS_READ_ONLY = int(np.__version__.partition(".")[0]) >= 2  # DLPack, that is


def grid() -> Any:
    return np.arange(12.0).reshape(3, 4)


def address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def test_dlpack_exports_read_only_and_without_a_copy_or_says_that_it_cannot():
    shared = mori.share(grid())
    assert shared.__dlpack_device__() == (1, 0)
    if not KNOWS_READ_ONLY:
        with pytest.raises(BufferError, match="readonly"):
            np.from_dlpack(shared)
        assert np.from_dlpack(shared.copy()).tolist() == grid().tolist()
        return
    for one in (shared, shared[1:, ::2], shared.T):
        got = np.from_dlpack(one)
        np.testing.assert_array_equal(got, np.asarray(one))
        assert address(got) == address(one)
        assert got.strides == one.strides
        assert not got.flags.writeable
    with pytest.raises(BufferError, match="readonly"):
        shared.__dlpack__()  # of a consumer that knows DLPack 0 alone
    copied = np.from_dlpack(shared, copy=True)
    copied[0, 0] = 9
    assert shared[0, 0] == 0


def test_torch_reads_a_shared_array_through_dlpack():
    torch = pytest.importorskip("torch", reason="torch is missing")
    if not KNOWS_READ_ONLY:
        pytest.skip("numpy 1 exports nothing that is read-only")
    shared = mori.share(grid())
    tensor = torch.from_dlpack(shared)
    assert tensor.data_ptr() == address(shared)
    assert tensor.sum().item() == 66


class Duck:
    """An array that is none of numpy's, with both protocols of NEP 13 and NEP 18."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @staticmethod
    def bare(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(Duck.bare, value))
        return value.array if isinstance(value, Duck) else value

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        kwargs = {name: Duck.bare(value) for name, value in kwargs.items()}
        return Duck(getattr(ufunc, method)(*map(Duck.bare, inputs), **kwargs))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return Duck(func(*Duck.bare(args), **{name: Duck.bare(value) for name, value in kwargs.items()}))

    def __add__(self, other: Any) -> Any:
        return np.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return np.add(other, self)

    def __rmatmul__(self, other: Any) -> Any:
        return np.matmul(other, self)


@pytest.mark.parametrize(
    "compute",
    [
        np.add,
        lambda x, duck: x + duck,
        lambda x, duck: duck + x,
        lambda x, duck: x @ Duck(duck.array.T),
        lambda x, duck: np.concatenate([x, duck]),
        lambda x, duck: np.where(x > 3, x, duck),
        lambda x, duck: np.stack([duck, x], axis=1),
        lambda x, duck: np.multiply(x, 2, out=duck),
    ],
)
def test_another_array_class_decides_what_comes_of_both(compute):
    shared = mori.share(grid())
    got = compute(shared, Duck(grid() * 10))
    expected = compute(grid(), Duck(grid() * 10))
    assert type(got) is Duck
    assert type(got.array) is np.ndarray
    np.testing.assert_array_equal(got.array, expected.array)
    assert mori.is_shared(shared)


def test_dask_arrays_take_shared_operands():
    da = pytest.importorskip("dask.array", reason="dask is missing")
    shared, lazy = mori.share(grid()), da.ones((3, 4), chunks=2)
    for compute in (
        lambda x: x + lazy,
        lambda x: lazy * x,
        lambda x: np.add(x, lazy),
        lambda x: np.concatenate([x, lazy]),
        lambda x: np.sum(lazy + x, axis=0),
        lambda x: np.where(lazy > 0, x, 0),
    ):
        got = compute(shared)
        assert isinstance(got, da.Array)
        np.testing.assert_array_equal(
            got.compute(scheduler="synchronous"), compute(grid()).compute(scheduler="synchronous")
        )
    over = da.from_array(shared, chunks=(2, 4))
    np.testing.assert_array_equal((over + 1).compute(scheduler="synchronous"), grid() + 1)
    assert mori.is_shared(shared)


def test_xarray_takes_shared_operands():
    xr = pytest.importorskip("xarray", reason="xarray is missing")
    shared, labelled = mori.share(grid()), xr.DataArray(grid(), dims=("a", "b"))
    for compute in (lambda x: labelled + x, lambda x: x * labelled, lambda x: np.maximum(x, labelled)):
        xr.testing.assert_identical(compute(shared), compute(grid()))
    over = xr.DataArray(shared, dims=("a", "b"))
    xr.testing.assert_identical(over.mean("a"), labelled.mean("a"))
    assert mori.is_shared(shared)


def test_sparse_takes_shared_operands():
    sparse = pytest.importorskip("sparse", reason="sparse is missing")
    shared, other = mori.share(grid()), sparse.COO(np.eye(3, 4))
    for compute in (lambda x: other * x, lambda x: x * other, lambda x: x.T @ other):
        np.testing.assert_array_equal(np.asarray(compute(shared).todense()), compute(grid()).todense())
    assert mori.is_shared(shared)


def test_pandas_takes_shared_operands():
    row, plain = mori.share(np.arange(4.0)), np.arange(4.0)
    series, frame = pd.Series(np.ones(4)), pd.DataFrame(grid())
    for compute in (
        lambda x: series + x,
        lambda x: x + series,
        lambda x: np.add(x, series),
        lambda x: np.add(series, 1, out=None) * x,
        lambda x: x < series,
        lambda x: frame * x,
        lambda x: x - frame,
        lambda x: series.where(x > 2, x),
        lambda x: frame.assign(new=x[:3]),
        lambda x: pd.Series(x).rolling(2).sum(),
        series.isin,
        lambda x: pd.Series(pd.cut(x, 2)),
        lambda x: series.iloc[x.astype(int)],
        lambda x: series[x > 1],
    ):
        got, expected = compute(row), compute(plain)
        assert type(got) is type(expected)
        (pd.testing.assert_frame_equal if got.ndim == 2 else pd.testing.assert_series_equal)(got, expected)
    assert mori.is_shared(row)


RECORDS = np.array([(1, 2.5, b"x"), (3, 4.5, b"y")], [("a", "i4"), ("b", "f8"), ("c", "S3")])
FIELDS = {
    "append_fields": lambda x: rf.append_fields(x, "d", [1, 2], usemask=False),
    "append_fields masked": lambda x: rf.append_fields(x, "d", [1, 2]),
    "apply_along_fields": lambda x: rf.apply_along_fields(np.mean, x[["a", "b"]]),
    "drop_fields": lambda x: rf.drop_fields(x, "a"),
    "find_duplicates": lambda x: rf.find_duplicates(np.ma.array(x), "a"),
    "join_by": lambda x: rf.join_by("a", x, x, usemask=False),
    "merge_arrays": lambda x: rf.merge_arrays((x, np.arange(2)), flatten=True),
    "rec_append_fields": lambda x: rf.rec_append_fields(x, "d", [1, 2]),
    "rec_drop_fields": lambda x: rf.rec_drop_fields(x, "a"),
    "rename_fields": lambda x: rf.rename_fields(x, {"a": "z"}),
    "repack_fields": lambda x: rf.repack_fields(x[["a", "c"]]),
    "require_fields": lambda x: rf.require_fields(x, [("a", "f4")]),
    "stack_arrays": lambda x: rf.stack_arrays((x, x), usemask=False),
    "structured_to_unstructured": lambda x: rf.structured_to_unstructured(x[["a", "b"]]),
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_functions_on_fields_take_shared_records(name):
    shared = mori.share(RECORDS)
    got, expected = FIELDS[name](shared), FIELDS[name](RECORDS)
    assert got.dtype == expected.dtype
    assert got.tolist() == expected.tolist()
    if name != "rename_fields":  # a view, and so a reference
        assert type(got) is type(expected)
    assert mori.is_shared(shared)


def test_several_fields_are_a_view_that_travels_as_a_reference(store, worker):
    shared = mori.share(RECORDS)
    for fields in (["a", "b"], ["c", "a"], ["b"]):
        part = shared[fields]
        assert type(part) is mori.SharedArray
        assert np.shares_memory(part, shared)
        data = pickle.dumps(part)
        assert mori.is_shared(pickle.loads(data))
        assert pickle.loads(data).dtype == RECORDS[fields].dtype
        assert worker(lambda x: (mori.is_shared(x), x.tolist()), part) == (True, RECORDS[fields].tolist())
        with pytest.raises(mori.ReadOnlyViewError):
            part[0] = part[1]


def test_elements_go_to_files_and_come_back(tmp_path):
    shared = mori.share(grid())
    shared.tofile(tmp_path / "raw")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "raw"), grid().ravel())
    shared.T.tofile(tmp_path / "text", sep=" ")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "text", sep=" "), grid().T.ravel())
    np.savetxt(tmp_path / "table", shared)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "table"), grid())
    np.save(tmp_path / "saved.npy", shared[:, 1:])
    np.testing.assert_array_equal(np.load(tmp_path / "saved.npy"), grid()[:, 1:])


@pytest.mark.parametrize("kind", ["floats", "objects", "masked"])
def test_what_is_dumped_or_saved_holds_the_elements_and_needs_no_region(tmp_path, kind):
    plain = {
        "floats": grid(),
        "objects": np.array([1, "two", None], object),
        "masked": np.ma.array(grid(), mask=grid() > 5),
    }[kind]
    shared = mori.share(plain)
    assert mori.is_shared(shared)
    shared.dump(str(tmp_path / "dumped"))
    made = [(tmp_path / "dumped").read_bytes(), shared.dumps()]
    for data in made:
        assert b"mori" not in data
        assert pickle.loads(data).tolist() == plain.tolist()
        assert type(pickle.loads(data)) is type(plain)
    if kind == "objects":
        for save in (np.save, np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, shared, allow_pickle=True) if save is np.save else save(file, arr_0=shared)
            file.seek(0)
            loaded = np.load(file, allow_pickle=True)
            loaded = loaded if save is np.save else loaded["arr_0"]
            assert type(loaded) is np.ndarray
            assert loaded.tolist() == plain.tolist()
            assert b"mori" not in file.getvalue() or save is np.savez_compressed
    assert mori.is_shared(shared)


@pytest.mark.parametrize(
    "name",
    ["array_equal", "equal", "allclose", "array_almost_equal", "array_almost_equal_nulp", "array_max_ulp"],
)
def test_the_assertions_of_numpy_compare_shared_arrays(name):
    shared, check = mori.share(grid()), getattr(np.testing, f"assert_{name}")
    check(shared, grid())
    check(grid(), shared)
    with pytest.raises(AssertionError):
        check(shared, grid() + 1)
    assert mori.is_shared(shared)


def test_a_shared_array_is_strictly_equal_to_the_plain_one():
    np.testing.assert_array_equal(mori.share(grid()), grid(), strict=True)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(mori.share(grid()), grid().astype("f4"), strict=True)


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
@pytest.mark.parametrize(("name", "value"), [("shape", (4, 3)), ("dtype", "i8"), ("strides", (8, 24))])
def test_another_shape_set_in_place_is_a_view_and_a_reference(store, worker, name, value):
    shared, plain = mori.share(grid()), grid()
    setattr(shared, name, value)
    setattr(plain, name, value)
    assert mori.is_shared(shared)
    for got in (shared, pickle.loads(pickle.dumps(shared))):
        assert mori.is_shared(got)
        assert (got.shape, got.strides, got.dtype) == (plain.shape, plain.strides, plain.dtype)
        np.testing.assert_array_equal(got, plain)
    assert worker(lambda x: x.tolist(), shared) == plain.tolist()
    shared[0, 0] = plain[0, 0] = 7
    assert shared.tolist() == plain.tolist()
    assert not mori.is_shared(shared)


def test_parts_of_complex_numbers_are_refused_as_parts_and_set_as_wholes():
    plain = np.arange(3) + 1j
    shared = mori.share(plain)
    for part in (shared.imag, shared.real):
        with pytest.raises(mori.ReadOnlyViewError):
            part[...] = 7
    assert mori.is_shared(shared)
    shared.imag = 7
    assert shared.tolist() == [7j, 1 + 7j, 2 + 7j]
    shared.imag[...] = 3  # now in private memory
    assert shared.tolist() == [3j, 1 + 3j, 2 + 3j]


@pytest.mark.parametrize("rows", [4, 2000])
def test_an_array_that_became_private_is_resized_as_any_other(rows):
    grown = mori.share(np.asfortranarray(np.arange(rows, dtype=">i4").reshape(-1, 2)))
    before = grown[:2]
    grown.resize(rows // 2 - 1, 2)
    plain = np.asfortranarray(np.arange(rows, dtype=">i4").reshape(-1, 2))
    plain.resize(rows // 2 - 1, 2)
    assert (grown.tolist(), grown.strides, grown.dtype) == (plain.tolist(), plain.strides, plain.dtype)
    assert before.tolist() == [[0, 1], [2, 3]]
    shared = mori.share(np.arange(rows))
    shared[0] = 9
    shared.resize(rows + 2)
    assert shared.tolist() == [9, *range(1, rows), 0, 0]
    held = shared[1:]
    with pytest.raises(ValueError, match="cannot resize an array that references"):
        shared.resize(3)
    assert held[0] == 1


def test_an_array_of_a_shared_one_is_no_copy_where_none_is_asked_for():
    shared = mori.share(grid())
    assert np.array(shared, copy=False, subok=True) is shared
    for made in (np.array(shared, copy=False), np.asarray(shared), np.require(shared, requirements="A")):
        assert address(made) == address(shared)
        assert not made.flags.writeable
    assert address(np.array(shared)) != address(shared)
    if KNOWS_READ_ONLY:
        with pytest.raises(ValueError, match="copy"):
            np.array(shared, "f4", copy=False)


def test_an_operator_leaves_it_to_an_operand_that_takes_no_ufuncs():
    class Other:
        __array_ufunc__ = None

        def __radd__(self, array):
            return "reverse"

    shared = mori.share(np.arange(300.0))
    assert shared.__add__(Other()) is NotImplemented
    assert shared + Other() == "reverse"


def test_elements_of_flat_cannot_be_deleted():
    flat = mori.share(np.arange(300.0)).flat
    with pytest.raises(TypeError):
        del flat[1]
