"""Reading all of an object, and comparing two of them to the last type and identity.

Both know plain and shared objects alike: a class of mori counts as the builtin or the class of numpy or
pandas that it stands for. Invariant: `walk` does the same to both, and holds nothing that it has passed.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import numbers
import pathlib
import sys
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

__all__ = ["deep_recursion", "difference", "walk"]

_ATOMS: Final = (
    type(None),
    numbers.Number,  # decimals, fractions and numpy's numbers among them
    str,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    range,
    slice,
    enum.Enum,
    np.generic,
    np.dtype,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
)


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Let a walk follow a ring of hundreds of objects; pickle keeps the limit that it has."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


# -- reading ------------------------------------------------------------------------------------------

_walkers: dict[type, Callable[[Any], None] | None] = {}  # None: nothing is inside


def walk(obj: Any, *, is_cyclic: bool = False) -> None:
    """Read everything in an object: each element, attribute, key and value, and all bytes of arrays."""
    if is_cyclic:
        _walk_once(obj)
        return
    kind = type(obj)
    try:
        walker = _walkers[kind]
    except KeyError:
        walker = _walkers[kind] = _walker(obj)
    if walker is not None:
        walker(obj)


def _elements(obj: Any) -> None:
    known = _walkers
    for element in obj:
        if known.get(type(element), walk) is not None:  # atoms cost one look
            walk(element)


def _entries(obj: Any) -> None:
    known = _walkers
    for key, value in obj.items():
        if known.get(type(key), walk) is not None:
            walk(key)
        if known.get(type(value), walk) is not None:
            walk(value)


def _attributes(obj: Any) -> None:
    _entries(_state(obj))


def _array(obj: Any) -> None:
    if obj.dtype.hasobject:
        _elements(obj.ravel().tolist() if obj.dtype.names is None else obj.tolist())
    else:
        obj.tobytes()


def _columns(obj: Any) -> None:
    """Read a frame, a Series or a table of pandas, polars or Arrow."""
    if hasattr(obj, "iloc"):
        for i in range(obj.shape[1]) if obj.ndim == 2 else ():
            walk(obj.iloc[:, i].to_numpy())
        walk(obj.index.to_numpy())
    elif hasattr(obj, "columns"):
        for i in range(obj.shape[1]):
            walk(obj[:, i].to_numpy() if hasattr(obj, "lazy") else obj.column(i).to_numpy())
    if getattr(obj, "ndim", 1) == 1 and not hasattr(obj, "columns"):
        walk(obj.to_numpy())


def _is_tabular(obj: Any) -> bool:
    names = {cls.__module__.partition(".")[0] for cls in type(obj).__mro__}
    return bool(names & {"pandas", "polars", "pyarrow"}) and hasattr(obj, "shape")


def _state(obj: Any) -> dict[str, Any]:
    """Return what an instance holds: its ``__dict__``, its slots, or the state that its class pickles."""
    state = dict(getattr(obj, "__dict__", ()))
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"} and hasattr(obj, name):
                state[name] = getattr(obj, name)
    if not state and not isinstance(obj, BaseException):
        pickled = obj.__reduce_ex__(4)
        state = {"state": pickled[2]} if len(pickled) > 2 else {}
    if isinstance(obj, BaseException):
        state["args"] = obj.args
    return state


def _walker(obj: Any) -> Callable[[Any], None] | None:
    """Choose how an object is read."""
    if isinstance(obj, np.ndarray):
        return _array
    if isinstance(obj, _ATOMS):
        return None
    if isinstance(obj, bytes | bytearray | memoryview):
        return None
    if isinstance(obj, Mapping):
        return _entries
    if _is_tabular(obj):
        return _columns
    if isinstance(obj, Sequence | Set) or type(obj).__name__ == "deque":
        return _elements
    return _attributes


def _walk_once(root: Any) -> None:
    """Read an object that may contain itself: everything once, in the order of depth first."""
    seen: dict[int, Any] = {}  # holds what was met, or another object might be given its id

    def enter(obj: Any) -> None:
        kind = type(obj)
        if kind not in _walkers:
            _walkers[kind] = _walker(obj)
        walker = _walkers[kind]
        if walker is None or id(obj) in seen:
            return
        seen[id(obj)] = obj
        if walker is _elements:
            for element in obj:
                enter(element)
        elif walker in (_entries, _attributes):
            for value in (obj if walker is _entries else _state(obj)).values():
                enter(value)
        else:
            walker(obj)

    enter(root)


# -- comparing ----------------------------------------------------------------------------------------


def difference(found: Any, expected: Any) -> str:
    """Say where two objects differ first in type, value or identity; "" if they do not."""
    try:
        with deep_recursion():
            _Comparison().compare(found, expected, "")
    except _DifferenceError as error:
        return str(error)
    return ""


class _DifferenceError(Exception):
    pass


def _stands_for(found: type, expected: type) -> bool:
    """Say whether a type is the one expected, or one of mori's that takes its place."""
    if found is expected:
        return True
    if found.__module__.partition(".")[0] != "mori":
        return False
    name = "bytes" if issubclass(expected, bytearray) else expected.__name__
    return issubclass(found, expected) or found.__name__.lower() == f"shared{name}".lower()


