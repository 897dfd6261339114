"""The public surface is a list, and importing it starts and imports next to nothing."""

import subprocess
import sys

import mori

EXPECTED = [
    "AllocatedArray",
    "Buffers",
    "ClassNotFoundError",
    "CorruptRegionError",
    "Encoded",
    "LimitError",
    "MoriError",
    "NotShareableError",
    "ObjectColumnWarning",
    "PartNotFoundError",
    "ReadOnlyViewError",
    "RegionNotFoundError",
    "SettingError",
    "SharedArray",
    "SharedBytes",
    "SharedDict",
    "SharedFrozenSet",
    "SharedList",
    "SharedSet",
    "SharedTuple",
    "StoreError",
    "StoreFullError",
    "UnsafeRegionError",
    "allocate",
    "by_value",
    "frombuffer",
    "is_shared",
    "map_shared",
    "materialize",
    "prune_shared",
    "regions",
    "register_codec",
    "share",
    "shared_name",
]


def in_a_fresh_process(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_public_names_are_these():
    assert sorted(mori.__all__) == EXPECTED
    assert all(hasattr(mori, name) for name in mori.__all__)


def test_everything_public_says_what_it_does():
    assert [name for name in mori.__all__ if not getattr(mori, name).__doc__] == []


def test_importing_it_imports_no_optional_library():
    optional = {"pandas", "pyarrow", "dask", "distributed", "ray", "cloudpickle"}
    code = "import sys, mori; print(*sys.modules)"
    assert not optional & {*in_a_fresh_process(code).split()}


def test_importing_it_starts_no_thread_and_opens_no_file():
    code = (
        "import os, threading, numpy\n"
        "before = os.listdir('/proc/self/fd')\n"
        "import mori\n"
        "print(threading.active_count(), os.listdir('/proc/self/fd') == before)"
    )
    assert in_a_fresh_process(code) == "1 True"


def test_an_array_is_shared_and_sent_without_importing_pandas():
    code = (
        "import sys, pickle, numpy, mori\n"
        "x = mori.share({'a': numpy.arange(10), 'b': [1, 'two', None]})\n"
        "assert mori.is_shared(pickle.loads(pickle.dumps(x)))\n"
        "assert mori.materialize(x)['b'] == [1, 'two', None]\n"
        "print('pandas' in sys.modules)"
    )
    assert in_a_fresh_process(code) == "False"


def test_importing_it_costs_little_beyond_numpy():
    code = (
        "import time, numpy, concurrent.futures, multiprocessing\n"
        "start = time.process_time()\n"
        "import mori\n"
        "print(time.process_time() - start)"
    )
    assert (
        min(float(in_a_fresh_process(code)) for _ in range(3)) < 0.5
    )  # a gross guard: 0.07 s on a quiet machine
