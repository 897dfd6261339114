"""`mori.share(x, layout="r")` writes what R's mori opens; what R cannot hold is an error that says where."""

from __future__ import annotations

import datetime as dt
import gc
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mori
from mori.codecs.pandas.versions import string_dtype
from mori.codecs.r import Encoder
from mori.format.r_writer import Layout
from mori.memory.lease import expire_graces
from mori.store.base import Header
from tests.fresh import run_unshared, started_python
from tests.mori.test_r_damage import open_r
from tests.mori.test_r_reading import VALUES, check
from tests.r_placed import SHM, data_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="R's regions are in /dev/shm")

NA = float("nan")


@pytest.fixture(autouse=True)
def _newest_r(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_R_VERSION", "4.6")


def written(obj: Any, *, pairs: bool = False, bit64: bool = False) -> bytes:
    """Return an object in R's layout."""
    root = Encoder(bit64=bit64).encode(obj)
    layout, put = Layout(pairs=pairs), bytearray()
    nbytes = layout.region_nbytes(root)

    def take(data: Any, *, borrowed: bool = False) -> None:
        put.extend(data)

    layout.write(root, Header(bytes(16), nbytes, 0, 1, 1, 0), take)
    assert len(put) == nbytes
    return bytes(put)


# as R writes it


# The others have NA where Python has NaN, names of dimensions, or row names in another of R's forms.
_ALIKE = {
    "array_integer_3d": VALUES["array_integer_3d"],
    "character": VALUES["character"],
    "character_empty": np.array([], "U1"),
    "data_frame_row_names": VALUES["data_frame_row_names"],
    "date": np.array(["2024-02-29", "NaT", "1969-12-31"], "M8[D]"),
    "double_empty": np.array([]),
    "factor": VALUES["factor"],
    "factor_ordered": VALUES["factor_ordered"],
    "integer_named": VALUES["integer_named"],
    "list_empty": [],
    "list_nested": VALUES["list_nested"],
    "list_unnamed": [[1.0], "two", [True]],
    "logical": VALUES["logical"],
    "posixct_paris": VALUES["posixct_paris"],
    "raw": VALUES["raw"],
}


@pytest.mark.parametrize("name", _ALIKE)
def test_it_is_what_r_writes_byte_for_byte(name: str) -> None:
    data = data_of(name)
    ours = bytearray(written(_ALIKE[name]))[: len(data)]
    # R says 0 (native) of strings that are ASCII, where mori says 1 (UTF-8) of all.
    assert len(ours) == len(data)
    assert {pair for pair in zip(ours, data, strict=True) if pair[0] != pair[1]} <= {(1, 0)}


def test_older_r_gets_its_attributes_as_a_pairlist() -> None:
    frame = pd.DataFrame({"x": [1.5, 2], "f": pd.Categorical(["a", "b"])})
    old, new = written(frame, pairs=True), written(frame)
    assert old != new
    check(open_r(old), frame)
    check(open_r(new), frame)


def test_which_r_reads_is_set_or_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mori.format.r_writer import wants_pairs

    monkeypatch.delenv("MORI_R_VERSION")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("R_HOME", raising=False)
    assert not wants_pairs()
    base = tmp_path / "R/library/base"
    base.mkdir(parents=True)
    (base / "DESCRIPTION").write_text("Package: base\nVersion: 4.5.1\n")
    monkeypatch.setenv("R_HOME", str(tmp_path / "R"))
    assert wants_pairs()
    monkeypatch.setenv("MORI_R_VERSION", "4.6.2")
    assert not wants_pairs()
    monkeypatch.setenv("MORI_R_VERSION", "new")
    with pytest.raises(mori.SettingError, match="MORI_R_VERSION='new'"):
        wants_pairs()


# what comes back

DATES = st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1))
TIMES = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
INTS = st.integers(-(2**31) + 1, 2**31 - 1)
FLOATS = st.floats(allow_nan=False)


