"""What needs no library but numpy: the codecs of the core, registered together."""

from mori.codecs import (
    binary,
    containers,
    mapping,
    ndarray,
    pickle5,
    scalars,
)

__all__ = [
    "binary",
    "containers",
    "mapping",
    "ndarray",
    "pickle5",
    "scalars",
]
