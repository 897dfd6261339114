"""pyarrow's arrays and tables come back as what they are, over the region's memory."""

from __future__ import annotations

import base64
import decimal
import gc
import multiprocessing
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mori
from mori.adapters import use_transport
from mori.codecs.arrow_buffers import (
    Pieces,
    checked,
    put_together,
    schema_from_plain,
    schema_to_plain,
    take_apart,
)
from mori.memory import mapping as mappings
from tests.mori.test_memory import _name, _run

MB = 1 << 20


def arrays() -> dict[str, pa.Array]:
    """Return an array of each kind of type, some of it missing."""
    text = ["a", None, "", "x" * 40, "ä", "zz"]
    codes = pa.DictionaryArray.from_arrays(pa.array([0, None, 1, 0], pa.int8()), ["b", "a"], ordered=True)
    return {
        "null": pa.nulls(5),
        "bool": pa.array([True, None, False, True, True] * 5),
        "int8": pa.array([1, None, -3] * 9, pa.int8()),
        "uint64": pa.array([1, 2**64 - 1], pa.uint64()),
        "half": pa.array(np.array([1, np.nan], "f2")),
        "double": pa.array([0.5, None, float("nan")]),
        "decimal": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(5, 2)),
        "decimal256": pa.array([decimal.Decimal("1.25"), None], pa.decimal256(50, 2)),
        "date": pa.array([1, None], pa.date32()),
        "time": pa.array([1, None], pa.time64("ns")),
        "timestamp": pa.array([1, None, 3], pa.timestamp("us", "Europe/Paris")),
        "duration": pa.array([1, None, 3], pa.duration("ms")),
        "interval": pa.array([None, (1, 2, 3)], pa.month_day_nano_interval()),
        "string": pa.array(text),
        "large_string": pa.array(text, pa.large_string()),
        "binary": pa.array([b"a", None, b"\xff"], pa.binary()),
        "fixed_binary": pa.array([b"ab", None, b"cd"], pa.binary(2)),
        "no_bytes": pa.array([b"", None], pa.binary(0)),
        "list": pa.array([[1, 2], None, [], [None, 3]]),
        "large_list": pa.array([["a"], None, [None, "b"]], pa.large_list(pa.string())),
        "fixed_list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
        "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
        "no_fields": pa.array([{}, None], pa.struct([])),
        "map": pa.array([[("a", 1)], None, [], [("b", 2), ("c", None)]], pa.map_(pa.string(), pa.int64())),
        "dictionary": codes,
        "dictionaries": pa.ListArray.from_arrays(pa.array([0, 1, 3]), codes.slice(1)),
        "runs": pc.run_end_encode(pa.array(["a", "a", None, None, None, "b"])),
        "dense_union": pa.UnionArray.from_dense(
            pa.array([0, 1, 1, 0], pa.int8()),
            pa.array([0, 0, 1, 1], pa.int32()),
            [pa.array([1, None]), pa.array(["a", "b"])],
        ),
        "sparse_union": pa.UnionArray.from_sparse(
            pa.array([5, 7, 7], pa.int8()),
            [pa.array([1, 2, 3]), pa.array(["a", None, "c"])],
            ["x", "y"],
            [5, 7],
        ),
        "tensor": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))
        ),
        "nest": pa.array([[{"a": ["x", None], "b": 1}], None, [], [{"a": None, "b": None}, None]] * 3),
        "empty": pa.array([], pa.list_(pa.struct([("a", pa.string())]))),
        "annotated": pa.array(
            [{"a": 1}], pa.struct([pa.field("a", pa.int8(), nullable=False, metadata={"unit": "m"})])
        ),
        "string_view": pa.array(text, pa.string_view()),
        "binary_view": pa.array([b"a", None, b"x" * 40], pa.binary_view()),
        "list_view": pa.array([[1, 2], None, [], [3]], pa.list_view(pa.int16())),
        "large_list_view": pa.array([["a"], None, ["b", "c"]], pa.large_list_view(pa.string())),
    }


ARRAYS = arrays()
VIEWS = ("string_view", "binary_view")
CAN_VIEW = int(pa.__version__.partition(".")[0]) >= 18  # older ones cannot put views together
READS_SLICED_UNIONS = ARRAYS["sparse_union"].slice(1).to_pylist() == ARRAYS["sparse_union"].to_pylist()[1:]
KINDS = [name for name in ARRAYS if CAN_VIEW or name not in VIEWS]


def buffers_of(obj: Any) -> Iterator[pa.Buffer]:
    """Yield every buffer of an array, a chunked array, a batch or a table that has bytes."""
    if isinstance(obj, pa.Table | pa.RecordBatch):
        for column in obj.columns:
            yield from buffers_of(column)
    elif isinstance(obj, pa.ChunkedArray):
        for chunk in obj.chunks:
            yield from buffers_of(chunk)
    else:
        yield from (buffer for buffer in obj.buffers() if buffer is not None and buffer.size)
        if isinstance(obj, pa.DictionaryArray):
            yield from buffers_of(obj.dictionary)


