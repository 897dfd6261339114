"""What R's mori states in test-prune.R: orphans are removed, and nothing that lives."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest

import mori
from tests import stored

pytestmark = pytest.mark.each_store

SHARE = """
import mori, numpy, sys
x = mori.share(numpy.arange(100))
print(mori.shared_name(x), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def sharer():
    """Run a process that shares an array; give it and the name, and kill it at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", SHARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    return tmp_path


# R: 91, 93
def test_prune_prints_nothing_and_has_nothing_to_report_the_second_time(store, capfd):
    assert mori.prune_shared() == []
    assert mori.prune_shared() == []
    assert capfd.readouterr() == ("", "")


# R: 92
def test_prune_leaves_the_regions_of_living_processes_alone(store):
    with sharer() as (_, name):
        assert mori.prune_shared() == []
        assert mori.map_shared(name)[99] == 99
    mori.prune_shared()


# R: 94
def test_what_a_dead_process_left_is_removed_and_reported(directory):
    with sharer() as (process, name):
        process.kill()
        process.wait()
        assert (stored.home() / name[1:]).exists()
        assert mori.prune_shared() == [name]
        assert not (stored.home() / name[1:]).exists()
        assert mori.prune_shared() == []


# R: 95
def test_a_region_of_ones_own_is_neither_removed_nor_reported(store):
    shared = mori.share(np.arange(100))
    assert mori.shared_name(shared) not in mori.prune_shared()
    assert mori.map_shared(mori.shared_name(shared))[99] == 99
