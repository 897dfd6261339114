"""Where a pickle goes: into a file, which has to carry its data, or to another process.

Pickle does not tell an object what it is pickled for, and nothing can be hooked that is certain to be called:
C code writes the file, and programs have imported `dump` by its name before mori is there. So an object looks
who pickles it, by the frames above, and pickles without a shared object pay nothing. What `dumps` returns and
what a known transport sends is a reference; all else carries its data: slower at worst, and never lost.
The same frames tell whether a reference is read where an exception would end an engine.
"""

from __future__ import annotations

import gc
import pickle
import sys
from functools import partial
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType
from typing import Any, Final, Literal, NamedTuple

from mori._imports import load

__all__ = ["is_read_by_engine", "transport_of_frames"]

# Modules by their prefixes, each with the dot that ends it.
_OURS: Final = ("mori.",)
_TRANSPORTS: Final = (  # no function of a user's is called from these
    *("multiprocessing.reduction.", "multiprocess.reduction.", "joblib.pool."),
    *("joblib.externals.loky.backend.reduction.", "loky.backend.reduction."),
    "copy.",  # which takes objects apart as pickle does, and stays in this process
)
_STORES: Final = (  # libraries that keep what `dumps` returns
    *(
        "cachelib.",
        "diskcache.",
        "distributed.shuffle.",
        "numcodecs.",
        "partd.",
        "sqlalchemy.",
        "sqlitedict.",
    ),
    *("streamlit.", "tables."),
)
_REDUCERS: Final = ("__reduce__", "__reduce_ex__", "__getstate__", "reducer_override", "persistent_id")

_FUNCTIONS: Final = (BuiltinFunctionType, FunctionType, MethodType)
_VARIABLES: Final = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF")

# What a frame says of the pickle that is made below it.
_Said = Literal["above", "dump", "dumps", "bytes", "file", "reference", "value", "unknown"]


class _Site(NamedTuple):
    """A call in some code: what it says, and the variable that is called if its name says nothing."""

    said: _Said
    variable: str
    code: CodeType  # which stays, so that its id is no other's


_sites: dict[tuple[int, int], _Site] = {}
_MOST_SITES: Final = 10_000


def transport_of_frames() -> Literal["reference", "value"]:
    """Return the transport of a shared object that is being pickled now, as the frames above tell it."""
    frame: FrameType | None = sys._getframe(3)  # below lie this module and `reference`, whoever asks
    inner: Literal["reference", "value"] | None = None  # what a dump says that a reducer has begun
    within: _Said | None = None  # the function that has called the pickler: one called dump, or dumps
    while frame is not None:
        code = frame.f_code
        site = _sites.get((id(code), frame.f_lasti)) or _new_site(frame)
        said = _by_value_of(frame, site.variable) if site.variable else site.said
        if said == "reference":
            return "reference"
        if said == "value":
            return "value"
        if said == "dumps":
            within = "dumps"
        elif said == "dump":
            within = within or "dump"
        elif said != "above":
            if within == "dumps":
                said = "bytes"
            elif said == "unknown" and within is None and _is_dumps():
                # Who calls it through another library, as by toolz.valmap, stands above that.
                is_stored = frame.f_back is not None and _module(frame.f_back).startswith(_STORES)
                said = "unknown" if is_stored else "bytes"
            if said != "bytes":
                return inner or "value" if said == "unknown" else "value"
            if code.co_name not in _REDUCERS:
                return "reference"
            inner, within = "reference", None
        frame = frame.f_back
    return inner or ("reference" if within == "dumps" else "value")


def _new_site(frame: FrameType) -> _Site:
    code = frame.f_code
    called, variable = _called(frame)
    said = _said(_module(frame), code.co_name, called)
    if len(_sites) >= _MOST_SITES:
        _sites.clear()
    site = _sites[id(code), frame.f_lasti] = _Site(said, variable if said == "unknown" else "", code)
    return site


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__") or ""