def _columns(values: Any) -> Any:
    return st.lists(values, min_size=1, max_size=6)


VECTORS = st.one_of(
    _columns(INTS).map(lambda x: np.array(x, "i4")),
    _columns(FLOATS).map(np.array),
    _columns(st.booleans()).map(np.array),
    st.binary(max_size=9).map(lambda x: np.frombuffer(x, "u1")),
    st.lists(st.one_of(TEXT, st.none()), min_size=1, max_size=6).filter(
        lambda x: any(one is not None for one in x)
    ),
    hnp.arrays(np.dtype("f8"), hnp.array_shapes(min_dims=2, max_dims=3, min_side=0), elements=FLOATS),
    hnp.arrays(np.dtype("i4"), hnp.array_shapes(min_dims=2, max_dims=3), elements=INTS),
    hnp.arrays(np.dtype("c16"), 3, elements=st.complex_numbers(allow_nan=False)),
)
OBJECTS = st.recursive(
    VECTORS,
    lambda inside: st.one_of(
        st.dictionaries(TEXT, inside, max_size=4),
        st.lists(inside, min_size=1, max_size=4),
    ),
    max_leaves=8,
)


@given(OBJECTS, st.booleans())
def test_arrays_lists_and_dicts_come_back(obj: Any, pairs: bool) -> None:
    check(open_r(written(obj, pairs=pairs)), obj)


def _or(dtype: str) -> Any:
    """Return what makes plain numbers of those of which none is missing."""
    return lambda values: values if values.isna().any() else np.asarray(values, dtype)


def _in_paris(times: Any) -> Any:
    return pd.Series(times).dt.tz_localize("Europe/Paris", ambiguous="NaT", nonexistent="NaT").array


@st.composite
def frames(draw: Any) -> pd.DataFrame:
    length = draw(st.integers(0, 5))

    def column(values: Any, dtype: Any) -> Any:
        return st.lists(values, min_size=length, max_size=length).map(lambda x: pd.array(x, dtype))

    def maybe(values: Any) -> Any:
        return st.one_of(values, st.just(pd.NA))

    text = string_dtype(nan=True)
    columns = st.one_of(
        column(FLOATS, "float64").map(np.asarray),
        column(INTS, "int32").map(np.asarray),
        column(maybe(INTS), "Int32").map(_or("i4")),
        column(maybe(st.booleans()), "boolean").map(_or("?")),
        column(st.one_of(TEXT, st.none()), text),
        column(st.sampled_from(["u", "v", None]), pd.CategoricalDtype(["u", "v"])),
        column(TIMES, "datetime64[us]").map(_in_paris),
        column(st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999)), "timedelta64[us]"),
    )
    names = draw(st.lists(TEXT, unique=True, max_size=4))
    frame = pd.DataFrame({name: draw(columns) for name in names}, index=pd.RangeIndex(length if names else 0))
    if names and draw(st.booleans()):
        frame.index = pd.Index(
            draw(st.lists(TEXT, unique=True, min_size=length, max_size=length)), dtype=text
        )
    return frame


