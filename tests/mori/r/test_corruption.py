"""What R's mori states in test-corruption.R: hand-made bad regions give errors, not garbage."""

import struct
from collections.abc import Callable

import numpy as np
import pytest

import mori
from mori.format import layout
from tests import stored
from tests.mori.damage import checksummed

pytestmark = pytest.mark.usefixtures("nodes")

CHILDREN = 16  # offsets of fields in a node's record
META_NBYTES = 8
CODEC = 4


@pytest.fixture
def damaged(tmp_path, monkeypatch) -> Callable[[Callable[[bytearray], object]], str]:
    """Return a function that shares a list, damages its bytes where nobody holds them, and gives the name."""
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    monkeypatch.setenv("MORI_GRACE", "0")

    def damage(change: Callable[[bytearray], object]) -> str:
        shared = mori.share([np.arange(100), [np.arange(200), "text"]])
        name = mori.shared_name(shared)
        path = stored.home() / name[1:]
        data = bytearray(path.read_bytes())
        del shared
        assert not path.exists()
        change(data)
        path.write_bytes(data)
        path.chmod(0o600)
        return name

    yield damage
    for path in stored.home().iterdir():
        path.unlink()


def root(data: bytearray) -> int:
    return struct.unpack_from("<Q", data, 40)[0]


def table(data: bytearray, node: int) -> int:
    """Return where a node's table of children begins."""
    meta_nbytes, buffers = struct.unpack_from("<II", data, node + META_NBYTES)
    return node + layout.head_nbytes(meta_nbytes, buffers)


def child(data: bytearray, node: int, place: int) -> int:
    return node + struct.unpack_from("<Q", data, table(data, node) + 8 * place)[0]


# R: 35
def test_an_unknown_magic_number_is_an_error(damaged):
    name = damaged(lambda data: data.__setitem__(slice(0, 4), b"MORI"))
    with pytest.raises(mori.CorruptRegionError, match="starts with"):
        mori.map_shared(name)


# R: 36
@pytest.mark.parametrize("size", [0, 8, 40, 63, 64, 100])
def test_a_file_shorter_than_what_has_to_stand_in_it_is_an_error(damaged, size):
    name = damaged(lambda data: data.__delitem__(slice(size, None)))
    with pytest.raises(mori.CorruptRegionError):
        mori.map_shared(name)


# R: 37
@pytest.mark.parametrize("count", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_more_elements_than_the_file_can_hold_are_an_error(damaged, count):
    def claim(data):
        struct.pack_into("<Q", data, root(data) + CHILDREN, count)
        checksummed(data)

    with pytest.raises(mori.CorruptRegionError):
        mori.map_shared(damaged(claim))


def outside(data: bytearray) -> None:
    struct.pack_into("<Q", data, table(data, root(data)), 1 << 40)


# R: 38
def test_an_element_outside_the_region_is_an_error_when_it_is_asked_for(damaged):
    shared = mori.map_shared(damaged(outside))
    assert len(shared) == 2
    assert shared[1][1] == "text"
    with pytest.raises(mori.CorruptRegionError):
        shared[0]


# R: 39
def test_metadata_larger_than_its_element_is_an_error_when_that_is_asked_for(damaged):
    def grow(data):
        struct.pack_into("<I", data, child(data, root(data), 0) + META_NBYTES, 1 << 24)
        checksummed(data)

    shared = mori.map_shared(damaged(grow))
    assert shared[1][1] == "text"
    with pytest.raises(mori.CorruptRegionError):
        shared[0]


# R: 40
@pytest.mark.parametrize("codec", [12345, 65535])
def test_a_child_list_that_says_it_is_something_unknown_is_an_error_when_it_is_asked_for(damaged, codec):
    def disguise(data):
        struct.pack_into("<H", data, child(data, root(data), 1) + CODEC, codec)
        checksummed(data)

    shared = mori.map_shared(damaged(disguise))
    assert shared[0].sum() == 4950
    with pytest.raises(mori.CorruptRegionError):
        shared[1]


# R: 41
def test_a_path_through_an_element_outside_the_region_is_an_error(damaged):
    name = damaged(outside)
    with pytest.raises(mori.CorruptRegionError):
        mori.map_shared(f"{name}[0]")
