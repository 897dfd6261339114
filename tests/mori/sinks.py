"""What people write objects to, and how they read it back.

The table is the one of docs/pickling.md. Names of pickle are imported first, as in a program that has them
before mori is there.
"""

# ruff: noqa: I001
from __future__ import annotations

from pickle import Pickler, dump, dumps

import functools
import gzip
import importlib.util
import io
import pickle
import shelve
import sqlite3
import tempfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

__all__ = ["BY_REFERENCE", "BY_VALUE", "Sink", "is_there", "plain", "write_all"]


class Record:
    """An instance of a user's class, with what it was given."""

    def __init__(self, values: Any) -> None:
        self.values = values


def plain() -> dict[str, Any]:
    """Return what is written, as it is without mori."""
    table = pd.DataFrame(
        {
            "i": np.arange(2000),
            "f": np.linspace(0, 1, 2000),
            "s": [f"row {i}" for i in range(2000)],
            "c": pd.Categorical(["x", "y"] * 1000),
        },
        index=pd.date_range("2024", periods=2000, freq="h"),
    )
    return {
        "frame": table,
        "array": np.arange(5000.0),
        "strings": [f"string {i}" for i in range(2000)],
        "dict": {f"k{i}": np.arange(300) for i in range(9)},
        "bytes": bytes(range(256)) * 40,
    }


def shared() -> dict[str, Any]:
    """Return it of shared objects, and of views and parts of them."""
    import mori

    made = {name: mori.share(value) for name, value in plain().items()}
    frame, array = made["frame"], made["array"]
    return {
        **made,
        "column": frame["f"],
        "texts": frame["s"],
        "rows": frame.iloc[10:20],
        "index": frame.index,
        "slice": array[10:90:3],
        "part": made["dict"]["k7"],
        "object": Record(array),
    }


class Sink(NamedTuple):
    """A way into something that lasts, and out of it: functions of an object and a path, and of a path."""

    write: Callable[[Any, Path], object]
    read: Callable[[Path], Any]
    needs: str = "pickle"


def is_there(sink: Sink) -> bool:
    """Say whether the library of a sink is installed."""
    return importlib.util.find_spec(sink.needs) is not None


def _load(path: Path) -> Any:
    return pickle.loads(path.read_bytes())


def _with_file(write: Callable[[Any, Any], object]) -> Callable[[Any, Path], None]:
    def call(obj: Any, path: Path) -> None:
        with path.open("wb") as file:
            write(obj, file)

    return call


def _write_bytes(make: Callable[[Any], bytes]) -> Callable[[Any, Path], None]:
    def call(obj: Any, path: Path) -> None:
        path.write_bytes(make(obj))

    return call


def _pickler_into_bytes(obj: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file).dump(obj)
    return file.getvalue()


class _Own(pickle.Pickler):
    def persistent_id(self, obj: Any) -> None:
        return None


class _OwnInPython(pickle._Pickler):  # type: ignore[name-defined,misc]
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        super().save(obj, save_persistent_id)


class _Saver:
    """What has a method of pickle's name, and keeps bound ones."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.serialize = dump

    def dump(self, file: Any) -> None:
        pickle.dump(self.obj, file)


class _Holder:
    """Pickles what it holds by itself, as wrappers of cloudpickle do."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj

    def __getstate__(self) -> bytes:
        return dumps(self.obj)

    def __setstate__(self, state: bytes) -> None:
        self.obj = pickle.loads(state)


def _on_thread(obj: Any, file: Any) -> None:
    thread = threading.Thread(target=_Saver(obj).dump, args=(file,))
    thread.start()
    thread.join()


def _in_executor(obj: Any, file: Any) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(dump, obj, file).result()


def _by_variable(obj: Any, file: Any) -> None:
    for call in (lambda x, _: dumps(x), functools.partial(pickle.dump, protocol=4)):
        call(obj, file)


def _bound(obj: Any, file: Any) -> None:
    write = Pickler(file).dump
    dumps(obj)
    write(obj)


def _into_gzip(obj: Any, file: Any) -> None:
    with gzip.GzipFile(fileobj=file, mode="wb") as zipped:
        pickle.dump(obj, zipped)


