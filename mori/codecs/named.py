"""Codecs of third parties: known by a name, which stands before their own meta; found by entry points.

Nothing is imported by the name in a region but what an installed package has announced under it in the group
`mori.codecs`.
"""

from __future__ import annotations

import re
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

from mori._imports import importing
from mori.format import codec
from mori.format.codec import Codec
from mori.format.node import Node
from mori.format.origins import remember

__all__ = ["GROUP", "load", "register_codec"]

GROUP: Final = "mori.codecs"
_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*")
_LENGTH: Final = struct.Struct("<H")
_MOST: Final = 255  # bytes of a name


class _ByName(Codec):
    """What the id stands for: any codec of a third party, whose name stands before the meta."""

    def open(self, node: Node) -> Any:
        try:
            by = _named(node.meta)
        except (ValueError, struct.error) as error:
            raise node.decode_error(str(error)) from error
        return remember(by.open(node), node)

    def copy(self, obj: Any, change: Callable[[Any], Any]) -> Any:
        by = codec.registered(type(obj))
        return obj if by is None else by.copy(obj, change)


def _named(meta: bytes) -> Codec:
    """Return the codec whose name stands before a meta, loaded now if need be."""
    (length,) = _LENGTH.unpack_from(meta)
    name = meta[_LENGTH.size :][:length].decode()
    if length > _MOST or not _NAME.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is no name of a codec")
    if codec.registered(name) is None:
        load(name.partition(".")[0])
    by = codec.registered(name)
    if by is None:
        raise ImportError(
            f"this region holds what the codec {name!r} writes, and there is none here: install the "
            f"package that has the entry point {name!r} in the group {GROUP!r}, or call "
            "mori.register_codec before it is opened",
            name=name.partition(".")[0],
        )
    return by


_loaded: set[str] = set()
_here = threading.local()


def register_codec(codec_: Codec, /, *types: type) -> None:
    """Register a codec of your own for objects of these exact types.

    Parameters
    ----------
    codec_ : mori.Codec
        It has a ``name``, a str: the top-level module of the types, and what follows a dot if there are
        several; ``encode(obj)``, which returns a `mori.Encoded` or None; and ``decode(meta, buffers,
        children)``. The name is part of the bytes: it is never given to another layout.
    *types : type
        The classes; subclasses are not meant.

    Raises
    ------
    TypeError
        For a codec whose class is not derived from `mori.Codec`.
    ValueError
        For a name that cannot be one, or a type that mori has a codec for.

    Notes
    -----
    docs/codecs.md has an example, the contract, and the entry point by which mori finds a codec that
    nobody has imported. `mori.testing.check_codec` tries one.
    """
    if not isinstance(codec_, Codec):
        raise TypeError(f"{type(codec_).__qualname__} has to be derived from mori.Codec")
    name = codec_.name
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name.encode()) > _MOST:
        raise ValueError(
            f"{name!r} cannot be the name of a codec: expected such as 'package' or 'package.thing'"
        )
    for cls in types:
        known = codec.registered(cls)
        if known is not None and not known.name:
            raise ValueError(f"mori has a codec for {cls.__qualname__} already")
    codec_.head = _LENGTH.pack(len(name.encode())) + name.encode()
    codec.register(codec_, *types)


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


codec.register(_ByName())
