"""numpy's own classes, odd dtypes and objects come back as they were, here and in other processes."""

from __future__ import annotations

import copy
import datetime as dt
import fractions
import pickle
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mori

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated since numpy 2.5
    CharArray = np.char.chararray

needs_string_dtype = pytest.mark.skipif(
    not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"), reason="numpy.dtypes.StringDType"
)


def records() -> Any:
    return np.rec.array([(1, 2.5, "x"), (3, 4.5, "yy")], dtype=[("a", "i4"), ("b", "f8"), ("c", "U2")])


def matrix() -> Any:
    return np.arange(6.0).reshape(2, 3).view(np.matrix)


def text() -> Any:
    return np.array(["a ", "bb", "c"]).view(CharArray)


CLASSES = {"recarray": records, "matrix": matrix, "chararray": text}


def is_of(cls_name: str, array: Any) -> bool:
    return cls_name in [cls.__name__ for cls in type(array).__mro__]


@pytest.mark.filterwarnings("ignore:The chararray class")
@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_numpys_is_kept(store, worker, name):
    array = CLASSES[name]()
    shared = mori.share(array)
    assert isinstance(shared, type(array))
    assert isinstance(shared, mori.SharedArray)
    assert (shared.dtype, shared.shape) == (array.dtype, array.shape)
    assert shared.tobytes() == array.tobytes()
    assert len(pickle.dumps(shared, 5)) <= 100
    assert worker(lambda x: (mori.is_shared(x), x.tolist()), shared) == (True, array.tolist())
    assert worker(is_of, name, shared)
    assert worker(is_of, name, shared[:1])
    assert type(pickle.loads(pickle.dumps(shared[:1], 5))) is type(shared)
    assert worker(mori.is_shared, shared[:1])
    assert isinstance(mori.map_shared(mori.shared_name(shared)), type(array))
    inside = mori.share({"x": [array]})["x"][0]
    assert isinstance(inside, type(array))
    assert inside.tobytes() == array.tobytes()


@pytest.mark.filterwarnings("ignore:The chararray class")
@pytest.mark.parametrize("name", CLASSES)
def test_what_is_made_of_a_class_of_numpys_is_of_numpys_class(store, name):
    array = CLASSES[name]()
    shared = mori.share(array)
    for make in (
        lambda x: x.copy(),
        copy.copy,
        copy.deepcopy,
        mori.materialize,
        lambda x: x[[0, 1]],
        lambda x: np.concatenate([x, x]),
    ):
        made = make(shared)
        assert type(made) is type(make(array)), make
        np.testing.assert_array_equal(np.asarray(made), np.asarray(make(array)))
    with mori.by_value():
        landed = pickle.loads(pickle.dumps(shared))
    assert isinstance(landed, type(array))
    assert landed.tobytes() == array.tobytes()


def test_fields_of_records_are_attributes_and_travel_as_references(store, worker):
    shared = mori.share(records())
    assert type(shared.a) is mori.SharedArray
    assert mori.is_shared(shared.b)
    assert type(shared.field("b")) is mori.SharedArray
    assert worker(lambda b: (mori.is_shared(b), b.tolist()), shared.b) == (True, [2.5, 4.5])
    assert type(shared[0]) is np.record
    assert shared[1].c == "yy"
    assert worker(lambda x: (mori.is_shared(x), x.c.tolist()), shared[1:]) == (True, ["yy"])


def test_a_write_to_a_field_makes_records_private(store):
    plain = records()
    shared, other = mori.share(plain), mori.share(plain)
    shared.a = 7
    assert shared.a.tolist() == [7, 7]
    assert not mori.is_shared(shared)
    assert type(pickle.loads(pickle.dumps(shared))) is np.recarray
    with pytest.raises(mori.ReadOnlyViewError):
        other.a[0] = 1
    assert other.a.tolist() == [1, 3]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_multiplies_as_a_matrix(store):
    plain = matrix()
    shared = mori.share(plain)
    for compute in (
        lambda m: m * m.T,
        lambda m: m.sum(0),
        lambda m: m.mean(),
        lambda m: (m * m.T).I,
        lambda m: m[0],
        lambda m: m.A1,
        lambda m: m + 1,
        np.linalg.pinv,
    ):
        got, expected = compute(shared), compute(plain)
        assert isinstance(got, type(expected))
        np.testing.assert_allclose(got, expected)
    shared[0, 0] = 9
    assert type(shared * shared.T) is np.matrix
    assert shared[0, 0] == 9


