"""A file of `mori.save` is whole at every moment, opens in any process, and travels as its path."""

from __future__ import annotations

import concurrent.futures
import copy
import datetime as dt
import decimal
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import threading
import time
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

import mori
from mori import _progress
from tests.fresh import run_python, run_unshared, started_python
from tests.users import as_another_user, directory_for_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.mori"


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": np.arange(1000.0),
            "s": [f"word {i}" for i in range(1000)],
            "t": pd.date_range("2020-01-01", periods=1000, tz="Europe/Berlin"),
            "c": pd.Categorical(["x", "y"] * 500),
            "o": [decimal.Decimal(i) for i in range(1000)],
        }
    )


PLAIN = {
    "array": np.arange(100_000.0).reshape(100, 1000),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "records": np.zeros(3, [("a", "f4"), ("b", "S3")]),
    "objects": np.array([1, "a", None], object),
    "words": np.array(["a", "bc"], np.dtypes.StringDType()),
    "lookup": {f"key {i}": i for i in range(10_000)},
    "nested": {"a": [1, {"b": np.arange(5)[::2]}], "c": (None, 2.5)},
    "documents": [{"id": i, "tags": ["x", "y"], "score": i / 2} for i in range(1000)],
    "dates": [dt.datetime(2020, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), dt.date(2020, 1, 2)],
    "values": {"d": decimal.Decimal("1.5"), "u": uuid.UUID(int=5), "p": Path("/x"), "n": np.float32(2)},
    "moments": {"n": np.datetime64("2020-01-01", "3D"), "p": pd.Timestamp("2020", tz="UTC"), "t": pd.NaT},
    "dtypes": [np.dtype("f8"), np.dtype([("a", "f4", (2,))], align=True), np.dtype("O"), np.dtype("M8[ns]")],
    "collections": [OrderedDict(a=1), deque([1, 2], 5), Counter("abca"), defaultdict(list, {"a": [1]})],
    "sets": [{1, 2}, frozenset("ab"), {3}],
    "bytes": b"x" * 100_000,
    "text": "word" * 100_000,
    "number": 5,
    "nothing": None,
}


PLAIN_OBJECTS = [
    pickle.dumps(obj, 5)
    for obj in (
        *(PLAIN[kind] for kind in ("dates", "values", "moments", "dtypes", "collections", "words")),
        *(np.arange(5), np.arange(10)[::2], np.array([1, "a"], object), np.zeros(1, "V8")[0], np.float64(1)),
        *(np.zeros(2, [("a", "f4"), ("b", "O")]), slice(1, 2), 1 + 2j, [1, {2: "x"}]),
        *(pd.Timestamp("2020", tz="Europe/Berlin"), pd.Timedelta("1s"), pd.Interval(1, 2), pd.NA),
    )
]
"""What the fuzzer changes at will."""


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return [*one] == [*other] and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(_same, one, other))
    return (one is other) if one is pd.NaT else bool(one == other)


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_data_load_without_pickles_in_this_process_and_another(kind, path, worker):
    obj = PLAIN[kind]
    mori.save(obj, path)
    assert _same(obj, mori.materialize(mori.load(path)))

    def compare(path: Path, obj: Any) -> bool:
        import mori
        from tests.mori.test_saving import _same

        return _same(obj, mori.materialize(mori.load(path)))

    assert worker(compare, path, obj)


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_shared_already_is_saved_as_it_stands(kind, path):
    obj = PLAIN[kind]
    mori.save(mori.share(obj), path)
    assert _same(obj, mori.materialize(mori.load(path)))


def test_a_part_of_a_shared_object_is_saved_alone(path, views, nodes):
    x = mori.share({"big": ["word"] * 100_000, "small": [f"word {i}" for i in range(1000)]})
    mori.save(x["small"], path)
    assert path.stat().st_size < 50_000
    assert mori.load(path) == [f"word {i}" for i in range(1000)]


def test_a_part_that_shares_with_others_is_saved_with_what_it_shares(path, views, nodes):
    one = [f"word {i}" for i in range(1000)]
    x = mori.share([[one, 1, "x" * 5000], [one, 2, "y" * 5000]])
    mori.save(x[1], path)
    y = mori.load(path)
    assert mori.materialize(y) == [one, 2, "y" * 5000]


