"""Codecs of third parties: known by a name, which stands before their own meta; found by entry points.

Imports codec and layout. Nothing is imported by the name in a region but what an installed package has
announced under it in the group `mori.codecs`.
"""

from __future__ import annotations

import re
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np

from mori._imports import importing
from mori.format import codec
from mori.format.codec import Buffers, Encoded, Late
from mori.format.layout import Codec as Id

__all__ = ["GROUP", "NamedCodec", "load", "register_codec", "remake"]

GROUP: Final = "mori.codecs"
_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*")
_LENGTH: Final = struct.Struct("<H")
_MOST: Final = 255  # bytes of a name


class NamedCodec(Protocol):
    """What a third party writes: a name, and a type's way into a region and out of it.

    `step` may be left out; it says how a user writes the way to a child, for error messages.
    """

    name: str

    def encode(self, obj: Any) -> Encoded | None:
        """Take an object apart; None if this one has to go by pickle."""

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        """Put it together again. Whatever it raises on damaged bytes becomes a CorruptRegionError."""


class _Named:
    """One third party's codec, as the plan wants it."""

    id = Id.NAMED

    def __init__(self, inner: NamedCodec) -> None:
        self.inner = inner
        name = inner.name.encode()
        self._head = _LENGTH.pack(len(name)) + name

    def encode(self, obj: Any) -> Encoded | None:
        encoded = self.inner.encode(obj)
        if encoded is None:
            return None
        return Encoded(self._head + encoded.meta, encoded.buffers, encoded.children)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        """Decode what has this or any other name: the codec that the id stands for."""
        (length,) = _LENGTH.unpack_from(meta)
        name, rest = meta[_LENGTH.size :][:length].decode(), meta[_LENGTH.size + length :]
        if length > _MOST or not _NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no name of a codec")
        if name not in _by_name:
            load(name.partition(".")[0])
        if name not in _by_name:
            raise ImportError(
                f"this region holds what the codec {name!r} writes, and there is none here: install the "
                f"package that has the entry point {name!r} in the group {GROUP!r}, or call "
                "mori.register_codec before it is opened",
                name=name.partition(".")[0],
            )
        return _by_name[name].inner.decode(rest, buffers, children)

    def step(self, obj: Any, index: int) -> str:
        step: Callable[[Any, int], str] | None = getattr(self.inner, "step", None)
        return f".children[{index}]" if step is None else step(obj, index)


_by_name: dict[str, _Named] = {}
_loaded: set[str] = set()
_here = threading.local()


def register_codec(codec_: NamedCodec, /, *types: type) -> None:
    """Have objects of these exact types shared by a codec of your own.

    Parameters
    ----------
    codec_ : object
        It has a ``name``, a str: the top-level module of the types, and what follows a dot if there are
        several; ``encode(obj)``, which returns a `mori.Encoded` or None; and ``decode(meta, buffers,
        children)``. It may have ``step(obj, index)``. The name is part of the bytes: it is never given
        to another layout.
    *types : type
        The classes; subclasses are not meant.

    Raises
    ------
    ValueError
        For a name that cannot be one, or a type that mori has a codec for.

    Notes
    -----
    docs/codecs.md has an example, the contract, and the entry point by which mori finds a codec that
    nobody has imported. `mori.testing.check_codec` tries one.
    """
    name = codec_.name
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name.encode()) > _MOST:
        raise ValueError(
            f"{name!r} cannot be the name of a codec: expected such as 'package' or 'package.thing'"
        )
    for cls in types:
        known = codec.known(cls)
        if known is not None and known.id != Id.NAMED:
            raise ValueError(f"mori has a codec for {cls.__qualname__} already")
    named = _by_name[name] = _Named(codec_)
    codec.register(named, *types)


def load(library: str) -> None:
    """Load the entry points of a library, once; what is loaded registers its codecs."""
    if library in _loaded or library in sys.stdlib_module_names or library == "__main__":
        return
    if library in (loading := _here.__dict__.setdefault("loading", set())):
        return  # what is loaded shares something while it is imported
    loading.add(library)
    try:
        _load(library)
    finally:
        loading.discard(library)
    # Not before: another thread would take the codecs for loaded. Both may load them; they are imported once.
    _loaded.add(library)


def _load(library: str) -> None:
    with importing:
        import importlib.metadata  # a third of the time that importing mori would take

    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name.partition(".")[0] != library:
            continue
        try:
            with importing:
                entry.load()
        except Exception as error:  # of a package that mori knows nothing about
            warnings.warn(
                f"the codec {entry.name!r} ({entry.value}) cannot be loaded, and its objects go by pickle: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def remake(obj: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of an object in private memory, whose children were changed by a function."""
    named = codec.known(type(obj))
    assert isinstance(named, _Named)
    encoded = named.inner.encode(obj)
    if encoded is None:
        return obj
    pieces = [[*buffer] if isinstance(buffer, Sequence | Late) else [buffer] for buffer in encoded.buffers]
    private = Buffers(
        np.frombuffer(bytearray(b"".join(part.tobytes("A") for part in piece)), np.uint8) for piece in pieces
    )
    return named.inner.decode(encoded.meta, private, [change(child) for child in encoded.children])


class _Unknown:
    """Stands for a codec without a name of its own, so that the id is known before any is registered."""

    name = "mori"

    def encode(self, obj: Any) -> Encoded | None:
        return None

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        raise ValueError("mori itself writes nothing under a name")


_by_name[_Unknown.name] = _Named(_Unknown())
codec.register(_by_name[_Unknown.name])
