"""Scattered data that outlive the workers which have them: they are tasks that open references.

The scheduler keeps the reference, and its region, until the key is forgotten. So it places a shared object on
the next worker, which Dask cannot do with other scattered data.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from dask._task_spec import Task
from distributed import Scheduler
from distributed.protocol import to_serialize

from mori_dask.relay import Relayed

__all__ = ["keep", "with_references"]

_KEY: Final = "mori"  # no worker's: a scheduler that has not installed mori does not look for it


def with_references(nbytes: dict[Any, int], data: dict[Any, Any]) -> dict[Any, Any]:
    """Return the sizes that ``update_data`` takes, with references to the data for who knows of them."""
    return {**nbytes, _KEY: {key: to_serialize(obj) for key, obj in data.items()}}


def keep(scheduler: Scheduler) -> None:
    """Wrap what a scheduler hears of scattered data by, so that it keeps their references."""
    update_data, scatter = scheduler.handlers["update_data"], scheduler.handlers["scatter"]
    if hasattr(update_data, "_mori"):
        return

    @functools.wraps(update_data)
    def updating(*args: Any, nbytes: dict[Any, Any], **kwargs: Any) -> None:
        scattered = nbytes.pop(_KEY, {})
        update_data(*args, nbytes=nbytes, **kwargs)
        _make_tasks(scheduler, scattered)

    @functools.wraps(scatter)
    async def scattering(*args: Any, data: dict[Any, Any], **kwargs: Any) -> Any:
        scattered = dict(data)
        keys = await scatter(*args, data=data, **kwargs)
        _make_tasks(scheduler, scattered)
        return keys

    updating._mori = True  # type: ignore[attr-defined]
    scheduler.handlers |= {"update_data": updating, "scatter": scattering}


def _make_tasks(scheduler: Scheduler, scattered: dict[Any, Any]) -> None:
    for key, frames in scattered.items():
        ts = scheduler.tasks.get(key)
        if ts is None or ts.run_spec is not None or not isinstance(frames, Relayed) or frames.is_lost:
            continue
        ts.run_spec = Task(key, _same, frames)
        ts.priority = (0, scheduler.generation, 0)


def _same(obj: Any) -> Any:
    """Return the object that the frames are when a worker has opened them."""
    return obj
