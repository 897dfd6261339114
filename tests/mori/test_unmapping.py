"""Pages are unmapped when nobody can reach them any more: no other thread, and no finalizer."""

import pickle

import numpy as np

import mori
from tests.fresh import run_python


def test_threads_may_drop_and_open_the_same_region_at_once():
    """The one that opens it may find it in the table of mappings while the other one lets it go."""
    code = """
        import pickle, sys, threading, time
        import numpy, mori
        from mori.memory import mapping as mappings
        from mori.memory import region

        sys.setswitchinterval(1e-5)
        first = mori.share(numpy.arange(100_000))
        reference = pickle.dumps(first)
        (mapping,) = mappings.live()
        hold = mapping.lease  # keeps the region, and no mapping
        del first, mapping
        wrong = []

        def run():
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                if int(pickle.loads(reference)[-1]) != 99_999:
                    wrong.append(1)

        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(wrong), len(mappings.live()))
    """
    assert run_python(code) == "0 0"


def test_a_finalizer_in_a_cycle_may_read_what_goes_with_it():
    code = """
        import gc
        import mori
        from mori.memory import mapping as mappings
        from mori.memory import region

        class Reader:
            def __init__(self, shared):
                self.shared, self.me = shared, self

            def __del__(self):
                print(sum(self.shared), self.shared[0])

        gc.disable()
        Reader(mori.share(list(range(100_000))))
        gc.collect()
        print(len(mappings.live()))
    """
    assert run_python(code).split() == ["4999950000", "0", "0"]


def test_an_address_leads_to_the_mapping_that_encloses_it_whatever_came_and_went():
    code = """
        import random
        import numpy, mori
        from mori.memory import mapping as mappings
        from mori.memory import region

        chance = random.Random(1)
        held = {}
        for number in range(600):
            if held and chance.random() < 0.4:
                del held[chance.choice(list(held))]
            held[number] = mori.share(numpy.full(chance.choice((5, 3000, 70_000)), number))
        for number, array in held.items():
            start, nbytes = array.__array_interface__["data"][0], array.nbytes
            for place, length in ((start, nbytes), (start + nbytes - 1, 1), (start, 0)):
                found = mappings.mapping_at(place, length)
                assert found is mappings.held_by(array), number
            mapping = mappings.mapping_at(start, nbytes)
            assert mappings.mapping_at(mapping.address, mapping.nbytes) is mapping
            assert mappings.mapping_at(mapping.address, mapping.nbytes + 1) is None
            assert mappings.mapping_at(mapping.address - 1, 2) is None
        del mapping, found
        places = [array.__array_interface__["data"][0] for array in held.values()]
        held.clear()
        del array
        print([mappings.mapping_at(place, 1) for place in places if mappings.mapping_at(place, 1)])
    """
    assert run_python(code) == "[]"


def test_to_find_an_address_not_every_mapping_is_looked_at():
    code = """
        import numpy, mori
        from mori.memory import mapping as mappings
        from mori.memory import region, mapping

        held = [mori.share(numpy.arange(10)) for _ in range(300)]
        looked = []

        places = mapping._placed
        mapping._placed = [(start, number, lambda ref=ref: looked.append(1) or ref())
                           for start, number, ref in places]
        for array in held:
            mappings.mapping_at(array.__array_interface__["data"][0], 80)
        mappings.mapping_at(1, 1), mappings.mapping_at(id(held), 1)
        print(len(looked) <= 302)
    """
    assert run_python(code) == "True"


def test_who_opens_a_memfd_makes_none():
    shared = mori.share(np.arange(1000))
    code = f"""
        import os, pickle
        import numpy, mori

        os.memfd_create = None
        print(int(pickle.loads(bytes.fromhex("{pickle.dumps(shared, 5).hex()}")).sum()))
    """
    assert run_python(code) == "499500"


_MAPPED_MEANWHILE = """
import sys, numpy, mori
from mori.memory import mapping as mappings
from mori.memory import mapping, region

def at_each_line(act, step):
    "Call `act` with `step` run in the middle of it, as a finalizer may be, once for each line of the module."
    for line in range(1, 1000):
        left = line
        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename != mapping.__file__:
                return None
            left -= event in ("call", "line")
            if not left:
                sys.settrace(None)
                step()
            return trace
        sys.settrace(trace)
        try:
            act()
        finally:
            sys.settrace(None)
        if left > 0:
            return line

def is_found(array):
    found = mappings.mapping_at(array.__array_interface__["data"][0], array.nbytes)
    return found is not None and mori.shared_name(array) == f"/mori_{found.name.pid:x}_{found.name.number:x}"

kept = [mori.share(numpy.arange(9)) for _ in range(8)]
lines = at_each_line(lambda: [is_found(each) or sys.exit("lost") for each in kept[:8]],
                     lambda: kept.append(mori.share(numpy.arange(9))))
more = []
def come_and_go():
    del more[::2]
    more.extend(mori.share(numpy.arange(9)) for _ in range(3))
lines += at_each_line(lambda: [come_and_go() for _ in range(4)], come_and_go)
assert all(map(is_found, kept + more))
assert len(mapping._placed) <= 2 * len(mapping._mappings) + mapping._GONE + 1
print(lines)
"""


def test_places_are_right_whatever_a_finalizer_maps_and_drops_meanwhile() -> None:
    assert int(run_python(_MAPPED_MEANWHILE)) > 50
