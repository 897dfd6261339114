"""Dask's collections over shared objects: their chunks are views, and their graphs are small.

A chunk is sent by itself: a reference to its part of the region where that can be opened, else its own bytes
and no others.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from dask.tokenize import tokenize

import mori
from mori import adapters

__all__ = ["from_array", "from_pandas", "shared"]


def from_array(x: Any, chunks: Any = "auto", *, name: str | None = None) -> Any:
    """Return a dask array over a shared array.

    Parameters
    ----------
    x : array
        What is not shared yet is shared first.
    chunks : int, tuple or str
        As for ``dask.array.from_array``.
    name : str, optional
        Of the collection; by default it says which shared array it is, and how it is cut.

    Returns
    -------
    dask.array.Array
        Its chunks are views of the region, in every process that can open it; a worker on another host
        gets the bytes of the chunks it works on.

    Raises
    ------
    TypeError
        If `x` is no numpy array, or one of objects or of StringDType.

    Notes
    -----
    The graph has one reference a chunk, of about 150 bytes. ``dask.array.from_array`` would copy the array
    into it.

    Examples
    --------
    >>> import mori, mori_dask, numpy as np
    >>> x = mori_dask.from_array(mori.share(np.arange(1000.0)), chunks=100)
    >>> float(x.sum().compute(scheduler="sync"))
    499500.0
    """
    import dask.array as da
    from dask._task_spec import DataNode
    from dask.highlevelgraph import HighLevelGraph

    whole = mori.share(x)
    if not isinstance(whole, mori.SharedArray) or isinstance(whole, mori.SharedBytes):
        raise TypeError(
            f"from_array takes a numpy array, not a {type(x).__name__}: make an array of it, "
            "or use dask.array.from_array, which copies it into the graph"
        )
    if whole.dtype.hasobject:
        raise TypeError(
            f"from_array takes an array that can be mapped, not one of dtype {whole.dtype}: "
            "convert it, as with x.astype('U') or x.astype('f8'), "
            "or use dask.array.from_array, which copies it into the graph"
        )
    cut = da.core.normalize_chunks(chunks, shape=whole.shape, dtype=whole.dtype)
    name = name or f"shared-array-{tokenize(whole, cut)}"
    keys = itertools.product([name], *map(range, map(len, cut)))
    layer = {
        key: DataNode(key, whole[place] if place else whole)
        for key, place in zip(keys, da.core.slices_from_chunks(cut), strict=True)
    }
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[])
    return da.Array(graph, name, cut, meta=np.empty((0,) * whole.ndim, whole.dtype))


def from_pandas(frame: Any, npartitions: int | None = None, *, chunksize: int | None = None) -> Any:
    """Return a dask dataframe or series over a shared one.

    Parameters
    ----------
    frame : DataFrame or Series
        What is not shared yet is shared first.
    npartitions : int, optional
        How many partitions to cut the rows into, at most; 1 by default.
    chunksize : int, optional
        Rows of a partition, instead.

    Returns
    -------
    dask.dataframe.DataFrame or Series
        Its partitions are slices of the shared frame, in their order. Divisions are known where the
        index is sorted. A worker on another host gets the rows it works on.

    Raises
    ------
    TypeError
        If `frame` is neither.
    NotImplementedError
        If its index has several levels, as from ``dask.dataframe.from_pandas``.
    ValueError
        If both numbers are given.

    Notes
    -----
    ``dask.dataframe.from_pandas`` would copy the frame, sort it by its index, and put it into the graph.

    Examples
    --------
    >>> import mori, mori_dask, pandas as pd
    >>> frame = mori.share(pd.DataFrame({"a": range(100), "b": 1.0}))
    >>> float(mori_dask.from_pandas(frame, 4).b.sum().compute(scheduler="sync"))
    100.0
    """
    import dask.dataframe as dd
    import pandas as pd

    if not isinstance(frame, pd.DataFrame | pd.Series):
        raise TypeError(f"from_pandas takes a DataFrame or a Series, not a {type(frame).__name__}")
    if isinstance(frame.index, pd.MultiIndex):
        raise NotImplementedError(
            "from_pandas takes an index of one level, as Dask does, "
            f"not a MultiIndex {list(frame.index.names)}: pass frame.reset_index()"
        )
    if npartitions is not None and chunksize is not None:
        raise ValueError("npartitions and chunksize say the same thing: pass one of them")
    whole = mori.share(frame)
    divisions, places = _cut(whole.index, npartitions or 1, chunksize)
    parts = [Rows(whole, *place) for place in itertools.pairwise(places)]
    meta = mori.materialize(whole.iloc[:0])
    return dd.from_map(
        _rows, parts, meta=meta, divisions=divisions, label="shared-frame", enforce_metadata=False
    )


def _cut(index: Any, npartitions: int, chunksize: int | None) -> tuple[Any, list[int]]:
    from dask.dataframe.io.io import sorted_division_locations

    if len(index) and index.is_monotonic_increasing and not index.hasnans:
        divisions, places = sorted_division_locations(
            index, chunksize=chunksize, npartitions=None if chunksize else npartitions
        )
        return tuple(divisions), list(places)
    step = chunksize or max(1, -(-len(index) // npartitions))
    places = [*range(0, len(index), step), len(index)] if len(index) else [0, 0]
    return (None,) * len(places), places


def shared(collection: Any) -> Any:
    """Return a collection whose chunks or partitions are shared by the workers that make them.

    Parameters
    ----------
    collection : dask.array.Array, dask.dataframe.DataFrame or Series
        Any; most useful before ``persist()``.

    Returns
    -------
    dask.array.Array, dask.dataframe.DataFrame or Series
        With the same values. Other workers of a host map its parts instead of fetching them.

    Examples
    --------
    >>> import dask.array as da, mori_dask
    >>> x = mori_dask.shared(da.ones(1000, chunks=100) + 1)
    >>> float(x.sum().compute(scheduler="sync"))
    2000.0
    """
    if hasattr(collection, "map_blocks"):
        return collection.map_blocks(mori.share, dtype=collection.dtype, meta=collection._meta)
    if hasattr(collection, "map_partitions"):
        return collection.map_partitions(mori.share, meta=collection._meta, enforce_metadata=False)
    raise TypeError(f"shared takes a dask array or dataframe, not a {type(collection).__name__}")


class Rows:
    """Some rows of a shared frame, on their way to a task."""

    __slots__ = ("frame", "start", "stop")

    def __init__(self, frame: Any, start: int, stop: int) -> None:
        self.frame: Any = frame
        self.start: int = start
        self.stop: int = stop

    def __reduce__(self) -> Any:
        if mori.is_shared(self.frame) and not adapters.is_by_value():
            return Rows, (self.frame, self.start, self.stop)
        # These rows' bytes, and not those of the whole frame.
        rows = mori.materialize(self.frame.iloc[self.start : self.stop])
        return Rows, (rows, 0, len(rows))

    def __dask_tokenize__(self) -> Any:
        return "mori-rows", tokenize(self.frame), self.start, self.stop


def _rows(rows: Rows) -> Any:
    if (rows.start, rows.stop) == (0, len(rows.frame)):
        return rows.frame.iloc[:]
    return rows.frame.iloc[rows.start : rows.stop]
