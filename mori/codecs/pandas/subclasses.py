"""Classes that a user derives from DataFrame or Series: the class, the plain frame, and its `_metadata`.

A class with a way of its own to be pickled goes by pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mori.codecs.pandas.parts import Parts, need
from mori.format.codec import Buffers, Encoded, Pickled
from mori.format.layout import Id

__all__ = ["SubclassCodec", "metadata_of"]


def _plain_of(obj: Any) -> Any:
    """Return a frame or series of pandas' own class over the same blocks."""
    cls = pd.DataFrame if isinstance(obj, pd.DataFrame) else pd.Series
    plain = cls._from_mgr(obj._mgr, obj.axes)
    if cls is pd.Series:
        plain._name = obj.name
    plain.attrs = obj.attrs
    plain.flags.allows_duplicate_labels = obj.flags.allows_duplicate_labels
    return plain


def metadata_of(obj: Any) -> dict[str, Any]:
    """Return what a frame or series has beyond pandas' own, as pandas pickles it."""
    return {name: getattr(obj, name, None) for name in obj._metadata}


def _of_class(cls: Any, plain: Any, own: dict[str, Any]) -> Any:
    """Return a frame or series of another class over the same blocks, made as pandas unpickles one."""
    made = cls.__new__(cls)
    state = {name: value for name, value in plain.__getstate__().items() if name != "_metadata"}
    made.__setstate__({**state, "_metadata": cls._metadata, **own})
    return made


class SubclassCodec(Parts):
    """A frame or series of a user's class."""

    id = Id.PANDAS_SUBCLASS
    is_prepared = True

    def encode(self, obj: Any) -> Encoded | None:
        cls = type(obj)
        for name in ("__reduce__", "__reduce_ex__", "__getstate__"):
            if getattr(cls, name, None) is not getattr(pd.DataFrame, name, None):
                return None
        return Encoded(b"", (), (Pickled(cls), _plain_of(obj), Pickled(metadata_of(obj))))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        cls, plain, own = children
        base = next((base for base in (pd.DataFrame, pd.Series) if isinstance(plain, base)), None)
        need(base is not None and isinstance(cls, type) and issubclass(cls, base), f"{cls!r} for a class")
        need(type(own) is dict, "metadata that is no dict")
        return _of_class(cls, plain, own)

    def step(self, obj: Any, index: int) -> str:
        return ("", "", "._metadata")[index]
