"""Where mori meets an engine: its adapter is imported as soon as both are there.

An engine serializes by rules of its own, so its adapter has to have said its word before a shared object is
handed to it.
"""

from __future__ import annotations

import sys
import warnings
from typing import Final

from mori._imports import imported, load

__all__ = ["ADAPTERS", "load_adapters"]

ADAPTERS: Final = {"distributed": "mori_dask", "ray": "mori_ray"}
_met: set[str] = set()
_missed: set[str] = set()  # engines whose adapter cannot be imported


def load_adapters() -> bool:
    """Import the adapters of the engines that this process has imported.

    Returns
    -------
    bool
        Whether an engine may be in the middle of a dump without an adapter that knows where it goes: one
        was imported only now, or could not be.
    """
    new = False
    for engine, adapter in ADAPTERS.items():
        if engine in _met or engine not in sys.modules:  # nearly always, and this is asked all the time
            continue
        if (module := imported(engine)) is not None:
            # Met only when it is ready: until then other threads wait here, for the import's own lock.
            fault: Exception | None = None
            try:
                load(adapter)
            except Exception as error:
                fault = error
                _missed.add(engine)
            _met.add(engine)
            new = True
            if fault is not None:
                warnings.warn(
                    f"{adapter} does not work with the {engine} {getattr(module, '__version__', '')} that is "
                    f"installed ({type(fault).__name__}: {fault}). Shared objects go by value in this "
                    f"process: right everywhere, but copied. Install a supported version: "
                    f"pip install 'mori[{adapter.removeprefix('mori_')}]'",
                    RuntimeWarning,
                    stacklevel=3,
                )
    return new or bool(_missed)
