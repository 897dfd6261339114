"""The public surface is a list, and importing it starts and imports next to nothing."""

import re
import tokenize
from pathlib import Path

import mori
from tests.fresh import run_python

EXPECTED = [
    "AllocatedArray",
    "AllocatedFrame",
    "Buffers",
    "ClassNotFoundError",
    "Codec",
    "CorruptRegionError",
    "Encoded",
    "Explanation",
    "LimitError",
    "MoriError",
    "NotShareableError",
    "ObjectColumnWarning",
    "PartNotFoundError",
    "PickleNotAllowedError",
    "ReadOnlyViewError",
    "RegionNotFoundError",
    "SavedRegionNotFoundError",
    "SettingError",
    "SharedArray",
    "SharedBytes",
    "SharedDict",
    "SharedFrozenSet",
    "SharedList",
    "SharedSet",
    "SharedTuple",
    "StoreError",
    "StoreFullError",
    "StoreWarning",
    "UnsafeRegionError",
    "allocate",
    "by_value",
    "explain",
    "frombuffer",
    "is_shared",
    "load",
    "map_shared",
    "materialize",
    "prune_shared",
    "r_attributes",
    "regions",
    "register_codec",
    "save",
    "share",
    "shared_name",
    "writable",
]


def test_the_public_names_are_these():
    assert sorted(mori.__all__) == EXPECTED
    assert all(hasattr(mori, name) for name in mori.__all__)


RETIRED = {
    *("above", "again", "alone", "filling", "handed", "keeper", "kept", "landing", "late", "leans", "look"),
    *("looked", "meet", "met", "pristine", "rebuilt", "remade", "signs", "travel", "way"),
}


def test_no_name_has_a_word_that_was_given_up_for_the_terms_of_the_field():
    for path in (one for root in Path(mori.__file__).parents[1].glob("mori*") for one in root.rglob("*.py")):
        with tokenize.open(path) as file:
            names = {token.string for token in tokenize.generate_tokens(file.readline) if token.type == 1}
        words = {
            name: re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) for name in names
        }
        assert not {name for name in names if RETIRED & {*words[name]}}, path


_COUNT = """
import sys, numpy, mori
mori.share(numpy.zeros(1000))
array, calls = numpy.ones(1000), []
sys.setprofile(lambda frame, event, argument: calls.append(event))
shared = mori.share(array)
sys.setprofile(None)
print(calls.count("call"))
"""


def test_sharing_an_array_takes_at_most_90_python_calls():
    assert int(run_python(_COUNT)) <= 90


def test_everything_public_says_what_it_does():
    assert [name for name in mori.__all__ if not getattr(mori, name).__doc__] == []


def test_importing_it_imports_no_optional_library():
    optional = {"pandas", "pyarrow", "dask", "distributed", "ray", "cloudpickle"}
    code = "import sys, mori; print(*sys.modules)"
    assert not optional & {*run_python(code, "-W", "error").split()}


def test_importing_it_starts_no_thread_and_opens_no_file():
    code = (
        "import os, threading, numpy\n"
        "before = os.listdir('/proc/self/fd')\n"
        "import mori\n"
        "print(threading.active_count(), os.listdir('/proc/self/fd') == before)"
    )
    assert run_python(code, "-W", "error") == "1 True"


def test_an_array_is_shared_and_sent_without_importing_pandas():
    code = (
        "import sys, pickle, numpy, mori\n"
        "x = mori.share({'a': numpy.arange(10), 'b': [1, 'two', None]})\n"
        "assert mori.is_shared(pickle.loads(pickle.dumps(x)))\n"
        "assert mori.materialize(x)['b'] == [1, 'two', None]\n"
        "print('pandas' in sys.modules)"
    )
    assert run_python(code, "-W", "error") == "False"


def test_importing_it_imports_little_beyond_numpy():
    """Time depends on the machine, what is imported does not; 0.07 s with 41 and mori's own."""
    code = (
        "import sys, numpy, concurrent.futures, multiprocessing\n"
        "before = {*sys.modules}\n"
        "import mori\n"
        "print(*sorted({*sys.modules} - before))"
    )
    imported = run_python(code, "-W", "error").split()
    slow = {
        "importlib.metadata",
        "inspect",
        "asyncio",
        "uuid",
        "decimal",
        "email",
        "multiprocessing.reduction",
    }
    assert not slow & {*imported}
    assert sum(not name.startswith("mori") for name in imported) <= 50, imported
