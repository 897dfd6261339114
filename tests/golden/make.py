"""Writes the golden files of the format version that this mori writes: `python tests/golden/make.py`.

A file that exists is never changed: a changed byte is a new version of the format (docs/format.md).
Delete the directory first while the version is unreleased.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
import zoneinfo
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

import mori
from mori.codecs.pandas.versions import string_dtype
from mori.format import writer
from mori.format.plan import measure
from mori.store import base
from tests.mori import classes

DIRECTORY: Final = Path(__file__).parent / str(base.VERSION)
REGION_ID: Final = bytes(range(16))
PID, NUMBER = 0x4D1B, 1


def _frame() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "i": np.array([1, 2, 3], "<i8"),
            "f": np.array([0.5, np.nan, -1.0]),
            "j": np.array([4, 5, 6], "<i8"),
            "b": np.array([True, False, True]),
            "s": pd.array(["a", None, "ccc"], string_dtype(nan=True)),
            "c": pd.Categorical.from_codes([1, -1, 0], pd.Index(np.array([10, 20], "<i8")), ordered=True),
            "n": pd.array([1, None, 3], "Int16"),
            "t": np.array(["2020-01-01", "NaT", "2020-01-03"], "<M8[ns]"),
            "d": np.array([1, 2, 3], "<m8[s]"),
        },
        index=pd.RangeIndex(10, 16, 2, name="row"),
    )
    frame["z"] = pd.DatetimeIndex(np.array([0, 1, 2], "<M8[s]")).tz_localize("UTC")
    frame.columns = pd.Index(list(frame.columns), dtype=string_dtype(nan=True))
    return frame


def _aliases() -> list[Any]:
    array = np.arange(512.0)
    rows = [[n, array] for n in range(513)]
    return [array, *(pd.RangeIndex(n) for n in range(16)), rows, array, rows]


def _common() -> list[Any]:
    customers = [classes.Fit(f"customer {n}", [n]) for n in range(3)]
    return [{"order": n, "of": customers[n % 3]} for n in range(100)]


def _levels() -> pd.Series[Any]:
    levels = [pd.Index(np.array([7, 8], "<i8")), pd.Index(np.array([0.5, 1.5]))]
    index = pd.MultiIndex(levels, codes=[[0, 0, 1], [0, 1, 1]], names=["a", "b"])
    return pd.Series(np.array([1, 2, 3], "<u2"), index=index, name="v")


def _arrow() -> list[Any]:
    import pyarrow as pa

    schema = pa.schema(
        [pa.field("i", pa.int16(), nullable=False), pa.field("s", pa.string())], metadata={"k": "v"}
    )
    batch = pa.record_batch([pa.array([1, 2], pa.int16()), pa.array(["a", None])], schema=schema)
    codes = pa.DictionaryArray.from_arrays(pa.array([1, None], pa.int8()), pa.array(["x", "y"]))
    nest = pa.array([[{"a": 1.5}], None, []], pa.list_(pa.struct([("a", pa.float64())])))
    return [pa.Table.from_batches([batch, batch.slice(1)]), batch, pa.chunked_array([codes, codes]), nest]


def _polars() -> list[Any]:
    import polars as pl

    frame = pl.DataFrame(
        {
            "i": pl.Series([1, 2], dtype=pl.Int16).set_sorted(),
            "s": ["a", None],
            "h": pl.Series([1, 1 << 100], dtype=pl.Object),
        }
    )
    return [frame, frame["s"]]


def _scipy() -> list[Any]:
    from scipy import sparse

    dense = np.array([[1.0, 0, 0], [0, 2, 3]])
    made = [
        sparse.csr_array(dense),
        sparse.bsr_matrix(dense),
        sparse.coo_matrix(dense),
        sparse.dia_array(dense),
    ]
    return [made[0].has_sorted_indices, *made]


def _torch() -> list[Any]:
    import torch

    values = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    return [values.to(torch.bfloat16).T, torch.nn.Parameter(values)]


NEEDS: Final = {"arrow": "pyarrow", "polars": "polars", "scipy": "scipy", "torch": "torch"}


def _extensions() -> pd.DataFrame:
    ends = np.array([0.0, 1.5, 2.0, 4.0])
    return pd.DataFrame(
        {
            "period": pd.arrays.PeriodArray(np.array([650, 651, 652], "<i8"), pd.PeriodDtype("M")),
            "interval": pd.arrays.IntervalArray.from_breaks(ends, closed="left"),
            "sparse": pd.arrays.SparseArray(np.array([0, 7, 0], "<i4")),
            "blocks": pd.arrays.SparseArray(np.array([np.nan, 1.5, 2.5]), kind="block"),
            "arrow": pd.array([1, None, 3], pd.ArrowDtype(pa.int16())),
            "lists": pd.array([["a"], None, []], pd.ArrowDtype(pa.list_(pa.string()))),
        }
    ).set_axis(pd.RangeIndex(6), axis=1)


def _index() -> dict[Any, Any]:
    day = dt.datetime(2024, 2, 29, 12, 30, 0, 7)
    keys = [
        *(None, True, -1, 1 << 70, 0.1, 1e300, 2 - 1j, decimal.Decimal("0.3")),
        *("ä", "\udc80", b"\0", (), ("a", (1, None)), frozenset({2, 0.5}), uuid.UUID(int=5)),
        *(day, day.replace(tzinfo=dt.timezone(dt.timedelta(hours=2))), day.date(), day.time(), day - day),
        *(day.time().replace(tzinfo=dt.UTC), classes.Colour.RED, classes.Frozen("x", 0.25)),
    ]
    return {key: number for number, key in enumerate(keys)}


class Point:
    """Stands for a third party's class."""

    def __init__(self, label: str, places: Any) -> None:
        self.label = label
        self.places = places

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Point) and self.label == other.label and list(self.places) == list(other.places)
        )

    __hash__ = None  # type: ignore[assignment]


