"""A program that closes descriptors it does not know, as a daemon does, loses its holds and nothing else."""

from __future__ import annotations

import pytest

from tests.fresh import run_python

pytestmark = pytest.mark.each_store

_CLOSED = """
import os, pickle, sys, time, numpy, mori
from mori.memory import mapping as mappings
from mori.memory import region
def made(number):
    shared = mori.share(numpy.arange(number))
    if PICKLED:
        pickle.dumps(shared)
    return shared
first, second = made(10), made(20)
name, fd = mori.shared_name(second), mappings.held_by(first).lease.fd
os.closerange(fd, fd + 1)
log = os.open("/dev/null", os.O_WRONLY)            # what the program opens next
assert log == fd
assert first.sum() == 45                           # what is mapped stays mapped
del first, second
limit = time.monotonic() + 20
while True:                                        # the grace of the other region ends
    try:
        mori.map_shared(name)
    except mori.RegionNotFoundError:
        break
    assert time.monotonic() < limit, "a grace has not ended"
    time.sleep(0.02)
assert os.write(log, b"still open") == 10
third = made(30)
print(len(pickle.loads(pickle.dumps(third))))
"""


@pytest.mark.parametrize("pickled", [False, True], ids=["dropped", "in its grace"])
def test_a_descriptor_that_the_program_closed_and_reopened_is_left_alone(store: str, pickled: bool) -> None:
    assert run_python(f"PICKLED = {pickled}\n{_CLOSED}") == "30"
