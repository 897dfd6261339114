"""Plain data: what a stream may name in a file that nobody has vouched for.

Nothing here does more than to make a value of what stands in the stream, whatever that is. docs/format.md
and docs/files.md say so to users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mori.format.layout import Id, from_json

__all__ = ["PLAIN", "STREAMS", "OtherNameError", "first_name", "other_name"]

_NAMES: Final = {
    "builtins": (
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "range"),
        *("getattr", "set", "slice", "str", "tuple"),  # getattr of a time zone alone: see codecs/guarded.py
    ),
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "ipaddress": ("IPv4Address", "IPv4Network", "IPv6Address", "IPv6Network"),
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "PurePosixPath", "PureWindowsPath"),
    "uuid": ("UUID", "SafeUUID"),
    "zoneinfo": ("ZoneInfo",),
    "mori.codecs.streams": ("void",),
    "numpy": ("dtype", "ndarray"),
    "numpy._core._internal": ("_convert_to_stringdtype_kwargs",),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "pandas": ("Interval", "NaT"),
    "pandas._libs.interval": ("Interval",),
    "pandas._libs.missing": ("NAType", "NA"),
    "pandas._libs.tslibs.nattype": ("_nat_unpickle",),
    "pandas._libs.tslibs.timedeltas": ("_timedelta_unpickle",),
    "pandas._libs.tslibs.timestamps": ("_unpickle_timestamp",),
}

PLAIN: Final[frozenset[tuple[str, str]]] = frozenset(
    (module, name) for module, names in _NAMES.items() for name in names
)
"""Modules and names."""

STREAMS: Final = frozenset({Id.PICKLE, Id.BLOCKS})
"""Ids of the codecs whose nodes have streams."""

_ANY: Final = 8  # flag of a stream's node: it may name anything


def other_name(flags: int, names: Sequence[Sequence[str]]) -> str | None:
    """Return the first name of a node's streams that is none of plain data; None if there is none."""
    if flags & _ANY:
        return "a function or class that a script defines"
    # A name with a third part brings its class with it.
    found = (name for name in names if len(name) != 2 or (name[0], name[1]) not in PLAIN)
    return next((f"{name[0]}.{name[1]}" for name in found), None)


class OtherNameError(Exception):
    """Streams that name more than plain data where that is not allowed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def first_name(codec: int, meta: bytes) -> str | None:
    """Return what `other_name` does for the meta of a node, of any codec."""
    if codec not in STREAMS:
        return None
    *_, flags, names = from_json(meta)
    return other_name(flags, names) if names or flags & _ANY else None
