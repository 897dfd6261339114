"""Pages are unmapped when nobody can reach them any more: no other thread, and no finalizer."""

from tests.fresh import run_python


def test_threads_may_drop_and_open_the_same_region_at_once():
    """The one that opens it may find it in the table of mappings while the other one lets it go."""
    code = """
        import pickle, sys, threading, time
        import numpy, mori
        from mori import region

        sys.setswitchinterval(1e-5)
        first = mori.share(numpy.arange(100_000))
        reference = pickle.dumps(first)
        (mapping,) = region.live()
        hold = mapping.hold  # keeps the region, and no mapping
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
        from mori import region

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
