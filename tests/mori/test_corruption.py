"""Damaged bytes give a MoriError or the right object: never another exception, a crash or a large allocation.

The same mutations run twice: some hundreds by hypothesis, which shrinks what fails, and thousands in the
children of the fuzzer, whose death is a finding, under a limit of address space.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib.util
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mori
from mori.format import codec, layout
from mori.format.node import open_node, root_of
from mori.memory import mapping as mappings
from tests import sizes
from tests.fuzz import FAULTS, fuzz
from tests.mori import classes
from tests.mori.classes import fields_of
from tests.mori.damage import Choose, checksummed, forge, is_printable, mutate, nodes
from tests.mori.pandas_versions import NAN_STRINGS
from tests.mori.test_arrow import ARRAYS, table
from tests.mori.test_golden import make
from tests.regions import region_of


def _frame() -> pd.DataFrame:
    n = 7
    frame = pd.DataFrame(
        {
            "i": np.arange(n),
            "f": np.linspace(0, 1, n),
            "j": np.arange(n)[::-1].copy(),
            "b": np.arange(n) % 2 == 0,
            "s": pd.array(["a", None, "ccc", "", "ä", "x" * 20, "z"], NAN_STRINGS),
            "c": pd.Categorical(list("abcabca"), categories=list("abc"), ordered=True),
            "n": pd.array([1, None, 3, 4, 5, None, 7], "Int64"),
            "m": pd.array([True, None, False, True, True, None, False], "boolean"),
            "t": pd.date_range("2020", periods=n, freq="D"),
            "z": pd.date_range("2020", periods=n, freq="h", tz="Europe/Paris"),
            "d": pd.to_timedelta(np.arange(n), "s"),
        }
    )
    frame.attrs = {"k": 1}
    return frame


def _of_libraries() -> dict[str, Any]:
    """Return objects of the libraries that are there."""
    found: dict[str, Any] = {}
    with contextlib.suppress(ImportError):
        import polars as pl

        found["polars"] = pl.DataFrame({"i": [1, 2], "s": ["a", None], "l": [["x" * 20], None]})
        found["polars types"] = pl.DataFrame(
            {
                "b": pl.Series([b"y" * 20, None, b""]),
                "c": pl.Series(["a", None, "b"], dtype=pl.Categorical),
                "t": pl.Series([1, None, 3], dtype=pl.Time),
                "p": pl.Series(["1.5", None, "2"]).cast(pl.Decimal(9, 2)),
                "r": pl.Series([{"s": "z" * 20, "f": 1.5}, None, {"s": None, "f": None}]),
                "a": pl.Series([["u" * 20, None], None, ["v", "w"]], dtype=pl.Array(pl.String, 2)),
                "o": pl.Series([True, None, False]),
            }
        )
        found["enum"] = pl.Series("e", ["a", None], dtype=pl.Enum(["a", "b"]))
    with contextlib.suppress(ImportError):
        from scipy import sparse

        dense = np.array([[1.0, 0, 2], [0, 0, 3]])
        found["sparse"] = [sparse.csr_array(dense), sparse.bsr_array(dense), sparse.dia_matrix(dense)]
        found["coordinates"] = sparse.coo_array(dense)
    with contextlib.suppress(ImportError):
        import torch

        found["torch"] = [torch.arange(6.0).reshape(2, 3).T, torch.zeros(2, dtype=torch.bfloat16)]
    return found


def _aliases(frame: pd.DataFrame) -> list[Any]:
    array, inner, part = np.arange(3), [1, (2.5,)], frame[["i", "c"]]
    return [array, {"a": array, "b": [inner, part]}, inner, (part, [array]), part["i"]]


def _orders() -> list[Any]:
    """Return rows for several blocks, which refer to the same objects."""
    customers = [classes.Fit(f"customer {n}", [n]) for n in range(3)]
    return [{"id": n, "of": customers[n % 3], "note": "x" * n} for n in range(66)]


def _metered() -> classes.Metered:
    made = classes.Metered({"a": [1, 2, 3], "s": pd.Categorical(["x", "y", "x"])})
    made.unit = "m"
    return made


_SOME = ("string", "nest", "dictionaries", "runs", "dense_union", "list_view", "map", "bool")
_NAN = ("half", "double")  # which equal nothing


def _objects() -> dict[str, Any]:
    frame = _frame()
    return {
        "float64": np.linspace(0, 1, 9),
        "F order": np.asfortranarray(np.arange(12, dtype="<i4").reshape(3, 4)),
        "bool": np.array([True, False, True]),
        "text": np.array(["ab", "ä", "longer"]),
        "bytes": np.array([b"ab", b"c"]),
        "dates": np.array(["2020-01-01", "NaT"], "M8[D]"),
        "complex": np.array([1 + 2j, np.nan]),
        "scalar": np.array(5, ">i2"),
        "empty": np.empty((0, 3), "f4"),
        "structured": np.array(
            [(1, 2.5, "x", [1, 2])], [("a", "u1"), ("b", "f8"), ("c", "U3"), ("d", "i4", 2)]
        ),
        "records": np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        "matrix": np.arange(6).reshape(2, 3).view(np.matrix),
        "metadata": np.arange(4, dtype=np.dtype("i4", metadata={"k": 1})),
        "objects": np.array([["a", None, 3], [b"x", 2.5, (1,)]], object),
        "object fields": np.array([(1, "x")], [("a", "i4"), ("b", object)]),
        "masked": np.ma.array(np.arange(6.0).reshape(2, 3), mask=np.eye(2, 3), fill_value=3, hard_mask=True),
        "masked fields": np.ma.array([(1, 2.5)], [("a", "i4"), ("b", "f8")], mask=[(True, False)]),
        "list": [
            1,
            "two",
            3.0,
            None,
            b"five",
            True,
            1j,
            np.float32(1.5),
            np.datetime64("2020", "D"),
            1 << 80,
        ],
        "str index": {f"k{i}": i for i in range(20)},
        "int index": {i * i: "x" for i in range(16)},
        "tuple index": {(i, ("a", None)): i for i in range(20)},
        "mixed index": dict.fromkeys([1.5, None, "a", b"b", frozenset([1]), *map(complex, range(20, 40))]),
        "classes": [
            classes.Point(np.arange(3), "y"),
            classes.Fit("m", {"k": [1.5]}),
            classes.FrozenSlots(1),
        ],
        "nest": {"a": [np.arange(3), (1, ("x", {}))], ("k", 1): {"deep": [[[]]]}, 3: "c"},
        "long bytes": [bytes(range(256)) * 16, (bytearray(5000), memoryview(b"abc"))],
        "small": [{"id": i, "t": ("a", None, 1.5), "s": {1, 2}} for i in range(4)],
        "rows": [{"id": i, "s": "ä" * i, "m": (i, None, 0.5, "x")[i % 4], "n": None} for i in range(33)],
        "rows of tuples": tuple((i, i << 70, b"b" * i, i % 2 == 0) for i in range(32)),
        "dict of rows": {f"k{i}": {"id": i, "s": f"s{i}"} for i in range(33)},
        "orders": _orders(),
        "arrays": {i: np.arange(i, i + 3.0) for i in range(70)},
        "ragged arrays": [np.full((i % 3, 2), i, "<i2") for i in range(70)],
        "varying arrays": tuple(np.full((i % 3, 2 - i % 2), i, ">f4") for i in range(70)),
        "sets": {"a": set(range(300)), "b": frozenset(["x" * 600, 1])},
        "strings list": ["a", None, "ä森", "", "x" * 40],
        "ints": [1, -2, None],
        "big ints": (1 << 80, 2),
        "floats": [0.5, -0.0],
        "bools": [True, False, None],
        "bytes list": [b"a", b"", None],
        "frame": frame,
        "dates index": frame.set_index("t")[["i", "s"]],
        "multi": frame.set_index(["c", "i"])[["f"]],
        "range": pd.Series(np.arange(4.0), index=pd.RangeIndex(4, name="r"), name="v"),
        "strings": pd.Series(["a", None, "b"], dtype=NAN_STRINGS),
        "arrow": {name: array for name, array in ARRAYS.items() if name in _SOME},
        "more arrow": {name: array for name, array in ARRAYS.items() if name not in (*_SOME, *_NAN)},
        "arrow table": [table(), table().to_batches()[1], table().column(1)],
        **_of_libraries(),
        "extensions": pd.DataFrame(
            {
                "p": pd.array(["2020-01", None, "2020-03"], "period[M]"),
                "i": pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
                "s": pd.arrays.SparseArray([0, 0, 1]),
                "b": pd.arrays.SparseArray([0.5, np.nan, 1], kind="block"),
                "a": pd.array([1, None, 3], "int64[pyarrow]"),
            }
        ),
        "aliases": _aliases(frame),
        "subclass": _metered(),
        "named": make.OBJECTS["named"](),
        "frames": {"x": [frame[["i", "c"]]], "y": (frame["n"], frame["z"])},
    }


def _all_regions() -> Iterator[tuple[str, Any, bytes]]:
    """Yield name, object and region: containers as small ones, as large ones, and with nodes in them."""
    for name, obj in _objects().items():
        seen = set[bytes]()
        for how, write in {"": None, " views": sizes.write_views, " nodes": sizes.write_nodes}.items():
            with pytest.MonkeyPatch.context() as patch:
                if write is not None:
                    write(patch)
                region = region_of(obj)
            if region not in seen:
                yield name + how, obj, region
            seen.add(region)


_REGIONS = [*_all_regions()]
OBJECTS = {name: obj for name, obj, _ in _REGIONS}
REGIONS = {name: region for name, _, region in _REGIONS}


def open_bytes(data: bytes) -> Any:
    return open_node(root_of(mappings.map_bytes(data)))


# really using an object


def is_hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def use(obj: Any, most: int) -> None:
    """Read every element and print; what is longer than `most` (a range may be endless) is only printed."""
    if is_printable(obj):
        repr(obj)
    if isinstance(obj, np.ndarray):
        assert obj.nbytes <= most
        if obj.size <= most and is_printable(obj):
            obj.tolist()
    elif isinstance(obj, mori.SharedDict | dict):
        assert len(obj) == len(list(obj)) <= most
        for key, value in obj.items():
            if is_hashable(key):  # a forged one may not be: dicts themselves refuse it
                obj.get(key)  # a damaged index may hide it
            use(key, most)
            use(value, most)
    elif isinstance(obj, mori.SharedList | mori.SharedTuple | list | tuple):
        assert len(obj) == len(list(obj)) <= most
        for element in obj:
            use(element, most)
    elif dataclasses.is_dataclass(obj):
        for value in fields_of(obj).values():
            use(value, most)
    elif isinstance(obj, mori.SharedSet | mori.SharedFrozenSet | set | frozenset):
        assert len(obj) == len(list(obj)) <= most
        assert 1 in obj or 1 not in obj
    elif isinstance(obj, pd.DataFrame):
        use(obj.columns, most)
        use(obj.index, most)
        repr(obj.head(2).iloc[:, ::-1])
        for place in range(obj.shape[1]):
            use(obj.iloc[:, place], most)
    elif isinstance(obj, pd.Series):
        use(obj.index, most)
        if len(obj) <= most:
            obj.tolist(), obj.isna().sum(), obj.iloc[::-1].copy(), str(obj.dtype)
    elif isinstance(obj, pa.Table | pa.RecordBatch | pa.ChunkedArray | pa.Array):
        obj.validate(full=True)
        if _nbytes(obj) <= 64 * most and (len(obj) if hasattr(obj, "__len__") else obj.num_rows) <= most:
            str(obj), obj.equals(obj)
    elif type(obj).__module__.startswith("scipy"):
        str(obj), obj.nnz
        if max(obj.shape) <= most and not any(array.dtype.byteorder == ">" for array in _arrays_of(obj)):
            obj @ np.ones(obj.shape[-1])
    elif type(obj).__module__.startswith("torch"):
        str(obj), obj.sum()
        obj.detach().zero_()
    elif type(obj).__module__.startswith("polars"):
        if len(obj) <= most:
            str(obj), obj.to_dict(as_series=False) if hasattr(obj, "to_dict") else obj.to_list()
    elif isinstance(obj, pd.Index) and len(obj) <= most:
        obj.tolist(), obj[:2], str(obj.dtype)


def _nbytes(obj: Any) -> int:
    try:
        return int(obj.nbytes)
    except pa.ArrowTypeError:  # pyarrow 16 does not measure list views
        return int(obj.get_total_buffer_size())


def _arrays_of(obj: Any) -> list[Any]:
    return [value for value in vars(obj).values() if isinstance(value, np.ndarray)]


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ma.MaskedArray):
        parts = ("data", "mask", "fill_value", "hardmask")
        return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in parts)
    if isinstance(b, np.ndarray) and b.dtype.hasobject:
        return a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    if isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(b, pd.DataFrame):
        pd.testing.assert_frame_equal(pd.DataFrame(a), pd.DataFrame(b))
        return bool(a.attrs == b.attrs)
    if isinstance(b, pd.Series):
        pd.testing.assert_series_equal(pd.Series(a), b)
        return True
    if type(b).__module__.startswith("scipy"):
        return type(a) is type(b) and bool((a.toarray() == b.toarray()).all())
    if type(b).__module__.startswith("torch"):
        return type(a) is type(b) and bool(a.stride() == b.stride() and (a == b).all())
    if type(b).__module__.startswith("polars"):
        return bool(a.equals(b, null_equal=True))
    if isinstance(b, pa.Table | pa.RecordBatch):
        return bool(a.equals(b, check_metadata=True))
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(b):
        return type(a) is type(b) and same([*fields_of(a).values()], [*fields_of(b).values()])
    if isinstance(b, set | frozenset):
        return bool(a == b)
    return type(a) in (type(b), mori.SharedBytes) and bool(a == b)


MISSING = {name for name in ("polars", "scipy", "torch") if importlib.util.find_spec(name) is None}


def attempt(
    damaged: bytearray,
    check: Callable[[Any], object] | None = None,
    opened: Callable[[bytes], Any] = open_bytes,
) -> bool:
    """Open and use a damaged region, and raise what is not allowed; False if that needs a missing library.

    What can be read is given to `check`.
    """
    try:
        obj = opened(bytes(damaged))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numbers that make no sense may overflow
            if check is not None:
                check(obj)
            use(obj, len(damaged))  # and writes to it
            mori.materialize(obj)
    except mori.MoriError as error:
        cause: BaseException | None = error
        while cause is not None:
            assert not isinstance(cause, MemoryError), "it asked for memory that it had not checked"
            cause = cause.__cause__
        return True
    except ImportError as error:  # a damaged id asks for a library
        if error.name in MISSING and "install mori[" in str(error):
            return False
        if "group 'mori.codecs'" in str(error):  # or the codec of a third party
            return False
        raise
    return True


def is_intact(name: str) -> Callable[[Any], None]:
    """Return the check that an object is the one of this name."""

    def check(obj: Any) -> None:
        assert same(obj, OBJECTS[name])

    return check


_hundreds = settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def _chooser(data: st.DataObject) -> Choose:
    return lambda n: data.draw(st.integers(0, n - 1))


@pytest.mark.parametrize("name", OBJECTS)
def test_an_intact_region_opens_as_what_was_written(name: str) -> None:
    obj = open_bytes(REGIONS[name])
    assert same(obj, OBJECTS[name])
    use(obj, len(REGIONS[name]))
    assert checksummed(bytearray(REGIONS[name])) == REGIONS[name]


def _is_here(number: int) -> bool:
    try:
        return codec.for_id(number) is not None
    except ImportError:
        return False


def test_every_kind_of_node_is_damaged() -> None:
    ids = {number: name for name, number in vars(layout.Id).items() if name.isupper()}
    damaged = {record.codec for region in REGIONS.values() for _, record in nodes(region)}
    assert not {name for number, name in ids.items() if number not in damaged and _is_here(number)}


@_hundreds
@given(st.sampled_from(sorted(OBJECTS)), st.data())
def test_damage_anywhere_gives_the_right_object_or_an_error(name: str, data: st.DataObject) -> None:
    attempt(mutate(REGIONS[name], _chooser(data)), is_intact(name))


@_hundreds
@given(st.sampled_from(sorted(OBJECTS)), st.data())
def test_damage_under_right_checksums_gives_some_object_or_an_error(name: str, data: st.DataObject) -> None:
    attempt(forge(REGIONS[name], _chooser(data)))


@pytest.mark.skipif("polars" in MISSING, reason="polars is not installed")
def test_metadata_that_polars_panics_at_is_an_error() -> None:
    """A panic is no Exception: it would pass through whatever reads references, and through engines."""
    data = bytearray(REGIONS["enum"])
    start = data.index(b'"schema":"') + 10
    end = data.index(b'"', start)
    schema = base64.b64decode(data[start:end])
    assert b"_PL_ENUM_VALUES" in schema
    data[start:end] = base64.b64encode(schema.replace(b"_PL_ENUM_VALUES", b"_PL_ENUM_\xffALUES"))
    with pytest.raises(mori.CorruptRegionError, match="PanicException"):
        open_bytes(bytes(checksummed(data)))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thousands_of_damaged_regions_and_references_are_read_without_a_finding() -> None:
    """Some of what `make fuzz` reads: no crash, hang or large allocation, no errors but mori's."""
    assert fuzz(6000, 1, print, kinds=("plain", "forged", "reference")) == []


def test_the_fuzzer_finds_errors_crashes_hangs_and_large_allocations_and_goes_on() -> None:
    planted = {number: FAULTS[random.Random(number).randrange(len(FAULTS))] for number in range(1, 10)}
    assert {*planted.values()} == {*FAULTS}
    said: list[str] = []
    found = {finding.number: finding.fault for finding in fuzz(9, 1, said.append, kinds=("broken",), hang=1)}
    first = {fault: min(number for number in planted if planted[number] == fault) for fault in FAULTS}
    assert found[first["error"]].startswith("KeyError")
    assert found[first["crash"]].startswith("exit -11")
    assert found[first["hang"]].startswith("it hung")
    assert found[first["memory"]].startswith("MemoryError")
    assert "{'broken': 9}  4 findings" in said[-1]
