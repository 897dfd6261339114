"""Files of `mori.save` beside those of other libraries: saving, the first element, one pass, memory.

    python -m benchmarks.files [--out benchmarks/RESULTS_FILES.md] [--rounds 3] [--scale 1]

Times are CPU times, medians of the rounds, which are interleaved. Each file is opened by a process of its own
that has imported what it needs; its pages are in the system's cache. Libraries that are missing are left out.

mori's saving has in it what the others leave out: a checksum of each megabyte (0.25 s a gigabyte), and that
the file is on the disk when it returns. What is private of a RandomForest are its Python objects, which are
made anew. A frame's text is read through once when it is opened, since Arrow follows its offsets.
"""

from __future__ import annotations

import argparse
import dbm.dumb  # noqa: F401  (what is imported is no part of a time)
import gc
import importlib.util
import json
import pickle
import shelve
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.kinds import machine

__all__ = ["main"]

_PATIENCE: Final = 10.0  # seconds of saving, beyond which a way is not measured
_PROBE: Final = 5_000  # entries by which that is estimated


class Thing(NamedTuple):
    """An object that is saved: how it is made, its first element, and one pass over it."""

    make: Callable[[float], Any]
    first: Callable[[Any], Any]
    whole: Callable[[Any], Any]


class Way(NamedTuple):
    """A library's way to a file and back, for the objects that it can write as they are."""

    save: Callable[[Any, str], Any]
    load: Callable[[str], Any]
    objects: tuple[str, ...]
    needs: str = "mori"


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _frame(scale: float) -> Any:
    import pandas as pd

    rows, rng = int(1_000_000 * scale), _rng()
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "price": rng.random(rows),
            "city": pd.array([f"city {n}" for n in rng.integers(0, 5000, rows)], "str"),
            "name": pd.array([f"customer {n}" for n in range(rows)], "str"),
        }
    )


def _forest(scale: float) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    x = _rng().random((int(20_000 * scale), 20))
    return RandomForestClassifier(100, random_state=0, n_jobs=2).fit(x, x[:, 0] > 0.5)


THINGS: Final[dict[str, Thing]] = {
    "frame with strings": Thing(
        _frame,
        lambda x: (x["name"].iloc[5], x["price"].iloc[5]),
        lambda x: (x["price"].sum(), x["name"].str.len().sum(), x["city"].str.len().sum()),
    ),
    "dict of str to int": Thing(
        lambda scale: {f"key {n}": n for n in range(int(1_000_000 * scale))},
        lambda x: x["key 77"],
        lambda x: sum(x.values()),
    ),
    "dict of str to array": Thing(
        lambda scale: {f"key {n}": _rng().random(10_000) for n in range(int(2_000 * scale))},
        lambda x: x["key 7"][5],
        lambda x: sum(float(array.sum()) for array in x.values()),
    ),
    "JSON documents": Thing(
        lambda scale: [
            {
                "id": n,
                "name": f"user {n}",
                "tags": ["a", "b", str(n % 7)],
                "score": n / 3,
                "at": {"x": n, "y": None},
            }
            for n in range(int(100_000 * scale))
        ],
        lambda x: x[77]["tags"][1],
        lambda x: sum(doc["id"] for doc in x),
    ),
    "RandomForest": Thing(
        _forest,
        lambda x: x.estimators_[5].tree_.threshold[0],
        lambda x: x.predict(_rng().random((2000, 20))).sum(),
    ),
    "array": Thing(
        lambda scale: _rng().random(int(125_000_000 * scale)),
        lambda x: x[77],
        lambda x: float(x.sum()),
    ),
}
ALL: Final = tuple(THINGS)


def _save_pickle(x: Any, path: str) -> None:
    with open(path, "wb") as file:
        pickle.dump(x, file, 5)


def _load_pickle(path: str) -> Any:
    with open(path, "rb") as file:
        return pickle.load(file)


def _feather(name: str, **options: Any) -> Any:
    from pyarrow import feather

    return getattr(feather, name)(**options)


def _items(x: Any) -> Any:
    return x.items() if isinstance(x, dict) else ((str(n), one) for n, one in enumerate(x))


def _save_lmdb(x: Any, path: str) -> None:
    import lmdb

    with lmdb.open(path, map_size=1 << 34, sync=True) as env, env.begin(write=True) as txn:
        for key, value in _items(x):
            txn.put(key.encode(), pickle.dumps(value, 5))