class _Comparison:
    """One walk through two objects in step."""

    def __init__(self) -> None:
        # Both are held: the id of what is gone may be that of another object.
        self._by_expected: dict[int, tuple[Any, Any]] = {}
        self._by_found: dict[int, tuple[Any, Any]] = {}

    def compare(self, found: Any, expected: Any, path: str) -> None:
        kind = type(expected)
        if not _stands_for(type(found), kind):
            other = (
                "another class of that name"
                if type(found).__name__ == kind.__name__
                else f"no {kind.__name__}"
            )
            raise _DifferenceError(f"{path or 'it'} is a {type(found).__name__}, {other}")
        if isinstance(expected, _ATOMS):
            self._atom(found, expected, path)
            return
        if isinstance(expected, bytes | bytearray):
            if bytes(found) != bytes(expected):
                raise _DifferenceError(f"{path} has other bytes")
            return
        if self._is_met(found, expected, path):
            return
        if isinstance(expected, np.ndarray):
            self._array(found, expected, path)
        elif _is_tabular(expected):
            self._table(found, expected, path)
        else:
            self._container(found, expected, path)

    def _atom(self, found: Any, expected: Any, path: str) -> None:
        is_equal = bool(found == expected) or repr(found) == repr(expected) in {"nan", "NaT"}
        if isinstance(expected, enum.Enum | type | types.FunctionType):
            is_equal = found is expected
        if not is_equal or (isinstance(expected, float | dt.datetime) and repr(found) != repr(expected)):
            raise _DifferenceError(f"{path} is {found!r:.40}, not {expected!r:.40}")

    def _is_met(self, found: Any, expected: Any, path: str) -> bool:
        """Say whether the two were compared before; what was one object has to be one, and only that."""
        if isinstance(expected, tuple | frozenset) and not expected:
            return len(found) == 0  # of which there is one in a process
        if (met := self._by_expected.get(id(expected))) is not None:
            if met[0] is not found:
                raise _DifferenceError(f"{path} is another object than before")
            return True
        if (met := self._by_found.get(id(found))) is not None and met[1] is not expected:
            raise _DifferenceError(f"{path} is one object with another")
        self._by_expected[id(expected)] = self._by_found[id(found)] = found, expected
        return False

    def _array(self, found: Any, expected: Any, path: str) -> None:
        if found.dtype != expected.dtype or found.shape != expected.shape:
            raise _DifferenceError(f"{path} is {found.dtype} of {found.shape}")
        if expected.dtype.hasobject:
            for i, pair in enumerate(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)):
                self.compare(*pair, f"{path}[{i}]")
        elif found.tobytes() != expected.tobytes():
            raise _DifferenceError(f"{path} has other numbers")

    def _table(self, found: Any, expected: Any, path: str) -> None:
        if hasattr(expected, "dtypes") and str(found.dtypes) != str(expected.dtypes):
            raise _DifferenceError(f"{path} has other dtypes")
        if not found.equals(expected):
            raise _DifferenceError(f"{path} is not equal")

    def _container(self, found: Any, expected: Any, path: str) -> None:
        if isinstance(expected, Mapping):
            self._entries(found, expected, path)
        elif isinstance(expected, Set):
            theirs = {element: element for element in found}
            if len(theirs) != len(expected):
                raise _DifferenceError(f"{path} has {len(theirs)} elements, not {len(expected)}")
            for element in expected:
                if element not in theirs:
                    raise _DifferenceError(f"{path} lacks {element!r:.40}")
                self.compare(theirs[element], element, f"{path}{{{element!r:.20}}}")
        elif isinstance(expected, Sequence) or type(expected).__name__ == "deque":
            if len(found) != len(expected):
                raise _DifferenceError(f"{path} has {len(found)} elements, not {len(expected)}")
            for i, pair in enumerate(zip(found, expected, strict=True)):
                self.compare(*pair, f"{path}[{i}]")
        if hasattr(expected, "default_factory"):
            self.compare(found.default_factory, expected.default_factory, f"{path}.default_factory")
        if not isinstance(expected, Mapping | Set | Sequence) or hasattr(expected, "__dict__"):
            mine, theirs = _state(found), _state(expected)
            self._entries({key: mine[key] for key in theirs if key in mine} | mine, theirs, path)

    def _entries(self, found: Any, expected: Any, path: str) -> None:
        if len(found) != len(expected):
            raise _DifferenceError(f"{path} has {len(found)} entries, not {len(expected)}")
        for mine, theirs in zip(found.items(), expected.items(), strict=True):
            at = f"{path}[{theirs[0]!r:.20}]"
            self.compare(mine[0], theirs[0], f"the key {at}")
            self.compare(mine[1], theirs[1], at)
