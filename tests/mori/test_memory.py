"""Memory, measured: a reader has no copy, opening costs the same whatever the size, sharing copies once.

Real processes, each fresh: it prints what `/proc/self` says before and after: the kernel's
anonymous pages are private memory, and the resident pages of a region's mapping those that were touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mori
from mori.format import writer
from mori.format.plan import measure

pytestmark = [
    pytest.mark.each_store,
    pytest.mark.skipif(
        not os.path.exists("/proc/self/smaps_rollup"),
        reason="/proc/self/smaps_rollup is missing on this system",
    ),
]

MB = 1 << 20
KB = 1 << 10

_HEAD = """
import gc, json, sys
import numpy as np, pandas as pd, mori
from mori.memory import region

def field(path, name):
    with open(path) as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def private():
    return field("/proc/self/smaps_rollup", "Anonymous:") + field("/proc/self/smaps_rollup", "Swap:")

def mapped():
    total, ours = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if "-" in line.split()[0]:
                ours = "mori_" in line
            elif ours and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total

def report(**values):
    print(json.dumps(values), flush=True)
"""


def _run(code: str, *arguments: str, status: int = 0) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + code, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _name(shared: object) -> str:
    name = mori.shared_name(shared)
    assert name is not None
    return name


_READ = """
mori.map_shared(sys.argv[1])[0]  # what the first use imports and allocates is not the array's
gc.collect(); gc.disable()
before = private()
array = mori.map_shared(sys.argv[2])
value = float(array[len(array) // 2])
opened = private()
total = float(array.sum())
report(value=value, total=total, opened=opened - before, read=private() - before, shape=array.nbytes)
"""


@pytest.mark.usefixtures("store")
def test_a_reader_of_200_mb_has_no_copy_of_it() -> None:
    small, large = mori.share(np.ones(1000)), mori.share(np.ones(25_000_000))
    found = _run(_READ, _name(small), _name(large))
    assert found["shape"] == 200_000_000
    assert found["total"] == 25_000_000
    assert found["opened"] <= 64 * KB
    assert found["read"] <= 128 * KB  # numpy's own buffers


_TOUCH = """
obj = mori.map_shared(sys.argv[1])
before = mapped()
part = obj["c50"] if isinstance(obj, pd.DataFrame) else obj[50]
opened = mapped()
total = float(np.asarray(part).sum())
report(total=total, opened=opened - before, touched=mapped() - opened, all=before)
"""


@pytest.mark.parametrize("kind", ["frame", "list"])
def test_touching_one_part_of_a_hundred_maps_the_pages_of_one(store: str, kind: str) -> None:
    # Linux maps a disk's file in the pieces that it caches, 2 MB at each end.
    around = MB // 4 if store == "memfd" else 4 * MB
    length = MB // 8
    if kind == "frame":
        columns = [np.full(length, float(i)) for i in range(100)]
        shared = mori.share(pd.DataFrame({f"c{i}": column for i, column in enumerate(columns)}))
    else:
        shared = mori.share([np.full(length, float(i)) for i in range(100)])
    found = _run(_TOUCH, _name(shared))
    assert found["total"] == 50.0 * length
    assert found["all"] + found["opened"] <= 4 * around  # of a hundred: the records, and what is around them
    assert found["all"] + found["opened"] + found["touched"] >= MB
    assert found["touched"] <= MB + around


_OPEN = """
mori.map_shared(sys.argv[1])[0]
gc.collect(); gc.disable()
import tracemalloc
tracemalloc.start()
obj = mori.map_shared(sys.argv[2])
size = len(obj)
traced = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
shm = mapped()
last = obj[size - 1]
report(size=size, traced=traced, mapped=shm, last=last)
"""


@pytest.mark.usefixtures("store")
def test_opening_a_list_of_200_000_costs_what_one_of_ten_costs() -> None:
    warm, few, many = mori.share(["x"] * 3), mori.share(list(range(10))), mori.share(list(range(200_000)))
    ten = _run(_OPEN, _name(warm), _name(few))
    lots = _run(_OPEN, _name(warm), _name(many))
    assert (ten["size"], lots["size"]) == (10, 200_000)
    assert lots["last"] == 199_999
    assert lots["traced"] <= ten["traced"] + KB
    assert lots["mapped"] <= ten["mapped"] + 128 * KB  # the kernel maps sixteen pages around a fault


_SHARE = """
import threading, time
mori.share(np.ones(1000))
obj = {"array": lambda: np.ones(25_000_000), "strided": lambda: np.ones((10_000, 5_000))[:, ::2],
       "frame": lambda: pd.DataFrame(np.ones((250_000, 100)))}[sys.argv[1]]()
gc.collect()
before, peak, done = field("/proc/self/status", "RssAnon"), 0, threading.Event()
def sample():
    global peak
    while not done.is_set():
        peak = max(peak, field("/proc/self/status", "RssAnon"))
        time.sleep(0.0005)
sampler = threading.Thread(target=sample)
sampler.start()
import tracemalloc
tracemalloc.start()
shared = mori.share(obj)
traced = tracemalloc.get_traced_memory()[1]
done.set()
sampler.join()
report(grown=peak - before, traced=traced, shared=int(mori.is_shared(shared)), peak=peak)
"""


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("kind", ["array", "strided", "frame"])
def test_sharing_takes_no_second_copy_in_private_memory(kind: str) -> None:
    found = _run(_SHARE, kind)
    assert found["shared"]
    assert found["peak"] > 190 * MB  # the sampler has seen the object
    assert found["grown"] <= 6 * MB
    assert found["traced"] <= 6 * MB


_ITERATE = """
def count(obj):
    return sum(1 for element in obj if element)
count(mori.map_shared(sys.argv[1]))  # what the first use imports and allocates
gc.collect()
before = private()
obj = mori.map_shared(sys.argv[2])
seen = count(obj)
report(seen=seen, grown=private() - before)
"""


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("kind", ["strings", "numbers", "records"])
def test_iterating_over_a_million_elements_keeps_none_of_them(kind: str) -> None:
    make = {
        "strings": lambda n: [f"a string of some length, number {i}" for i in range(n)],
        "numbers": lambda n: [i + 0.5 for i in range(n)],
        "records": lambda n: [{"id": i, "name": f"name {i}"} for i in range(n)],
    }[kind]
    length = 50_000 if kind == "records" else 1_000_000  # 15 MB of dicts, 87 MB of str, 24 MB of float
    few, many = mori.share(make(5000)), mori.share(make(length))
    found = _run(_ITERATE, _name(few), _name(many))
    assert found["seen"] == length
    assert found["grown"] <= 2 * MB


PLAIN = {
    "str": lambda: [f"string number {i}" for i in range(200_000)],
    "int": lambda: list(range(200_000)),
    "dict of str": lambda: {f"key number {i}": f"value number {i}" for i in range(200_000)},
    "dict of int": lambda: {i: i for i in range(200_000)},
    "records": lambda: [{"id": i, "name": f"name number {i}", "x": i * 0.5} for i in range(100_000)],
}


@pytest.mark.parametrize("name", PLAIN)
def test_sharing_strings_and_dicts_takes_half_as_much_again_as_they_have(name):
    obj = PLAIN[name]()
    mori.share([f"k{i}" for i in range(100)])
    tracemalloc.start()
    try:
        plan = measure(obj)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * writer.region_nbytes(plan) + (2 << 20)
