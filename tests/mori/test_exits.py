"""A process ends when it wants to: nothing crashes, nothing is waited for, nothing is left."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

import mori
from tests import stored
from tests.fresh import run_python

pytestmark = pytest.mark.each_store


def _assert_gone(name: str) -> None:
    assert stored.names() == []  # without anybody's pruning
    with pytest.raises(mori.RegionNotFoundError):
        mori.map_shared(name)


_ALIVE = """
import atexit, sys, threading, weakref, numpy, pandas, mori

def share(): return mori.share({"x": numpy.arange(1000), "f": pandas.DataFrame({"a": range(10)})})

kept = share()                                     # in a module's globals
sys.modules["numpy"].mori_kept = share()           # in another's, which goes late
frame, part, one = kept["f"], kept["x"][5:], iter(kept["f"]["a"])
cycle = [share()]
cycle.append(cycle)
def default(x=share()): return x
class Late:
    def __init__(self): self.x = share()
    def __del__(self): assert self.x["x"].sum() == 499500 and self.x["f"]["a"].sum() == 45
late, later = Late(), Late()
later.cycle = later
watched = weakref.finalize(kept["x"], print, end="")
atexit.register(lambda x=share(): x["x"].sum())
started = threading.Event()
def read(x):
    while True:                                    # a daemon's thread, reading to the last
        x["x"].sum()
        started.set()
threading.Thread(target=read, args=(share(),), daemon=True).start()
started.wait()
threading.current_thread().kept = share()
sys.stdout.write(mori.shared_name(kept))
"""


def test_an_interpreter_ends_quietly_whatever_still_refers_to_regions(store: str) -> None:
    done = subprocess.run([sys.executable, "-c", _ALIVE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    _assert_gone(done.stdout)


_PENDING = """
import pickle, sys, time, numpy, mori
for number in range(50):
    shared = mori.share(numpy.arange(1000))
    pickle.dumps(shared)
    name = mori.shared_name(shared)
    del shared
assert mori.map_shared(name).sum() == 499500       # only its grace has kept it
print(name, time.time(), flush=True)
"""


def test_graces_that_are_pending_do_not_delay_the_exit(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_GRACE", "300")
    name, end = run_python(_PENDING).split()
    assert time.time() - float(end) < 10  # of three hundred
    _assert_gone(name)


_LAST = """
import os, pickle, threading, numpy, mori
from mori.memory import grace, lease
grace.call_later(int, 300)                                # whatever ends graces is at work
def last():
    x = mori.share(numpy.arange(1000))
    pickle.dumps(x)
    return mori.shared_name(x)
name = last()
os.write(1, name.encode())                         # and the process ends
"""


def test_what_was_dropped_at_the_very_last_is_let_go_by_the_end(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORI_GRACE", "300")
    for _ in range(8):
        _assert_gone(run_python(_LAST))


_LATE = """
import atexit, pickle, sys, numpy
@atexit.register                                   # runs after mori's own, which is registered later
def last():
    import mori
    assert x.sum() == 499500
    data = pickle.dumps({"part": x[10:20], "whole": x, "frame": frame})
    sys.stdout.buffer.write(data)
import mori, pandas
x = mori.share(numpy.arange(1000))
frame = mori.share(pandas.DataFrame({"a": [1.5, 2.5], "s": ["a", "b"]}), strings="arrow")
assert len(pickle.dumps(x)) <= 100
"""


def test_what_is_pickled_after_the_last_use_of_a_file_goes_by_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("MORI_STORE", f"files:{tmp_path}")
    done = subprocess.run([sys.executable, "-c", _LATE], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    found = pickle.loads(done.stdout)
    np.testing.assert_array_equal(found["whole"], np.arange(1000))
    np.testing.assert_array_equal(found["part"], np.arange(10, 20))
    assert found["frame"].to_dict("list") == {"a": [1.5, 2.5], "s": ["a", "b"]}
