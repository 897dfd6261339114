"""A module that another thread is in the middle of importing is not there yet."""

from __future__ import annotations

from tests.fresh import run_python

_SLOW = """
import importlib.abc, importlib.machinery, sys, threading, mori, numpy, pandas
reached, go = threading.Event(), threading.Event()
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "mori.objects.pandas.names":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def wait_and_execute(module):
            reached.set()
            assert go.wait(30)
            execute(module)
        spec.loader.exec_module = wait_and_execute
        return spec
sys.meta_path.insert(0, Slow())
frames = []
first = threading.Thread(target=lambda: frames.append(mori.share(pandas.DataFrame({"a": [1, 2]}))))
first.start()
assert reached.wait(30)
x = mori.share([numpy.arange(300), "text"])
print(mori.is_shared(x), mori.shared_name(x[0]) == mori.shared_name(x) + "[0]")
print(mori.is_shared(numpy.arange(3)), mori.is_shared(pandas.DataFrame({"a": [1]})))
go.set()
first.join()
print(mori.is_shared(frames[0]), mori.is_shared(frames[0]["a"]), type(frames[0]).__name__)
"""


def test_a_thread_shares_while_another_imports_what_mori_knows_of_pandas() -> None:
    said = run_python(_SLOW).splitlines()
    assert said == ["True True", "False False", "True True DataFrame"]