@given(frames(), st.booleans())
def test_frames_come_back(frame: pd.DataFrame, pairs: bool) -> None:
    found = open_r(written(frame, pairs=pairs))
    pd.testing.assert_frame_equal(found, frame, check_index_type=False, check_column_type=False)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ([1, 2, None], pd.Series(pd.array([1, 2, None], "Int32"))),
        ([1, 2**40], np.array([1.0, 2.0**40])),
        ([1, 2.5, None], np.array([1, 2.5, NA])),
        ([True, None], pd.Series(pd.array([True, None], "boolean"))),
        (np.array([1, 2**53]), np.array([1.0, 2.0**53])),
        (np.array([1, 2], "u4"), np.array([1.0, 2.0])),
        (np.array([1, -2], "i1"), np.array([1, -2], "i4")),
        (np.array([1.5], "f2"), np.array([1.5])),
        (np.array([[1, 2], [3, 4]], ">i4"), np.array([[1, 2], [3, 4]], "i4")),
        (np.array([["a", "b"]]), np.array([["a", "b"]], object)),
        (np.array(["2024-02-29", "NaT"], "M8[D]"), pd.Series(np.array(["2024-02-29", "NaT"], "M8[s]"))),
        ([dt.date(2024, 2, 29), None], pd.Series(np.array(["2024-02-29", "NaT"], "M8[s]"))),
        (
            [dt.datetime(2024, 2, 29, 12, tzinfo=ZoneInfo("Asia/Tokyo"))],
            pd.Series(pd.to_datetime(["2024-02-29 12:00"]).tz_localize("Asia/Tokyo").as_unit("us")),
        ),
        (
            pd.Series(pd.to_datetime(["2024-01-01T00:00+05:30"])),
            pd.Series(pd.to_datetime(["2023-12-31 18:30"]).tz_localize("UTC").as_unit("us")),
        ),
        (memoryview(np.arange(3.0)), np.arange(3.0)),
        (dt.timedelta(hours=1), pd.Series(np.array([3600 * 10**6], "m8[us]"))),
        (np.timedelta64(5, "s"), pd.Series(np.array([5 * 10**6], "m8[us]"))),
        (pd.Series([1.5, 2], index=["a", "b"], name="lost"), pd.Series([1.5, 2], index=["a", "b"])),
        (pd.Index(["a", "b"]), ["a", "b"]),
        (pd.array([1, None], "Int64"), np.array([1.0, NA])),
        (np.ma.array([1, 2], mask=[0, 1], dtype="i4"), pd.Series(pd.array([1, None], "Int32"))),
        (b"abc", np.frombuffer(b"abc", "u1")),
        ("text", ["text"]),
        (7, np.array([7], "i4")),
        (("a", 1), [["a"], np.array([1], "i4")]),
        ({}, {}),
    ],
)
def test_what_r_has_in_another_form_comes_back_in_that(obj: Any, expected: Any) -> None:
    check(open_r(written(obj)), expected)


def test_a_masked_matrix_comes_back_as_one() -> None:
    masked = np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]], dtype="i4")
    found = open_r(written(masked))
    assert isinstance(found, np.ma.MaskedArray)
    assert found.tolist() == [[1, None], [3, 4]]


def test_bit64_keeps_what_doubles_cannot() -> None:
    wide = np.array([2**60 + 1, -3])
    check(open_r(written(wide, bit64=True)), pd.Series(wide))
    frame = pd.DataFrame({"id": pd.array([2**60 + 1, None], "Int64")})
    check(open_r(written(frame, bit64=True)), frame)


class Own:
    pass


_cycle: list[Any] = [1.5, "a"]
_cycle.append({"again": _cycle})
_deep: Any = [1, "a"]
for _ in range(200):
    _deep = [_deep, "a"]

