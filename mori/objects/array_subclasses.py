"""Shared versions of numpy's own array classes: recarray, matrix and chararray.

They behave as those do: what is computed from one is of numpy's class.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mori.codecs.ndarray import CLASSES
from mori.objects.array import SharedArray, shared_of
from mori.objects.array_codec import subclass

__all__ = ["SharedMatrix", "SharedRecords"]


class SharedRecords(SharedArray, np.recarray):
    """A record array over a region: its fields are attributes, and SharedArrays."""

    _ordinary = np.recarray

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if type(found) is np.ndarray and name in (super().__getattribute__("dtype").names or ()):
            return _still_shared(found)
        return found

    def __getitem__(self, key: Any) -> Any:
        return _still_shared(super().__getitem__(key))

    def field(self, attr: Any, val: Any = None) -> Any:
        """Return a field, or set it, by its name or number."""
        return _still_shared(super().field(attr, val))


def _still_shared(found: Any) -> Any:
    """numpy hands fields out as plain arrays, wherever they lie."""
    if type(found) is np.ndarray and (shared := shared_of(found)) is not None:
        return shared
    return found


class SharedMatrix(SharedArray, np.matrix[Any, Any]):
    """A matrix over a region."""

    _ordinary = np.matrix


for _cls in (SharedRecords, SharedMatrix):
    subclass(_cls)

if "chararray" in CLASSES:
    # Deprecated, and not always there: a class that no type checker knows.
    SharedCharArray: Any = type(
        "SharedCharArray", (SharedArray, CLASSES["chararray"]), {"_ordinary": CLASSES["chararray"]}
    )
    subclass(SharedCharArray)
