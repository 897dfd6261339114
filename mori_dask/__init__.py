"""mori for Dask: shared objects cross Dask as references wherever both ends are in one domain.

Importing it registers everything in this process, and asks the workers and schedulers that are
started from here to import it, too (``distributed.worker.preload``, ``distributed.scheduler.preload``).
Import it before the cluster is made; for ``dask worker`` and ``dask scheduler`` pass
``--preload mori_dask``. Workers that do not have it get the bytes: slower, and right.

Examples
--------
>>> import mori, mori_dask
>>> from distributed import Client
>>> with Client(n_workers=2) as client:  # doctest: +SKIP
...     frame = mori.share(frame)
...     futures = [client.submit(work, frame, seed) for seed in range(8)]
"""

import dask

from mori_dask import (
    arrivals,
    buffers,
    config,
    graphs,
    handshake,
    message,
    raised,
    refetch,
    relay,
    run,
    serialize,
)
from mori_dask.collections import from_array, from_pandas, shared
from mori_dask.config import faults as examine  # noqa: F401 (`mori doctor` asks it)
from mori_dask.handshake import domain
from mori_dask.mapped import regions
from mori_dask.plugins import dask_setup, install  # noqa: F401 (a process that preloads this calls dask_setup)
from mori_dask.scatter import gather, scatter

__all__ = ["domain", "from_array", "from_pandas", "gather", "install", "regions", "scatter", "shared"]


_NAMED_IN = (
    *("distributed.worker.preload", "distributed.scheduler.preload", "distributed.nanny.preload"),
    "distributed.diagnostics.computations.ignore-modules",  # Dask shows its user's code, not what calls it
)


def _configure() -> None:
    for key in _NAMED_IN:
        modules = dask.config.get(key, [])
        if __name__ not in modules:
            dask.config.set({key: [*modules, __name__]})


config.register()
handshake.announce()
message.register()
serialize.register()
graphs.register()
relay.register()
buffers.register()
run.register()
raised.register()
refetch.register()
arrivals.register()
_configure()


def __dir__() -> list[str]:
    return __all__
