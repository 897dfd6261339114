"""An array of any dtype without objects comes back as it went in, in this process and in others."""

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mori

SIMPLE = (  # noqa: SIM905
    "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 g F D G S0 S1 S7 U0 U1 U5 V1 V13 >i4 >f8 >c16 >U3 >M8[s] "
    "M8[D] M8[ns] M8[us] M8[ms] M8[s] M8[M] M8[Y] M8[W] M8[as] M8[25s] M8 m8[ns] m8[3h] m8 m8[D] m8[7us]"
).split()

STRUCTURED = {
    "plain": np.dtype([("a", "i4"), ("b", "f8")]),
    "aligned": np.dtype([("a", "i1"), ("b", "f8"), ("c", "i2")], align=True),
    "padded": np.dtype({"names": ["a", "b"], "formats": ["i2", "f4"], "offsets": [3, 17], "itemsize": 40}),
    "out of order": np.dtype({"names": ["a", "b"], "formats": ["i2", "f4"], "offsets": [8, 0]}),
    "overlapping": np.dtype({"names": ["all", "low"], "formats": ["u4", "u2"], "offsets": [0, 0]}),
    "titled": np.dtype([(("the first", "a"), "i4"), (("the second", "b"), "S3")]),
    "subarrays": np.dtype([("m", "f8", (2, 3)), ("v", "i2", 4)]),
    "nested": np.dtype([("p", [("x", "<f4"), ("y", ">f4")]), ("when", "M8[ms]"), ("name", "U4")]),
    "no fields": np.dtype([]),
    "blank names": np.dtype([("", "i4"), (" b ", "i4"), ("ü", "?")]),
    "untitled view": np.dtype([(("t", "a"), "i4"), ("b", "f8")])[["b"]],
}

ARRAYS = {
    "C order": np.arange(24.0).reshape(2, 3, 4),
    "F order": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    "strided": np.arange(100)[3:90:7],
    "strided in two dimensions": np.arange(100).reshape(10, 10)[1:9:2, ::3],
    "backwards": np.arange(50)[::-1],
    "backwards in one of two": np.arange(60).reshape(6, 10)[:, ::-2],
    "broadcast": np.broadcast_to(np.arange(5), (4, 5)),
    "one row a block": np.arange(600_000).reshape(2, 300_000)[:, ::2],
    "large and strided": np.arange(400_000).reshape(400, 1000)[:, :7],
    "0-d": np.array(3.5),
    "0-d structured": np.array((1, 2.0), STRUCTURED["plain"]),
    "empty": np.empty(0),
    "empty in the middle": np.empty((3, 0, 2), "i2"),
    "empty F": np.empty((3, 0), order="F"),
    "both orders": np.arange(5).reshape(1, 5, 1),
    "not writeable": np.frombuffer(b"sixteen bytes...", "u4"),
    "unaligned": np.frombuffer(b"\0" + bytes(range(32)), "<i8", offset=1),
    "nan and infinities": np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324]),
    "not a time": np.array(["NaT", "1969-12-31", "9999-01-01"], "M8[s]"),
    "bools": np.array([True, False, True]),
    "text": np.array(["", "a", "mörî 森", "x\0y", "trail\0"]),
    "32 dimensions": np.zeros((1,) * 32),
}


def some(dtype: np.dtype, count: int = 6) -> np.ndarray:
    """Return an array of a dtype with bytes that are not all the same."""
    if dtype.itemsize == 0:
        return np.zeros(count, dtype)
    if dtype.kind == "U":
        return np.array(["", "ä", "bc", "森", "end", "x"], dtype)
    if dtype.char in "gG":  # arbitrary bytes are no long doubles, and comparing them warns
        return (np.arange(count) / np.longdouble(3)).astype(dtype)
    raw = (np.arange(count * dtype.itemsize) % 4 == 0).astype("u1")  # text of U+0001 where there is text
    return np.frombuffer(raw.tobytes(), dtype)


def assert_same_elements(shared: np.ndarray, expected: np.ndarray) -> None:
    if expected.dtype.char not in "gG":  # whose values are shorter than their place, and the rest is anything
        assert shared.tobytes() == expected.tobytes()
    if expected.dtype.names is None:  # in a structured one, no NaN and no NaT equals another
        np.testing.assert_array_equal(shared, expected)


