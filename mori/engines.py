"""Where mori meets an engine: its adapter is imported as soon as both are there.

Imports nothing of mori. An engine serializes by rules of its own, so its adapter has to have said
its word before a shared object is handed to it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

__all__ = ["meet"]

_ADAPTERS: Final = {"distributed": "mori_dask", "ray": "mori_ray"}
_met: set[str] = set()


def meet() -> bool:
    """Import the adapters of the engines that this process has imported.

    Returns
    -------
    bool
        Whether one was imported only now, perhaps in the middle of a dump that its engine has begun.
    """
    new = False
    for engine, adapter in _ADAPTERS.items():
        if engine in sys.modules and engine not in _met:
            module = sys.modules[engine]
            spec = getattr(module, "__spec__", None)
            if spec is not None and getattr(spec, "_initializing", False):
                continue  # half-imported: next time
            # Met only when it is ready: until then other threads wait here, for the import's own lock.
            importlib.import_module(adapter)
            _met.add(engine)
            new = True
    return new
