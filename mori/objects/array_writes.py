"""What numpy's functions and methods write to: which of their arguments has to be private first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mori._imports import load

__all__ = ["READING", "add_writers", "written"]

_READING: Final = (
    "sum prod mean std var min max any all ptp argmin argmax cumsum cumprod diff dot inner outer sort "
    "argsort unique percentile quantile nansum nanmean nanmin nanmax nanstd concatenate stack vstack hstack "
    "column_stack tile repeat where count_nonzero flatnonzero searchsorted bincount histogram isin "
    "array_equal allclose isclose zeros_like ones_like full_like empty_like"
)
READING: Final = frozenset(getattr(np, name) for name in _READING.split())
"""Functions that return no views of their first two arguments, and do not write to them."""

# The argument that a function is there to write to.
_FIRST: Final[dict[Any, str]] = {
    np.copyto: "dst",
    np.fill_diagonal: "a",
    np.place: "arr",
    np.put: "a",
    np.put_along_axis: "arr",
    np.putmask: "a",
}
# Where `out` stands in functions and methods that have no signature to read it from.
_OUT: Final[dict[Any, int]] = {np.dot: 2, np.concatenate: 2, np.choose: 2}
_BY_PLACE: Final = {  # as numpy reads them: its documents leave out the dtype of `all` and `any`
    1: "argmax argmin dot max min ptp round",
    2: "all any clip compress cumprod cumsum mean prod std sum take var",
    4: "trace",
}
_METHODS: Final = {name: place for place, names in _BY_PLACE.items() for name in names.split()}


def written(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the arguments that a function of numpy, or a method of that name, writes to."""
    if "out" in kwargs:
        yield kwargs["out"]
    elif (place := _place_of_out(function)) is not None and place < len(args):
        yield args[place]
    if function is np.nan_to_num:
        if not (args[1] if len(args) > 1 else kwargs.get("copy", True)):
            yield args[0] if args else kwargs["x"]
    elif isinstance(function, Callable) and function in _FIRST:  # type: ignore[arg-type]
        yield args[0] if args else kwargs[_FIRST[function]]


@functools.lru_cache(maxsize=1024)
def _place_of_out(function: Any) -> int | None:
    if isinstance(function, str):
        return _METHODS.get(function)
    if function in _OUT:
        return _OUT[function]
    inspect = load("inspect")  # for those few who need it: it imports much
    try:
        names = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    places = (
        place
        for place, one in enumerate(names)
        if one.name == "out" and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    )
    return next(places, None)


def add_writers(cls: type, ordinary: Any, names: Iterable[str], make_private: Callable[[Any], None]) -> None:
    """Add to a class the methods of numpy's class that write to the array, which is made private first."""
    for name in names:
        if hasattr(ordinary, name):
            setattr(cls, name, _writer(getattr(ordinary, name), name, make_private))


def _writer(plain: Any, name: str, make_private: Callable[[Any], None]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        make_private(self)
        return plain(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, plain.__doc__
    return method
