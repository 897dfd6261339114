"""Lists of one kind of value lie packed: exact, equal to the builtins, read where asked and no further."""

import datetime as dt
import decimal
import math
import pickle
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.codecs import packed
from mori.codecs.strings import Strings
from mori.format import codec
from mori.format.layout import Id
from mori.format.node import open_node, root_of
from mori.memory import mapping as mappings
from tests.regions import exact, region_of

pytestmark = pytest.mark.usefixtures("views")

KINDS = {
    "str": ["b", "", "ä森 🎲", "a longer string", "b"],
    "str with None": ["b", None, "", None, "x" * 50],
    "int": [3, -1, 0, 2**63 - 1, -(2**63)],
    "int with None": [None, 3, -1, None],
    "big int": [2**63, -(2**63) - 1, 0, -1, 2**200],
    "big int with None": [2**100, None],
    "float": [1.5, -0.0, math.inf, 5e-324, 1.5],
    "float with None": [None, 0.5],
    "bool": [True, False, True],
    "bool with None": [None, False, True],
    "bytes": [b"", b"\0\xff", b"abc"],
    "bytes with None": [None, b"x"],
    "complex": [1j, complex(-0.0, 2), complex(math.inf, -0.0)],
    "complex with None": [None, 1j],
    "date": [dt.date(2024, 2, 29), dt.date.min, dt.date.max],
    "date with None": [None, dt.date(1969, 12, 31)],
    "datetime": [dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime.min, dt.datetime.max],
    "datetime with None": [None, dt.datetime(2024, 2, 29)],
    "timedelta": [dt.timedelta(-1, 2, 3), dt.timedelta(0), dt.timedelta(days=100_000_000)],
    "timedelta with None": [dt.timedelta(1), None],
    "float32": [np.float32(1.5), np.float32("nan"), np.float32(-0.0)],
    "float32 with None": [None, np.float32(1.5)],
    "bool_": [np.True_, np.False_],
    "datetime64": [np.datetime64("2024-02-29T01", "ns"), np.datetime64("NaT", "ns")],
    "complex64": [np.complex64(1j)],
}
MIXED = [
    [True, 1, 1.0],
    [1, 1.0],
    ["a", b"a"],
    [None, None],
    [1, np.int64(2)],
    ["a", "\ud800"],
    [[1], [2]],
    [dt.date(2024, 2, 29), dt.datetime(2024, 2, 29)],
    [dt.datetime(2024, 2, 29), dt.datetime(2024, 2, 29, tzinfo=dt.UTC)],
    [dt.datetime(2024, 2, 29, fold=1)],
    [dt.timedelta.max],
    [np.datetime64(1, "s"), np.datetime64(1, "ns")],
    [np.float32(1), np.float64(1)],
    [np.longdouble(1)],
    [np.str_("a")],
]


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("name", KINDS)
def test_a_list_of_one_kind_is_one_node_and_comes_back_exactly(store, worker, name, kind):
    plain = kind(KINDS[name])
    shared = mori.share(plain)
    assert type(shared) is (mori.SharedList if kind is list else mori.SharedTuple)
    assert shared._node.record.codec == (Id.STRINGS if "str" in name else Id.PACKED)
    assert exact([*shared], [*plain])
    assert exact([shared[i] for i in range(len(plain))], [*plain])
    assert exact([*reversed(shared)], [*reversed(plain)])
    assert exact(mori.materialize(shared), plain)
    assert exact(worker(list, shared), [*plain])
    assert len(pickle.dumps(shared, 5)) <= 100
    with mori.by_value():
        data = pickle.dumps(shared, 5)
    assert exact([*pickle.loads(data)], [*plain])
    for take in (slice(1, 3), slice(None, None, -2), slice(-2, None), slice(3, 1)):
        assert exact(shared[take], plain[take])


