"""The golden files of each format version open as what they were written from, and are written alike."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mori
from mori.format import layout
from mori.format.node import open_node, root_of
from mori.memory import mapping as mappings
from mori.store import base
from mori.store.base import format_name
from tests.mori import damage

_GOLDEN = Path(__file__).parents[1] / "golden"
_FILES = sorted(_GOLDEN.glob("*/*.mori"))


def _load_make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", _GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _load_make()
for _name in make.NEEDS:  # what a library opens at its first use is no test's
    with contextlib.suppress(ImportError):
        make.region_of(make.OBJECTS[_name]())


def check(got: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert got.strides == expected.strides or not got.size
        if expected.dtype.hasobject:
            assert got.tolist() == expected.tolist()
        else:
            assert got.tobytes() == expected.tobytes()
        if isinstance(expected, np.ma.MaskedArray):
            assert got.mask.tobytes() == expected.mask.tobytes()
            assert (got.fill_value, got.hardmask) == (expected.fill_value, expected.hardmask)
    elif isinstance(expected, pd.DataFrame):
        assert isinstance(got, type(expected))
        pd.testing.assert_frame_equal(pd.DataFrame(got), pd.DataFrame(expected), check_freq=True)
        assert [getattr(got, name) for name in expected._metadata] == [
            getattr(expected, name) for name in expected._metadata
        ]
    elif isinstance(expected, pd.Series):
        pd.testing.assert_series_equal(pd.Series(got), expected, check_freq=True)
    elif isinstance(expected, pd.Index):
        pd.testing.assert_index_equal(got, expected, exact=True)
    elif type(expected).__module__.startswith("pyarrow"):
        assert type(got) is type(expected)
        assert got.equals(expected)
    elif type(expected).__module__.startswith("polars"):
        assert type(got) is type(expected)
        assert repr(got) == repr(expected)
    elif type(expected).__module__.startswith("scipy"):
        assert type(got) is type(expected)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got.toarray(), expected.toarray())
    elif type(expected).__module__.startswith("torch"):
        assert type(got) is type(expected)
        assert (got.dtype, got.stride()) == (expected.dtype, expected.stride())
        assert bool((got == expected).all())
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key in expected:
            check(got[key], expected[key])
    elif dataclasses.is_dataclass(expected):
        assert type(got) is type(expected)
        for field in dataclasses.fields(expected):
            check(getattr(got, field.name), getattr(expected, field.name))
    elif isinstance(expected, tuple) and type(expected) is not tuple:
        assert type(got) is type(expected)
        for one, other in zip(got, expected, strict=True):
            check(one, other)
    elif isinstance(expected, list | tuple):
        views = mori.SharedList if isinstance(expected, list) else mori.SharedTuple
        assert isinstance(got, views | type(expected))  # small ones inside are the builtins
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            check(one, other)
    elif isinstance(got, mori.SharedSet | mori.SharedFrozenSet):
        assert got == expected
        assert type(got.copy()) is type(expected)
    elif isinstance(got, mori.SharedBytes):
        assert got == expected
        assert type(mori.materialize(got)) is (bytes if isinstance(expected, memoryview) else type(expected))
    else:
        assert type(got) is type(expected)
        assert got == expected


def test_every_object_has_its_file_in_the_newest_version() -> None:
    assert {path.stem for path in _FILES if path.parent == make.DIRECTORY} == set(make.OBJECTS)


def test_every_kind_of_node_has_a_file() -> None:
    ids = {number: name for name, number in vars(layout.Id).items() if name.isupper()}
    found = {record.codec for path in _FILES for _, record in damage.nodes(path.read_bytes())}
    assert not {name for number, name in ids.items() if number not in found}


@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_golden_file_opens_as_what_it_was_written_from(path: Path) -> None:
    if path.stem in make.NEEDS:
        pytest.importorskip(make.NEEDS[path.stem])
    got = open_node(root_of(mappings.map_bytes(path.read_bytes())))
    check(got, make.OBJECTS[path.stem]())
    check(mori.materialize(got) if isinstance(got, np.ndarray) else got, make.OBJECTS[path.stem]())


@pytest.mark.parametrize("name", make.OBJECTS)
def test_an_object_is_written_as_its_golden_file(name: str) -> None:
    if name in make.NEEDS:
        pytest.importorskip(make.NEEDS[name])
    if name in ("arrow", "polars") and int(pa.__version__.partition(".")[0]) < 25:
        pytest.skip("the bytes of schemas in the golden files are those of pyarrow 25 and later")
    if name == "index" and sys.version_info >= (3, 13):
        pytest.skip("from Python 3.13 on, the pickles of times and paths have other bytes")
    assert make.region_of(make.OBJECTS[name]()) == (make.DIRECTORY / f"{name}.mori").read_bytes()


def test_a_region_in_the_store_differs_by_its_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_GRACE", "0")
    shared = mori.share(make.OBJECTS["containers"]())
    (mapping,) = (one for one in mappings.live() if format_name(one.name) == mori.shared_name(shared))
    golden = (make.DIRECTORY / "containers.mori").read_bytes()
    assert bytes(mapping.bytes())[base.HEADER.size :] == golden[base.HEADER.size :]
