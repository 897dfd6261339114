"""A stream of record batches is written as it comes, to shared memory or to a file, and is a table then."""

from __future__ import annotations

import datetime as dt
import os
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mori
from tests.fresh import run_python, run_unshared

ROWS = 100_000
SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("s", pa.string()),
        ("l", pa.list_(pa.int32())),
        ("d", pa.dictionary(pa.int32(), pa.string())),
        ("t", pa.timestamp("us", "UTC")),
        ("b", pa.bool_()),
        ("f", pa.struct([("x", pa.float64())])),
    ],
    metadata={"made": "here"},
)


def batch(number: int, rows: int = ROWS) -> pa.RecordBatch:
    start = number * rows
    numbers = np.arange(start, start + rows)
    columns = [
        pa.array(numbers),
        pa.array([None if i % 7 == 0 else f"row {i}" for i in numbers]),
        pa.array([[i, i + 1] for i in range(rows)], pa.list_(pa.int32())),
        pa.array([f"kind {i % 5}" for i in numbers]).dictionary_encode(),
        pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)] * rows, SCHEMA.field("t").type),
        pa.array(numbers % 2 == 0),
        pa.array([{"x": float(i)} for i in range(rows)], SCHEMA.field("f").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


class Query:
    """A source that is no class of pyarrow's: a query of another library."""

    def __init__(self, *batches: pa.RecordBatch) -> None:
        self._batches = batches

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        reader = pa.RecordBatchReader.from_batches(SCHEMA, self._batches)
        return reader.__arrow_c_stream__(requested_schema)


@pytest.mark.each_store
def test_a_stream_is_shared_as_a_table(store, worker):
    batches = [batch(number) for number in range(6)]
    x = mori.share(Query(*batches))
    assert isinstance(x, pa.Table)
    assert x.equals(pa.Table.from_batches(batches), check_metadata=True)
    assert mori.is_shared(x)
    assert worker(lambda x: (x.num_rows, x["s"][1].as_py()), x) == (6 * ROWS, "row 1")
    assert len(ForkingPickler.dumps(x)) < 200


@pytest.mark.parametrize("count", [0, 1, 6])
def test_a_stream_is_saved_as_a_table(count, tmp_path, worker):
    batches = [batch(number) for number in range(count)]
    path = tmp_path / "x.mori"
    mori.save(pa.RecordBatchReader.from_batches(SCHEMA, batches), path)
    x = mori.load(path, verify=True)
    assert x.equals(pa.Table.from_batches(batches, SCHEMA), check_metadata=True)
    assert worker(lambda x: x.num_rows, x) == count * ROWS
    assert os.listdir(tmp_path) == ["x.mori"]
    again = mori.share(x)
    assert again.equals(x)
    mori.save(x, path)
    assert mori.load(path).equals(x)


def test_no_more_than_some_batches_are_in_private_memory(tmp_path):
    code = f"""
        import numpy as np, pyarrow as pa, mori
        rng = np.random.default_rng(0)
        def batches():
            for _ in range(300):
                yield pa.record_batch([pa.array(rng.random(200_000))], ["x"])
        schema = pa.schema([("x", pa.float64())])
        def peak():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1000
        mori.save(pa.RecordBatchReader.from_batches(schema, [next(batches())]), {str(tmp_path / "a")!r})
        before = peak()
        mori.save(pa.RecordBatchReader.from_batches(schema, batches()), {str(tmp_path / "b")!r})
        x = mori.load({str(tmp_path / "b")!r})
        assert x.num_rows == 60_000_000
        print(int(peak() - before))
    """
    assert int(run_python(code)) < 120  # of 480


def test_a_stream_that_fails_leaves_nothing(tmp_path):
    def batches() -> Any:
        yield batch(0)
        yield batch(1)
        yield batch(2)
        raise ZeroDivisionError("the query failed")

    path = tmp_path / "x.mori"
    mori.save([1], path)
    for write in (mori.share, lambda reader: mori.save(reader, path)):
        with pytest.raises(pa.ArrowInvalid, match="the query failed"):
            write(pa.RecordBatchReader.from_batches(SCHEMA, batches()))
    assert mori.load(path) == [1]
    assert os.listdir(tmp_path) == ["x.mori"]


def test_a_stream_that_finds_no_room_says_so():
    run_unshared(
        "mount -t tmpfs -o size=40m tmpfs /mnt",
        """
        import os, mori, numpy as np, pyarrow as pa
        batches = [pa.record_batch([pa.array(np.zeros(2_500_000))], ["x"])] * 4
        for write in (lambda reader: mori.save(reader, "/mnt/x.mori"), mori.share):
            os.environ["MORI_STORE"] = "files:/mnt"
            try:
                write(pa.RecordBatchReader.from_batches(batches[0].schema, batches))
            except mori.StoreFullError as error:
                assert error.asked >= 40_000_000, error.asked
            else:
                raise SystemExit("written")
        assert [name for _, _, names in os.walk("/mnt") for name in names] == []
        """,
    )


def test_a_damaged_stream_of_chunks_is_an_error(tmp_path):
    path: Path = tmp_path / "x.mori"
    mori.save(Query(*[batch(number) for number in range(6)]), path)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(mori.CorruptRegionError):
        mori.load(path)


def test_without_pyarrow_the_error_names_the_extra():
    said = run_python("""
        import sys
        sys.modules["pyarrow"] = None  # its import raises
        import mori
        class Query:
            def __arrow_c_stream__(self, requested_schema=None): ...
        try:
            mori.share(Query())
        except ImportError as error:
            print(error)
    """)
    assert said == "a stream of record batches is read by pyarrow: install mori[arrow]"
