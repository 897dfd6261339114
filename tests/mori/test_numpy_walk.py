"""Every function of numpy's that takes an array does with a shared one what it does with a plain one.

The functions are found, not listed: what numpy adds is called, too. Each is called with the first of the
arguments below that a plain array allows.
"""

from __future__ import annotations

import datetime as dt
import re
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import mori

LEFT_OUT = {
    "reads or writes files": (
        "fromfile genfromtxt load loadtxt memmap save savetxt savez savez_compressed fromregex "
        "DataSource open_memmap tofile dump dumps"
    ),
    "settings and words about numpy": (
        "errstate geterr geterrcall getbufsize seterr seterrcall setbufsize info show_config "
        "show_runtime set_printoptions get_printoptions printoptions get_include test lookfor source who "
        "set_string_function deprecate deprecate_with_doc disp safe_eval byte_bounds add_docstring "
        "add_newdoc add_newdoc_ufunc compat fastCopyAndTranspose find_common_type issctype "
        "maximum_sctype obj2sctype sctype2char cast typename recfromcsv recfromtxt msort in1d row_stack "
        "trapz bench is_busday"
    ),
    "what it gives is not determined": ("empty empty_like ndarray getrefcount"),
    "writes to its argument, as test_local_writes.py has it": (
        "copyto fill_diagonal place put put_along_axis putmask fill itemset partition resize setfield "
        "setflags sort byteswap"
    ),
    "asks for memory, an iterator or a class": (
        "may_share_memory nditer nested_iters flatiter broadcast ndindex ndenumerate shares_memory "
        "getbuffer newbuffer frombuffer from_dlpack get_array_wrap"
    ),
    "gives addresses out": ("ids"),
    "has the class in its words": ("array_repr array2string"),
}
SKIPPED = frozenset(" ".join(LEFT_OUT.values()).split())


def floats() -> Any:
    return (np.arange(16.0).reshape(4, 4) * 7 % 11 + np.eye(4) * 3) / 4


SOURCES = {
    "floats": floats,
    "integers": lambda: np.arange(12).reshape(3, 4) % 5,
    "complex": lambda: floats()[:3] + 1j,
    "bools": lambda: floats() > 1,
    "strings": lambda: np.array(["a", "bc", "", "Ä1"]),
    "times": lambda: np.array(["2020-01-01", "2021-05-01"], "M8[D]"),
    "vector": lambda: np.arange(1, 5) / 2,
    "none": lambda: np.zeros((0, 3)),
    "point": lambda: np.array(0.5),
}
CALLS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda f, x: f(x),
    lambda f, x: f(x, x),
    lambda f, x: f(x, 1),
    lambda f, x: f(x, (2, 3)),
    lambda f, x: f(1, x),
    lambda f, x: f([x, x]),
    lambda f, x: f(x, x, x),
    lambda f, x: f(x, 0, 1),
    lambda f, x: f(x, [0, 1]),
    lambda f, x: f(x, 0.5),
    lambda f, x: f(x < 0, x),
    lambda f, x: f(x, "f8"),
    lambda f, x: f("ij", x),
    lambda f, x: f(np.sum, 0, x),
    lambda f, x: f(x, [x < 0], [1]),
    lambda f, x: f([x < 0], [x]),
)


REFUSED = ("np.busday_count",)  # lists of arrays without dimensions that are not exactly ndarrays


class Sub(np.ndarray):
    """A subclass that adds nothing."""


def functions() -> dict[str, Any]:
    found = {}
    modules: list[tuple[str, ModuleType]] = [("np", np), ("np.linalg", np.linalg), ("np.fft", np.fft)]
    modules += [("np.ma", np.ma), ("np.char", np.char), ("np.lib.stride_tricks", np.lib.stride_tricks)]
    if hasattr(np, "strings"):
        modules.append(("np.strings", np.strings))
    for prefix, module in modules:
        for name in getattr(module, "__all__", None) or dir(module):
            if name.startswith("_") or name in SKIPPED or name in ("chararray", "compare_chararrays"):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # names that are on their way out
                function = getattr(module, name, None)
            if callable(function) and not isinstance(function, type | ModuleType):
                found[f"{prefix}.{name}"] = function
    for name in dir(np.ndarray):
        if name not in SKIPPED and not name.startswith("_") and callable(getattr(np.ndarray, name)):
            found[f"x.{name}"] = method(name)
    return found


def method(name: str) -> Callable[..., Any]:
    return lambda x, *args: getattr(x, name)(*args)


FUNCTIONS = functions()


def outcome(function: Any, call: Any, x: Any) -> tuple[Any, Exception | None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call(function, x), None
        except Exception as error:
            return None, error


def assert_same(got: Any, expected: Any) -> None:
    if expected is np.ma.masked:
        assert got is expected
    elif isinstance(expected, np.ma.MaskedArray):
        assert type(got) is type(expected)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(expected))
        with np.errstate(over="ignore"):  # numpy's fill value does not fit into a float16
            np.testing.assert_array_equal(got.filled(), expected.filled())
    elif isinstance(expected, np.ndarray):
        if type(got) is mori.SharedArray:  # a view; or a copy by np.array(x, subok=True), as np.ma makes them
            assert mori.is_shared(got) or got.flags.owndata
        else:
            assert type(got) is type(expected)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(np.asarray(got), expected)
    elif isinstance(expected, list | tuple):
        assert (type(got), len(got)) == (type(expected), len(expected))
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.generic | float | complex):
        assert type(got) is type(expected)
        np.testing.assert_equal(got, expected)
    elif isinstance(expected, str | bytes | bool | int | np.dtype | dict | set | slice | dt.date | type):
        assert type(got) is type(expected)
        assert got == expected
    elif expected is None or callable(expected):
        assert got is expected or type(expected) is np.poly1d
    elif re.search(r"generator|iterator|memoryview|function|poly1d|IndexExpression", type(expected).__name__):
        assert type(got) is type(expected)
    else:
        raise AssertionError(f"nobody compares {type(expected).__name__}")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_does_with_a_shared_array_what_it_does_with_a_plain_one(name):
    function, calls = FUNCTIONS[name], 0
    for source in SOURCES.values():
        for call in CALLS:
            plain = source()
            expected, fault = outcome(function, call, plain)
            if expected is plain and call is not CALLS[0]:
                continue
            if fault is not None or plain.tobytes() != source().tobytes():  # or the second argument is an out
                continue
            calls += 1
            shared = mori.share(source())
            got, error = outcome(function, call, shared)
            if error is not None:  # numpy refuses any subclass there
                assert outcome(function, call, source().view(Sub))[1] is not None, error
                assert name in REFUSED
                break
            assert_same(got, expected)
            np.testing.assert_array_equal(np.asarray(shared), source())
            assert mori.is_shared(shared)
            break
    if not calls:
        NEVER_CALLED.append(name)


NEVER_CALLED: list[str] = []


def test_few_functions_are_never_called():
    assert len(NEVER_CALLED) < 40, NEVER_CALLED
    assert len(FUNCTIONS) > 400
