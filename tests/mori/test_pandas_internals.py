"""Canaries: what mori uses of the inside of pandas is still there and does what it did."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pandas._libs.sparse import BlockIndex, IntIndex

import mori
from mori.codecs.pandas.versions import create_dataframe_from_blocks
from mori.objects.pandas import managers
from tests.mori.pandas_versions import IS_LEGACY


def test_the_protection_of_blocks_is_available():
    assert managers.CAN_PROTECT
    assert managers._Referred is not None


def test_a_block_has_the_parts_that_mori_reads():
    manager = pd.DataFrame({"a": [1], "b": [2], "s": ["x"]})._mgr
    (index,) = {len(axis) for axis in manager.axes[1:]}
    assert index == 1
    for block in manager.blocks:
        assert block.values.shape[0] in (1, 2)
        assert block.mgr_locs.as_array.dtype == np.intp
        assert block.mgr_locs.indexer is not None
        assert block.refs.has_reference() in (True, False)
        assert block.ndim == 2


def test_a_frame_is_made_of_its_blocks_without_a_copy():
    values = np.arange(6).reshape(2, 3)
    made = create_dataframe_from_blocks(
        [(values, np.arange(2))], index=pd.RangeIndex(3), columns=pd.Index(["a", "b"])
    )
    assert np.shares_memory(made["a"].to_numpy(), values)
    plain = pd.DataFrame._from_mgr(made._mgr, made.axes)
    assert np.shares_memory(plain["a"].to_numpy(), values)


def test_a_block_of_the_same_values_is_another_block_and_an_axis_another_view():
    frame = pd.DataFrame({"a": [1, 2], "s": pd.array(["x", "y"], "string")}, ["i", "j"])
    for block in frame._mgr.blocks:
        values = block.values if isinstance(block.values, np.ndarray) else block.values.view()
        made = block.make_block_same_class(values, placement=block.mgr_locs)
        assert made is not block
        assert type(made) is type(block)
        assert made.values is values
        assert made.mgr_locs.as_array.tolist() == block.mgr_locs.as_array.tolist()
    strings = frame["s"].array
    assert strings.view() is not strings
    assert type(strings.view()) is type(strings)
    axis = frame.index.view()
    axis.name = "other"
    assert frame.index.name is None


def test_pandas_asks_the_references_of_a_block_before_it_writes(store):
    frame = pd.DataFrame({"i": range(4), "f": np.ones(4), "g": np.zeros(4)})
    shared = mori.share(frame)
    column, rows = shared["f"], shared.iloc[1:]
    for block in (*shared._mgr.blocks, *column._mgr.blocks, *rows._mgr.blocks):
        assert block.refs.has_reference()
        assert not block.values.flags.writeable
    shared.loc[0, "f"] = 5.0
    assert mori.is_shared(shared["i"])
    assert mori.is_shared(shared["g"])
    assert not mori.is_shared(shared["f"])
    written = [block for block in shared._mgr.blocks if not isinstance(block.refs, managers._Referred)]
    assert [block.mgr_locs.as_array.tolist() for block in written] == [[1]]


@pytest.mark.parametrize(
    "array",
    [
        pd.array([1, None], dtype="Int64"),
        pd.array([1.5, None], dtype="Float64"),
        pd.array([True, None], dtype="boolean"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_a_nullable_array_is_data_and_mask(array):
    assert array._data.shape == array._mask.shape
    assert type(array)(array._data, array._mask, copy=False)._data is array._data


def test_dates_and_categories_lie_in_an_ndarray():
    dates = pd.date_range("2024", periods=3, freq="D")
    assert isinstance(dates._data._ndarray, np.ndarray)
    assert dates._data._simple_new(dates._data._ndarray, dtype=dates.dtype)._ndarray is dates._data._ndarray
    category = pd.Categorical(["a", "b"])
    assert isinstance(category._ndarray, np.ndarray)
    again = pd.Categorical._simple_new(category._ndarray, category.dtype)
    assert again._ndarray is category._ndarray
    made = pd.CategoricalDtype._from_fastpath(category.categories, True)
    assert made.ordered
    assert made.categories is category.categories


def test_an_index_keeps_the_array_that_it_was_made_of():
    values = np.arange(3)
    assert pd.Index._simple_new(values, name="n")._data is values


@pytest.mark.skipif(not IS_LEGACY, reason="pandas 3 has no write without copy-on-write")
def test_every_way_to_write_of_pandas_2_has_been_made_to_copy_first():
    """A way that pandas adds, or a check that it moves, has to be looked at."""
    for ours, names in (
        (managers._Manager, {"column_setitem", "iset", "_iset_single", "setitem", "putmask", "fillna"}),
        (managers._SingleManager, {"setitem", "setitem_inplace", "putmask", "fillna", "replace"}),
    ):
        assert names <= set(vars(ours))
        asking = {
            name
            for base in ours.__mro__[1:]
            for name, function in vars(base).items()
            if hasattr(function, "__code__") and "using_copy_on_write" in function.__code__.co_names
        }
        reading = {"astype", "convert", "convert_dtypes", "copy", "reindex_indexer", "as_array", "shift"}
        reading |= {"_slice_take_blocks_ax0", "get_rows_with_mask"}
        assert asking - reading - {"where"} <= set(vars(ours))


def test_periods_intervals_and_sparse_arrays_are_made_of_plain_ones_without_a_copy():
    ordinals = np.arange(3)
    ordinals.flags.writeable = False
    made = pd.arrays.PeriodArray._simple_new(ordinals, dtype=pd.PeriodDtype("M"))
    assert made._ndarray is ordinals
    dtype = pd.IntervalDtype(ordinals.dtype, "left")
    assert pd.arrays.IntervalArray._simple_new(ordinals, ordinals, dtype=dtype)._right is ordinals
    places = np.array([0, 2, 4], "i4")
    places.flags.writeable = False
    where = IntIndex(5, places)
    assert np.shares_memory(where.indices, places)
    blocks = BlockIndex(9, places, np.ones(3, "i4"))
    assert np.shares_memory(blocks.blocs, places)
    sparse = pd.arrays.SparseArray._simple_new(ordinals, where, pd.SparseDtype("i8", 7))
    assert sparse.sp_values is ordinals
    assert sparse.tolist() == [0, 7, 1, 7, 2]


def test_arrow_columns_keep_the_array_that_they_were_made_of():
    array = pa.chunked_array([[1, None]])
    column = pd.arrays.ArrowExtensionArray(array)
    (chunk,) = column.__arrow_array__().chunks
    assert chunk.buffers()[1].address == array.chunk(0).buffers()[1].address


def test_pandas_makes_what_is_derived_by_methods_that_shared_frames_replace(store):
    shared = mori.share(pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}))
    names = ("_constructor_from_mgr", "_constructor_sliced_from_mgr")
    for cls, name in [*((pd.DataFrame, name) for name in names), (pd.Series, names[0])]:
        assert callable(getattr(cls, name))
    assert callable(pd.Series._constructor_expanddim_from_mgr)
    column = shared["a"]
    for derived in (column, column + 1, column.to_frame(), shared.iloc[0], shared + 1, shared.T):
        assert type(derived) in (pd.DataFrame, pd.Series)
    assert mori.is_shared(shared["a"])