def _by_value_of(frame: FrameType, variable: str) -> _Said:
    """Return what a frame says by the function that one of its variables is now."""
    missing = frame.f_globals.get(variable)
    function = frame.f_locals.get(variable, missing)
    while type(function) is partial:
        function = function.func
    called = function.__name__ if isinstance(function, _FUNCTIONS) else ""
    return _said(_module(frame), frame.f_code.co_name, called)


def _said(module: str, function: str, called: str) -> _Said:
    """Return what a frame says, by its module, its function, and what it has called."""
    dotted = module + "."
    if dotted.startswith(_OURS):
        return "above"
    if dotted.startswith(_TRANSPORTS):
        return "reference"
    if dotted.startswith(_STORES):
        return "value"
    if function.endswith("dumps"):
        return "dumps"
    # The methods of picklers written in Python, and reducers that ask the object itself.
    if module == "pickle" or called.lstrip("_").startswith(("save", "batch_", "reduce")):
        return "above"
    if called.endswith("dumps"):
        return "bytes"
    if called.endswith("dump"):
        return "dump" if function == "dump" else "file"
    return "unknown"


def _called(frame: FrameType) -> tuple[str, str]:
    """Return the name of what a frame is calling, and again if it is that of a variable; else empty.

    The expression that is called begins where the call does, and its last name is loaded last.
    """
    name = variable = ""
    positions = getattr(frame.f_code, "co_positions", None)  # from Python 3.11 on
    here = None if positions is None else [*positions()][frame.f_lasti // 2]
    if here is None or here[0] is None or here[2] is None:
        return name, variable
    for instruction in load("dis").get_instructions(frame.f_code):
        if instruction.offset >= frame.f_lasti:
            break
        place: Any = instruction.positions
        is_there = (place.lineno, place.col_offset) == (here[0], here[2])
        if is_there and instruction.opname.startswith("LOAD_") and isinstance(instruction.argval, str):
            name = instruction.argval
            variable = name if instruction.opname.startswith(_VARIABLES) else ""
    return name, variable


def _is_dumps() -> bool:
    """Return whether the C pickler at work returns bytes, where no name tells: of `map(pickle.dumps, ...)`.

    It is among the younger objects unless it has a long way behind it; others beside it may be those of
    other threads, or wait for their next dump. None of them may write to a file.
    """
    for generation in (0, 1):  # to look for a name may have ended one
        young = [obj for obj in gc.get_objects(generation) if isinstance(obj, pickle.Pickler)]
        parts = gc.get_referents(*young)
        if young:
            return not any(callable(part) and not isinstance(part, type) for part in parts)
    return False


# Functions of engines whose exceptions end a worker, or leave what waits for them waiting for ever, and what
# they have called there. `test_files.py` tries each.
_ENGINES: Final = ("distributed.protocol.", "ray._private.serialization.")
_READERS: Final = (
    *("multiprocessing.pool.", "multiprocess.pool.", "concurrent.futures.process."),
    *("joblib.externals.loky.process_executor.", "loky.process_executor."),
)
_READING: Final = (
    *("pickle.", "dill.", "multiprocessing.", "multiprocess.", "joblib.externals.loky.", "joblib.pool."),
    "loky.",
)


def is_read_by_engine() -> bool:
    """Return whether what unpickles a reference now is an engine, which must not meet an exception there."""
    frame: FrameType | None = sys._getframe(1)
    below = ""
    while frame is not None:
        dotted = frame.f_globals.get("__name__", "") + "."
        if not dotted.startswith(_OURS):
            if dotted.startswith(_ENGINES):
                return True
            if dotted.startswith(_READERS):
                # Under a function that an engine calls for its user there is no reader of its own.
                return below.startswith(_READING)
            if not dotted.startswith(_READING):
                return False
            below = dotted
        frame = frame.f_back
    return False
