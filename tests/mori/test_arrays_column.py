"""Many arrays of one dtype lie one behind the other: handed out as views, each one object, no write lost."""

import copy
import gc
import json
import pickle
import tracemalloc
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mori
from mori.codecs import arrays
from mori.format.codec import Range, Strides
from mori.format.layout import Id
from mori.format.node import node_at, open_node, root_of
from mori.format.plan import measure
from mori.memory import mapping as mappings
from mori.memory import region
from tests.fresh import run_python
from tests.regions import bytes_of, region_of

COUNT = 100
"""More than a small container contains."""

_RECORD = np.dtype({"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [0, 8], "itemsize": 24})
_KINDS = {
    "equal": lambda i: np.arange(i, i + 5.0),
    "varying": lambda i: np.arange(i % 7, dtype="<i2"),
    "rows": lambda i: np.full((i % 4, 3), i, "<f4"),
    "matrices": lambda i: np.full((i % 4, 1 + i % 3), i, "<u8"),
    "no dimensions": lambda i: np.array(i, "<i4"),
    "five dimensions": lambda i: np.full((1, 2, 1, 2, 3), i, np.complex64),
    "dates": lambda i: np.arange(i, i + 4).astype("M8[s]"),
    "spans": lambda i: np.arange(i, i + 4).astype("m8[D]"),
    "text": lambda i: np.array(["ä", f"{i:6}"]),
    "bytes": lambda i: np.array([b"a", b"%6d" % i]),
    "big endian": lambda i: np.arange(i, i + 3, dtype=">f8"),
    "bool": lambda i: np.array([True, i % 2 == 0]),
    "long long": lambda i: np.arange(i, i + 3, dtype="q"),
    "long double": lambda i: np.arange(i, i + 3, dtype="g"),
    "half": lambda i: np.arange(3, dtype="<f2"),
    "records": lambda i: np.full(2, i, _RECORD),
    "subarrays": lambda i: np.full(2, i, [("a", "<i4", (2,))]),
    "strided": lambda i: np.arange(20.0)[:: 2 + i % 2],
    "reversed": lambda i: np.arange(6).reshape(2, 3)[::-1],
    "broadcast": lambda i: np.broadcast_to(np.float64(i), (3, 2)),
    "some larger": lambda i: np.full(300_000 if i == 50 else 2, i, "u1"),
}


def same(got, expected) -> bool:
    return (
        isinstance(got, np.ndarray)
        and (got.dtype, got.dtype.char, got.shape) == (expected.dtype, expected.dtype.char, expected.shape)
        and got.tobytes() == expected.tobytes()
        and got.flags.aligned
    )


def sums(shared) -> list:
    values = shared.values() if isinstance(shared, mori.SharedDict | dict) else shared
    return [float(array.sum()) for array in values]


def is_column(shared) -> bool:
    node = shared._node
    node = node.child(len(node) - 1) if isinstance(shared, mori.SharedDict) else node
    return node.record.codec == Id.ARRAYS


def floats(count: int = COUNT) -> list:
    return [np.arange(i, i + 3.0) for i in range(count)]


@pytest.mark.parametrize("make", _KINDS.values(), ids=_KINDS)
@pytest.mark.parametrize("kind", [list, tuple])
def test_arrays_of_one_dtype_are_one_node_and_come_back_as_unpickling_gives_them(make, kind):
    plain = kind(make(i) for i in range(COUNT))
    shared = mori.share(plain)
    assert is_column(shared)
    assert type(shared) is (mori.SharedList if kind is list else mori.SharedTuple)
    unpickled = pickle.loads(pickle.dumps(plain))
    for got in (shared, [shared[i] for i in range(COUNT)], [*reversed(shared)][::-1], shared[0:COUNT]):
        assert all(map(same, got, plain))
        assert [one.strides for one in got if one.size] == [one.strides for one in unpickled if one.size]
    assert all(map(mori.is_shared, shared))
    assert not any(one.flags.writeable for one in shared)
    copied = mori.materialize(shared)
    assert type(copied) is kind
    assert [repr(one) for one in copied] == [repr(one) for one in plain]
    assert {type(one) for one in copied} == {np.ndarray}
    assert len(pickle.dumps(shared)) <= 100
    with mori.by_value():
        data = pickle.dumps(shared)
    assert all(map(same, pickle.loads(data), plain))


@pytest.mark.parametrize("key", [str, lambda i: i, lambda i: (i, "k"), lambda i: i + 0.5, np.int64])
def test_the_values_of_a_dict_are_a_column_whatever_the_keys(store, worker, key):
    plain = {key(i): array for i, array in enumerate(floats())}
    shared = mori.share(plain)
    assert is_column(shared)
    assert list(shared) == list(plain)
    assert all(same(shared[key], plain[key]) for key in plain)
    assert all(same(value, plain[key]) for key, value in shared.items())
    assert worker(sums, shared) == sums(plain)


_shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
_dtypes = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.complex_number_dtypes(),
    hnp.datetime64_dtypes(), hnp.unicode_string_dtypes(max_len=4), hnp.byte_string_dtypes(max_len=4),
    hnp.array_dtypes(max_size=3),
)  # fmt: skip


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from([list, tuple]))
def test_whatever_list_of_arrays_is_written_is_what_is_read(views, data, kind):
    dtype = data.draw(_dtypes)
    one_shape = data.draw(st.one_of(st.none(), _shapes))
    plain = kind(data.draw(st.lists(hnp.arrays(dtype, one_shape or _shapes, fill=st.nothing()), max_size=6)))
    got = _opened(region_of(plain))
    assert len(got) == len(plain)
    unpickled = pickle.loads(pickle.dumps(plain))  # of the machine's byte order; so are arrays in blocks
    for one, expected, again in zip(got, plain, unpickled, strict=True):
        assert same(one, expected) or (not is_column(got) and same(one, again))
        assert one.strides == again.strides or not one.size
    assert all(map(same, [got[i] for i in range(len(plain))], got))