def is_mapped(obj: Any) -> bool:
    return all(mappings.mapping_at(buffer.address, buffer.size) for buffer in buffers_of(obj))


def same(got: Any, expected: Any) -> bool:
    """Say whether two arrays have the same class, type and values, NaN being NaN."""
    return (
        type(got) is type(expected)
        and got.type.equals(expected.type, check_metadata=True)
        and len(got) == len(expected)
        and got.null_count == expected.null_count
        and repr(got.to_pylist()) == repr(expected.to_pylist())
    )


@pytest.mark.parametrize("name", KINDS)
def test_an_array_of_every_type_comes_back_over_the_region(store: str, name: str) -> None:
    expected = ARRAYS[name]
    shared = mori.share(expected)
    assert same(shared, expected)
    shared.validate(full=True)
    assert is_mapped(shared)


@pytest.mark.parametrize("name", KINDS)
def test_every_slice_is_written_as_what_it_is(name: str) -> None:
    if name == "sparse_union" and not READS_SLICED_UNIONS:
        pytest.skip(f"pyarrow {pa.__version__} reads wrong elements from a slice of a sparse union")
    array = ARRAYS[name]
    for start in range(min(len(array) + 1, 12)):
        for length in {0, 1, 2, 5, len(array) - start}:
            part = array.slice(start, length)
            pieces = Pieces()
            plain = take_apart(part, pieces)
            written = [np.frombuffer(piece.tobytes(), np.uint8) for piece in pieces]
            assert same(checked(put_together(part.type, plain, written), trusted=False), part)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("dictionaries", "empty")])
def test_what_is_whole_is_written_from_its_own_memory(name: str) -> None:
    array = ARRAYS[name]
    pieces = Pieces()
    take_apart(array, pieces)
    own = {buffer.address for buffer in buffers_of(array)}
    for piece in pieces:
        assert not piece.nbytes or piece.__array_interface__["data"][0] in own


