"""The codecs of what needs no library but numpy, and of what users do not hold: registered together.

Those whose objects users hold are registered by what opens them, in `mori.objects`.
"""

from mori.codecs import containers, scalars

__all__ = ["containers", "scalars"]
