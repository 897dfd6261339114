"""What is written to a file carries its data; what goes to another process is a reference."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import os
import pickle
import pickletools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest
from joblib.externals.loky import get_reusable_executor
from sklearn.neighbors import KNeighborsClassifier

import mori
from tests.fresh import run_python
from tests.mori import sinks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a process that has ended since has written to all sinks."""
    folder = tmp_path_factory.mktemp("sinks")
    code = f"from pathlib import Path; from tests.mori import sinks; sinks.write_all(Path({str(folder)!r}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _same(got: Any, expected: Any) -> None:
    if isinstance(expected, pd.DataFrame):
        pdt.assert_frame_equal(pd.DataFrame(got), expected)
    elif isinstance(expected, pd.Series):
        pdt.assert_series_equal(got, expected)
    elif isinstance(expected, bytes):
        assert bytes(got) == expected
    elif isinstance(expected, dict):
        assert [*got] == [*expected]
        for key, value in expected.items():
            _same(got[key], value)
    else:
        assert np.array_equal(np.asarray(got), np.asarray(expected))


def _check(got: dict[str, Any]) -> None:
    plain = sinks.plain()
    for name, value in plain.items():
        _same(got[name], value)
    frame = plain["frame"]
    _same(got["column"], frame["f"])
    _same(got["texts"], frame["s"])
    _same(got["rows"], frame.iloc[10:20])
    assert got["index"].equals(frame.index)
    _same(got["slice"], plain["array"][10:90:3])
    _same(got["part"], np.arange(300))
    _same(got["object"].values, plain["array"])
    assert not any(map(mori.is_shared, got.values()))


@pytest.mark.parametrize("name", sinks.BY_VALUE)
def test_what_is_written_to_a_file_carries_its_data(written: Path, name: str) -> None:
    sink = sinks.BY_VALUE[name]
    if not sinks.is_there(sink):
        pytest.skip(f"{sink.needs} is not installed")
    _check(sink.read(written / name))


@pytest.mark.parametrize("name", sinks.BY_REFERENCE)
def test_what_goes_to_another_process_is_a_reference(written: Path, name: str) -> None:
    sink = sinks.BY_REFERENCE[name]
    if not sinks.is_there(sink):
        pytest.skip(f"{sink.needs} is not installed")
    assert (written / name).stat().st_size < 5000
    with pytest.raises(mori.RegionNotFoundError, match=r"mori\.by_value\(\)"):
        sink.read(written / name)


def test_the_documentation_lists_each_sink() -> None:
    page = (ROOT / "docs" / "pickling.md").read_text()
    for sink in (*sinks.BY_VALUE.values(), *sinks.BY_REFERENCE.values()):
        assert sink.needs in page


