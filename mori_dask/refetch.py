"""What a worker, a client or the scheduler gets from a worker, and asks for again if its region is gone.

A worker holds the regions of what it sends until it hears that this has arrived. If it is killed in between,
the message is there, with references to nothing: Dask takes the key for received, though it would compute
it anew had the connection broken a moment before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from distributed import worker

from mori.adapters import losses
from mori_dask.relay import Relayed

__all__ = ["register"]


def register() -> None:
    """Patch this process to ask once more; all that fetch keys go through one function."""
    if not getattr(worker.get_data_from_worker, "_mori", False):
        worker.get_data_from_worker = _repeated(worker.get_data_from_worker)


def _repeated(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    async def get_data_from_worker(*args: Any, **kwargs: Any) -> Any:
        before = losses.count
        response = await plain(*args, **kwargs)
        if losses.count == before and not any(map(_is_lost, response.get("data", {}).values())):
            return response
        # It has been killed: an OSError, and Dask has the key from elsewhere. Another worker at its address
        # does not have the key. What is lost the second time, too, was lost before it was sent.
        del response  # Dask's log keeps the error, and with it this frame
        return await plain(*args, **kwargs)

    get_data_from_worker._mori = True  # type: ignore[attr-defined]
    return get_data_from_worker


def _is_lost(value: Any) -> bool:
    return isinstance(value, Relayed) and value.is_lost
