"""What needs no library but numpy: the codecs of the core, registered together."""

from mori.codecs import containers, mapping, ndarray, pickle5, scalars

__all__ = ["containers", "mapping", "ndarray", "pickle5", "scalars"]