def test_a_model_that_keeps_its_data_is_dumped_with_them(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    run_python(f"""
        import joblib, mori, numpy as np, pandas as pd
        from sklearn.neighbors import KNeighborsClassifier
        x, y = mori.share(np.random.default_rng(0).random((500, 4))), mori.share(np.arange(500) % 3)
        model = KNeighborsClassifier().fit(x, y)
        model.frame_ = mori.share(pd.DataFrame({{"a": np.arange(9.0)}}))
        joblib.dump(model, {str(path)!r})
    """)
    model = joblib.load(path)
    x = np.random.default_rng(0).random((500, 4))
    assert (model.predict(x) == KNeighborsClassifier().fit(x, np.arange(500) % 3).predict(x)).all()
    assert model.frame_["a"].sum() == 36


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_carries_the_data(tmp_path: Path, protocol: int) -> None:
    shared = mori.share({"a": np.arange(1000), "f": pd.DataFrame({"x": np.arange(9.0)})})
    with (tmp_path / "x").open("wb") as file:
        pickle.dump([shared, shared["a"]], file, protocol)
    whole, part = pickle.loads((tmp_path / "x").read_bytes())
    assert not mori.is_shared(whole)
    assert not mori.is_shared(part)
    assert whole["f"]["x"].sum() == 36
    assert part.sum() == whole["a"].sum() == 499500


def test_by_reference_can_be_had_in_a_file(tmp_path: Path) -> None:
    """pickle.dumps is a reference, whoever writes it where."""
    shared = mori.share(np.arange(1000))
    (tmp_path / "x").write_bytes(pickle.dumps(shared))
    assert mori.shared_name(pickle.loads((tmp_path / "x").read_bytes())) == mori.shared_name(shared)


def test_dumps_is_seen_where_its_name_is_not() -> None:
    # In a process of its own, where no other pickler is at work.
    assert (
        run_python("""
        import functools, mori, numpy as np, pickle
        from concurrent.futures import ThreadPoolExecutor
        shared = mori.share(np.arange(1000))
        serialize = pickle.dumps
        class Own:
            encode = staticmethod(pickle.dumps)
        with ThreadPoolExecutor(1) as threads:
            found = [
                serialize(shared),
                functools.partial(pickle.dumps, protocol=5)(shared),
                next(map(pickle.dumps, [shared])),
                Own.encode(shared),
                threads.submit(pickle.dumps, shared).result(),
            ]
        print(max(map(len, found)) < 200)
    """)
        == "True"
    )


def test_threads_that_write_and_send_at_once_get_what_each_needs(tmp_path: Path) -> None:
    """Which of the picklers at work is whose cannot be seen where no name says it: data are right for all."""
    shared = mori.share(np.arange(1000))
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            assert len(pickle.dumps(shared)) < 200

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        sending = threads.submit(send)
        try:
            for number in range(200):
                with (tmp_path / str(number)).open("wb") as file:
                    threads.submit(pickle.dump, shared, file).result()
        finally:
            stop.set()
        sending.result()
    assert min(path.stat().st_size for path in tmp_path.iterdir()) > 8000


def test_a_copy_stays_shared() -> None:
    shared = mori.share([np.arange(3), "x"])
    assert mori.is_shared(copy.deepcopy(shared))


def test_no_call_of_another_pickle_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is asked who calls where nothing shared is pickled, and pickle's own functions are in place."""
    mori.share(np.arange(1000))
    from mori.wire import destination

    monkeypatch.setattr(destination, "_new_site", lambda frame: pytest.fail("asked"))
    with (tmp_path / "x").open("wb") as file:
        pickle.dump({"a": np.arange(9), "f": pd.DataFrame({"x": [1, 2]}), "s": ["x"] * 9}, file)
    assert pickle.dump.__module__ == pickle.Pickler.__module__ == "_pickle"


# What reads references that are dead.


def _dead(make: Callable[[], Any] = lambda: np.arange(1000)) -> bytes:
    """Return a reference to what has never been here: its id is another."""
    pickled = pickle.dumps(mori.share(make()))
    (payload,) = (arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, bytes))
    return pickled.replace(payload[1:17], os.urandom(16))


class _Carries:
    """Is a dead reference when it is unpickled."""

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled

    def __reduce__(self) -> Any:
        from mori.wire import reference

        (payload,) = (arg for _, arg, _ in pickletools.genops(self.pickled) if isinstance(arg, bytes))
        return reference.load, (payload,)


def _use(x: Any) -> int:
    return len(x)


def _give(pickled: bytes) -> Any:
    return _Carries(pickled)


@pytest.mark.parametrize("loads", [pickle.loads, pickle._loads], ids=["C", "Python"])  # type: ignore[attr-defined]
def test_a_dead_reference_raises_when_it_is_read(loads: Callable[[bytes], Any]) -> None:
    with pytest.raises(mori.RegionNotFoundError, match="Keep the shared object alive"):
        loads(_dead())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_goes_on_when_a_task_or_a_result_is_a_dead_reference(method: Any) -> None:
    dead = _dead()
    with multiprocessing.get_context(method).Pool(1) as pool:
        before = pool.apply(os.getpid)
        with pytest.raises(mori.RegionNotFoundError):
            pool.apply_async(_use, (_Carries(dead),)).get(30)
        with pytest.raises(mori.RegionNotFoundError):
            pool.map_async(_use, [_Carries(dead)]).get(30)
        result = pool.apply_async(_give, (dead,)).get(30)
        with pytest.raises(mori.RegionNotFoundError):
            len(result)
        with pytest.raises(mori.RegionNotFoundError):
            pool.apply_async(pickle.loads, (dead,)).get(30)
        assert pool.apply(os.getpid) == before