ODD = {
    "a float": lambda x: x.__setitem__(3, 2.5),
    "a str": lambda x: x.__setitem__(0, "text"),
    "True at the end": lambda x: x.append(True),
    "several": lambda x: x.__setitem__(slice(90, 97), [None, b"b", 1.0, "", math.nan, False, 7]),
    "one that is long": lambda x: x.__setitem__(5, "x" * 10_000),
}


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("change", ODD)
@pytest.mark.parametrize("value", [1, "word", 0.5, b"bytes", 1 << 70])
def test_a_few_elements_of_other_kinds_leave_the_others_in_their_column(store, worker, kind, change, value):
    plain = [value] * 9000
    ODD[change](plain)
    plain = kind(plain)
    shared = mori.share(plain)
    assert shared._node.record.codec in (Id.PACKED, Id.STRINGS)
    assert exact([*shared], [*plain])
    assert exact([shared[i] for i in range(100)], [*plain[:100]])
    assert exact(shared[-1], plain[-1])
    assert exact([*shared[80:99]], [*plain[80:99]])
    assert exact(mori.materialize(shared), plain)
    assert exact(worker(list, shared), [*plain])
    assert shared[:90] == plain[:90]
    assert np.asarray(shared[:90], object).tolist() == [*plain[:90]]


def test_many_elements_of_other_kinds_come_back_from_wherever_they_stand(store):
    plain = [i if i % 70 else str(i) for i in range(100_000)]
    shared = mori.share(plain)
    assert shared._node.record.codec == Id.PACKED
    assert exact([*shared], plain)
    assert shared.index("70000") == 70_000
    assert "70001" not in shared


def test_damage_to_elements_of_other_kinds_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    data = bytearray(region_of([*range(1000), "the odd one"]))
    data[data.index(b"the odd one")] ^= 1
    with pytest.raises(mori.CorruptRegionError):
        open_node(root_of(mappings.map_bytes(data)))[1000]


def test_elements_of_other_kinds_name_no_class(monkeypatch):
    monkeypatch.setattr(packed, "_ODD", packed._ODD | {decimal.Decimal})
    data = region_of([*range(1000), decimal.Decimal(1)])
    with pytest.raises(mori.CorruptRegionError, match=r"decimal\.Decimal"):
        open_node(root_of(mappings.map_bytes(data)))[0]


@pytest.mark.parametrize("plain", MIXED, ids=repr)
def test_a_mixed_list_is_not_packed_and_keeps_its_types(store, plain):
    shared = mori.share(plain)
    assert shared._node.record.codec == Id.BLOCKS
    assert [type(v) for v in mori.materialize(shared)] == [type(v) for v in plain]
    assert mori.materialize(shared) == plain


def test_a_nan_keeps_its_payload(store):
    payload = struct.unpack("<d", b"\x01\x02\x03\x00\x00\x00\xf8\xff")[0]
    shared = mori.share([payload, math.nan])
    assert exact([*shared], [payload, math.nan])
    assert exact([shared[0], shared[1]], [payload, math.nan])


lists = st.one_of(
    st.lists(st.one_of(st.none(), st.text())),
    st.lists(st.text(st.characters(codec=None))),
    st.lists(st.one_of(st.none(), st.integers())),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    st.lists(st.one_of(st.none(), st.floats())),
    st.lists(st.one_of(st.none(), st.booleans())),
    st.lists(st.one_of(st.none(), st.binary())),
    st.lists(st.one_of(st.none(), st.complex_numbers())),
    st.lists(st.one_of(st.none(), st.dates())),
    st.lists(st.one_of(st.none(), st.datetimes(allow_imaginary=False))),
    st.lists(st.one_of(st.none(), st.timedeltas(dt.timedelta(-(10**8)), dt.timedelta(10**8)))),
)