def _into_zip(obj: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("x", "w") as file:
        pickle.dump(obj, file)


def _out_of_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return pickle.loads(archive.read("x"))


def _temporary(obj: Any, path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent) as file:
        pickle.dump(obj, file)
        file.flush()
        path.write_bytes(Path(file.name).read_bytes())


def _into_shelf(obj: Any, path: Path) -> None:
    with shelve.open(str(path)) as shelf:
        shelf["x"] = obj


def _out_of_shelf(path: Path) -> Any:
    with shelve.open(str(path)) as shelf:
        return shelf["x"]


def _array_of_objects(obj: Any) -> Any:
    made = np.empty(1, dtype=object)
    made[0] = obj
    return made


def _save_array(obj: Any, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, _array_of_objects(obj))


def _save_arrays(obj: Any, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=_array_of_objects(obj))


def _frames_of(write: str, read: Callable[[Path], Any], end: str) -> Sink:
    """Return the sink of a method of pandas: each object in its own file, and the others in one frame."""

    def put(obj: Any, path: Path) -> None:
        path.mkdir()
        for name, value in obj.items():
            held = value if isinstance(value, pd.DataFrame | pd.Series) else pd.Series([value], dtype=object)
            getattr(held, write)(path / f"{name}{end}")

    def get(path: Path) -> Any:
        found = {file.name.removesuffix(end): read(file) for file in path.iterdir()}
        return {
            name: value[0] if isinstance(value, pd.Series) and value.dtype == object else value
            for name, value in found.items()
        }

    return Sink(put, get)


def _library(name: str) -> Any:
    return __import__(name, fromlist=["x"])


def _memory(path: Path) -> Any:
    return _library("joblib").Memory(path, verbose=0).cache(_cached, ignore=["obj"])


def _cached(key: str, obj: Any) -> Any:
    if obj is None:
        raise ValueError("it has not been kept")
    return obj


def _cache_of_disk(path: Path) -> Any:
    return _library("diskcache").Cache(str(path))


def _into_diskcache(obj: Any, path: Path) -> None:
    with _cache_of_disk(path) as cache:
        cache["x"] = obj


def _out_of_diskcache(path: Path) -> Any:
    with _cache_of_disk(path) as cache:
        return cache["x"]


def _into_sqlitedict(obj: Any, path: Path) -> None:
    with _library("sqlitedict").SqliteDict(str(path)) as table:
        table["x"] = obj
        table.commit()


def _out_of_sqlitedict(path: Path) -> Any:
    with _library("sqlitedict").SqliteDict(str(path)) as table:
        return table["x"]


def _partd(path: Path) -> Any:
    return _library("partd").Pickle(_library("partd").File(str(path)))


def _into_partd(obj: Any, path: Path) -> None:
    _partd(path).append({"x": [obj]})


def _out_of_partd(path: Path) -> Any:
    return _partd(path).get("x")[0]


def _table(path: Path) -> Any:
    sqlalchemy = _library("sqlalchemy")
    kept = sqlalchemy.Column("x", sqlalchemy.PickleType)
    table = sqlalchemy.Table("kept", sqlalchemy.MetaData(), kept)
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=_library("sqlalchemy.pool").NullPool)
    table.create(engine, checkfirst=True)
    return engine, table


def _into_sqlalchemy(obj: Any, path: Path) -> None:
    engine, table = _table(path)
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"x": obj}])


def _out_of_sqlalchemy(path: Path) -> Any:
    engine, table = _table(path)
    with engine.connect() as connection:
        return connection.execute(table.select()).scalar_one()


def _into_sqlite(obj: Any, path: Path) -> None:
    import mori

    connection = sqlite3.connect(path)
    with connection, mori.by_value():
        connection.execute("CREATE TABLE kept (x BLOB)")
        connection.execute("INSERT INTO kept VALUES (?)", (pickle.dumps(obj),))
    connection.close()


def _out_of_sqlite(path: Path) -> Any:
    connection = sqlite3.connect(path)
    ((data,),) = connection.execute("SELECT x FROM kept").fetchall()
    connection.close()
    return pickle.loads(data)


def _into_tables(obj: Any, path: Path) -> None:
    tables = _library("tables")
    with tables.open_file(path, "w") as file:
        file.create_vlarray(file.root, "x", tables.ObjectAtom()).append(obj)


def _out_of_tables(path: Path) -> Any:
    with _library("tables").open_file(path) as file:
        return file.root.x[0]


def _torch_load(path: Path) -> Any:
    return _library("torch").load(path, weights_only=False)