class PointCodec(mori.Codec):
    name = "golden.point"

    def encode(self, obj: Point) -> mori.Encoded:
        return mori.Encoded(obj.label.encode(), [obj.places], [obj.label])

    def decode(self, meta: bytes, buffers: mori.Buffers, children: Any) -> Point:
        return Point(meta.decode(), buffers[0].view("<i8"))


mori.register_codec(PointCodec(), Point)


def _subclass() -> classes.Metered:
    made = classes.Metered({0: np.array([0.5, 1.0])}).set_axis(pd.RangeIndex(1), axis=1)
    made.unit = "m"
    return made


def _structured() -> Any:
    array = np.zeros(  # whose padding has bytes, too
        1,
        {
            "names": ["a", "b", "c", "d"],
            "formats": ["u1", "<f8", "S3", ("<i4", (2,))],
            "offsets": [0, 8, 16, 20],
            "itemsize": 32,
        },
    )
    array["a"], array["b"], array["c"], array["d"] = 1, 2.5, b"x", [1, 2]
    return array


OBJECTS: Final[dict[str, Callable[[], Any]]] = {
    "float64": lambda: np.array([0.0, -0.5, np.inf, np.nan]),
    "arrays": lambda: {(i,): np.arange(i, i + 3, dtype="<i2") for i in range(65)},
    "arrays_ragged": lambda: [np.full((i % 3, 2), i, "<f4") for i in range(65)],
    "arrays_varying": lambda: tuple(np.full((i % 3, 2 - i % 2), i, ">u2") for i in range(65)),
    "fortran": lambda: np.asfortranarray(np.arange(6, dtype="<i2").reshape(2, 3)),
    "big_endian": lambda: np.array([1, 2, 3], ">u4"),
    "bool_0d": lambda: np.array(True),
    "empty": lambda: np.empty((0, 3), "<c8"),
    "text": lambda: np.array(["a", "bcd", "ä"]),
    "dates": lambda: np.array(["2020-01-01", "NaT"], "<M8[D]"),
    "structured": _structured,
    "records": lambda: np.rec.array([(1, 2.5), (3, 4.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
    "objects": lambda: np.array([["a", None], [1, (2.5, b"x")]], object),
    "masked": lambda: np.ma.array(
        np.array([[1, 2], [3, 4]], "<i2"), mask=[[0, 1], [0, 0]], fill_value=7, hard_mask=True
    ),
    "scalars": lambda: [
        *(None, True, False, 0, -1, 1 << 64, 1.5, 2 - 1j, "ä", "\udc80", b"\0b"),
        *(np.float32(0.5), np.datetime64(3, "s"), np.bool_(True)),
    ],
    "containers": lambda: {
        "list": [np.arange(256, dtype="<i4"), [], [[]]],
        "tuple": (1, ("x", {})),
        ("a", 1): {2: np.zeros((1, 1), "<f4"), None: "n"},
        "pickled": {1},
    },
    "list": lambda: [pd.RangeIndex(n) for n in range(17)],
    "tuple": lambda: tuple(pd.RangeIndex(n) for n in range(17)),
    "blocks": lambda: [np.arange(512.0), *((None, n, str(n), [n])[n % 4] for n in range(64))],
    "pickled": lambda: [OrderedDict(x=np.arange(200.0), n=1)],
    "str_index": lambda: {**{f"key {i}": i for i in range(65)}, "ä": None, "\udc80": "u", "": 0.5},
    "bytes_index": lambda: {bytes(range(i)): (i,) for i in range(65)},
    "int_index": lambda: {(i - 33) ** 11: i for i in range(67)},
    "keys": lambda: {("k", i): i for i in range(65)},
    "index": _index,
    "bytes": lambda: [bytes(range(256)) * 16, bytearray(4096), memoryview(b"abc"), b"short"],
    "small": lambda: [
        {"id": 1, "tags": ("a", None, b"b"), "x": [0.5, 1j, True, False], "n": -(1 << 70)},
        ({3, 1, 2}, frozenset({("t",)}), [], {}, ()),
        {"\udc80": {}},
    ],
    "sets": lambda: [set(range(513)), frozenset(range(513))],
    "strings": lambda: [None, "", *(f"ä森 {i}" for i in range(63))],
    "coded": lambda: ["a", None, "", "ä森", "a longer one"] * 13,
    "packed_int": lambda: [0, -1, None, 1 << 62] * 17,
    "packed_big_int": lambda: (1 << 64, -(1 << 70), 0, None) * 17,
    "packed_bool": lambda: [True, False] * 33,
    "packed_float": lambda: [0.5, -0.0] * 33,
    "packed_bytes": lambda: [b"", None, b"\0\xff"] * 22,
    "rows": lambda: [
        {"id": i, "name": f"ä{i}" if i % 3 else None, 7: (i, 0.5, True, None)[i % 4], "none": None}
        for i in range(65)
    ],
    "rows_of_tuples": lambda: tuple((bytes(range(i)), i << 62, i == 2, -0.0) for i in range(65)),
    "common": _common,
    "namedtuple": lambda: [classes.Point(np.arange(3, dtype="<i2"), ("t", [1])), classes.Nothing()],
    "dataclass": lambda: [classes.Fit("ä", np.arange(2, dtype="<f4")), classes.FrozenSlots(classes.Point(1))],
    "aliases": _aliases,
    "named": lambda: [Point("a", np.array([1, -2], "<i8"))],
    "frame": _frame,
    "levels": _levels,
    "times": lambda: pd.Series(
        np.array([3600 * 10**9, 7200 * 10**9], "<m8[ns]"),
        index=pd.date_range(
            "2020", periods=2, freq="D", tz=zoneinfo.ZoneInfo("Europe/Paris"), unit="ns", name="t"
        ),
    ),
    "extensions": _extensions,
    "subclass": _subclass,
    "arrow": _arrow,
    "polars": _polars,
    "scipy": _scipy,
    "torch": _torch,
    "no_columns": lambda: pd.DataFrame(index=pd.RangeIndex(2), columns=pd.RangeIndex(0)),
}


def region_of(obj: object) -> bytes:
    """Return the region of an object, always of the same id and name."""
    plan = measure(obj)
    header = base.Header(REGION_ID, writer.region_nbytes(plan), writer.ROOT, PID, NUMBER, 0)
    return bytes(writer.to_bytes(plan, header))


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for name, make in OBJECTS.items():
        path = DIRECTORY / f"{name}.mori"
        region = region_of(make())
        if path.exists() and path.read_bytes() != region:
            raise SystemExit(f"{path} is another: a changed byte is a new version of the format")
        path.write_bytes(region)


if __name__ == "__main__":
    main()
