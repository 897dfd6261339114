"""What needs no library but numpy: the codecs of the core, registered together."""

from mori.codecs import (
    alias,
    binary,
    classes,
    containers,
    mapping,
    ndarray,
    objects,
    packed,
    pickle5,
    rows,
    scalars,
    sets,
    small,
    strings,
)

__all__ = [
    "alias",
    "binary",
    "classes",
    "containers",
    "mapping",
    "ndarray",
    "objects",
    "packed",
    "pickle5",
    "rows",
    "scalars",
    "sets",
    "small",
    "strings",
]
