"""Trust comes from who wrote the bytes: what came from elsewhere is checked wherever it is opened."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mori
from mori.format import writer
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import lease, region
from mori.memory import mapping as mappings
from mori.store import base
from mori.store.base import format_name
from mori.wire import reference
from tests.mori.damage import scatter
from tests.mori.test_arrow import ARRAYS
from tests.worker import Worker

_TEXT = ["a", "some text that is longer than twelve", None, "ccc"] * 5


def _polars() -> Any:
    import polars as pl

    return pl.DataFrame({"s": _TEXT, "l": [[text] for text in _TEXT]})


def _scipy(name: str) -> Any:
    from scipy import sparse

    return getattr(sparse, name)(np.arange(12.0).reshape(3, 4))


OBJECTS: dict[str, Callable[[], Any]] = {
    "strings": lambda: pd.Series(_TEXT, dtype="str"),
    "arrow column": lambda: pd.Series(_TEXT, dtype=pd.ArrowDtype(pa.string())),
    "MultiIndex": lambda: pd.DataFrame({"x": 1.5}, pd.MultiIndex.from_product([[1, 2, 3], ["a", "b"]])),
    "categorical": lambda: pd.Series(pd.Categorical(["x", "y", None] * 9)),
    "interval": lambda: pd.Series(pd.arrays.IntervalArray.from_breaks(range(9))),
    "sparse": lambda: pd.Series(pd.arrays.SparseArray([0, 0, 1, 0, 2] * 9)),
    "sparse blocks": lambda: pd.Series(pd.arrays.SparseArray([0, 0, 1, 3, 2] * 9, kind="block")),
    **{
        name: lambda name=name: ARRAYS[name]
        for name in ("list", "map", "string_view", "list_view", "dictionaries", "dense_union", "sparse_union")
    },
    "polars": _polars,
    "csr": lambda: _scipy("csr_array"),
    "bsr": lambda: _scipy("bsr_array"),
    "coo": lambda: _scipy("coo_array"),
    "dia": lambda: _scipy("dia_array"),
}
_NEEDS = {"polars": "polars", "csr": "scipy", "bsr": "scipy", "coo": "scipy", "dia": "scipy"}
_kept: list[Any] = []


def _bytes_of(obj: Any, change: Callable[[Any], object] = lambda plan: None) -> bytearray:
    """Return a region whose header says that whoever made it encoded its bytes, as any header may."""
    plan = measure(obj)
    change(plan)
    plan.close()
    header = base.Header(random.randbytes(16), writer.region_nbytes(plan), writer.ROOT, 1, 1, 0)
    return writer.to_bytes(plan, header._replace(flags=base.ENCODED))


with contextlib.suppress(ImportError):  # what polars starts once is no test's
    mori.frombuffer(_bytes_of(_polars())).to_dict()


def _refused(data: bytes | bytearray) -> bool:
    try:
        mori.frombuffer(bytes(data))
    except mori.CorruptRegionError:
        return True
    return False


def _damaged(obj: Any) -> bytes:
    """Return a region of an object with another element that C code would follow to somewhere else."""
    data = bytes(_bytes_of(obj))
    assert not _refused(data)
    return bytes(next(filter(_refused, (scatter(data, random.Random(n).randrange) for n in range(1000)))))


def _name(mapping: mappings.Mapping) -> str:
    return format_name(mapping.name)


def _landed(data: bytes) -> str:
    mapping = region.adopt(mappings.map_bytes(data))
    _kept.append(mapping)
    with pytest.raises(mori.CorruptRegionError):
        open_node(root_of(mapping))
    return _name(mapping)


def _opened(name: str) -> str:
    with pytest.raises(mori.CorruptRegionError) as caught:
        mori.map_shared(name)
    return str(caught.value)


def _taken() -> tuple[bytes, bytes]:
    """Return what landed, as it is there, under a header that vouches for it; and its id."""
    (mapping,) = _kept
    header = base.pack_header(mapping.header._replace(flags=base.ENCODED))
    return header + bytes(mapping.bytes())[base.HEADER.size :], mapping.header.region_id


def _dropped() -> None:
    _kept.clear()
    gc.collect()
    lease.expire_graces()


@pytest.mark.parametrize("name", OBJECTS)
def test_what_landed_damaged_is_refused_by_every_process_however_often_it_lands(
    memfd: None, third: Worker, wait: Callable[[Callable[[], object]], None], name: str
) -> None:
    if name in _NEEDS and importlib.util.find_spec(_NEEDS[name]) is None:
        pytest.skip(f"{_NEEDS[name]} is not installed")
    data = _damaged(OBJECTS[name]())
    where = _landed(data)
    assert "makes no sense" in _opened(where)
    assert "makes no sense" in third(_opened, where)
    taken, region_id = _taken()
    third(_dropped)
    _dropped()
    wait(lambda: not region.located(region_id))
    again = third(_landed, taken)
    assert again != where
    assert "makes no sense" in _opened(again)
    third(_dropped)


def _is_trusted(name: str) -> bool:
    shared = mori.map_shared(name)
    (mapping,) = [one for one in mappings.live() if _name(one) == name]
    del shared
    return mapping.trusted


def test_only_what_was_encoded_on_this_host_and_sealed_is_trusted(memfd: None, third: Worker) -> None:
    shared = mori.share(np.arange(1000.0))
    name = mori.shared_name(shared)
    assert name is not None
    assert _is_trusted(name)
    assert third(_is_trusted, name)
    landed = region.adopt(mappings.map_bytes(bytes(_bytes_of(np.arange(1000.0)))))
    assert not _is_trusted(_name(landed))
    assert not third(_is_trusted, _name(landed))
    again = mori.share(mori.materialize(open_node(root_of(landed))))
    assert _is_trusted(mori.shared_name(again) or "")


def test_nothing_in_a_file_or_a_buffer_is_trusted(
    tmp_path: Path, third: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    shared = mori.share(np.arange(1000.0))
    name = mori.shared_name(shared)
    assert name is not None
    assert not _is_trusted(name)
    assert not third(_is_trusted, name)
    (path,) = (path for path in tmp_path.rglob("mori_*") if path.is_file())
    header = base.unpack_header(path.read_bytes())
    assert isinstance(header, base.Header)
    assert header.flags == base.ENCODED
    assert not mappings.map_bytes(path.read_bytes()).trusted


@pytest.fixture
def memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_STORE", "memfd")


# what Arrow and scipy take, and who comes after them does not


def test_views_of_missing_strings_that_lead_outside_are_refused_for_polars() -> None:
    pl = pytest.importorskip("polars")
    data = _bytes_of(pl.DataFrame({"s": ["a", None], "l": [[None], ["b"]]}))
    node = root_of(mappings.map_bytes(data)).child(0)
    for place, view in ((0, 1), (1, 0)):  # the second string, and the first of those in lists
        buffers = node.child(place).child(0) if len(node.child(place)) else node.child(place)
        views = next(buffer for buffer in buffers.buffers() if buffer.nbytes == 32)
        start = views.__array_interface__["data"][0] - buffers.mapping.address + 16 * view
        damaged = bytearray(data)
        damaged[start : start + 16] = np.array([1 << 30, 0, 7, 0], "<i4").tobytes()
        assert _refused(damaged)


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
@pytest.mark.parametrize("places", ["[-1,0]", "[-1,-1]", "[-1,1]"], ids=["damaged", "missing", "empty"])
def test_the_only_offset_of_an_array_without_elements_is_not_followed(kind: Any, places: str) -> None:
    array = pa.array([], kind(pa.struct([("a", pa.string())])))

    def change(plan: Any) -> None:
        plan.buffers = [np.array([(1 << 31) - 1, 0], "<i4"), np.empty(0, "<i4"), *plan.buffers]
        plain = json.loads(plan.meta)
        _renumber(plain["array"], 2)
        plain["array"][2] = json.loads(places)
        plan.meta = json.dumps(plain).encode()

    opened = mori.frombuffer(_bytes_of(array, change))
    opened.validate(full=True)
    assert opened.nbytes < 100
    assert opened.equals(array)
    assert not any(column.nbytes for column in pa.concat_arrays([opened, opened]).flatten().flatten())


def _renumber(plain: list[Any], by: int) -> None:
    plain[2] = [place + by if place >= 0 else place for place in plain[2]]
    for child in plain[3]:
        _renumber(child, by)


@pytest.mark.parametrize("dtype", ["i4", "i8"])
def test_diagonals_whose_places_overflow_are_refused(dtype: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.dia_array((np.ones((1, 4)), [0]), shape=(3, 4))
    for offset in (np.iinfo(dtype).min, np.iinfo(dtype).max, np.iinfo(dtype).max - 3):
        matrix.offsets = np.array([offset], dtype)
        assert _refused(_bytes_of(matrix))
    matrix.offsets = np.array([-100], dtype)
    assert not _refused(_bytes_of(matrix))


# errors that are no errors of mori's


@pytest.mark.usefixtures("views")
@pytest.mark.parametrize("elements", [[[1], [2]], [1, 1], [(1, [2]), 3]], ids=["list", "twice", "deeper"])
@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize(
    "use", [mori.materialize, lambda x: 3 in x, lambda x: x == {1, 2}, lambda x: mori.materialize([{"a": x}])]
)
def test_a_set_of_what_cannot_be_in_one_is_an_error(
    elements: list[Any], kind: type, use: Callable[[Any], object]
) -> None:
    def change(plan: Any) -> None:
        plan.children = [measure(elements)]

    opened = mori.frombuffer(_bytes_of(kind([1, 2]), change))
    with pytest.raises(mori.CorruptRegionError, match=r"cannot be hashed|not distinct"):
        use(opened)


class _Made:
    """An object that is made by a function, which raises what it likes."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make

    def __reduce__(self) -> Any:
        return self.make, ()


def _panic() -> None:
    import polars as pl

    pl.Series([(1 << 63) - 1]).cast(pl.Datetime("us")).to_list()


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_panic_is_an_error_and_an_interrupt_is_none() -> None:
    pytest.importorskip("polars")
    panics = bytes(_bytes_of([_Made(_panic), np.arange(2)]))
    with pytest.raises(mori.CorruptRegionError, match="PanicException"):
        mori.materialize(mori.frombuffer(panics))
    with pytest.raises(mori.CorruptRegionError, match="PanicException"):
        reference.receive(bytes(_bytes_of(_Made(_panic))))
    with pytest.raises(KeyboardInterrupt):
        mori.frombuffer(_bytes_of(_Made(_interrupt)))
