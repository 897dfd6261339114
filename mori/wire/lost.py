"""`Lost`: what unpickling returns for a shared object that cannot be opened."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, NoReturn

from mori.errors import MoriError

__all__ = ["Lost", "losses"]


class _Losses:
    """How many `Lost` objects this process has made: an adapter sees whether a message has one."""

    count = 0


losses: Final = _Losses()


def _lost(name: str) -> Any:
    def method(self: Lost, *args: object, **kwargs: object) -> NoReturn:
        _raise(self)

    method.__name__ = name
    return method


def _raise(lost: Lost) -> NoReturn:
    # Without what it went through where it was used before, or each use would add to its traceback, and
    # keep that one's frames.
    raise lost._mori_error.with_traceback(lost._mori_traceback)


class Lost:
    """Stands for a shared object that could not be opened, and says why as soon as it is used.

    For deserializers of engines alone: an exception there loses the task, or the worker, instead of failing
    it.

    Parameters
    ----------
    error : Exception
        Why it could not be opened.
    reduced : tuple, optional
        What ``__reduce_ex__`` returns for it: the reference, which another process may be able to open.
    """

    _mori_error: Exception
    _mori_traceback: TracebackType | None

    def __init__(self, error: Exception, reduced: tuple[Any, ...] | None = None) -> None:
        if isinstance(error, MoriError):  # it says all that there is to say: engines print each traceback
            error.__traceback__ = error.__context__ = None
        losses.count += 1
        object.__setattr__(self, "_mori_error", error)
        object.__setattr__(self, "_mori_traceback", error.__traceback__)
        object.__setattr__(self, "_mori_reduced", reduced)

    def __repr__(self) -> str:
        return f"<lost mori object: {self._mori_error}>"

    def __reduce_ex__(self, protocol: object) -> Any:
        # Another process may be able to open it.
        reduced: Any = object.__getattribute__(self, "_mori_reduced")
        return reduced or (Lost, (self._mori_error,))

    def __copy__(self) -> Lost:
        return self

    def __deepcopy__(self, memo: object) -> Lost:
        return self

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):  # protocols that engines look for
            raise AttributeError(name)
        _raise(self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        _raise(self)


_OPERATORS: Final = (
    *("abs", "add", "and", "bool", "call", "contains", "delitem", "divmod", "enter", "eq", "exit", "float"),
    *("floordiv", "ge", "getitem", "gt", "iadd", "index", "int", "invert", "iter", "le", "len", "lt"),
    *("array", "matmul", "mod", "mul", "ne", "neg", "next", "or", "pow", "radd", "reversed", "rmul"),
    *("rsub", "rtruediv", "setitem", "sub", "truediv", "xor"),
    *("bytes", "ceil", "complex", "delattr", "floor", "lshift", "pos", "rand", "rdivmod", "rfloordiv"),
    *("rlshift", "rmatmul", "rmod", "ror", "round", "rpow", "rrshift", "rshift", "rxor", "trunc"),
)
for _name in _OPERATORS:
    setattr(Lost, f"__{_name}__", _lost(f"__{_name}__"))
Lost.__hash__ = object.__hash__  # type: ignore[method-assign]
