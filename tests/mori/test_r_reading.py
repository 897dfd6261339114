"""What R's mori shared is opened in Python: thirty regions that R wrote, byte for byte."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mori
from mori.__main__ import main
from mori.codecs.pandas.versions import string_dtype
from mori.memory.mapping import held_by
from mori.objects.r import RObject
from tests.fresh import run_python
from tests.r_placed import NAMES, SHM, data_of, placed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="R's regions are looked for in /dev/shm")

NA = float("nan")


def _strings(*values: Any) -> Any:
    return pd.array(list(values), dtype=string_dtype(nan=True))


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": [1.5, NA, 3.0],
            "n": pd.array([1, 2, None], "Int32"),
            "s": _strings("a", None, "ç"),
            "f": pd.Categorical(["u", "v", "u"]),
            "l": pd.array([True, False, None], "boolean"),
            "d": np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "M8[s]"),
        }
    )


VALUES: dict[str, Any] = {
    "array_integer_3d": np.arange(1, 25, dtype="i4").reshape((2, 3, 4), order="F"),
    "character": ["alpha", None, "", "naïve", "森"],
    "character_empty": [],
    "complex": np.array([1 + 2j, complex(NA, 0)]),
    "data_frame": _frame(),
    "data_frame_empty": pd.DataFrame(columns=pd.Index([], dtype=object)),
    "data_frame_row_names": pd.DataFrame({"v": np.array([1, 2, 3], "i4")}, index=["r1", "r2", "r3"]),
    "date": pd.Series(np.array(["2024-02-29", "NaT", "1969-12-31"], "M8[s]")),
    "double": np.array([1.5, -2, NA, np.inf, NA]),
    "double_empty": np.array([]),
    "factor": pd.Series(pd.Categorical(["lo", "hi", None, "lo"], ["lo", "hi"])),
    "factor_ordered": pd.Series(pd.Categorical(["s", "l"], ["s", "m", "l"], ordered=True)),
    "integer_named": pd.Series(pd.array([1, None, 3], "Int32"), index=["a", "b", "c"]),
    "list_empty": [],
    "list_nested": {
        "a": np.array([1, 2, 3], "i4"),
        "b": ["x"],
        "c": {"d": np.array([2.5, 3]), "e": None, "f": []},
    },
    "list_unnamed": [np.array([1.0]), ["two"], np.array([True])],
    "logical": pd.Series(pd.array([True, None, False], "boolean")),
    "matrix_named": np.arange(1.0, 7).reshape((2, 3), order="F"),
    "old_bytes": ["\\xff", "a\\xfe", "naïve"],
    "old_dimnames": np.array([[1, 3], [2, 4]], "i4"),
    "old_function": RObject,
    "old_integer_dates": pd.Series(np.array(["2024-02-29", "NaT"], "M8[s]")),
    "old_language": np.array([1.0, 2.0]),
    "old_level_na": pd.Series(pd.Categorical(["a", None, "b"])),
    "old_names": pd.Series([1.5, 2, 4], index=["1", "2", "3"]),
    "old_names_of_numbers": pd.Series(np.arange(1, 5, dtype="i4"), index=["2020", "0.1", "1e+05", None]),
    "old_objects": [RObject, RObject, None],
    "old_pointer": pd.DataFrame({"a": np.array([1, 2], "i4")}),
    "posixct_paris": pd.Series(
        pd.to_datetime(["2024-02-29 12:34:56", None]).tz_localize("Europe/Paris").as_unit("us")
    ),
    "raw": np.arange(256, dtype="u1"),
}


def check(found: Any, value: Any) -> None:
    """Compare what R shared with what it is in Python."""
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(
            pd.DataFrame(found), value, check_index_type=False, check_column_type=False
        )
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(pd.Series(found), value)
    elif isinstance(value, np.ndarray):
        assert isinstance(found, mori.SharedArray)
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(np.asarray(found), value)
    elif isinstance(value, dict):
        assert isinstance(found, mori.SharedDict | dict)
        assert [*found] == [*value]
        for key in value:
            check(found[key], value[key])
    elif isinstance(value, list):
        assert isinstance(found, mori.SharedList | list)
        assert len(found) == len(value)
        for one, other in zip(found, value, strict=True):
            check(one, other)
    elif value is RObject:
        assert isinstance(found, RObject)
    else:
        assert found == value


def test_attributes_of_r_are_kept() -> None:
    with placed(data_of("matrix_named")) as where:
        attributes = mori.r_attributes(mori.map_shared(where))
        assert attributes is not None
        assert attributes["dimnames"] == [["r1", "r2"], ["x", "y", "z"]]
    with placed(data_of("old_dimnames")) as where:
        attributes = mori.r_attributes(mori.map_shared(where)[0])
        assert attributes is not None
        assert attributes["dimnames"] == [None, ["a", "b"]]
    with placed(data_of("old_function")) as where:
        x = mori.map_shared(where)
        assert mori.r_attributes(x) == {}
        assert x.type == "integer"


def test_each_region_of_r_has_a_value() -> None:
    assert sorted(VALUES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_region_of_r_is_opened_by_its_name(name: str) -> None:
    with placed(data_of(name)) as where:
        x = mori.map_shared(where)
        check(x, VALUES[name])
        assert mori.is_shared(x)
        assert mori.shared_name(x) == where


@pytest.mark.parametrize("name", NAMES)
def test_what_r_shared_pickles_as_a_reference(name: str, worker: Any) -> None:
    with placed(data_of(name)) as where:
        x = mori.map_shared(where)
        pickled = pickle.dumps(x, 5)
        assert len(pickled) <= 100
        check(pickle.loads(pickled), VALUES[name])
        assert worker(mori.is_shared, x)


@pytest.mark.parametrize("name", NAMES)
def test_by_value_and_materialized_it_needs_no_region(name: str) -> None:
    with placed(data_of(name)) as where:
        x = mori.map_shared(where)
        with mori.by_value():
            pickled = pickle.dumps(x, 5)
        private = mori.materialize(x)
        del x
    check(pickle.loads(pickled), VALUES[name])
    if not isinstance(private, np.ndarray | list | dict):
        check(private, VALUES[name])
    assert not mori.is_shared(private)
    with pytest.raises(mori.RegionNotFoundError, match="R's"):
        mori.map_shared(where)


def test_parts_count_from_1_as_in_r() -> None:
    with placed(data_of("list_nested")) as where:
        x = mori.map_shared(where)
        check(mori.map_shared(f"{where}[1]"), VALUES["list_nested"]["a"])
        assert [*mori.map_shared(f"{where}[2]")] == ["x"]
        assert mori.map_shared(f"{where}[3,1]").tolist() == [2.5, 3.0]
        assert mori.map_shared(f"{where}[3,2]") is None
        assert mori.shared_name(x["c"]["d"]) == f"{where}[3,1]"
        assert mori.shared_name(x["c"]["f"]) == f"{where}[3,3]"
        for path in ("[0]", "[4]", "[3,4]", "[1,1]", "[2,1]"):
            with pytest.raises(mori.PartNotFoundError):
                mori.map_shared(where + path)


def test_parts_pickle_as_references() -> None:
    with placed(data_of("list_nested")) as where:
        x = mori.map_shared(where)
        for part in (x["a"], x["b"], x["c"], x["c"]["d"], x["c"]["f"], x["a"][1:], x["c"]["d"][::-1]):
            pickled = pickle.dumps(part, 5)
            assert len(pickled) <= 160
            assert mori.is_shared(pickle.loads(pickled))
        assert pickle.loads(pickle.dumps(x["a"][1:])).tolist() == [2, 3]
        assert mori.shared_name(x["a"][1:]) is None


def test_columns_of_a_frame_have_names_and_pickle_as_references() -> None:
    with placed(data_of("data_frame")) as where:
        frame = mori.map_shared(where)
        assert mori.shared_name(frame["x"]) == f"{where}[1]"
        assert mori.shared_name(frame["n"]) == f"{where}[2]"
        assert mori.shared_name(frame["x"].iloc[1:]) is None
        assert mori.is_shared(frame["x"])
        pd.testing.assert_series_equal(pickle.loads(pickle.dumps(frame["n"])), VALUES["data_frame"]["n"])
        assert mori.map_shared(f"{where}[1]")[0] == 1.5


def test_numbers_lie_over_the_pages_of_r() -> None:
    with placed(data_of("data_frame")) as where:
        frame = mori.map_shared(where)
        assert held_by(frame._mgr.blocks[0].values) is not None
        assert held_by(frame["n"].array._data) is not None
        for name in ("double", "raw", "complex", "matrix_named", "array_integer_3d"):
            with placed(data_of(name)) as other:
                x = mori.map_shared(other)
                assert held_by(x) is not None
                assert x.flags.f_contiguous


def test_writes_are_local() -> None:
    with placed(data_of("double")) as where:
        x, y = mori.map_shared(where), mori.map_shared(where)
        x[0] = 7
        assert (x[0], y[0]) == (7, 1.5)
        assert not mori.is_shared(x)
        z = mori.writable(y)
        z[0] = 8
        assert y[0] == 1.5
        assert (SHM / where[1:]).read_bytes() == data_of("double")
    with placed(data_of("data_frame")) as where:
        frame, other = mori.map_shared(where), mori.map_shared(where)
        private = mori.writable(frame)
        private.loc[1, "n"] = 9
        pd.testing.assert_frame_equal(frame, other)
        frame.loc[0, "x"] = 7.0
        assert other.loc[0, "x"] == 1.5
        assert (SHM / where[1:]).read_bytes() == data_of("data_frame")


def test_an_object_of_r_alone_is_opaque_and_says_its_type() -> None:
    head = np.array([3, 0x40602, 0x30500, 5], "i4").tobytes()
    closure = b"B\n" + head + b"UTF-8" + np.array([0x403], "i4").tobytes()
    with placed(_list_of(closure + bytes(40))) as where:
        (x,) = mori.map_shared(where)
        assert isinstance(x, RObject)
        assert x.type == "closure"
        assert "R closure" in repr(x)
        assert mori.shared_name(x) == f"{where}[1]"
        assert mori.shared_name(pickle.loads(pickle.dumps(x))) == f"{where}[1]"
        with mori.by_value():
            pickled = pickle.dumps(x)
    assert pickle.loads(pickled).r_serialized == closure + bytes(40)


def _list_of(data: bytes) -> bytes:
    """Return a list of one object in R's serialization."""
    head = (
        np.array([0x4D4F524C, 1], "u4").tobytes()
        + np.array([64 + len(data), 0, 64, len(data), 0, 0], "i8").tobytes()
    )
    return head.ljust(64, b"\0") + data