def assert_same(shared: np.ndarray, expected: np.ndarray) -> None:
    assert type(shared) is mori.SharedArray
    assert isinstance(shared, np.ndarray)
    assert shared.dtype == expected.dtype
    assert shared.dtype.str == expected.dtype.str
    assert repr(shared.dtype) == repr(expected.dtype)
    assert shared.dtype.fields == expected.dtype.fields
    assert shared.dtype.isalignedstruct == expected.dtype.isalignedstruct
    assert shared.shape == expected.shape
    assert not shared.flags.writeable
    assert shared.flags.aligned
    assert shared.__array_interface__["data"][0] % 64 == 0
    packed = expected if expected.flags.forc else np.ascontiguousarray(expected)
    assert shared.flags.c_contiguous == packed.flags.c_contiguous
    assert shared.flags.f_contiguous == packed.flags.f_contiguous
    assert_same_elements(shared, expected)


# R: 28, 134, 135, 137, 138, 139
@pytest.mark.parametrize("dtype", SIMPLE)
def test_every_simple_dtype_comes_back(store, dtype):
    array = some(np.dtype(dtype))
    assert_same(mori.share(array), array)


@pytest.mark.parametrize("kind", STRUCTURED)
def test_every_structured_dtype_comes_back(store, kind):
    array = some(STRUCTURED[kind])
    assert_same(mori.share(array), array)


# R: 140, 142
@pytest.mark.parametrize("kind", ARRAYS)
def test_every_layout_comes_back(store, kind):
    assert_same(mori.share(ARRAYS[kind]), ARRAYS[kind])


def everything() -> list[np.ndarray]:
    arrays = [some(np.dtype(dtype)) for dtype in SIMPLE]
    return arrays + [some(dtype) for dtype in STRUCTURED.values()] + list(ARRAYS.values())


def compare_everything(parts: list[np.ndarray], names: list[str]) -> int:
    for part, name, array in zip(parts, names, everything(), strict=True):
        assert_same(part, array)
        assert mori.map_shared(name) is not None
        assert_same(mori.map_shared(name), array)
    return len(parts)


def test_another_process_reads_every_dtype_and_layout(store, worker):
    shared = [mori.share(array) for array in everything()]
    names = [mori.shared_name(part) for part in shared]
    assert worker(compare_everything, shared, names) == len(everything())


def test_a_memmap_comes_back(store, tmp_path):
    mapped = np.memmap(tmp_path / "file", "f4", mode="w+", shape=(7, 3))
    mapped[:] = np.arange(21).reshape(7, 3)
    assert_same(mori.share(mapped), np.asarray(mapped))


def test_a_record_array_comes_back_with_its_fields(store, worker):
    records = np.rec.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    plain = records.view(np.ndarray)
    shared = mori.share(plain)
    assert shared.dtype == plain.dtype
    assert shared.dtype.type is plain.dtype.type
    assert worker(lambda x: x["b"].tolist(), shared) == [2.5, 4.5]


def test_titles_that_are_no_strings_come_back_inside_a_container(store):
    array = np.zeros(3, np.dtype({"names": ["a"], "formats": ["i4"], "titles": [7]}))
    assert mori.share([array])[0].dtype.fields == array.dtype.fields


def test_a_wide_file_of_many_elements_comes_back(store, worker, rng):
    array = rng.standard_normal((1000, 1000))
    assert worker(lambda x: float(x.sum()), mori.share(array)) == float(array.sum())


def test_sharing_a_shared_array_returns_that_very_array(store):
    shared = mori.share(np.arange(5))
    assert mori.share(shared) is shared
    part = shared[1:3]
    assert mori.share(part) is part


arrays = hnp.arrays(
    dtype=st.one_of(
        hnp.scalar_dtypes(),
        hnp.byte_string_dtypes(),
        hnp.unicode_string_dtypes(),
        hnp.nested_dtypes(max_itemsize=200),
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
)


@given(array=arrays, how=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_array_is_shared_is_what_comes_back(store, array, how):
    if array.ndim:
        array = array[how.draw(hnp.basic_indices(array.shape, allow_newaxis=True))]
    array = np.asarray(array)
    shared = mori.share(array)
    assert_same(shared, array)
    received = pickle.loads(pickle.dumps(shared))
    assert mori.is_shared(received)
    assert_same(received, array)
    with mori.by_value():
        data = pickle.dumps(shared)
    landed = pickle.loads(data)
    assert (landed.dtype, landed.shape) == (array.dtype, array.shape)
    assert_same_elements(landed, array)


@given(array=arrays, how=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_view_is_taken_arrives_as_it_was_taken(store, array, how):
    shared = mori.share(array)
    key = how.draw(hnp.basic_indices(array.shape, allow_newaxis=True)) if array.ndim else ...
    view, expected = shared[key], array[key]
    if not isinstance(view, np.ndarray):
        return
    received = pickle.loads(pickle.dumps(view))
    assert_same_elements(received, expected)
    assert received.dtype == expected.dtype
    assert received.shape == expected.shape
    assert mori.is_shared(received) or expected.size == 0
