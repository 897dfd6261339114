"""Large results are shared by the worker that made them, so that dependents on other workers map them.

Invariant: a result keeps its type: what would come back as another one stays private, as does what does not
fit, or cannot be shared.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Final

import distributed.worker
import numpy as np
from distributed import Worker, get_worker
from distributed.sizeof import safe_sizeof
from distributed.utils import offload

import mori
from mori import adapters
from mori.adapters import used
from mori_dask import config, memory, raised, spill

__all__ = ["begin", "shared"]

_LIBRARIES: Final = frozenset({"numpy", "pandas", "pyarrow", "scipy"})
_MOST: Final = 1000  # elements of a container that are looked at
_DEPTH: Final = 3

_logger = logging.getLogger("distributed.worker.mori")
_said: set[str] = set()


def begin() -> None:
    """Patch the workers of this process to share what their tasks return, where that is switched on.

    A task that fails lets go of its arguments, whether or not.
    """
    for name, wrap in (("_run_task_simple", _in_thread), ("_run_task_async", _in_loop)):
        plain = getattr(distributed.worker, name)
        if not getattr(plain, "_mori", False):
            wrapped = wrap(plain)
            wrapped._mori = True  # type: ignore[attr-defined]
            setattr(distributed.worker, name, wrapped)


def _in_thread(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def run(task: Any, data: Any, time_delay: float) -> Any:
        worker = _asked()
        if worker is None:
            outcome = plain(task, data, time_delay)
            return raised.without_cycle(outcome) if used.ever else outcome
        # As a part of the task: what Dask measures of the result then is what it is.
        shared_task = lambda values: shared(task(values), worker)  # noqa: E731
        return raised.without_cycle(plain(shared_task, data, time_delay))

    return run


def _in_loop(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    async def run(task: Any, data: Any, time_delay: float) -> Any:
        worker = _asked()
        if worker is None:
            outcome = await plain(task, data, time_delay)
            return raised.without_cycle(outcome) if used.ever else outcome

        async def shared_task(values: Any) -> Any:
            return await offload(shared, await task(values), worker)

        return raised.without_cycle(await plain(shared_task, data, time_delay))

    return run


def _asked() -> Worker | None:
    """Return the worker that runs this, if its results are to be shared."""
    if not config.get("mori.dask.auto-share"):
        return None
    try:
        worker = get_worker()
    except ValueError:  # a process of an executor
        return None
    # Workers in the client's process pass objects on as they are.
    ours = "mori" in worker.plugins and not worker.address.startswith("inproc:")
    return worker if ours else None


def shared(result: Any, worker: Worker) -> Any:
    """Return a task's result, or what is large of it, shared; and the rest as it is.

    Arrays, frames and the like are shared, alone or in lists, tuples and dicts, which are made anew.
    """
    return _shared(result, worker, config.get("mori.dask.auto-share"), _DEPTH)


def _shared(result: Any, worker: Worker, least: int, depth: int) -> Any:
    kind = type(result)
    if kind in (list, tuple, dict):
        if not depth or not 0 < len(result) <= _MOST:
            return result
        parts = result.values() if kind is dict else result
        new = [_shared(part, worker, least, depth - 1) for part in parts]
        if all(one is other for one, other in zip(new, parts, strict=True)):
            return result
        return dict(zip(result, new, strict=True)) if kind is dict else kind(new)
    if not _may_be_shared(result) or (nbytes := _nbytes(result)) < least:
        return result
    if not _fits(nbytes, worker):
        return result
    try:
        x = mori.share(result)
    except Exception as error:  # the result is right without
        if type(error).__name__ not in _said:
            _said.add(type(error).__name__)
            _logger.warning("A result stays private, as may others: %s", error)
        return result
    return x if isinstance(x, kind) and mori.is_shared(x) else result


def _may_be_shared(x: Any) -> bool:
    """Return whether a part of a result is data that is mapped, when it is shared, as what it is."""
    if type(x).__module__.partition(".")[0] not in _LIBRARIES or mori.is_shared(x):
        return False
    if isinstance(x, np.generic):
        return False
    if isinstance(x, np.ndarray):
        # Elements that are objects are built anew by everybody. A view of a region is shared already.
        return not x.dtype.hasobject and adapters.region_of(x) is None
    dtypes = getattr(x, "dtypes", getattr(x, "dtype", None))
    return object not in np.ravel(np.asarray(dtypes, dtype=object)).tolist()


def _nbytes(x: Any) -> int:
    """Measure an object, also the newer sparse arrays of scipy, of which Dask has no measure."""
    arrays = [part.nbytes for part in getattr(x, "__dict__", {}).values() if isinstance(part, np.ndarray)]
    return max(int(safe_sizeof(x)), sum(arrays))


def _fits(nbytes: int, worker: Worker) -> bool:
    """Return whether a worker may make a region of this size, by what it holds of those it made."""
    limit = worker.memory_manager.memory_limit
    if not limit:
        return True
    held = memory.made() + spill.held(worker.data)
    return bool(held + nbytes <= limit * config.get("mori.dask.auto-share-fraction"))
