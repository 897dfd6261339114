"""mori for Ray: shared objects are task arguments at the price of a name.

Importing it registers everything, before or after ``ray.init``. Nobody has to: mori imports it in
every process that has imported ray, at the first `mori.share`, and when the first reference or value
arrives, so workers need no setup.

===================================================  =================================================
arguments of tasks and actors, nested or not         a reference; Ray counts what still needs the region
what functions and actor classes have captured       a reference; the region stays as long as the session
`ray.put`, and an argument that a task returns       a reference on one node, else bytes
whatever else a task returns, `mori_ray.put`,        bytes, in the region's own layout, opened in place
``ray.cloudpickle.dumps``, Ray Client                in Ray's object store: lazy, without a copy
===================================================  =================================================

A process on another node fetches a region that is referred to once for all processes of that node.

Examples
--------
>>> import mori, ray
>>> frame = mori.share(frame)  # doctest: +SKIP
>>> refs = [work.remote(frame, seed) for seed in range(8)]  # doctest: +SKIP
"""

from mori_ray import serialize
from mori_ray.errors import RegionNotFetchedError
from mori_ray.placement import near, put

__all__ = ["RegionNotFetchedError", "near", "put"]

serialize.register()


def __dir__() -> list[str]:
    return __all__