ODD_DTYPES = {
    "metadata": np.dtype("i8", metadata={"unit": "m"}),
    "metadata inside": np.dtype([("a", np.dtype("f4", metadata={"unit": "s"})), ("b", "u1")]),
    "title that is no string": np.dtype({"names": ["a"], "formats": ["i4"], "titles": [7]}),
    "long long": np.dtype("q"),
    "unsigned long long": np.dtype(">Q"),
    "long long inside": np.dtype([("a", "q"), ("b", "Q", 2)]),
    "characters": np.dtype("c"),
    "characters inside": np.dtype([("a", "c"), ("b", "u1")]),
    "number with fields": np.dtype(("i4", [("a", "<i2"), ("b", "<i2")])),
}


def dtypes_are_same(one: np.dtype, other: np.dtype) -> bool:
    return pickle.dumps(one) == pickle.dumps(other) and repr(one) == repr(other)


@pytest.mark.parametrize("name", ODD_DTYPES)
def test_a_dtype_that_is_hard_to_tell_is_kept(store, worker, name):
    dtype = ODD_DTYPES[name]
    array = np.frombuffer(bytes(range(3 * dtype.itemsize)), dtype)
    shared = mori.share(array)
    assert type(shared) is mori.SharedArray
    for got in (
        shared,
        mori.share([array])[0],
        pickle.loads(pickle.dumps(shared)),
        shared[1:],
        shared.copy(),
    ):
        assert got.dtype.metadata == dtype.metadata
        assert got.dtype.fields == dtype.fields
        assert [field[0].metadata for field in (got.dtype.fields or {}).values()] == [
            field[0].metadata for field in (dtype.fields or {}).values()
        ]
        assert got.dtype.char == dtype.char
        assert got.dtype.type is dtype.type
    assert shared.tobytes() == array.tobytes()
    assert worker(lambda x: (mori.is_shared(x), x.tobytes()), shared) == (True, array.tobytes())
    assert worker(lambda x: x.tobytes(), shared[1:]) == array[1:].tobytes()
    assert dtypes_are_same(worker(lambda x: x.dtype, shared), worker(lambda x: x, dtype))
    if dtype.names is None:
        assert type(shared[0]) is type(array[0])


def test_numpy_scalars_keep_their_exact_types_inside_containers(store, worker):
    scalars = [
        *(np.dtype(code).type(3) for code in "bBhHiIlLefdgFDG"),
        *(np.bool_(True), np.datetime64("NaT", "s"), np.datetime64(5, "25s"), np.timedelta64(3, "h")),
        *(np.str_("ä"), np.bytes_(b"x"), np.void(b"abc"), records()[0], np.array((1, 2), "i4,f8")[()]),
    ]
    shared = mori.share(scalars)
    for got, expected in zip(shared, scalars, strict=True):
        assert type(got) is type(expected)
        assert got.dtype == expected.dtype
        assert got.tobytes() == expected.tobytes()
    assert worker(lambda x: [type(one).__name__ for one in x], shared) == [
        type(one).__name__ for one in scalars
    ]


def test_dtypes_polynomials_and_generators_come_back_inside_containers(store, worker):
    dtype = np.dtype([("a", "f8"), ("b", "S3")])
    poly = np.polynomial.Chebyshev([1, 2, 3], domain=[0, 5])
    rng, bits = np.random.default_rng(7), np.random.MT19937(3)
    shared = mori.share([dtype, poly, np.poly1d([1, 2]), rng, bits, np.random.RandomState(4), np.s_[1:5:2]])
    assert shared[0] == dtype
    assert shared[1] == poly
    assert shared[2] == np.poly1d([1, 2])
    assert shared[3].random() == np.random.default_rng(7).random()
    assert shared[4].random_raw() == np.random.MT19937(3).random_raw()
    assert shared[5].rand() == np.random.RandomState(4).rand()
    assert shared[6] == np.s_[1:5:2]
    assert worker(lambda x: (x[0].names, x[1](2.0)), shared) == (dtype.names, poly(2.0))


# objects


class Mutable:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mutable) and other.value == self.value

    __hash__ = None


CONSTANT_OBJECTS = {
    "mixed": np.array([1, "a", None, 2.5, True, b"x", 1 << 90, 1j, (1, "b")], object),
    "strings": np.array(["a", "bc", None], object),
    "two dimensions": np.array([["a", 1], [None, 2.0]], object),
    "F order": np.asfortranarray(np.array([["a", 1], [None, 2.0]], object)),
    "strided": np.array(list(range(20)), object)[::3],
    "0-d": np.array("a", object),
    "empty": np.empty((0, 3), object),
    "times": np.array([dt.date(2020, 1, 1), dt.timedelta(3), fractions.Fraction(1, 3)], object),
    "scalars": np.array([np.float32(1), np.int64(2), np.datetime64("2020"), np.longdouble(3)], object),
    "fields": np.array([(1, "x"), (2, None)], [("a", "i4"), ("b", object)]),
}


