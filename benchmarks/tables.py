"""The ways that hand over tables and entries in a file: Arrow, LMDB and Hugging Face's datasets.

What a reader gets reads like the object, through a thin wrapper where the library has none.
"""

from __future__ import annotations

import os
import pickle
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.jobs import JOBS
from benchmarks.peer import Peer, Published

__all__ = ["TABLES"]

_FRAMES: Final = frozenset({"frame", "text frame"})
_attached: dict[str, Any] = {}  # what a reader has open, by its path


class _Column(Sequence[Any]):
    """One column of an Arrow table that reads like a list."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].as_py()

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._column.chunks:
            for start in range(0, len(chunk), 10_000):
                yield from chunk.slice(start, 10_000).to_pylist()


class _Rows(Sequence[Any]):
    """The rows of an Arrow table, or of a dataset, that read like a list of dicts."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        return self._table.slice(index, 1).to_pylist()[0]

    def __iter__(self) -> Iterator[Any]:
        for batch in self._table.to_batches(max_chunksize=10_000):
            yield from batch.to_pylist()


def _publish_arrow(obj: Any, path: Path) -> Published:
    import pandas as pd
    import pyarrow as pa

    if isinstance(obj, pd.DataFrame):
        table = pa.Table.from_pandas(obj)
    elif isinstance(obj, list) and isinstance(obj[0], dict):
        table = pa.Table.from_pylist(obj)
    else:
        table = pa.table({"x": obj})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    kind = type(obj).__name__ if not isinstance(obj, list) else type(obj[0]).__name__
    return Published(f"{kind}:{path}".encode, path.unlink)


def _open_arrow(message: bytes) -> Any:
    import pyarrow as pa

    kind, _, path = message.decode().partition(":")
    table = pa.ipc.open_file(pa.memory_map(path)).read_all()
    if kind == "DataFrame":
        return table.to_pandas(split_blocks=True)
    if kind == "dict":
        return _Rows(table)
    return table["x"].chunk(0).to_numpy() if kind == "ndarray" else _Column(table["x"])


class _Entries(Mapping[Any, Any], Sequence[Any]):  # type: ignore[misc]
    """An LMDB file that reads like the list or dict that was put into it."""

    def __init__(self, path: str, kind: str) -> None:
        import lmdb

        if path not in _attached:
            _attached[path] = lmdb.open(path, subdir=False, readonly=True, lock=False)
        self._transaction = _attached[path].begin(buffers=True)
        self._kind = kind

    def __len__(self) -> int:
        return int(self._transaction.stat()["entries"])

    def __getitem__(self, key: Any) -> Any:
        return _DECODE[self._kind](self._transaction.get(_key(key)))

    def __iter__(self) -> Iterator[Any]:
        cursor = self._transaction.cursor()
        if self._kind in ("str", "record"):
            return map(_DECODE[self._kind], cursor.iternext(keys=False))
        return (bytes(key) for key in cursor.iternext(values=False))

    def values(self) -> Any:
        return map(_DECODE[self._kind], self._transaction.cursor().iternext(keys=False))


def _detach_lmdb() -> None:
    for store in _attached.values():
        store.close()
    _attached.clear()


def _key(key: Any) -> bytes:
    return key.encode() if isinstance(key, str) else struct.pack(">Q", key)


_DECODE: Final = {
    "str": lambda value: str(value, "utf-8"),
    "int": lambda value: int.from_bytes(value, "little"),
    "record": pickle.loads,
    "array": lambda value: np.frombuffer(value, "f8"),
}
_ENCODE: Final = {
    "str": str.encode,
    "int": lambda value: value.to_bytes(8, "little"),
    "record": lambda value: pickle.dumps(value, 5),
    "array": np.ndarray.tobytes,
}


def _publish_lmdb(obj: Any, path: Path) -> Published:
    import lmdb

    pairs = obj.items() if isinstance(obj, dict) else enumerate([obj] if isinstance(obj, np.ndarray) else obj)
    sample = (
        next(iter(obj.values())) if isinstance(obj, dict) else obj if isinstance(obj, np.ndarray) else obj[0]
    )
    kind = {str: "str", int: "int", dict: "record", np.ndarray: "array"}[type(sample)]
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 31, sync=False, lock=False) as store,
        store.begin(write=True) as transaction,
    ):
        encode = _ENCODE[kind]
        transaction.cursor().putmulti((_key(key), encode(value)) for key, value in pairs)
    message = f"{'whole' if isinstance(obj, np.ndarray) else kind}:{path}".encode()
    return Published(lambda: message, path.unlink)


def _open_lmdb(message: bytes) -> Any:
    kind, _, path = message.decode().partition(":")
    return _Entries(path, "array")[0] if kind == "whole" else _Entries(path, kind)


class _Dataset(Sequence[Any]):
    """A dataset of Hugging Face that reads like a list of strings, or of dicts."""

    def __init__(self, path: str) -> None:
        from datasets import load_from_disk

        self._rows = load_from_disk(path)
        self._is_words = self._rows.column_names == ["x"]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]["x"] if self._is_words else self._rows[index]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), 10_000):
            rows = self._rows[start : start + 10_000]
            if self._is_words:
                yield from rows["x"]
            else:
                yield from (dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True))


def _publish_datasets(obj: Any, path: Path) -> Published:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = Dataset.from_list(obj) if isinstance(obj[0], dict) else Dataset.from_dict({"x": obj})
    rows.save_to_disk(str(path))
    return Published(lambda: os.fsencode(path), lambda: shutil.rmtree(path))


def _open_datasets(message: bytes) -> Any:
    return _Dataset(os.fsdecode(message))


TABLES: Final = (
    Peer(
        "Arrow IPC, memory map",
        "pyarrow",
        frozenset({"array", "strings", "records"}) | _FRAMES,
        _publish_arrow,
        _open_arrow,
        distribution="pyarrow",
    ),
    Peer(
        "LMDB",
        "lmdb",
        frozenset(JOBS) - _FRAMES,
        _publish_lmdb,
        _open_lmdb,
        detach=_detach_lmdb,
        distribution="lmdb",
        note="an entry an element; a record is a pickle",
    ),
    Peer(
        "HF datasets",
        "datasets",
        frozenset({"strings", "records"}),
        _publish_datasets,
        _open_datasets,
        distribution="datasets",
    ),
)