REFUSED: dict[str, tuple[Any, str]] = {
    "an integer that is too large": (np.array([1, 2**53 + 1]), "obj: .*9007199254740993.*bit64"),
    "a negative one": ({"a": [2**60, 1]}, r"obj\['a'\]: .*bit64"),
    "one that no type holds": ([2**70], "obj: .*too large"),
    "R's missing integer": (np.array([-(2**31)], "i4"), "obj: .*-2147483648.*float64"),
    "an object": ({"a": {"b": [1, Own()]}}, r"obj\['a'\]\['b'\]\[1\]: .*Own"),
    "a set": ([{1, 2}], r"obj\[0\]: .*set"),
    "a key that is no text": ({"a": {3: 1}}, r"obj\['a'\]\[3\]: .*text"),
    "itself": (_cycle, r"obj\[2\]\['again'\]: .*contains itself"),
    "too deep": (_deep, r"deeper than 100 levels"),
    "fields": (np.zeros(2, "f8,i4"), "obj: .*DataFrame"),
    "bytes": (np.array([b"a"]), "obj: .*uint8"),
    "a NUL": (["a", "b\0c"], r"obj\[1\]: .*NUL"),
    "half a character": (["a", "\ud800"], r"obj\[1\]: .*no text"),
    "nanoseconds": (pd.Series(pd.to_datetime([1, 2], unit="ns")), "obj: .*microseconds.*Round"),
    "periods": (pd.DataFrame({"p": pd.period_range("2024", periods=2)}), r"obj\['p'\]: .*period"),
    "categories that are no text": (pd.Categorical([1, 2]), "obj: .*category 1.*rename_categories"),
    "names of columns": (pd.DataFrame({1: [2]}), r"obj\.columns: 1|obj\.columns: .*map\(str\)"),
    "a name of the index": (pd.DataFrame({"a": [2]}).rename_axis("k"), r"obj\.index: .*'k'.*reset_index"),
    "levels": (pd.DataFrame({"a": [2]}, index=pd.MultiIndex.from_tuples([(1, 2)])), r"obj\.index: .*levels"),
    "labels met twice": (pd.DataFrame({"a": [2, 3]}, index=["x", "x"]), r"obj\.index: .*distinct"),
    "labels of a vector": (pd.Series([1.5], index=[7]), r"obj\.index: .*7.*reset_index"),
    "a column of objects": (pd.DataFrame({"a": [Own()]}), r"obj\['a'\]\[0\]: .*Own"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_r_cannot_hold_is_an_error_that_says_where_and_what_to_do(what: str) -> None:
    obj, text = REFUSED[what]
    mine = f"mori_{os.getpid():x}_"
    before = {name for name in os.listdir(SHM) if name.startswith(mine)}  # in its grace, of another test
    with pytest.raises(mori.NotShareableError, match=text) as caught:
        mori.share(obj, layout="r")
    assert {name for name in os.listdir(SHM) if name.startswith(mine)} <= before
    # Where Dask is imported, errors pickle with their tracebacks: this one's has a hundred frames.
    again = pickle.loads(pickle.dumps(caught.value.with_traceback(None)))
    assert (str(again), again.path) == (str(caught.value), caught.value.path)


def test_layouts_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="layout='s'"):
        mori.share([1.5], layout="s")  # type: ignore[call-overload]


# the region


def test_the_region_has_a_name_of_rs_form_while_it_is_held() -> None:
    x = mori.share({"a": np.arange(1000.0), "b": ["x", None]}, layout="r")
    name = mori.shared_name(x)
    assert name is not None
    path = SHM / name[1:]
    assert name.startswith(f"/mori_{os.getpid():x}_")
    assert path.stat().st_mode & 0o777 == 0o600
    assert mori.is_shared(x)
    assert mori.is_shared(x["a"])
    assert mori.shared_name(x["b"]) == f"{name}[2]"
    assert mori.share(x, layout="r") is x
    assert name in [entry.name for entry in mori.regions()]
    part = x["a"]
    del x
    gc.collect()
    assert path.exists()
    del part
    assert not path.exists()
    with pytest.raises(mori.RegionNotFoundError):
        mori.map_shared(name)


def test_the_name_goes_with_the_last_of_all_holders(worker: Any) -> None:
    x = mori.share(np.arange(1000.0), layout="r")
    name = mori.shared_name(x)
    assert name is not None
    path = SHM / name[1:]
    worker(_keep, x)
    del x
    expire_graces()
    assert path.exists()
    assert mori.map_shared(name)[5] == 5
    expire_graces()
    worker(_let_go)
    assert not path.exists()


_kept: list[Any] = []


def _keep(x: Any) -> None:
    _kept.append(x)


def _let_go() -> None:
    _kept.clear()
    gc.collect()
    expire_graces()


_SHARING = """
import mori, numpy, sys
x = mori.share(numpy.arange(1000.0), layout="r")
print(mori.shared_name(x), flush=True)
sys.stdin.readline()
"""


def test_the_name_goes_when_the_process_ends() -> None:
    with started_python(_SHARING) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        path = SHM / process.stdout.readline().strip()[1:]
        assert path.exists()
        process.stdin.close()
        process.wait(20)
        assert not path.exists()


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    with started_python(_SHARING) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        path = SHM / name[1:]
        mori.prune_shared()
        assert path.exists()
        x = mori.map_shared(name)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert mori.prune_shared() == []  # it is held here
        assert x[3] == 3
        del x
        assert not path.exists()
    with started_python(_SHARING) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert (SHM / name[1:]).exists()
        assert mori.prune_shared() == [name]
        assert not (SHM / name[1:]).exists()


def test_only_what_mori_wrote_under_its_name_is_ours() -> None:
    x = mori.share(np.arange(10.0), layout="r")
    name = mori.shared_name(x)
    assert name is not None
    copy = SHM / f"mori_{os.getpid():x}_abcdef9"  # as if R had written these bytes
    copy.write_bytes((SHM / name[1:]).read_bytes())
    copy.chmod(0o600)
    try:
        assert mori.prune_shared() == []
        y = mori.map_shared(f"/{copy.name}")
        assert y[9] == 9
        del y
        assert copy.exists()
    finally:
        copy.unlink()


def test_a_forked_child_holds_it_too() -> None:
    x = mori.share(np.arange(1000.0), layout="r")
    name = mori.shared_name(x)
    assert name is not None
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.read(ours, 1)
        os._exit(0 if x[5] == 5 and (SHM / name[1:]).exists() else 1)
    del x
    gc.collect()
    assert (SHM / name[1:]).exists()
    os.write(theirs, b"x")
    _, status = os.waitpid(child, 0)
    os.close(ours)
    os.close(theirs)
    assert status == 0
    deadline = time.monotonic() + 10
    while (SHM / name[1:]).exists() and time.monotonic() < deadline:
        mori.prune_shared()
    assert not (SHM / name[1:]).exists()


def test_large_arrays_are_written_without_a_copy_of_what_r_has_as_well() -> None:
    import tracemalloc

    x = np.zeros(1 << 20)
    tracemalloc.start()
    shared = mori.share({"x": x}, layout="r")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert shared["x"].nbytes == x.nbytes


_ELSEWHERE = """
import mori, numpy
try:
    x = mori.share(numpy.zeros({elements}), layout="r")
except mori.MoriError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("prepare", ["mount -t tmpfs -o ro none /dev/shm", "mount -t tmpfs none /dev"])
def test_without_a_directory_for_rs_regions_it_is_an_error(prepare: str) -> None:
    for elements in (10, 10**6):
        said = run_unshared(prepare, _ELSEWHERE.format(elements=elements))
        assert said.startswith(
            'StoreError cannot use the store "R\'s shared memory": no file can be made in /dev/shm'
        )


def test_too_little_room_is_an_error_and_leaves_nothing() -> None:
    code = _ELSEWHERE.format(elements=10**6) + "import os; print(os.listdir('/dev/shm'))"
    said = run_unshared("mount -t tmpfs -o size=2M none /dev/shm", code)
    assert said.startswith("StoreFullError no room for a shared region of 8.0 MB")
    assert said.endswith("[]")


def test_r_attributes_are_those_of_the_whole() -> None:
    x = mori.share({"a": np.zeros((2, 3))}, layout="r")
    attributes = mori.r_attributes(x)
    assert attributes == {"names": ["a"]}
    inner = mori.r_attributes(x["a"])
    assert inner is not None
    assert inner["dim"].tolist() == [2, 3]
    assert mori.r_attributes([1]) is None
    assert mori.r_attributes(mori.share([1.5] * 100)) is None
