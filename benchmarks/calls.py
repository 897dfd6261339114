"""`make bench-calls`: what single calls cost, with pytest-benchmark.

`measure` runs this file as a test file in a process of its own, since pytest-benchmark wants pytest.
"""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import mori

__all__ = ["measure"]

_ROOT: Final = Path(__file__).parents[1]
_PARTS: Final = 1000
_REGIONS: Final = 10_000
_COLUMNS: Final = 10_000


def measure() -> list[dict[str, Any]]:
    """Run the file, and return a dict for each call: its name, and the median and spread in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "calls.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-enable"]
        command += ["--benchmark-disable-gc", f"--benchmark-json={file}", str(Path(__file__).resolve())]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        if not file.exists():
            print(done.stdout[-2000:], file=sys.stderr)
            return []
        found = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    return [
        {
            "name": each["extra_info"].get("call", each["name"]),
            **{k: each["stats"][k] for k in ("median", "min", "iqr")},
        }
        for each in found
    ]


@pytest.fixture
def call(benchmark: Any, request: pytest.FixtureRequest) -> Any:
    """Measure a function; its test's docstring says which call it is."""
    benchmark.extra_info["call"] = (request.function.__doc__ or request.function.__name__).rstrip(".")
    return benchmark


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Raise the limit of open files to the hard one, and skip where that does not do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < _REGIONS + 100:
        pytest.skip(f"the hard limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_share_a_small_array(call: Any) -> None:
    """share() of 10 ints."""
    small = np.arange(10)
    assert mori.is_shared(call(mori.share, small))


def test_share_a_small_dict(call: Any) -> None:
    """share() of a dict of 10 ints."""
    small = {f"key {i}": i for i in range(10)}
    assert call(mori.share, small) == small


def test_shared_name(call: Any) -> None:
    """shared_name()."""
    x = mori.share(np.arange(10))
    assert call(mori.shared_name, x).startswith("/mori_")


def test_shared_name_of_a_part(call: Any) -> None:
    """shared_name() of a part."""
    x = mori.share([np.arange(1000), np.arange(1000)])
    part = x[1]
    assert call(mori.shared_name, part).endswith("[1]")


def test_map_shared(call: Any) -> None:
    """map_shared() of a region that is open here."""
    x = mori.share(np.arange(10))
    assert call(mori.map_shared, mori.shared_name(x))[3] == 3


def test_pickle_a_reference(call: Any) -> None:
    """Pickle a shared array."""
    x = mori.share(np.arange(1000))
    assert len(call(pickle.dumps, x, 5)) <= 100


def test_unpickle_a_reference(call: Any) -> None:
    """Unpickle a reference to an array that is open here."""
    x = mori.share(np.arange(1000))
    assert call(pickle.loads, pickle.dumps(x, 5))[3] == 3


def test_pickle_a_frame(call: Any) -> None:
    """Pickle a shared frame of 5 columns."""
    pd = pytest.importorskip("pandas")
    x = mori.share(pd.DataFrame(np.ones((1000, 5)), columns=list("abcde")))
    assert len(call(pickle.dumps, x, 5)) <= 100


def test_unpickle_a_frame(call: Any) -> None:
    """Unpickle a reference to a frame of 5 columns that is open here."""
    pd = pytest.importorskip("pandas")
    x = mori.share(pd.DataFrame(np.ones((1000, 5)), columns=list("abcde")))
    assert call(pickle.loads, pickle.dumps(x, 5)).shape == (1000, 5)


def test_element_of_a_list(call: Any) -> None:
    """An element of a list of 1,000,000 str."""
    x = mori.share([f"word number {i}" for i in range(1_000_000)])
    assert call(x.__getitem__, 777_777) == "word number 777777"


def test_element_of_an_array(call: Any) -> None:
    """An element of a shared array."""
    x = mori.share(np.arange(1_000_000))
    assert call(x.__getitem__, 777_777) == 777_777


def test_lookup_of_str(call: Any) -> None:
    """A lookup in a dict of 1,000,000 str to int."""
    x = mori.share({f"word number {i}": i for i in range(1_000_000)})
    assert call(x.__getitem__, "word number 777777") == 777_777


def test_lookup_of_int(call: Any) -> None:
    """A lookup in a dict of 1,000,000 int to int."""
    x = mori.share({3 * i: i for i in range(1_000_000)})
    assert call(x.__getitem__, 3 * 777_777) == 777_777


def test_pickle_parts(call: Any) -> None:
    """Pickle a list of 1,000 parts of one object."""
    x = mori.share({i: np.full(100, i) for i in range(_PARTS)})
    parts = list(x.values())
    assert len(call(pickle.dumps, parts, 5)) < 200 * _PARTS


def test_unpickle_parts(call: Any) -> None:
    """Unpickle references to 1,000 parts of one object."""
    x = mori.share({i: np.full(100, i) for i in range(_PARTS)})
    message = pickle.dumps(list(x.values()), 5)
    assert call(pickle.loads, message)[999][0] == 999


def test_many_regions(call: Any, descriptors: None) -> None:
    """Share 10,000 arrays of 10 ints, and drop them."""
    small = np.arange(10)

    def share_all() -> int:
        return len([mori.share(small) for _ in range(_REGIONS)])

    assert call.pedantic(share_all, rounds=3) == _REGIONS


def test_pickle_many_regions(call: Any, descriptors: None) -> None:
    """Pickle and unpickle references to 10,000 regions that are open here."""
    kept = [mori.share(np.arange(10)) for _ in range(_REGIONS)]
    there_and_back = call.pedantic(lambda: pickle.loads(pickle.dumps(kept, 5)), rounds=3)
    assert len(there_and_back) == _REGIONS


def _wide() -> Any:
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(
        {f"column {i}": np.full(100, i, dtype="f8" if i % 2 else "i8") for i in range(_COLUMNS)}
    )


def test_share_a_wide_frame(call: Any) -> None:
    """share() of a frame of 10,000 columns."""
    frame = _wide()
    assert call.pedantic(mori.share, (frame,), rounds=3).shape == (100, _COLUMNS)


def test_open_a_wide_frame(call: Any) -> None:
    """Open a frame of 10,000 columns and read one."""
    x = mori.share(_wide())
    message = pickle.dumps(x, 5)
    assert call.pedantic(lambda: pickle.loads(message)["column 777"].iloc[3], rounds=9) == 777