@given(plain=lists, data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_list_of_one_kind_is_written_is_what_is_read(monkeypatch, plain, data):
    monkeypatch.setattr(packed, "BLOCK", data.draw(st.integers(1, 9)))
    monkeypatch.setattr(packed, "_BLOCK_NBYTES", data.draw(st.integers(1, 50)))
    monkeypatch.setattr(packed, "_MEASURED", data.draw(st.integers(1, 9)))
    monkeypatch.setattr(codec, "_JOINED_NBYTES", data.draw(st.integers(1, 50)))
    shared = open_node(root_of(mappings.map_bytes(region_of(plain))))
    assert exact([*shared], [*plain])
    start, stop = data.draw(st.integers(0, len(plain))), data.draw(st.integers(0, len(plain)))
    assert exact([*shared[start:stop]], [*plain[start:stop]])
    assert exact([shared[i] for i in range(len(plain))], [*plain])


@pytest.mark.parametrize("strings", [["a", None, "ä", ""], ["plain", "ascii"]])
def test_arrow_reads_the_buffers_of_strings_in_place(strings):
    pa = pytest.importorskip("pyarrow")
    node = root_of(mappings.map_bytes(region_of(strings)))
    validity, offsets, text = node.buffers()
    missing = pa.py_buffer(validity) if validity.nbytes else None
    array = pa.LargeStringArray.from_buffers(len(strings), pa.py_buffer(offsets), pa.py_buffer(text), missing)
    array.validate(full=True)
    assert array.to_pylist() == strings
    assert array.buffers()[2].address == text.ctypes.data


SEQUENCE_FAULTS = [
    "x[99]", "x[-99]", "x['a']", "x[1.5]", "x[None]", "x[::0]", "x.index('no')", "x.index('b', 1, 1)",
    "x.index('a', 'b')", "x.index('a', None)", "x + 3", "3 + x", "x + None",
    "x + other", "other + x", "x < 3", "x >= None", "3 < x", "x < other", "x * 'a'", "'a' * x", "x * 1.5",
    "x * x", "{x: 1}[9]", "hash([x])", "int(x)", "x @ x", "-x", "x.missing", "x()",
]  # fmt: skip
LIST_FAULTS = [
    "x.__setitem__(99, 1)", "x.__setitem__('a', 1)", "x.__setitem__(slice(0, 4, 2), [1])",
    "x.__delitem__(99)", "x.__delitem__('a')", "x.pop(99)", "x.pop(-99)", "x.pop('a')", "x.remove('no')",
    "x.insert('a', 1)", "x.extend(3)", "x.__iadd__(3)", "x.sort(key=3)", "hash(x)",
    "(x.clear(), x.pop())", "(x.clear(), x[0])",
]  # fmt: skip
SAMPLES = {"str": ["b", "a", "b"], "int": [1, 2, 1], "mixed": ["b", 1, None]}


def fault(use: str, x, other) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:
        eval(use, {"x": x, "other": other})
    text = str(caught.value).replace("SharedList", "list").replace("SharedTuple", "tuple")
    return type(caught.value), text


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_wrong_use_is_the_error_of_the_builtin_word_for_word(store, name, kind):
    plain = kind(SAMPLES[name])
    other = ("t",) if kind is list else ["l"]
    for use in SEQUENCE_FAULTS if kind is tuple else SEQUENCE_FAULTS + LIST_FAULTS:
        shared = mori.share(plain)
        if use == "{x: 1}[9]" and kind is list:
            continue  # a list is not hashable, and its error differs by version
        for another in (other, mori.share(other)):
            assert (use, *fault(use, shared, another)) == (use, *fault(use, kind(plain), other))


WRITES = [
    "x.append('n')", "x.extend(['n', 'm'])", "x.extend(x)", "x.insert(1, 'n')", "x.pop()", "x.pop(0)",
    "x.remove('b')", "x.reverse()", "x.sort()", "x.sort(reverse=True)", "x.clear()", "x.__iadd__('no')",
    "x.__imul__(2)", "x.__setitem__(0, 5)", "x.__setitem__(slice(1, None), 'xyz')", "x.__delitem__(-1)",
    "x.__delitem__(slice(None, None, 2))",
]  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_a_change_is_local_and_pickles_as_a_plain_list(store, worker, write):
    plain = ["b", "a", "b", "c"]
    shared, expected = mori.share(plain), list(plain)
    reference, other = pickle.dumps(shared), mori.share([shared, np.arange(3)])
    result = eval(write, {"x": shared})
    assert result is shared or result == eval(write, {"x": expected})
    if result is shared:
        eval(write, {"x": expected})
    assert shared == expected
    assert [*shared] == expected
    assert not mori.is_shared(shared)
    assert worker(lambda x: (type(x), x), shared) == (list, expected)
    assert pickle.loads(reference) == plain
    assert other[0] == plain


@pytest.mark.parametrize(
    "fault", ["x.pop(9)", "x.remove('z')", "x.__setitem__(9, 1)", "x.insert('a', 1)", "x.extend(1)"]
)
def test_a_change_that_fails_leaves_a_list_shared(store, fault):
    shared = mori.share(["a", "b"])
    with pytest.raises((IndexError, ValueError, TypeError)):
        eval(fault, {"x": shared})
    assert mori.is_shared(shared)


def test_packed_lists_compare_and_combine_like_the_builtins(store):
    plain = [f"s{i:05}" for i in range(3000)]
    shared = mori.share(plain)
    other = [*plain[:2500], "z", *plain[2501:]]
    for theirs in (other, mori.share(other)):
        assert shared != theirs
        assert shared < theirs
        assert shared <= theirs
        assert not shared > theirs
    for theirs in (plain, mori.share(plain)):
        assert shared == theirs
        assert shared <= theirs
        assert not shared < theirs
    assert shared < [*plain, "a"]
    assert shared > plain[:-1]
    one = ["x"]
    assert shared + one == [*plain, "x"]
    assert one + shared == ["x", *plain]
    assert shared * 2 == plain * 2 == 2 * shared
    assert shared.index("s02700") == 2700
    assert shared.index("s02700", -400) == 2700
    assert "s02999" in shared
    assert "z" not in shared
    assert shared.count("s00001") == 1
    assert hash(mori.share(tuple(plain))) == hash(tuple(plain))


@pytest.mark.parametrize(
    ("plain", "dtype"), [([1, 2, 3], "int64"), ([0.5, 1.5], "float64"), ([True, False], "bool")]
)
def test_numbers_are_an_array_over_the_region(store, plain, dtype):
    shared = mori.share(plain)
    array = np.asarray(shared)
    assert (type(array), array.dtype, array.tolist()) == (np.ndarray, np.dtype(dtype), plain)
    assert not array.flags.writeable
    assert mappings.held_by(array) is shared._node.mapping
    assert np.shares_memory(array, np.asarray(shared))
    changed = np.array(shared)
    changed[0] = plain[1]
    assert shared == plain
    assert np.asarray(shared, "c8").tolist() == np.asarray(plain, "c8").tolist()
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        assert np.asarray(shared, copy=False) is not None
        with pytest.raises(ValueError, match="copy"):
            np.asarray(shared, "c8", copy=False)
    assert np.add(shared, 1).tolist() == np.add(plain, 1).tolist()
    del shared
    assert array.tolist() == plain
    changed = mori.share(plain)
    changed.append(plain[0])
    assert np.asarray(changed).tolist() == [*plain, plain[0]]


@pytest.mark.parametrize(
    "plain", [["a", "bc"], [1, None], [1, 2.5], [2**70, 1], [b"x"], [], [1, "a"]], ids=repr
)
def test_what_is_no_array_of_numbers_converts_as_the_list_does(store, plain):
    ours, theirs = np.asarray(mori.share(plain)), np.asarray(plain)
    assert (ours.dtype, ours.tolist()) == (theirs.dtype, theirs.tolist())


def test_pandas_takes_a_mixed_list_as_objects(store):
    pd = pytest.importorskip("pandas")
    for plain in ([1, "a"], ["a", None], [1, 2], [1, None]):
        pd.testing.assert_series_equal(pd.Series(mori.share(plain)), pd.Series(plain))


def test_elements_of_a_packed_list_have_names(store, worker):
    shared = mori.share([0, {"k": [f"s{i}" for i in range(600)]}, list(range(1000, 1600))])
    root = mori.shared_name(shared)
    assert mori.shared_name(shared[2]) == f"{root}[2]"
    assert worker(mori.map_shared, f"{root}[2,5]") == 1005
    assert mori.map_shared(f"{root}[1,0,7]") == "s7"
    for path in ("[2,600]", "[2,5,0]", "[1,0,600]", "[1,0,0,0]"):
        with pytest.raises(mori.PartNotFoundError, match=r"no part /mori_"):
            mori.map_shared(root + path)


def test_opening_decodes_nothing_and_an_element_only_itself(monkeypatch, store):
    decoded = []
    value, values = packed.Pieces._value, packed.Pieces._values

    def count_one(self, index):
        decoded.append((index, index + 1))
        return value(self, index)

    def count_many(self, start, stop):
        decoded.append((start, stop))
        return values(self, start, stop)

    monkeypatch.setattr(packed.Pieces, "_value", count_one)
    monkeypatch.setattr(packed.Pieces, "_values", count_many)
    shared = pickle.loads(pickle.dumps(mori.share([f"string {i}" for i in range(100_000)])))
    assert len(shared) == 100_000
    assert decoded == []
    assert shared[77_777] == "string 77777"
    assert decoded == [(77_777, 77_778)]
    decoded.clear()
    assert next(iter(shared)) == "string 0"
    assert decoded == [(0, packed.BLOCK)]
    decoded.clear()
    assert repr(shared).endswith(", ... 100,000 in all]>")
    assert decoded == [(0, packed.BLOCK)]


def test_one_damaged_element_is_an_error_and_the_others_are_read(monkeypatch):
    strings = [f"ä{i}" for i in range(100)]
    data = bytearray(region_of(strings))
    node = root_of(mappings.map_bytes(bytes(data)))
    _, offsets, text = node.buffers()
    at = text.ctypes.data - node.mapping.address
    data[at] = 0xFF  # no UTF-8
    bad = open_node(root_of(mappings.map_bytes(bytes(data))))
    assert bad[1:] == strings[1:]
    for read in (
        lambda: bad[0],
        lambda: [*bad],
        lambda: "no" in bad,
        lambda: bad == strings,
        lambda: bad[:2],
    ):
        with pytest.raises(mori.CorruptRegionError):
            read()
    ends = offsets.ctypes.data - node.mapping.address
    for forged in (-1, 2**62, 0, 5, 10_000):  # behind, beyond, back, within a character
        data = bytearray(region_of(strings))
        struct.pack_into("<q", data, ends + 8 * 50, forged)
        bad = open_node(root_of(mappings.map_bytes(bytes(data))))
        assert bad[:49] == strings[:49]
        with pytest.raises(mori.CorruptRegionError):
            bad[49:51]
        with pytest.raises(mori.CorruptRegionError):
            bad[49], bad[50]


def test_a_repr_is_bounded(store):
    for plain in (["x" * 10**6] * 3, [b"x" * 10**6], [2**100_000, 1]):
        assert len(repr(mori.share(plain))) < 400
    assert repr(mori.share(["a", None])) == "<SharedList ['a', None]>"


FEW = {
    "few": lambda n: [f"ä{i % 7}" for i in range(n)],
    "two bytes": lambda n: [f"value {i % 300}" for i in range(n)],
    "with None": lambda n: ["a" if i % 3 else None for i in range(n)],
    "of one": lambda n: ["森"] * n,
    "with an odd one": lambda n: [*["a", "b"] * (n // 2 - 1), "c", 5],
}


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("name", FEW)
def test_strings_of_few_values_stand_there_once(store, worker, name, kind):
    plain = kind(FEW[name](5000))
    shared = mori.share(plain)
    assert shared._node.extent < 3 * len(plain) + 8192
    assert exact(kind(shared), plain)
    assert worker(lambda x: [x[0], x[2500], x[-1], *x[7:11]], shared) == [
        *(plain[0], plain[2500], plain[-1]),
        *plain[7:11],
    ]
    assert exact(mori.materialize(shared), plain)


def test_strings_of_many_values_stand_there_each():
    plain = [f"{i % 3000}" for i in range(9000)]
    assert len(region_of(plain)) > 9 * len(plain)
    assert [*mori.share(plain)] == plain
    assert [*mori.share(["\udc80", "a"] * 500)] == ["\udc80", "a"] * 500
    long = ["a" * 40_000, "b" * 40_000] * 50  # a reader would keep them
    assert len(region_of(long)) > 100 * 40_000


def test_an_element_of_few_values_is_decoded_alone(monkeypatch):
    decoded: list[int] = []
    plain = Strings.block
    monkeypatch.setattr(Strings, "block", lambda *args: (decoded.append(1), plain(*args))[1])
    shared = mori.share(FEW["few"](5000))
    assert (shared[9], decoded) == ("ä2", [])
    assert (next(iter(shared)), decoded) == ("ä0", [1])


def test_a_damaged_code_is_an_error_and_the_others_are_read():
    plain = ["a", "b", "c", "d"] * 50
    data = bytearray(region_of(plain))
    node = root_of(mappings.map_bytes(bytes(data)))
    data[node.buffers()[1].ctypes.data - node.mapping.address + 9] = 4
    bad = open_node(root_of(mappings.map_bytes(bytes(data))))
    assert bad[:9] == plain[:9]
    with pytest.raises(mori.CorruptRegionError):
        bad[9]
    with pytest.raises(mori.CorruptRegionError):
        list(bad)