def assert_same_objects(got: Any, expected: Any) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tolist() == expected.tolist()
    assert [type(one) for one in got.flat] == [type(one) for one in expected.flat]
    assert got.flags.f_contiguous == expected.copy(order="K").flags.f_contiguous


@pytest.mark.parametrize("name", CONSTANT_OBJECTS)
def test_an_array_of_objects_is_shared_and_rebuilt_exactly(store, worker, name):
    array = CONSTANT_OBJECTS[name]
    shared = mori.share(array)
    assert type(shared) is mori.SharedArray
    assert mori.is_shared(shared)
    assert mori.share(shared) is shared
    assert_same_objects(shared, array)
    assert len(pickle.dumps(shared, 5)) <= 100
    assert_same_objects(pickle.loads(pickle.dumps(shared)), array)
    assert_same_objects(mori.map_shared(mori.shared_name(shared)), array)
    assert worker(mori.is_shared, shared)
    assert worker(lambda x: x.tolist(), shared) == array.tolist()
    assert_same_objects(mori.share({"k": [array]})["k"][0], array)
    with mori.by_value():
        assert_same_objects(pickle.loads(pickle.dumps(shared)), array)
    assert type(mori.materialize(shared)) is np.ndarray
    assert_same_objects(mori.materialize(shared), array)


def test_arrays_inside_an_array_of_objects_lie_in_the_region(store, worker):
    ragged = np.empty(3, object)
    ragged[:] = [np.arange(1000), np.arange(500.0), np.array(["a"])]
    shared = mori.share(ragged)
    assert [mori.is_shared(one) for one in shared] == [
        True,
        True,
        False,
    ]  # what is small is not worth a place
    assert len(pickle.dumps(shared, 5)) < 1000
    assert worker(lambda x: [one.tolist() for one in x], shared) == [one.tolist() for one in ragged]


def test_a_changed_element_of_an_array_of_objects_is_not_lost(store, worker):
    array = np.empty(2, object)
    array[:] = [[1, 2], Mutable(3)]
    shared = mori.share(array)
    shared[0].append(9)
    assert worker(lambda x: x[0], shared) == [1, 2, 9]
    assert worker(lambda x: x[1].value, shared) == 3
    again = mori.map_shared(mori.shared_name(shared))
    assert again[0] == [1, 2]


def test_a_write_to_an_array_of_objects_is_local(store, worker):
    plain = CONSTANT_OBJECTS["two dimensions"].copy()
    shared = mori.share(plain)
    name, part, data = mori.shared_name(shared), shared[0], pickle.dumps(shared)
    shared[0, 0] = "changed"
    assert shared.tolist() == [["changed", 1], [None, 2.0]]
    assert part.tolist() == ["a", 1]
    assert not mori.is_shared(shared)
    assert worker(lambda x: x.tolist(), shared) == shared.tolist()
    assert worker(lambda data: pickle.loads(data).tolist(), data) == plain.tolist()
    assert mori.map_shared(name).tolist() == plain.tolist()
    assert type(shared[:1]) is np.ndarray


def test_a_write_to_an_array_of_objects_in_a_container_reaches_the_container(store):
    shared = mori.share({"a": np.array([1, "x"], object), "b": np.arange(3)})
    part = shared["a"]
    part[0] = 5
    assert pickle.loads(pickle.dumps(shared))["a"].tolist() == [5, "x"]


def test_objects_that_do_not_pickle_are_refused_by_their_path(store):
    array = np.array([1, threading.Lock()], object)
    with pytest.raises(mori.NotShareableError, match=r"obj\['a'\]"):
        mori.share({"a": array})


@needs_string_dtype
@pytest.mark.parametrize("missing", [{}, {"na_object": None}, {"na_object": float("nan")}, {"coerce": False}])
def test_variable_width_strings_are_shared_and_rebuilt_exactly(store, worker, missing):
    dtype = np.dtypes.StringDType(**missing)
    values = ["a", "", "ä" * 50, "b\0c", *([missing["na_object"]] if "na_object" in missing else [])]
    array = np.array([values, values[::-1]], dtype)
    shared = mori.share(array)
    assert mori.is_shared(shared)
    assert shared.dtype == dtype
    assert len(pickle.dumps(shared, 5)) <= 100
    assert str(worker(lambda x: x.tolist(), shared)) == str(array.tolist())
    other = mori.share([array])[0]
    shared[0, 0] = "written"
    assert shared[0, 0] == "written"
    assert other[0, 0] == "a"
    assert str(shared.tolist()[1]) == str(array.tolist()[1])
    assert not mori.is_shared(shared)


