"""Where an object of Ray's is to stand: its value in Ray's store, and a task beside its region."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mori
from mori_ray import lifetime

__all__ = ["near", "put"]


def put(obj: Any) -> ray.ObjectRef:
    """Put any object into Ray's object store in mori's layout: every task opens it in place.

    Parameters
    ----------
    obj : object
        Shared or not.

    Returns
    -------
    ray.ObjectRef
        Of what `mori.share` returns for the object. `ray.get`, and a task that gets the reference as an
        argument, open it in Ray's store: containers lazily, arrays and columns without a copy. It is not
        shared (`mori.is_shared` says False). What mori does not share is put as by `ray.put`.

    Raises
    ------
    NotShareableError, StoreFullError
        As `mori.share` does: what is not shared yet is written to shared memory first, for the time
        that it takes to put it.

    Notes
    -----
    The value is Ray's: it is spilled, moved to other nodes and freed like any other. Against that,
    ``ray.put(mori.share(obj))`` puts a name, in a cluster of one node, and the region stays in memory for as
    long as Ray needs it.

    Examples
    --------
    >>> import mori_ray, ray
    >>> words = mori_ray.put([str(i) for i in range(1_000_000)])  # doctest: +SKIP
    >>> ray.get(words)[123_456]  # doctest: +SKIP
    '123456'
    """
    shared = mori.share(obj)
    with mori.by_value():
        return ray.put(shared)


def near(obj: Any) -> NodeAffinitySchedulingStrategy | str:
    """Return the scheduling strategy that keeps a task on the node where its data is.

    Parameters
    ----------
    obj : object
        Shared, or not.

    Returns
    -------
    NodeAffinitySchedulingStrategy or str
        For this process's node, since a region that it has lies there. It is soft: where the node has no
        room, the task goes elsewhere and fetches the region. ``"DEFAULT"`` for what is not shared,
        and without a connection to Ray.

    Examples
    --------
    >>> import mori, mori_ray
    >>> work.options(scheduling_strategy=mori_ray.near(frame)).remote(frame)  # doctest: +SKIP
    """
    session = lifetime.session()
    if session is None or not mori.is_shared(obj):
        return "DEFAULT"
    return NodeAffinitySchedulingStrategy(session.node.hex(), soft=True)
