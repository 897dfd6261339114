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
        from mori.memory import region

        sys.setswitchinterval(1e-5)
        first = mori.share(numpy.arange(100_000))
        reference = pickle.dumps(first)
        (mapping,) = region.live()
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
        print(len(wrong), len(region.live()))
    """
    assert run_python(code) == "0 0"


def test_a_finalizer_in_a_cycle_may_read_what_goes_with_it():
    code = """
        import gc
        import mori
        from mori.memory import region

        class Reader:
            def __init__(self, shared):
                self.shared, self.me = shared, self

            def __del__(self):
                print(sum(self.shared), self.shared[0])

        gc.disable()
        Reader(mori.share(list(range(100_000))))
        gc.collect()
        print(len(region.live()))
    """
    assert run_python(code).split() == ["4999950000", "0", "0"]


def test_an_address_leads_to_the_mapping_that_encloses_it_whatever_came_and_went():
    code = """
        import random
        import numpy, mori
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
                found = region.at(place, length)
                assert found is region.held_by(array), number
            mapping = region.at(start, nbytes)
            assert region.at(mapping.address, mapping.nbytes) is mapping
            assert region.at(mapping.address, mapping.nbytes + 1) is None
            assert region.at(mapping.address - 1, 2) is None
        del mapping, found
        places = [array.__array_interface__["data"][0] for array in held.values()]
        held.clear()
        del array
        print([region.at(place, 1) for place in places if region.at(place, 1)])
    """
    assert run_python(code) == "[]"


def test_to_find_an_address_not_every_mapping_is_looked_at():
    code = """
        import numpy, mori
        from mori.memory import region, mapping

        held = [mori.share(numpy.arange(10)) for _ in range(300)]
        looked = []

        places = mapping._placed
        mapping._placed = [(start, number, lambda ref=ref: looked.append(1) or ref())
                           for start, number, ref in places]
        for array in held:
            region.at(array.__array_interface__["data"][0], 80)
        region.at(1, 1), region.at(id(held), 1)
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