def _twice():
    plain = floats()
    return [*plain, plain[7]]


class _Own(np.ndarray):
    pass


_OTHERS = {
    "one of another dtype": [*floats(), np.arange(3)],
    "one of another byte order": [*floats(), np.arange(3.0, dtype=">f8")],
    "one of another type of its size": [np.arange(3, dtype="lq"[i == 7]) for i in range(COUNT)],
    "one with more dimensions": [*floats(), np.zeros((1, 3))],
    "one of Fortran's order": [*(np.zeros((2, 3)) for _ in range(COUNT)), np.zeros((3, 2)).T],
    "one twice": _twice(),
    "one None": [*floats(), None],
    "one scalar": [*floats(), 1.5],
    "none with elements": [np.zeros((i, 0)) for i in range(COUNT)],
    "objects": [np.array([i, None]) for i in range(COUNT)],
    "objects in fields": [np.zeros(1, [("a", "O")]) for i in range(COUNT)],
    "metadata": [np.zeros(3, np.dtype("f8", metadata={"unit": "m"})) for i in range(COUNT)],
    "no item size": [np.zeros(3, "V0") for i in range(COUNT)],
    "a class of the user's": [*floats(), np.arange(3.0).view(_Own)],
    "record arrays": [np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]) for i in range(COUNT)],
    "masked arrays": [np.ma.array([1.5, 2.5], mask=[0, 1]) for i in range(COUNT)],
}  # fmt: skip


@pytest.mark.parametrize("plain", _OTHERS.values(), ids=_OTHERS)
def test_what_is_no_column_of_arrays_comes_back_exactly(plain):
    shared = mori.share(plain)
    assert not is_column(shared)
    for one, expected in zip(shared, plain, strict=True):
        assert isinstance(one, type(expected))
        if isinstance(expected, np.ndarray) and not expected.dtype.hasobject:
            assert (one.dtype, one.dtype.char, one.shape) == (
                expected.dtype,
                expected.dtype.char,
                expected.shape,
            )
            assert one.dtype.metadata == expected.dtype.metadata
            assert one.tobytes() == expected.tobytes()
            assert one.flags.f_contiguous == expected.flags.f_contiguous