def test_a_written_object_is_saved_with_what_was_written(path):
    x = mori.share({"a": list(range(100))})
    x["a"].append("new")
    mori.save(x, path)
    assert mori.load(path)["a"][-1] == "new"


def test_a_frame_loads_as_one(path):
    frame = _frame()
    with pytest.warns(mori.ObjectColumnWarning, match="'o'") as warnings:
        mori.save(frame, path)
    assert warnings[0].filename == __file__
    found = mori.load(path)
    assert isinstance(found, pd.DataFrame)
    pd.testing.assert_frame_equal(mori.materialize(found), frame)
    assert mori.is_shared(found)


def test_what_was_loaded_is_shared_and_read_only(path):
    mori.save(np.arange(100_000), path)
    x = mori.load(path)
    assert isinstance(x, mori.SharedArray)
    assert mori.is_shared(x)
    assert mori.share(x) is x
    assert not np.asarray(x).flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(x)[0] = 1


def test_a_write_stays_in_this_process(path):
    mori.save(np.zeros(100_000), path)
    before = path.read_bytes()
    x, y = mori.load(path), mori.load(path)
    x[0] = 1
    mori.writable(y)[0] = 2
    assert y[0] == 0
    assert x[0] == 1
    assert not mori.is_shared(x)
    assert path.read_bytes() == before


def test_a_file_is_mapped_once_in_a_process(path):
    mori.save(np.arange(100_000), path)
    assert np.shares_memory(mori.load(path), mori.load(path))


# References


def test_a_pickle_is_a_reference_of_at_most_200_bytes(path, worker):
    mori.save({"a": np.arange(100_000), "f": _frame().drop(columns="o"), "l": [[1]] * 5000}, path)
    x = mori.load(path)
    for part in (x, x["a"], x["a"][10:20], x["f"], x["l"]):
        pickled = pickle.dumps(part, 5)
        assert len(pickled) <= 200 + len(os.fsencode(path)) - 40
        assert worker(lambda pickled: mori.materialize(pickle.loads(pickled)), pickled) is not None
    assert worker(lambda x: int(x[-1]), x["a"][:21]) == 20
    assert worker(mori.is_shared, x["a"])


def test_a_reference_is_the_same_in_every_process(path, worker):
    mori.save(np.arange(100_000), path)
    assert worker(lambda path: pickle.dumps(mori.load(path), 5), path) == pickle.dumps(mori.load(path), 5)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_goes_through_a_pool(path, method):
    mori.save(np.arange(100_000), path)
    x = mori.load(path)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_last, [x, x[:11], x[:21]]) == [99_999, 10, 20]
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(_mapped_from, x).result().count(str(path)) == 1


def _last(x: Any) -> int:
    return int(x[-1])


def _mapped_from(x: Any) -> list[str]:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return sorted({line.split()[-1] for line in maps.splitlines() if line.endswith(".mori")})