# user's classes


class Quantity(np.ndarray):
    """A subclass with a state of its own."""

    def __new__(cls, values: Any, unit: str = "") -> Quantity:
        made = np.asarray(values, float).view(cls)
        made.unit = unit
        return made

    def __array_finalize__(self, obj: Any) -> None:
        self.unit = getattr(obj, "unit", "")

    def __reduce__(self) -> Any:
        return Quantity, (np.array(self), self.unit)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


def test_a_subclass_of_the_users_keeps_class_and_state_in_a_container(store, worker):
    quantity = Quantity([1, 2, 3], "m")
    got = mori.share({"q": quantity})["q"]
    assert type(got) is Quantity
    assert (got.unit, got.tolist()) == ("m", [1, 2, 3])


def test_a_memmap_is_written_straight_from_its_mapping(store, tmp_path):
    mapped = np.memmap(tmp_path / "file", "f4", mode="w+", shape=(700, 300))
    mapped[:] = np.arange(210_000).reshape(700, 300)
    mapped.flush()
    reading = np.memmap(tmp_path / "file", "f4", mode="r", shape=(700, 300))
    from mori.format.plan import measure

    (buffer,) = measure(reading).buffers
    assert buffer.__array_interface__["data"] == reading.__array_interface__["data"]
    for array in (reading, reading[10:20, ::2], reading.T):
        shared = mori.share(array)
        assert type(shared) is mori.SharedArray
        np.testing.assert_array_equal(shared, np.asarray(array))


objects = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: st.tuples(children, children) | st.lists(children, max_size=3),
    max_leaves=5,
)


@given(values=st.lists(objects, max_size=8), order=st.sampled_from("CF"))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_objects_are_shared_are_what_comes_back(store, values, order):
    array = np.empty((len(values), 2), object, order=order)
    for place, value in enumerate(values):
        array[place, 0] = array[place, 1] = value
    for got in (mori.share(array), pickle.loads(pickle.dumps(mori.share(array)))):
        assert_same_objects(got, array)


@given(
    array=hnp.arrays(
        st.one_of(
            hnp.datetime64_dtypes(),
            hnp.timedelta64_dtypes(),
            hnp.array_dtypes(allow_subarrays=True),
            hnp.complex_number_dtypes(),
            hnp.floating_dtypes(endianness="?"),
        ),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    cls=st.sampled_from([np.ndarray, np.recarray]),
)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_dtype_a_class_has_is_kept_to_the_bit(store, array, cls):
    array = array.view(cls)
    shared = mori.share(array)
    assert isinstance(shared, cls)
    assert repr(shared.dtype) == repr(array.dtype)
    assert shared.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert shared.shape == array.shape
    assert shared.tobytes() == array.tobytes()
    received = pickle.loads(pickle.dumps(shared[..., :1] if shared.ndim else shared))
    assert repr(received.dtype) == repr(array.dtype)
    assert received.tobytes() == (array[..., :1] if array.ndim else array).tobytes()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
def test_what_numpys_classes_return_of_an_element_a_column_and_a_loop_is_theirs():
    arrays = [np.matrix([[1, 2], [3, 4.0]]), np.rec.array([(1, 2.0), (3, 4.0)], names="a,b")]
    if hasattr(np, "char"):
        arrays.append(np.array(["a ", "b"]).view(np.char.chararray))
    for plain in arrays:
        shared = mori.share(plain)
        assert [repr(np.asarray(one)) for one in shared] == [repr(np.asarray(one)) for one in plain]
        assert repr(np.asarray(shared[0])) == repr(np.asarray(plain[0]))
    assert mori.share(arrays[0])[:, 0].tolist() == [[1.0], [3.0]]


def test_a_loop_sees_what_is_written_in_it():
    shared = mori.share(np.arange(4))
    seen = []
    for number in shared:
        seen.append(int(number))
        shared[3] = 7
    assert seen == [0, 1, 2, 7]
    assert [row.tolist() for row in mori.share(np.eye(2))] == [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(TypeError, match="0-d"):
        iter(mori.share(np.array(1.0)))