def test_large_arrays_have_a_node_each():
    shared = mori.share([np.zeros(arrays._LARGE // 8) for _ in range(COUNT)])
    assert not is_column(shared)
    assert is_column(mori.share([np.zeros(arrays._LARGE // 8 - 1) for _ in range(COUNT)]))


# identity


def test_an_element_is_one_object_as_long_as_it_is_held():
    shared = mori.share({f"k{i}": array for i, array in enumerate(floats(1000))})
    first = shared["k7"]
    assert shared["k7"] is first
    assert shared.get("k7") is first
    assert [*shared.values()][7] is first
    everything = [*shared.values()]
    assert all(map(lambda a, b: a is b, everything, shared.values()))
    del everything
    gc.collect()
    assert shared["k7"] is first


def test_what_is_met_elsewhere_is_one_object_there_too():
    for size in (3, 500):  # in a stream, and a node of its own
        plain = [np.arange(float(size)) for _ in range(COUNT)]
        for obj in (
            {"list": plain + [np.zeros(size)] * 600, "more": [plain[0]] * 600},
            {"list": plain * 6, "dict": dict(enumerate(plain * 6))},
            [[(plain[3], 1)], *([i] for i in range(600)), plain * 6],
            [*([i] for i in range(600)), [*plain, *(np.zeros(size) for _ in range(600))], (plain[3],)],
        ):
            got = mori.share(obj)
            if isinstance(obj, dict):
                (_, one), (_, other) = got.items()
                assert one[0] is other[0]
            else:
                long = got[-1] if len(got[-1]) > 1 else got[-2]
                short = got[0] if len(got[-1]) > 1 else got[-1]
                assert long[3] is (short[0][0] if isinstance(short[0], tuple) else short[0])


def test_arrays_that_the_user_holds_as_well_are_a_column():
    plain = floats()
    alias = [*plain]
    assert is_column(mori.share(plain))
    assert is_column(mori.share(dict(enumerate(plain))))
    both = mori.share({"a": [*floats(600)], "b": [*floats(600)], "n": 1, "held": alias})
    assert both["a"]._node.record.codec == both["b"]._node.record.codec == Id.ARRAYS


# writing


@pytest.mark.parametrize("make", [list, tuple, lambda plain: dict(enumerate(plain))])
def test_a_write_to_an_element_is_kept_and_travels(worker, make):
    shared = mori.share(make(floats()))
    other = pickle.loads(pickle.dumps(shared))
    shared[7][1] = -1.0
    gc.collect()
    assert shared[7].tolist() == [7.0, -1.0, 9.0]
    assert not mori.is_shared(shared)
    assert not mori.is_shared(shared[7])
    assert mori.is_shared(shared[8])
    expected = sums(make(floats()))
    expected[7] = 15.0
    assert worker(sums, shared) == sums(pickle.loads(pickle.dumps(shared))) == expected
    assert sums(other) == sums(make(floats()))
    assert sums(copy.deepcopy(shared)) == sums(mori.materialize(shared)) == expected
    assert sums(mori.share(shared)) == expected


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # numpy 2.5
@pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")
def test_every_way_of_writing_is_noticed():
    ways = {
        "item": lambda x: x.__setitem__(0, 5),
        "in place": lambda x: x.__iadd__(1),
        "out": lambda x: np.add(x, 1, out=x),
        "sort": lambda x: x.sort(),
        "fill": lambda x: x.fill(2),
        "flags": lambda x: x.setflags(write=True),
        "flat": lambda x: x.flat.__setitem__(0, 1),
        "resize": lambda x: x.resize(5, refcheck=False),
        "shape": lambda x: setattr(x, "shape", (3, 1)),
        "dtype": lambda x: setattr(x, "dtype", "<i8"),
        "copyto": lambda x: np.copyto(x, 3),
    }
    for name, write in ways.items():
        shared = mori.share(floats())
        array = shared[5]
        write(array)
        kept = array.dtype, array.shape, array.tolist()
        del array
        assert (shared[5].dtype, shared[5].shape, shared[5].tolist()) == kept, name
        again = pickle.loads(pickle.dumps(shared))
        assert (again[5].dtype, again[5].shape, again[5].tolist()) == kept, name
        assert not mori.is_shared(shared), name


def test_writes_in_a_loop_over_all_are_kept():
    shared = mori.share({str(i): array for i, array in enumerate(floats(1000))})
    for array in shared.values():
        np.add(array, 1, out=array)
    assert sums(shared) == [3.0 * i + 6 for i in range(1000)]
    assert sums(pickle.loads(pickle.dumps(shared))) == [3.0 * i + 6 for i in range(1000)]


def test_a_write_inside_a_list_inside_others_is_kept():
    shared = mori.share({"a": [floats(600), floats(600)], "b": 1, **{str(i): [i] for i in range(600)}})
    array = shared["a"][1][9]
    for value in shared.values():
        assert value
    array[0] = 99
    del array
    for value in shared.values():
        assert value
    assert shared["a"][1][9][0] == 99
    assert pickle.loads(pickle.dumps(shared))["a"][1][9][0] == 99


def test_a_view_of_an_element_cannot_be_written_to_and_stays_as_it_was():
    shared = mori.share([np.arange(6.0).reshape(2, 3) + i for i in range(COUNT)])
    view = shared[4][1]
    with pytest.raises(mori.ReadOnlyViewError):
        view[0] = 1
    shared[4][1, 0] = -7
    assert view[0] == 7
    assert shared[4][1, 0] == -7


def test_a_list_that_was_changed_keeps_its_elements():
    shared = mori.share(floats())
    held = shared[3]
    shared.append(np.zeros(2))
    assert shared[3] is held
    held[0] = 50
    assert shared[3][0] == 50
    assert pickle.loads(pickle.dumps(shared))[3][0] == 50


def test_what_was_read_costs_nothing_when_the_container_is_pickled():
    shared = mori.share(floats(20_000))
    assert len(pickle.dumps(shared)) <= 100
    held = [*shared]
    tracemalloc.start()
    nbytes = len(pickle.dumps(shared))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert nbytes <= 100
    assert peak < 1 << 19  # to read them takes 8 MB
    assert len(held) == 20_000


# pickling elements


@pytest.mark.parametrize(
    "name", ["equal", "varying", "rows", "matrices", "no dimensions", "dates", "records"]
)
def test_an_element_and_its_views_travel_as_references(worker, name):
    plain = [_KINDS[name](i) for i in range(COUNT)]
    shared = mori.share(plain)
    for i in (0, 1, 50, COUNT - 1):
        element = shared[i]
        assert mori.is_shared(element)
        data = pickle.dumps(element)
        assert len(data) <= 160
        again = pickle.loads(data)
        assert same(again, plain[i])
        assert mori.is_shared(again)
        assert len(pickle.dumps(again)) == len(data)
        assert worker(np.ndarray.tobytes, element) == plain[i].tobytes()
        with mori.by_value():
            assert same(pickle.loads(pickle.dumps(element)), plain[i])
        for view in (element.T, element[::-1] if element.ndim else element, element[...]):
            assert pickle.loads(pickle.dumps(view)).tolist() == view.tolist()
            assert len(pickle.dumps(view)) <= 160


def test_a_reference_outlives_the_list_and_a_written_element_carries_its_data(worker):
    shared = mori.share([np.zeros(1000) + i for i in range(COUNT)])
    element = shared[5]
    element_data = pickle.dumps(element)
    del shared
    gc.collect()
    again = pickle.loads(element_data)
    assert again[0] == element[0] == 5
    element[0] = 7
    assert len(pickle.dumps(element)) > 8000
    assert worker(np.ndarray.tolist, element)[0] == 7
    assert again[0] == 5


def test_plain_views_of_elements_travel_through_multiprocessing_as_references():
    shared = mori.share(floats())
    assert len(ForkingPickler.dumps(np.asarray(shared[5]))) <= 250
    assert same(pickle.loads(ForkingPickler.dumps(np.asarray(shared[5]))), floats()[5])
    stacked = np.asarray(shared)
    assert len(ForkingPickler.dumps(stacked)) <= 250
    assert pickle.loads(ForkingPickler.dumps(stacked)).tolist() == stacked.tolist()


def test_a_plain_view_of_a_list_of_numbers_passes_multiprocessing():
    numbers = np.asarray(mori.share([0.5] * 1000))
    assert pickle.loads(ForkingPickler.dumps(numbers)).tolist() == numbers.tolist()


def test_names_lead_to_elements(worker):
    shared = mori.share(
        {"d": {str(i): array for i, array in enumerate(floats(600))}, "l": floats(600), "n": 1}
    )
    for part in (shared["d"]["7"], shared["l"][0], shared["l"][599]):
        name = mori.shared_name(part)
        assert mori.map_shared(name).tolist() == part.tolist()
        assert mori.is_shared(mori.map_shared(name))
    assert mori.shared_name(shared["l"][9]) == mori.shared_name(shared) + "[1,9]"
    assert mori.shared_name(shared["l"][9][1:]) is None
    varying = mori.share([np.arange(i % 3) for i in range(COUNT)])
    assert mori.shared_name(varying[5]) == mori.shared_name(varying) + "[5]"
    assert mori.shared_name(varying[3]) is None  # without elements it has no place
    with pytest.raises(mori.PartNotFoundError):
        mori.map_shared(mori.shared_name(varying) + f"[{COUNT}]")


# as one array


def test_arrays_of_one_shape_are_one_array_without_a_copy():
    plain = [np.full((2, 3), float(i)) for i in range(COUNT)]
    shared = mori.share(plain)
    stacked = np.asarray(shared)
    assert same(stacked, np.array(plain))
    assert np.shares_memory(stacked, shared[5])
    assert np.array(shared).flags.writeable
    assert same(np.asarray(shared, dtype="<f4"), np.array(plain, "<f4"))
    shared[5][0, 0] = -1
    assert np.asarray(shared)[5, 0, 0] == -1
    assert not np.shares_memory(np.asarray(shared), shared[4])
    with pytest.raises(ValueError, match="inhomogeneous"):
        np.asarray(mori.share([np.arange(i % 3) for i in range(COUNT)]))


def test_arrays_that_are_shared_already_are_a_column_once_more():
    first = mori.share(floats())
    again = mori.share(dict(enumerate(first)))
    assert is_column(again)
    assert sums(again) == sums(first)
    assert is_column(mori.share([np.asarray(array) for array in first]))


# memory and lifetime

_READER = """
import tracemalloc, mori
shared = mori.map_shared({name!r})
total = sum(float(array[0]) for array in shared.values())
tracemalloc.start()
total = sum(float(array[0]) for array in shared.values())
print(total, tracemalloc.get_traced_memory()[1])
"""


def test_a_reader_of_all_elements_keeps_none_of_them():
    shared = mori.share({i: np.full(100, float(i)) for i in range(20_000)})
    total, peak = run_python(_READER.format(name=mori.shared_name(shared))).split()
    assert float(total) == sum(range(20_000))
    assert int(peak) < 1 << 18  # 1.5 % of the elements


def test_elements_keep_the_region_and_nothing_else_does():
    mori_regions = len(mappings.live())
    shared = mori.share(floats())
    element, other = shared[1], shared[2]
    other[0] = 1
    del shared, other
    assert len(mappings.live()) == mori_regions + 1
    assert element.tolist() == [1.0, 2.0, 3.0]
    del element
    assert len(mappings.live()) == mori_regions


def _write(shared, number: int) -> list:
    shared[number][0] = number * 100.0
    return [float(shared[number][0]), float(shared[number + 1][0])]


def test_processes_write_on_their_own_account(store, worker, third):
    shared = mori.share(floats())
    assert worker(_write, shared, 5) == [500.0, 6.0]
    assert third(_write, shared, 6) == [600.0, 7.0]
    assert sums(shared) == sums(floats())


# damage


def _damaged(plain, change) -> bytes:
    plan = measure(plain)
    change(plan)
    return bytes_of(plan)


def _opened(data: bytes):
    return open_node(root_of(mappings.map_bytes(data)))


def _number(place: int, buffer: int, number: int):
    def change(plan):
        numbers = plan.buffers[buffer] = np.array(plan.buffers[buffer])
        numbers.reshape(-1)[place] = number

    return change


_RAGGED = [np.arange(float(i % 3)) for i in range(COUNT)]
_VARYING = [np.full((i % 3, 1 + i % 2), i) for i in range(COUNT)]


@pytest.mark.parametrize("number", [-1, -(2**63), 101, 10**6, 2**63 - 1])
@pytest.mark.parametrize(
    ("plain", "place", "buffer"),
    [(_RAGGED, 50, 1), (_VARYING, 50, 1), (_VARYING, 100, 2), (_VARYING, 101, 2)],
)
def test_offsets_and_shapes_that_lead_elsewhere_are_refused(views, plain, place, buffer, number):
    got = _opened(_damaged(plain, _number(place, buffer, number)))
    assert got[10].tolist() == plain[10].tolist()
    for read in (lambda: got[50], lambda: [got[49], got[50]], lambda: [*got], lambda: [*reversed(got)]):
        with pytest.raises(mori.CorruptRegionError):
            read()


def test_a_damaged_offset_is_found_in_memory_that_is_not_trusted(views):
    data = _damaged(_RAGGED, _number(50, 1, 10**9))
    shared = open_node(root_of(region.adopt(mappings.map_bytes(data))))
    with pytest.raises(mori.CorruptRegionError):
        list(shared)


_HUGE = (1 << 28, 1 << 40, 1 << 62, 1 << 64, 10**30)
_LENGTHS = (*_HUGE, -1, 0, 1.0, True, None, "4", 3, 5)
_SHAPES = (
    *(None, 3, "3", {}, [], [4], [-3], [3.0], [True], ["3"], [[3]], [3, 1, 0], [0], [None, 0], [None, -1]),
    *([0, None], [1] * 100, [None] * 100, [None, 7], [None] + [1] * 100),
    *([n] for n in _HUGE),
    *([n, n] for n in _HUGE),
    *([None, n] for n in _HUGE),
)
_DTYPES = (
    *("O", "|O8", "T", "", "<f4", "<f16", "|V0", "|S0", "|V96", "<U3", 3, None, [], {}, {"child": 8}),
    *({"fields": []}, {"base": "<f8", "shape": [0]}, {"base": "<f8", "shape": [1 << 62]}),
    *(f"|V{n}" for n in _HUGE),
)
_METAS = [
    *((kind, "<f8", 4, [3]) for kind in ("set", [], None)),
    *(("list", "<f8", n, shape) for n in _LENGTHS for shape in ([3], [None], [None, None])),
    *(("list", "<f8", 4, shape) for shape in _SHAPES),
    *(("list", dtype, 4, [3]) for dtype in _DTYPES),
]


@pytest.mark.parametrize("meta", _METAS, ids=str)
def test_a_hostile_meta_is_refused_without_asking_for_memory(views, meta):
    plain = [np.arange(3.0) for _ in range(4)]

    def change(plan):
        plan.meta = json.dumps(meta, separators=(",", ":")).encode()

    data = _damaged(plain, change)
    with pytest.raises(mori.CorruptRegionError):  # what an error imports is not its memory
        _opened(data)
    tracemalloc.start()
    try:
        with pytest.raises(mori.CorruptRegionError):
            _opened(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("buffers", [0, 2, 4])
def test_another_number_of_buffers_is_refused(views, buffers):
    def change(plan):
        plan.buffers = [*plan.buffers, *([np.zeros(5)] * 4)][:buffers]

    for plain in ([np.zeros(3), np.ones(3)], _VARYING):
        with pytest.raises(mori.CorruptRegionError):
            _opened(_damaged(plain, change))


def test_references_into_a_column_are_checked(views):
    shared = mori.share(floats())
    node = shared._node
    whole = node_at(node.mapping, node.offset)
    nbytes = 8 * 3 * COUNT
    assert whole.codec.view(whole, Strides(8, "", (2,), (8,))).tolist() == [1.0, 2.0]
    for view in (
        Strides(-8, "", (1,), (8,)), Strides(nbytes, "", (1,), (8,)), Strides(0, "", (3 * COUNT + 1,), (8,)),
        Strides(0, "|O8", (1,), (8,)), Strides(0, "", (2**62,), (8,)), Range(0, 1),
    ):  # fmt: skip
        with pytest.raises(mori.CorruptRegionError):
            whole.codec.view(whole, view)


def test_sharing_takes_no_second_copy():
    plain = [np.zeros(1000) for _ in range(5000)]
    tracemalloc.start()
    shared = mori.share(plain)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # of 40 MB
    assert len(shared) == 5000
