"""A region that comes from another domain is written to this one's store under its own name and id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mori
from mori import hold, reference, region
from tests.worker import Worker

EXPECTED = [list(range(2000)), "two"]


def shared_and_gone() -> tuple[str, bytes, bytes]:
    """Return the name, the bytes and a reference of a region that nobody holds any more."""
    x = mori.share([np.arange(2000), "two"])
    function, (payload,) = x[0].__reduce_ex__(5)
    assert function is reference.load
    name = mori.shared_name(x)
    assert name is not None
    data = reference.mapping_of(payload).bytes().tobytes()
    del x
    hold.expire_graces()
    return name, data, payload


def test_an_adopted_region_is_found_by_its_name_and_by_references(
    store: str, worker: Worker, third: Worker
) -> None:
    name, data, payload = worker(shared_and_gone)
    with pytest.raises(mori.RegionNotFoundError):
        mori.map_shared(name)
    mapping = region.adopt(memoryview(data))
    assert mapping is not None
    for process in (lambda call, *args: call(*args), worker, third):
        assert process(lambda name: mori.materialize(mori.map_shared(name))[0].tolist(), name) == EXPECTED[0]
        assert process(lambda payload: reference.load(payload)[:5].tolist(), payload) == EXPECTED[0][:5]
        assert process(lambda name: mori.shared_name(mori.map_shared(name)), name) == name
    (entry,) = [entry for entry in mori.regions() if entry.name == name]
    assert entry.nbytes == len(data)
    del mapping
    with pytest.raises(mori.RegionNotFoundError):
        worker(mori.map_shared, name)


def test_a_region_whose_name_is_taken_is_not_adopted_and_the_other_stays(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path / 'store'}")
    _, data, payload = worker(shared_and_gone)
    first = region.adopt(memoryview(data))
    assert first is not None
    other = bytearray(region.layout.pack_header(first.header._replace(region_id=bytes(16))) + data[64:])
    assert region.adopt(memoryview(other)) is None
    assert reference.load(payload)[7] == 7
    assert len(list((tmp_path / "store").iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:10], lambda data: b"x" * 4096])
def test_what_is_no_whole_region_is_not_adopted(store: str, worker: Worker, damage: object) -> None:
    assert callable(damage)
    name, data, _ = worker(shared_and_gone)
    with pytest.raises(mori.CorruptRegionError):
        region.adopt(memoryview(damage(data)))
    with pytest.raises(mori.RegionNotFoundError):
        mori.map_shared(name)


def test_a_reference_that_is_none_has_no_mapping() -> None:
    with pytest.raises(mori.CorruptRegionError, match="it is no reference"):
        reference.mapping_of(b"no")