def check_executor(kind: str, dead: bytes) -> None:
    """Send an executor of processes dead references in tasks and results, and have it go on."""
    if kind == "loky":
        executor: Any = get_reusable_executor(max_workers=1)
    else:
        executor = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"))
    with executor:
        before = executor.submit(os.getpid).result(30)
        with pytest.raises(mori.RegionNotFoundError):
            executor.submit(_use, _Carries(dead)).result(30)
        result = executor.submit(_give, dead).result(30)
        with pytest.raises(mori.RegionNotFoundError):
            len(result)
        with pytest.raises(mori.RegionNotFoundError):
            executor.submit(pickle.loads, dead).result(30)
        assert executor.submit(os.getpid).result(30) == before


@pytest.mark.parametrize("kind", ["concurrent.futures", "loky"])
def test_an_executor_goes_on_when_a_task_or_a_result_is_a_dead_reference(kind: str) -> None:
    # In a process of its own: what loky starts stays until its process ends.
    run_python(f"from tests.mori import test_files; test_files.check_executor({kind!r}, {_dead()!r})")


def test_what_a_user_reads_from_a_pipe_or_a_queue_raises_there() -> None:
    dead = _dead()
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        ours.send_bytes(dead)
        with pytest.raises(mori.RegionNotFoundError):
            theirs.recv()
    queue = multiprocessing.SimpleQueue()
    queue._writer.send_bytes(dead)  # type: ignore[attr-defined]
    with pytest.raises(mori.RegionNotFoundError):
        queue.get()
    queue.close()


def _child_gets(x: Any) -> None:
    raise AssertionError("it has been started")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_whose_argument_is_dead_ends_with_the_error(method: Any, capfd: Any) -> None:
    process = multiprocessing.get_context(method).Process(target=_child_gets, args=(_Carries(_dead()),))
    process.start()
    process.join(30)
    assert process.exitcode == 1
    process.close()
    said = capfd.readouterr().err
    assert method == "forkserver" or "RegionNotFoundError" in said
    assert "it has been started" not in said


def test_a_cache_with_a_dead_reference_computes_anew(tmp_path: Path) -> None:
    memory = joblib.Memory(tmp_path, verbose=0)
    kept = memory.cache(_computed)
    assert kept(3).tolist() == [0, 1, 2]
    (path,) = tmp_path.rglob("output.pkl")
    path.write_bytes(_dead())
    assert kept(3).tolist() == [0, 1, 2]


def _computed(n: int) -> Any:
    return mori.share(np.arange(n))


def test_streamlit_keeps_the_data_of_a_shared_result_and_takes_a_shared_argument() -> None:
    pytest.importorskip("streamlit")
    said = run_python("""
        import mori, numpy as np, pandas as pd, streamlit as st
        from mori.memory import lease
        calls = []
        @st.cache_data
        def table(n):
            calls.append(1)
            return mori.share(pd.DataFrame({"a": np.arange(n)}))
        @st.cache_data
        def total(frame):
            calls.append(2)
            return int(frame["a"].sum())
        for _ in range(3):
            print(int(table(1000)["a"].sum()), end=" ")
            lease.expire_graces()
        print(total(table(10)), total(mori.share(pd.DataFrame({"a": np.arange(10)}))), calls)
    """)
    assert said.splitlines()[-1] == "499500 499500 499500 45 45 [1, 1, 2]"
