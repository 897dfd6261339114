"""Shared memory for Python objects.

`share` writes an object once; every process of the host maps the same pages; pickled, the object is
a reference of about a hundred bytes.
"""

from mori.api import (
    by_value,
    frombuffer,
    is_shared,
    map_shared,
    materialize,
    prune_shared,
    r_attributes,
    regions,
    share,
    shared_name,
    writable,
)
from mori.codecs.named import register_codec
from mori.errors import (
    ClassNotFoundError,
    CorruptRegionError,
    LimitError,
    MoriError,
    NotShareableError,
    ObjectColumnWarning,
    PartNotFoundError,
    PickleNotAllowedError,
    ReadOnlyViewError,
    RegionNotFoundError,
    SavedRegionNotFoundError,
    SettingError,
    StoreError,
    StoreFullError,
    StoreWarning,
    UnsafeRegionError,
)
from mori.files import load, save
from mori.format.codec import Buffers, Codec, Encoded
from mori.objects.allocate import AllocatedArray, AllocatedFrame, allocate
from mori.objects.array import SharedArray
from mori.objects.bytes import SharedBytes
from mori.objects.containers.mapping import SharedDict
from mori.objects.containers.sequences import SharedList, SharedTuple
from mori.objects.containers.sets import SharedFrozenSet, SharedSet
from mori.tools.explain import Explanation, explain
from mori.tools.notebook import load_ipython_extension, unload_ipython_extension  # noqa: F401 (of IPython)

__version__ = "0.1.0"

__all__ = [
    "AllocatedArray",
    "AllocatedFrame",
    "Buffers",
    "ClassNotFoundError",
    "Codec",
    "CorruptRegionError",
    "Encoded",
    "Explanation",
    "LimitError",
    "MoriError",
    "NotShareableError",
    "ObjectColumnWarning",
    "PartNotFoundError",
    "PickleNotAllowedError",
    "ReadOnlyViewError",
    "RegionNotFoundError",
    "SavedRegionNotFoundError",
    "SettingError",
    "SharedArray",
    "SharedBytes",
    "SharedDict",
    "SharedFrozenSet",
    "SharedList",
    "SharedSet",
    "SharedTuple",
    "StoreError",
    "StoreFullError",
    "StoreWarning",
    "UnsafeRegionError",
    "allocate",
    "by_value",
    "explain",
    "frombuffer",
    "is_shared",
    "load",
    "map_shared",
    "materialize",
    "prune_shared",
    "r_attributes",
    "regions",
    "register_codec",
    "save",
    "share",
    "shared_name",
    "writable",
]


def __dir__() -> list[str]:
    """Return the names of the interface: those of modules inside would only be in the way."""
    return [*__all__, "__version__"]