def test_a_forked_child_reads_what_its_parent_loaded(path):
    mori.save(list(range(100_000)), path)
    x = mori.load(path)
    pid = os.fork()
    if not pid:
        os._exit(0 if x[5] == 5 and pickle.loads(pickle.dumps(x))[6] == 6 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert x[7] == 7


def test_a_file_pickled_into_a_file_carries_its_data(path, tmp_path):
    mori.save(np.arange(100_000), path)
    x = mori.load(path)
    with open(tmp_path / "p", "wb") as file:
        pickle.dump(x, file)
    with mori.by_value():
        pickled = pickle.dumps(x)
    path.unlink()
    with open(tmp_path / "p", "rb") as file:
        assert pickle.load(file)[-1] == pickle.loads(pickled)[-1] == 99_999


# Names


def test_a_relative_path_means_the_same_after_a_change_of_directory(tmp_path, monkeypatch, worker):
    monkeypatch.chdir(tmp_path)
    mori.save(np.arange(100_000), "x.mori")
    x = mori.load("x.mori")
    monkeypatch.chdir("/")
    assert worker(_last, x) == 99_999


def test_a_link_stays_and_the_file_behind_it_is_replaced(path, tmp_path):
    link = tmp_path / "latest.mori"
    link.symlink_to("x.mori")
    mori.save([1], link)
    mori.save([2], link)
    assert link.is_symlink()
    assert mori.load(path) == mori.load(link) == [2]


@pytest.mark.parametrize("name", [b"\xff\xfe.mori", "ein Stück 森.mori".encode(), b"x" * 255])
def test_a_file_may_have_any_name(tmp_path, name, worker):
    path = os.path.join(os.fsencode(tmp_path), name)
    mori.save(np.arange(100_000), path)
    assert worker(_last, mori.load(path)) == 99_999
    assert os.listdir(os.fsencode(tmp_path)) == [name]


def test_a_copy_of_a_file_is_a_file_of_its_own(path, tmp_path, worker):
    mori.save(np.arange(100_000), path)
    other = tmp_path / "y.mori"
    shutil.copy(path, other)
    x, y = mori.load(path), mori.load(other)
    path.unlink()
    assert worker(_last, y) == 99_999
    assert _last(x) == 99_999


# Replaced, removed, cut off


def test_a_reader_keeps_the_file_that_was_replaced(path, worker):
    mori.save(np.zeros(100_000), path)
    old = mori.load(path)
    pickled = pickle.dumps(old)
    mori.save(np.ones(100_000), path)
    new = mori.load(path)
    assert (old[0], new[0]) == (0, 1)
    assert copy.deepcopy(old)[0] == pickle.loads(pickled)[0] == 0
    with pytest.raises(mori.SavedRegionNotFoundError, match="saved since") as error:
        worker(pickle.loads, pickled)
    assert error.value.path == str(path)
    assert worker(_last, new) == 1


def test_a_reference_to_a_file_that_is_gone_says_so(path, worker):
    mori.save(np.zeros(100_000), path)
    pickled = pickle.dumps(mori.load(path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        worker(pickle.loads, pickled)
    path.mkdir()
    with pytest.raises(mori.RegionNotFoundError, match="Is a directory"):
        worker(pickle.loads, pickled)


def test_a_file_may_be_saved_over_while_it_is_loaded(path):
    mori.save({"a": np.arange(100_000)}, path)
    x = mori.load(path)
    for value in range(3):
        mori.save({**x, "value": value}, path)
        x = mori.load(path)
    mori.save(x, path)
    y = mori.load(path)
    assert (y["value"], y["a"][-1], x["value"]) == (2, 99_999, 2)


def test_a_file_of_the_same_id_under_the_same_name_is_told_apart(path, tmp_path):
    mori.save(np.zeros(100_000), path)
    x = mori.load(path)
    shutil.copy(path, tmp_path / "copy")
    with open(tmp_path / "copy", "r+b") as file:
        file.seek(4096)
        file.write(b"\x01" * 8)
    os.replace(tmp_path / "copy", path)
    assert np.count_nonzero(mori.load(path)) == 1
    assert not np.count_nonzero(x)


@pytest.mark.parametrize("left", [0, 10, 64, 1000, -1])
def test_a_file_that_was_cut_off_says_so(path, left):
    mori.save(np.arange(100_000), path)
    size = path.stat().st_size
    os.truncate(path, left if left >= 0 else size + left)
    with pytest.raises(mori.CorruptRegionError, match=r"x\.mori"):
        mori.load(path)


def test_what_is_no_file_of_mori_says_so(tmp_path):
    (tmp_path / "text").write_text("a,b\n1,2\n" * 100, encoding="ascii")
    with pytest.raises(mori.CorruptRegionError, match="it starts with b'a,b"):
        mori.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="none"):
        mori.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        mori.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(mori.CorruptRegionError, match="not a regular file"):
        mori.load(tmp_path / "pipe")


# Writing


def test_the_mode_is_what_the_umask_leaves(path):
    old = os.umask(0o027)
    try:
        mori.save([1], path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(old)


def test_a_failure_leaves_the_old_file_and_nothing_else(path, tmp_path):
    mori.save([1], path)
    with pytest.raises(mori.NotShareableError, match=r"obj\['lock'\]"):
        mori.save({"lock": threading.Lock()}, path)
    with pytest.raises(mori.NotShareableError, match="lock"):
        mori.save(threading.Lock(), path)
    assert mori.load(path) == [1]
    assert os.listdir(tmp_path) == ["x.mori"]


def test_where_no_file_can_be_the_error_is_that_of_open(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none/x\.mori"):
        mori.save([1], tmp_path / "none" / "x.mori")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        mori.save([1], tmp_path / "file" / "x.mori")
    with pytest.raises(IsADirectoryError):
        mori.save([1], tmp_path)
    with pytest.raises(OSError, match="File name too long"):
        mori.save([1], tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="no regular file"):
        mori.save([1], tmp_path / "pipe")
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_full_file_system_leaves_the_old_file():
    run_unshared(
        "mount -t tmpfs -o size=3m tmpfs /mnt",
        """
        import os, mori, numpy as np
        mori.save([1], "/mnt/x.mori")
        for elements in (1_000_000, 100_000):  # refused at once, and met in the middle
            try:
                mori.save(np.zeros(elements), "/mnt/x.mori")
            except mori.StoreFullError as error:
                assert "What stood there before still does" in str(error), error
            else:
                raise SystemExit("saved")
            if not os.path.exists("/mnt/other"):
                with open("/mnt/other", "wb") as file:
                    file.write(bytes(2_500_000))
        assert mori.load("/mnt/x.mori") == [1]
        assert sorted(os.listdir("/mnt")) == ["other", "x.mori"]
        """,
    )


def test_an_interrupt_leaves_a_whole_file_and_no_draft(path, tmp_path):
    code = """
        import os, signal, sys, mori, numpy as np
        def interrupt(*_): raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        path, obj = sys.argv[1], {"a": np.zeros(300_000), "b": ["word"] * 5_000}
        mori.save(obj, path)
        count = 0
        for number in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 * (number % 50 + 1))
                mori.save(obj, path)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                count += 1
            assert len(mori.load(path, verify=True)["b"]) == 5_000
        print(count)
    """
    count = run_python(code.replace("sys.argv[1]", repr(str(path))))
    assert int(count) > 10
    assert os.listdir(tmp_path) == ["x.mori"]


def test_a_killed_saver_leaves_the_old_file(path, tmp_path):
    code = """
import sys, mori, numpy as np
mori.save(np.zeros(2_000_000), sys.argv[1])
print("ready", flush=True)
while True:
    mori.save(np.ones(2_000_000), sys.argv[1])
"""
    for pause in (0.0, 0.01, 0.02, 0.03):
        with started_python(code, path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        assert len(mori.load(path, verify=True)) == 2_000_000
    assert all(name == "x.mori" or name.endswith(".draft") for name in os.listdir(tmp_path))


def test_several_savers_and_readers_of_one_name_meet_whole_files(path, tmp_path):
    mori.save(np.zeros(100_000), path)
    context = multiprocessing.get_context("spawn")
    savers = [context.Process(target=_save_often, args=(path, value)) for value in (1, 2)]
    for saver in savers:
        saver.start()
    while any(saver.is_alive() for saver in savers):
        x = mori.load(path, verify=True)
        assert np.unique(x) in (0, 1, 2)
    assert [saver.exitcode for saver in savers] == [0, 0]
    assert os.listdir(tmp_path) == ["x.mori"]


def _save_often(path: Path, value: int) -> None:
    for _ in range(50):
        mori.save(np.full(100_000, value), path)


def test_a_shared_object_is_saved_without_a_second_copy_in_memory(path):
    code = f"""
        import mori
        x = mori.share([str(i) * 20 for i in range(400_000)])
        assert type(x) is mori.SharedList
        def private():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
        begin = private()
        mori.save(x, {str(path)!r})
        print((private() - begin) // 1000)
    """
    assert int(run_python(code)) < 5


@pytest.mark.parametrize("share", [lambda obj: obj, mori.share])
def test_progress_covers_all_bytes(share, path, monkeypatch):
    done: list[tuple[int, int]] = []

    class Bar:
        def __init__(self, desc: str, total: int = 0, **options: object) -> None:
            self.total, self.done = total, 0

        def update(self, count: int) -> None:
            self.done += count

        def close(self) -> None:
            done.append((self.total, self.done))

    monkeypatch.setattr(_progress, "_maker", lambda: Bar)
    mori.save(share([f"word {i}" for i in range(50_000)]), path, progress=True)
    (_, (total, written)) = done
    assert 0.99 < written / total < 1.01
    assert mori.load(path)[5] == "word 5"


# Engines and other domains


def _arrived_elsewhere(pickled: bytes) -> tuple[Any, ...]:
    """Open bytes as on another host: they are adopted by its store."""
    from mori.memory import region
    from mori.wire import reference

    arrived = [*reference._receivers]
    reference._receivers[:] = [region.adopt]
    try:
        x = pickle.loads(pickled)
        return mori.is_shared(x), mori.materialize(x), len(pickle.dumps(x))
    finally:
        reference._receivers[:] = arrived


def test_bytes_that_travel_are_adopted_where_they_arrive(path, worker):
    mori.save(list(range(10_000)), path)
    x = mori.load(path)
    with mori.by_value():
        pickled = pickle.dumps(x, 4)
    shared, values, nbytes = worker(_arrived_elsewhere, pickled)
    assert (shared, values) == (True, list(range(10_000)))
    assert nbytes < 200
    assert _arrived_elsewhere(pickled)[0]


# Other users


def test_another_users_file_loads_where_it_can_be_read():
    with directory_for_all() as directory:

        def save() -> None:
            os.umask(0o022)
            mori.save(np.arange(1000), directory / "open.mori")
            os.umask(0o077)
            mori.save(np.arange(1000), directory / "closed.mori")

        as_another_user(save)
        assert mori.load(directory / "open.mori")[-1] == 999
        pickled = pickle.dumps(mori.load(directory / "closed.mori"))  # root reads all

        def load() -> None:
            with pytest.raises(PermissionError):
                mori.load(directory / "secret.mori")
            with pytest.raises(mori.SavedRegionNotFoundError, match="Permission denied"):
                pickle.loads(pickled.replace(b"closed.mori", b"secret.mori"))

        (directory / "secret.mori").touch(0o600)
        as_another_user(load)


# Versions

_GOLDEN = Path(__file__).parents[1] / "golden" / "1" / "saved" / "mixed.mori"


def _golden_object() -> Any:
    return {
        "array": np.arange(1000, dtype="<i4"),
        "texts": [f"text {i}" for i in range(1000)],
        "records": [{"id": i, "tags": ["x", None]} for i in range(100)],
        "model": [OrderedDict(a=1), Fixed(3)],
    }


class Fixed:
    """An object of a class that a file has to be trusted for."""

    def __init__(self, value: int) -> None:
        self.value = value


def test_a_file_of_this_format_is_read_and_written_as_it_was(path):
    """A later version has to pass this with the same file, or say that it is of another format."""
    obj, old = _golden_object(), mori.load(_GOLDEN, allow_pickle=True, verify=True)
    assert {key: _same(obj[key], mori.materialize(old[key])) for key in ("array", "texts", "records")} == {
        "array": True,
        "texts": True,
        "records": True,
    }
    assert (old["model"][0], old["model"][1].value) == (OrderedDict(a=1), 3)
    with pytest.raises(mori.PickleNotAllowedError, match="Fixed"):
        mori.load(_GOLDEN)
    mori.save(obj, path)
    new, golden = path.read_bytes(), _GOLDEN.read_bytes()
    assert (len(new), new[64:1000]) == (len(golden), golden[64:1000])  # behind the header, which has an id
    nbytes = int.from_bytes(golden[32:40], "little")
    assert new[64:nbytes] == golden[64:nbytes]
    assert new[nbytes + 12 : nbytes + 256] == golden[nbytes + 12 : nbytes + 256]


def test_what_r_shared_is_saved_in_moris_own_layout(path):
    code = f"""
        import mori
        from tests.mori.test_r_damage import open_r, regions
        count = 0
        for data in regions():
            mori.save(open_r(data), {str(path)!r})
            plain = mori.materialize(open_r(data))
            assert repr(mori.materialize(mori.load({str(path)!r}, allow_pickle=True))) == repr(plain)
            count += 1
        print(count)
    """
    assert int(run_python(code, "-W", "ignore")) > 20