def test_regions_and_ls_show_them(capsys: pytest.CaptureFixture[str]) -> None:
    with placed(data_of("data_frame")) as where:
        x = mori.map_shared(where)
        (entry,) = [entry for entry in mori.regions() if entry.name == where]
        assert entry.nbytes == len(data_of("data_frame"))
        assert os.getpid() in entry.holders
        assert main(["ls"]) == 0
        assert where in capsys.readouterr().out
        assert main(["inspect", where]) == 0
        shown = capsys.readouterr().out
        assert "R list (data.frame)" in shown
        assert "Series category (3,)" in shown
        assert main(["inspect", "--json", f"{where}[4]"]) == 0
        assert json.loads(capsys.readouterr().out)["region"]["format"] == "R"
        del x


def test_what_r_owns_is_never_removed_written_or_locked() -> None:
    with placed(data_of("list_nested")) as where:
        x = mori.map_shared(where)
        with open(SHM / where[1:], "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert mori.prune_shared() == []
        del x
        assert (SHM / where[1:]).read_bytes() == data_of("list_nested")


def test_a_name_that_r_has_removed_is_kept_good_by_who_holds_the_region(worker: Any) -> None:
    with placed(data_of("double")) as where:
        x = mori.map_shared(where)
        (SHM / where[1:]).unlink()
        assert worker(mori.is_shared, x)
        assert x[0] == 1.5


def test_a_reference_is_good_whoever_has_taken_the_name_since() -> None:
    x = mori.share(np.arange(10.0), layout="r")
    of_python = mori.shared_name(x)
    assert of_python is not None
    with placed(data_of("double")) as of_r:
        y = mori.map_shared(of_r)
        for obj, name in ((x, of_python), (y, of_r)):
            (SHM / name[1:]).unlink()
            (SHM / name[1:]).symlink_to("/etc/passwd")
            try:
                code = f"import mori, pickle; print(pickle.loads({pickle.dumps(obj)!r})[1])"
                assert run_python(code) == str(obj[1])
            finally:
                (SHM / name[1:]).unlink()


def test_a_name_used_again_is_another_region() -> None:
    with placed(data_of("double")) as where:
        x = mori.map_shared(where)
        pickled = pickle.dumps(x)
        path = SHM / where[1:]
        path.unlink()
        path.write_bytes(data_of("raw"))
        path.chmod(0o600)
        assert pickle.loads(pickled).dtype == np.dtype("f8")
        del x


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_a_region_that_others_can_reach_is_refused(mode: int) -> None:
    with placed(data_of("double"), mode) as where, pytest.raises(mori.UnsafeRegionError, match="mode"):
        mori.map_shared(where)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_is_refused(make: Callable[[str], None]) -> None:
    name = f"mori_{os.getpid():x}_abcdef1"
    path = SHM / name
    make(str(path))
    try:
        with pytest.raises(mori.UnsafeRegionError):
            mori.map_shared(f"/{name}")
    finally:
        (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()


def test_regions_of_moris_own_come_before_those_of_r() -> None:
    x = mori.share(np.arange(100))
    name = mori.shared_name(x)
    assert name is not None
    path = SHM / name[1:]
    path.write_bytes(data_of("raw"))
    path.chmod(0o600)
    try:
        assert run_python(f"import mori; print(mori.map_shared('{name}').dtype)") == str(x.dtype)
    finally:
        path.unlink()


def test_without_pandas_arrays_text_and_lists_are_opened_and_an_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["pandas"] = None
import mori
x = mori.map_shared("{}")
print(x["a"].tolist(), [*x["b"]], x["c"]["d"].tolist())
try:
    mori.map_shared("{}")
except ImportError as error:
    print(error)
"""
    with placed(data_of("list_nested")) as plain, placed(data_of("factor")) as factor:
        said = run_python(code.format(plain, factor)).splitlines()
    assert said[0] == "[1, 2, 3] ['x'] [2.5, 3.0]"
    assert "install mori[pandas]" in said[1]


def test_import_mori_imports_nothing_of_r() -> None:
    code = "import sys, mori; mori.share([1.5] * 100); print([n for n in sys.modules if n.endswith('.r')])"
    assert run_python(code) == "[]"