BY_VALUE: dict[str, Sink] = {
    "pickle.dump": Sink(_with_file(lambda obj, file: pickle.dump(obj, file, 5)), _load),
    "dump, imported before": Sink(_with_file(lambda obj, file: dump(obj, file, protocol=2)), _load),
    "Pickler(file).dump": Sink(_with_file(lambda obj, file: Pickler(file).dump(obj)), _load),
    "a bound dump": Sink(_with_file(_bound), _load),
    "a variable": Sink(_with_file(_by_variable), _load),
    "a method called dump": Sink(_with_file(lambda obj, file: _Saver(obj).dump(file)), _load),
    "an attribute": Sink(_with_file(lambda obj, file: _Saver(obj).serialize(obj, file)), _load),
    "a subclass of Pickler": Sink(_with_file(lambda obj, file: _Own(file).dump(obj)), _load),
    "a pickler in Python": Sink(_with_file(lambda obj, file: _OwnInPython(file).dump(obj)), _load),
    "map": Sink(_with_file(lambda obj, file: [*map(dump, [obj], [file])]), _load),
    "an executor": Sink(_with_file(_in_executor), _load),
    "a thread": Sink(_with_file(_on_thread), _load),
    "dumps inside": Sink(
        _with_file(lambda obj, file: dump(_Holder(obj), file)), lambda path: _load(path).obj
    ),
    "gzip": Sink(
        _with_file(_into_gzip),
        lambda path: pickle.loads(gzip.decompress(path.read_bytes())),
    ),
    "zip": Sink(_into_zip, _out_of_zip),
    "a temporary file": Sink(_temporary, _load),
    "Pickler(BytesIO()).dump": Sink(_write_bytes(_pickler_into_bytes), _load),
    "DataFrame.to_pickle": _frames_of("to_pickle", pd.read_pickle, ".pkl"),
    "to_pickle, compressed": _frames_of("to_pickle", pd.read_pickle, ".pkl.xz"),
    "shelve": Sink(_into_shelf, _out_of_shelf),
    "numpy.save": Sink(_save_array, lambda path: np.load(path, allow_pickle=True)[0]),
    "numpy.savez": Sink(_save_arrays, lambda path: np.load(path, allow_pickle=True)["x"][0]),
    "ndarray.dump": Sink(lambda obj, path: _array_of_objects(obj).dump(path), lambda path: _load(path)[0]),
    "joblib.dump": Sink(
        lambda obj, path: _library("joblib").dump(obj, path),
        lambda path: _library("joblib").load(path),
        "joblib",
    ),
    "joblib.dump, compressed": Sink(
        lambda obj, path: _library("joblib").dump(obj, path, compress=3),
        lambda path: _library("joblib").load(path),
        "joblib",
    ),
    "joblib.Memory": Sink(
        lambda obj, path: _memory(path)("x", obj), lambda path: _memory(path)("x", None), "joblib"
    ),
    "cloudpickle.dump": Sink(
        _with_file(lambda obj, file: _library("cloudpickle").dump(obj, file)), _load, "cloudpickle"
    ),
    "dill.dump": Sink(_with_file(lambda obj, file: _library("dill").dump(obj, file)), _load, "dill"),
    "torch.save": Sink(lambda obj, path: _library("torch").save(obj, path), _torch_load, "torch"),
    "diskcache": Sink(_into_diskcache, _out_of_diskcache, "diskcache"),
    "sqlitedict": Sink(_into_sqlitedict, _out_of_sqlitedict, "sqlitedict"),
    "partd": Sink(_into_partd, _out_of_partd, "partd"),
    "sqlalchemy.PickleType": Sink(_into_sqlalchemy, _out_of_sqlalchemy, "sqlalchemy"),
    "cachelib": Sink(
        lambda obj, path: _library("cachelib").FileSystemCache(str(path)).set("x", obj),
        lambda path: _library("cachelib").FileSystemCache(str(path)).get("x"),
        "cachelib",
    ),
    "numcodecs.Pickle": Sink(
        _write_bytes(lambda obj: _library("numcodecs").Pickle().encode(_array_of_objects(obj))),
        lambda path: _load(path)[0],
        "numcodecs",
    ),
    "tables.ObjectAtom": Sink(_into_tables, _out_of_tables, "tables"),
    "sqlite3, in mori.by_value()": Sink(_into_sqlite, _out_of_sqlite),
}

BY_REFERENCE: dict[str, Sink] = {
    "pickle.dumps": Sink(_write_bytes(lambda obj: pickle.dumps(obj, 5)), _load),
    "dumps, imported before": Sink(_write_bytes(lambda obj: dumps(obj, protocol=5)), _load),
    "dumps in Python": Sink(_write_bytes(lambda obj: pickle._dumps(obj, 4)), _load),  # type: ignore[attr-defined]
    "partial of dumps": Sink(_write_bytes(functools.partial(dumps, protocol=4)), _load),
    "cloudpickle.dumps": Sink(
        _write_bytes(lambda obj: _library("cloudpickle").dumps(obj)), _load, "cloudpickle"
    ),
    "dill.dumps": Sink(_write_bytes(lambda obj: _library("dill").dumps(obj)), _load, "dill"),
    "multiprocessing": Sink(
        _write_bytes(lambda obj: bytes(_library("multiprocessing.reduction").ForkingPickler.dumps(obj))),
        _load,
    ),
    "multiprocess": Sink(
        _write_bytes(lambda obj: bytes(_library("multiprocess.reduction").ForkingPickler.dumps(obj))),
        _load,
        "multiprocess",
    ),
    "loky": Sink(
        _write_bytes(lambda obj: bytes(_library("joblib.externals.loky.backend.reduction").dumps(obj))),
        _load,
        "joblib",
    ),
    "loky, by itself": Sink(
        _write_bytes(lambda obj: bytes(_library("loky.backend.reduction").dumps(obj))), _load, "loky"
    ),
}


def write_all(folder: Path) -> None:
    """Write everything, with what has been written at hand to its end."""
    obj = shared()
    for sinks in (BY_VALUE, BY_REFERENCE):
        for name, sink in sinks.items():
            if is_there(sink):
                sink.write(obj, folder / name)