class _Lmdb:
    def __init__(self, path: str) -> None:
        import lmdb

        self._txn = lmdb.open(path, readonly=True, lock=False).begin(buffers=True)

    def __getitem__(self, key: Any) -> Any:
        return pickle.loads(self._txn.get(str(key).encode()))

    def values(self) -> Any:
        return (pickle.loads(value) for _, value in self._txn.cursor())

    __iter__ = values


class _ByKey:
    """A shelf, or a cache of diskcache, read as the dict or list that went into it."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __getitem__(self, key: Any) -> Any:
        return self._table[str(key)]

    def values(self) -> Any:
        return (self._table[key] for key in self._table)

    __iter__ = values


def _save_shelve(x: Any, path: str) -> None:
    with shelve.open(path, "n", 5) as shelf:
        shelf.update(_items(x))


def _load_shelve(path: str) -> Any:
    return _ByKey(shelve.open(path, "r"))


def _save_diskcache(x: Any, path: str) -> None:
    import diskcache

    with diskcache.Index(path).cache as cache, cache.transact():
        for key, value in _items(x):
            cache[key] = value


def _load_diskcache(path: str) -> Any:
    import diskcache

    return _ByKey(diskcache.Index(path))


def _save_safetensors(x: Any, path: str) -> None:
    from safetensors.numpy import save_file

    save_file(x if isinstance(x, dict) else {"x": x}, path)


class _Safetensors:
    def __init__(self, path: str) -> None:
        from safetensors import safe_open

        self._file = safe_open(path, "np")

    def __getitem__(self, key: Any) -> Any:
        return self._file.get_tensor(key) if isinstance(key, str) else self._file.get_tensor("x")[key]

    def values(self) -> Any:
        return (self._file.get_tensor(key) for key in self._file.keys())  # noqa: SIM118

    def sum(self) -> Any:
        return self._file.get_tensor("x").sum()


def _mori(name: str, *args: Any, **options: Any) -> Any:
    import mori

    return getattr(mori, name)(*args, **options)


def _joblib(name: str, *args: Any, **options: Any) -> Any:
    import joblib

    return getattr(joblib, name)(*args, **options)


def _parquet(path: str) -> Any:
    import pandas as pd

    return pd.read_parquet(path)


_KEYED: Final = ("dict of str to int", "dict of str to array", "JSON documents")
WAYS: Final[dict[str, Way]] = {
    "mori": Way(
        lambda x, path: _mori("save", x, path), lambda path: _mori("load", path, allow_pickle=True), ALL
    ),
    "pickle": Way(_save_pickle, _load_pickle, ALL, "pickle"),
    "joblib": Way(lambda x, p: _joblib("dump", x, p), lambda p: _joblib("load", p), ALL, "joblib"),
    "joblib, mmap_mode": Way(
        lambda x, p: _joblib("dump", x, p), lambda p: _joblib("load", p, mmap_mode="r"), ALL, "joblib"
    ),
    "Feather": Way(
        lambda x, p: _feather("write_feather", df=x, dest=p, compression="uncompressed"),
        lambda p: _feather("read_feather", source=p, memory_map=True),
        ("frame with strings",),
        "pyarrow",
    ),
    "Parquet": Way(lambda x, p: x.to_parquet(p), _parquet, ("frame with strings",), "pyarrow"),
    "np.save, mmap_mode": Way(
        lambda x, p: np.save(p + ".npy", x), lambda p: np.load(p + ".npy", mmap_mode="r"), ("array",), "numpy"
    ),
    "safetensors": Way(_save_safetensors, _Safetensors, ("dict of str to array", "array"), "safetensors"),
    "LMDB": Way(_save_lmdb, _Lmdb, _KEYED, "lmdb"),
    "shelve": Way(_save_shelve, _load_shelve, _KEYED, "shelve"),
    "diskcache": Way(_save_diskcache, _load_diskcache, _KEYED, "diskcache"),
}


def _private() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def _read(way: str, name: str, path: str, warm: str) -> None:
    """Open a file in this process; print the seconds to the first element, of a pass, and private bytes."""
    thing, by = THINGS[name], WAYS[way]
    thing.whole(x := by.load(warm))  # what the first use imports; of a small file of the kind
    thing.first(x)
    del x
    gc.collect()
    before = _private()
    begun = time.process_time()
    x = by.load(path)
    thing.first(x)
    opened = time.process_time()
    thing.whole(x)
    done = time.process_time()
    gc.collect()
    print(json.dumps([opened - begun, done - opened, _private() - before]))


def _size(path: str) -> int:
    found = [file for file in Path(path).parent.rglob("*") if file.is_file()]
    return sum(file.stat().st_blocks * 512 for file in found)


def _saved(way: Way, x: Any, path: str) -> float:
    begun = time.process_time()
    way.save(x, path)
    return time.process_time() - begun


def _estimate(way: Way, x: Any, path: str) -> float:
    """Return about how many seconds it takes to save what has many entries."""
    if not isinstance(x, dict | list) or len(x) <= 4 * _PROBE:
        return 0.0
    some = dict([*x.items()][:_PROBE]) if isinstance(x, dict) else x[:_PROBE]
    begun = time.perf_counter()  # which has the disk in it, too
    way.save(some, path)
    return (time.perf_counter() - begun) * len(x) / _PROBE


def _measure(name: str, rounds: int, scale: float) -> dict[str, Any]:
    """Return what was measured of each way for an object: medians, or why there are none."""
    x, small = THINGS[name].make(scale), THINGS[name].make(scale / 100)
    ways = {way: by for way, by in WAYS.items() if name in by.objects and importlib.util.find_spec(by.needs)}
    found: dict[str, Any] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            for way, by in ways.items():
                if isinstance(found[way], str):
                    continue
                folder = Path(scratch, f"{number}")
                for place in ("probe", "warm", "file"):
                    (folder / place).mkdir(parents=True)
                probe, warm, path = (str(folder / place / "x") for place in ("probe", "warm", "file"))
                if not number and (seconds := _estimate(by, x, probe)) > _PATIENCE:
                    found[way] = f"about {seconds:.0f} s, not measured"
                else:
                    by.save(small, warm)
                    saved = _saved(by, x, path)
                    command = [sys.executable, "-m", "benchmarks.files", "--read", way, name, path, warm]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        found[way] = f"failed: {done.stderr.splitlines()[-1][:60]}"
                    else:
                        found[way].append((saved, *json.loads(done.stdout), _size(path)))
                shutil.rmtree(folder)
    return {
        way: got if isinstance(got, str) else [statistics.median(column) for column in zip(*got, strict=True)]
        for way, got in found.items()
    }


def _lines(name: str, found: dict[str, Any]) -> list[str]:
    whole = max((cells[3] for cells in found.values() if not isinstance(cells, str)), default=1)
    lines = [
        *(
            f"## {name}",
            "",
            "| | save, s | load and first, ms | one pass, ms | private of a reader, MB | of 8, MB |",
        ),
        "|---|---:|---:|---:|---:|---:|",
    ]
    for way, cells in found.items():
        if isinstance(cells, str):
            lines.append(f"| {way} | {cells} | | | | |")
            continue
        save, first, whole_pass, private, _ = cells
        memory = f"{private / 1e6:.1f} | {8 * private / 1e6:.0f}"
        lines.append(f"| {way} | {save:.2f} | {first * 1000:.2f} | {whole_pass * 1000:.1f} | {memory} |")
    mine = found["mori"]
    peers = {way: cells for way, cells in found.items() if way != "mori" and not isinstance(cells, str)}
    if not isinstance(mine, str) and peers:
        fastest, soonest = (min(peers, key=lambda way: peers[way][place]) for place in (0, 1))
        lines += [
            "",
            f"Saving: {mine[0] / peers[fastest][0]:.2f} x {fastest}. First element: "
            f"{mine[1] / peers[soonest][1]:.2f} x {soonest}. Private memory: {mine[3] / max(whole, 1):.1%} "
            "of the most that a reader has.",
        ]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", choices=THINGS, default=ALL)
    parser.add_argument("--read", nargs=4, metavar=("WAY", "OBJECT", "PATH", "WARM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        _read(*options.read)
        return
    text = ["# Files", "", *(__doc__ or "").splitlines()[4:], "", machine(), ""]
    if options.scale != 1:
        text += [f"Objects of {options.scale:g} times their size.", ""]
    for name in options.only:
        began = time.monotonic()
        text += _lines(name, _measure(name, options.rounds, options.scale))
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
        if options.out:
            options.out.write_text("\n".join(text), encoding="utf-8")
    if not options.out:
        print("\n".join(text))


if __name__ == "__main__":
    main()