@pytest.mark.parametrize(
    "array",
    [
        pa.array(np.arange(MB)),
        pa.array(["x" * 50] * (MB // 50)),
        pa.array([["abc"]] * (MB // 8)),
        pa.array([{"a": 1, "b": [2.0]}] * (MB // 16)),
        pa.array([[1, 2]] * (MB // 8), pa.list_(pa.int64(), 2)),
        pa.array([[1, 2]] * (MB // 8), pa.list_view(pa.int64())),
        pa.array([[("k", 1)]] * (MB // 16), pa.map_(pa.string(), pa.int64())),
        pa.UnionArray.from_dense(
            pa.array(np.zeros(MB, np.int8)),
            pa.array(np.arange(MB, dtype=np.int32)),
            [pa.array(np.arange(MB)), pa.array(["x"])],
        ),
        pc.run_end_encode(pa.array(np.arange(MB))),
        *([pa.array([f"{i:050}" for i in range(MB // 50)], pa.string_view())] if CAN_VIEW else []),
    ],
    ids=lambda array: str(array.type)[:12],
)
@pytest.mark.parametrize("start", [0, 1003])
def test_ten_rows_of_a_large_array_write_ten_rows(array: pa.Array, start: int) -> None:
    pieces = Pieces()
    part = array.slice(start, 10)
    plain = take_apart(part, pieces)
    assert sum(piece.nbytes for piece in pieces) <= 2048
    assert same(checked(put_together(part.type, plain, pieces), trusted=False), part)


def table() -> pa.Table:
    schema = pa.schema(
        [
            pa.field("i", pa.int64(), nullable=False, metadata={"unit": "s"}),
            pa.field("s", pa.string()),
            pa.field("d", pa.dictionary(pa.int8(), pa.string())),
            pa.field("i", pa.list_(pa.float32())),
        ],
        metadata={"k": "v"},
    )
    batch = pa.record_batch(
        [
            pa.array([1, 2, 3]),
            pa.array(["a", None, "ccc"]),
            pa.array(["x", "y", "x"]).cast(schema.field(2).type),
            pa.array([[1.0], None, []], pa.list_(pa.float32())),
        ],
        schema=schema,
    )
    return pa.Table.from_batches([batch, batch.slice(1), batch])


def test_a_table_keeps_its_schema_its_metadata_and_its_chunks(store: str, worker: Any) -> None:
    expected = table()
    shared = mori.share(expected)
    assert type(shared) is pa.Table
    assert shared.equals(expected, check_metadata=True)
    assert shared.schema.equals(expected.schema, check_metadata=True)
    assert [list(map(len, c.chunks)) for c in shared.columns] == [[3, 2, 3]] * 4
    assert is_mapped(shared)
    tree = mori.share({"t": expected})
    values = [column.to_pylist() for column in expected.columns]
    assert worker(lambda tree: [column.to_pylist() for column in tree["t"].columns], tree) == values


def test_a_dictionary_that_chunks_share_is_written_once(store: str) -> None:
    words = pa.array([f"{i:0100}" for i in range(1000)])
    chunk = pa.DictionaryArray.from_arrays(pa.array([0, 999]), words)
    shared = mori.share(pa.chunked_array([chunk] * 20))
    assert shared.chunk(19).to_pylist() == chunk.to_pylist()
    assert sum(mapping.nbytes for mapping in mappings.live()) < 120_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: table().to_batches()[1],
        lambda: table()["s"],
        lambda: pa.chunked_array([], pa.string()),
        lambda: pa.chunked_array([pa.array([1]), pa.array([], pa.int64())]),
        lambda: pa.table({}),
        lambda: pa.table({}).replace_schema_metadata({"k": "v"}),
        lambda: table().select([]),
        lambda: table().to_batches()[0].select([]),
        lambda: table().slice(2, 3),
        lambda: table().schema,
        lambda: table()["s"].type,
        lambda: pa.scalar(3, pa.int8()),
    ],
)
def test_inside_a_container_each_comes_back_as_it_is(store: str, make: Any) -> None:
    expected = make()
    got = mori.share({"a": [expected]})["a"][0]
    assert type(got) is type(expected)
    assert got.equals(expected)
    if hasattr(expected, "schema"):
        assert got.schema.equals(expected.schema, check_metadata=True)
        assert got.num_rows == expected.num_rows
    if isinstance(expected, pa.ChunkedArray):
        assert list(map(len, got.chunks)) == list(map(len, expected.chunks))


class Celsius(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.float64(), "mori.tests.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Celsius:
        return cls()


def test_an_extension_type_comes_back_whether_it_is_registered_or_not(store: str) -> None:
    array = pa.ExtensionArray.from_storage(Celsius(), pa.array([1.0, None]))
    for registered in (False, True):
        if registered:
            pa.register_extension_type(Celsius())
        try:
            got = mori.share([array])[0]
            assert got.type == Celsius()
            assert got.storage.to_pylist() == [1.0, None]
            assert is_mapped(got) or not registered
        finally:
            if registered:
                pa.unregister_extension_type("mori.tests.celsius")


def test_an_array_outlives_what_it_was_taken_from(store: str) -> None:
    tree = mori.share({"t": table()})
    column = tree["t"]["s"].chunk(0)
    del tree
    gc.collect()
    assert column.to_pylist() == ["a", None, "ccc"]
    assert len(mappings.live()) == 1


def test_a_table_is_known_as_shared_and_shared_once(store: str) -> None:
    shared = mori.share(table())
    assert mori.is_shared(shared)
    assert mori.share(shared) is shared
    name = mori.shared_name(shared)
    assert mori.map_shared(name).equals(shared)
    tree = mori.share(["x", table()])
    assert str(mori.shared_name(tree[1])).endswith("[1]")
    assert not mori.is_shared(table())


def _look(obj: Any) -> tuple[Any, ...]:
    return mori.is_shared(obj), type(obj).__name__, obj.nbytes


def _column(obj: Any) -> Any:
    return mori.map_shared(mori.shared_name(obj))


def test_multiprocessing_sends_what_was_opened_as_a_reference(store: str) -> None:
    tree = mori.share({"t": pa.table({"x": np.arange(100_000)}), "a": pa.array(np.arange(100_000))})
    parts = [tree["t"], tree["a"], mori.share(table()), mori.share(table()["s"])]
    for part in parts:
        assert len(ForkingPickler.dumps(part)) <= 150
        assert len(ForkingPickler.dumps([part, {"again": part}])) <= 250
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for part in parts:
            assert pool.apply(_look, (part,)) == (True, type(part).__name__, part.nbytes)
            again = pool.apply(_column, (part,))  # and back
            assert mori.is_shared(again)
            assert again.equals(part)
        pool.close()
        pool.join()
    with mori.by_value():
        data = bytes(ForkingPickler.dumps(tree["t"]))
    assert len(data) > 800_000
    assert not mori.is_shared(pickle.loads(data))


def test_any_pickler_sends_it_as_a_reference_while_an_adapter_says_so(store: str) -> None:
    shared = mori.share(pa.table({"x": np.arange(100_000)}))
    for obj in (shared, [shared, shared]):
        assert len(pickle.dumps(obj, 5)) > 800_000  # as pyarrow pickles it
        with use_transport("reference"):
            data = pickle.dumps(obj, 5)
        assert len(data) < 150
        assert pickle.loads(data) == obj
        with use_transport("value"):
            assert len(pickle.dumps(obj, 5)) > 800_000
    plain = pa.table({"x": np.arange(100_000)})
    with use_transport("reference"):
        assert pickle.loads(pickle.dumps(plain)) == plain
        assert len(pickle.dumps(shared.slice(1), 5)) > 800_000


def test_what_is_derived_and_what_was_never_shared_goes_by_value(store: str) -> None:
    shared = mori.share(pa.table({"x": np.arange(1000)}))
    for obj in (shared.slice(1), shared["x"], pa.table({"x": np.arange(1000)})):
        got = pickle.loads(bytes(ForkingPickler.dumps(obj)))
        assert not mori.is_shared(got)
        assert got.equals(obj)


def test_by_value_a_tree_carries_its_tables(store: str) -> None:
    tree = mori.share({"t": table()})
    with mori.by_value():
        data = pickle.dumps(tree)
    del tree
    gc.collect()
    got = pickle.loads(data)
    assert got["t"].equals(table(), check_metadata=True)


_plain_types = st.sampled_from(
    [
        (pa.int8(), st.integers(-128, 127)),
        (pa.float64(), st.floats(allow_nan=False)),
        (pa.bool_(), st.booleans()),
        (pa.string(), st.text(max_size=20)),
        (pa.large_binary(), st.binary(max_size=20)),
        *([(pa.string_view(), st.text(max_size=20))] if CAN_VIEW else []),
    ]
)
_types = st.recursive(
    _plain_types,
    lambda inner: st.one_of(
        inner.map(lambda pair: (pa.list_(pair[0]), st.lists(pair[1] | st.none(), max_size=3))),
        inner.map(lambda pair: (pa.large_list(pair[0]), st.lists(pair[1] | st.none(), max_size=3))),
        inner.map(lambda pair: (pa.list_(pair[0], 2), st.lists(pair[1] | st.none(), min_size=2, max_size=2))),
        st.tuples(inner, inner).map(
            lambda pairs: (
                pa.struct([("a", pairs[0][0]), ("b", pairs[1][0])]),
                st.fixed_dictionaries({"a": pairs[0][1] | st.none(), "b": pairs[1][1] | st.none()}),
            )
        ),
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_any_chunked_array_comes_back(data: st.DataObject) -> None:
    kind, values = data.draw(_types)
    chunks = []
    for _ in range(data.draw(st.integers(0, 3))):
        chunk = pa.array(data.draw(st.lists(values | st.none(), max_size=20)), kind)
        chunks.append(chunk.slice(data.draw(st.integers(0, len(chunk))), data.draw(st.integers(0, 20))))
    expected = pa.chunked_array(chunks, kind)
    got = mori.share(expected)
    got.validate(full=True)
    assert got.type == expected.type
    assert [chunk.to_pylist() for chunk in got.chunks] == [chunk.to_pylist() for chunk in expected.chunks]


_READ = """
import pyarrow as pa, pyarrow.compute as pc
pc.sum(pa.array([1.0]))
mori.map_shared(sys.argv[1])
gc.collect(); gc.disable()
before = private()
table = mori.map_shared(sys.argv[2])
opened = private()
total = pc.sum(table["x"]).as_py() + pc.max(pc.binary_length(table["s"])).as_py()
report(total=total, opened=opened - before, rows=table.num_rows)
"""


def test_a_reader_of_a_large_table_has_no_copy_of_it(store: str) -> None:
    rows = 1_000_000
    text = pa.array(["some text of its own"] * rows)
    small = mori.share(table())
    large = mori.share(pa.table({"x": np.ones(rows), "s": text}))
    found = _run(_READ, _name(small), _name(large))
    assert (found["rows"], found["total"]) == (rows, rows + 20)
    assert found["opened"] <= (256 << 10 if store == "memfd" else 2 * MB)


@pytest.mark.parametrize("text", ["column name", "inner name", "Europe/Paris", "key of dictionary"])
def test_a_damaged_name_in_a_schema_is_refused_when_it_is_read(text: str) -> None:
    """Arrow would decode it when somebody asks for it."""
    inner = pa.struct([("inner name", pa.list_(pa.timestamp("us", "Europe/Paris")))])
    keyed = pa.dictionary(pa.int8(), pa.struct([("key of dictionary", pa.int8())]))
    schema = pa.schema([("column name", pa.int8()), ("s", inner), ("d", keyed)])
    plain = schema_to_plain(schema)
    assert schema_from_plain(plain).equals(schema, check_metadata=True)
    data = base64.b64decode(plain)
    assert data.count(text.encode()) == 1
    damaged = data.replace(text.encode(), text[:-1].encode() + b"\xff")
    with pytest.raises(UnicodeDecodeError):
        schema_from_plain(base64.b64encode(damaged).decode())
