"""A pytest plugin: the arrays that numpy's own test modules make are passed through `mori.share`.

A test module's ``np`` becomes a stand-in for numpy, of which the functions that make arrays share
what they made. Arrays of objects, subclasses, and whatever is made in other ways stay as they are.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

import mori

MAKERS: Final = (
    *(
        "arange",
        "array",
        "empty",
        "eye",
        "frombuffer",
        "fromiter",
        "full",
        "geomspace",
        "identity",
        "linspace",
    ),
    *("logspace", "ones", "ones_like", "zeros", "zeros_like", "full_like", "tri", "vander", "diag"),
)


def sharing(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that shares the plain array that another makes."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        array = make(*args, **kwargs)
        return mori.share(array) if type(array) is np.ndarray and not array.dtype.hasobject else array

    return made


class StandIn(types.ModuleType):
    """numpy, whose makers share."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


STAND_IN: Final = StandIn("numpy")
SHARING: Final = {name: sharing(getattr(np, name)) for name in MAKERS}
vars(STAND_IN).update(SHARING)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for module in {item.module for item in items if isinstance(item, pytest.Function)}:
        if vars(module).get("np") is np:
            module.np = STAND_IN
        for name, made in SHARING.items():
            if vars(module).get(name) is getattr(np, name):
                setattr(module, name, made)
