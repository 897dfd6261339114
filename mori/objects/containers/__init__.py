"""Shared containers: small ones contain their elements, large ones read them when they are asked.

Importing it registers their codecs: first of the large ones, which write the small ones, too.
"""

from mori.objects.containers import mapping, sequences, sets, small

__all__ = ["mapping", "sequences", "sets", "small"]
