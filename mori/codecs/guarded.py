"""Pickles of plain data where nobody has vouched for them: read in Python, which can be told what to refuse.

Invariant: a stream calls nothing but what makes a value of plain data, with arguments that need no more
memory than they have themselves.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from mori.codecs.ndarray import is_state_of

__all__ = ["GuardedUnpickler"]

_InPython: Final[Any] = vars(pickle)["_Unpickler"]  # whose opcodes can be told apart
_LENGTH: Final = struct.Struct("<Q")

_VALUES: Final = frozenset(
    {bool, bytearray, bytes, dict, float, frozenset, int, list, np.ndarray, set, str, tuple}
)
"""Classes that are arguments, as of a defaultdict, and are made by opcodes of their own."""


def _attribute(obj: object, name: str) -> Any:
    """Stand for `getattr`: return the one method of a class that plain data are made by."""
    if name == "_unpickle" and f"{obj.__module__}.{getattr(obj, '__qualname__', '')}" == "zoneinfo.ZoneInfo":
        return getattr(obj, name)
    raise pickle.UnpicklingError(f"a stream asks for {name:.40} of {obj!r:.40}")


def _reconstruct(cls: type, shape: tuple[int, ...], code: bytes | str) -> npt.NDArray[Any]:
    """Stand for numpy's: return the empty array that gets its state next."""
    if cls is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError(f"an array of {shape!r:.80} that is yet to be filled")
    return np.empty(0, "b")


def _is_fraction(cls: Any) -> bool:
    """Return whether a class makes a long number of a short exponent."""
    return getattr(cls, "__name__", "") == "Fraction"


_STAND_INS: Final[dict[str, Any]] = {"getattr": _attribute, "_reconstruct": _reconstruct}


class _Unpickler(_InPython):
    """Reads a stream of plain data."""

    dispatch: ClassVar[Any] = {**_InPython.dispatch}
    reader: Any
    persistent: Callable[[int], Any]
    part: Callable[[int], Any]

    def persistent_load(self, number: int) -> Any:
        return self.persistent(number)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("mori.codecs.streams", "part"):
            return self.part
        found = self.reader.find(module, name)
        return _STAND_INS.get(name, found)

    def load_reduce(self) -> None:
        """Call what makes a value."""
        self._check()
        super().load_reduce()

    def load_newobj(self) -> None:
        """Make an instance."""
        self._check()
        super().load_newobj()

    def _check(self) -> None:
        function, arguments = self.stack[-2:]
        is_counted = any(type(one) is range for one in arguments)
        is_power = arguments and type(arguments[0]) is str and "e" in arguments[0] and _is_fraction(function)
        if function in _VALUES or is_counted or is_power:
            raise pickle.UnpicklingError(f"a stream calls {function!r:.40} with {arguments!r:.40}")

    def load_build(self) -> None:
        """Refuse a state that numpy would not write: it believes what it is told.

        That may be that bytes are addresses of objects, or that a short list is a long one.
        """
        state, obj = self.stack[-1], self.stack[-2]
        if not _is_state_of(obj, state):
            raise pickle.UnpicklingError(f"a {type(obj).__name__} with the state {state!r:.80}")
        super().load_build()

    def load_bytearray8(self) -> None:
        """Read no more than there is; Python's own allocates it first."""
        (nbytes,) = _LENGTH.unpack(self.read(_LENGTH.size))
        self.append(bytearray(self.read(nbytes)))

    def load_other(self) -> None:
        """Refuse what protocol 5 does not need for plain data."""
        raise pickle.UnpicklingError("a stream of an older protocol than mori writes")


_Unpickler.dispatch |= {
    pickle.REDUCE[0]: _Unpickler.load_reduce,
    pickle.NEWOBJ[0]: _Unpickler.load_newobj,
    pickle.BUILD[0]: _Unpickler.load_build,
    pickle.BYTEARRAY8[0]: _Unpickler.load_bytearray8,
    **{
        opcode[0]: _Unpickler.load_other
        for opcode in (
            *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.GLOBAL),
            *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
        )
    },
}


def _is_state_of(obj: object, state: Any) -> bool:
    """Return whether an object may be given a state: few are, and not any."""
    with contextlib.suppress(Exception):
        if isinstance(obj, np.dtype):
            return is_state_of(obj, state)
        if isinstance(obj, np.ndarray):
            return _is_of_array(*state)
        return type(obj).__name__ == "UUID" and type(state) is dict
    return False


def _is_of_array(_: Any, shape: Any, dtype: Any, __: Any, content: Any) -> bool:
    if type(shape) is not tuple or min(shape, default=0) < 0 or not isinstance(dtype, np.dtype):
        return False
    count, has_objects = math.prod(shape), dtype.hasobject or dtype.kind == "T"
    if type(content) is list:
        return has_objects and len(content) == count
    return type(content) is bytes and not has_objects and len(content) == count * dtype.itemsize


GuardedUnpickler: Final[Any] = _Unpickler
