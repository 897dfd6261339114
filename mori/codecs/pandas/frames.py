"""DataFrame and Series: axes, and the values of each block as pandas has them.

A frame keeps its consolidated blocks: a block a column would make pandas copy. Blocks are plain ndarrays
(pandas.testing compares classes).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.arrays import DatetimeArray, TimedeltaArray

from mori.codecs.pandas.parts import Parts, as_child, bare, extra, need, need_array, pack
from mori.codecs.pandas.versions import create_dataframe_from_blocks
from mori.format.codec import Buffers, Encoded
from mori.format.layout import Id, from_json

__all__ = ["FIRST_BLOCK", "places_of"]

FIRST_BLOCK: Final = 2  # of a frame's children; the columns and the index stand before


class FrameCodec(Parts):
    """A DataFrame: columns, index and the values of each block."""

    id = Id.DATAFRAME
    is_prepared = True

    def encode(self, obj: pd.DataFrame) -> Encoded:
        blocks = _blocks(obj)
        plain = {
            "blocks": [_placement(block.mgr_locs.as_array) for block in blocks],
            "duplicates": obj.flags.allows_duplicate_labels,
        }
        values = [as_child(block.values) for block in blocks]
        return pack(plain, (obj.columns, obj.index, *values), attrs=obj.attrs or None)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.DataFrame:
        plain = from_json(meta)
        columns, index = children[0], children[1]
        need(isinstance(columns, pd.Index) and isinstance(index, pd.Index), "axes that are no indexes")
        placements = [_places(place, len(columns)) for place in plain["blocks"]]
        values = [bare(children[FIRST_BLOCK + number]) for number in range(len(placements))]
        _check_blocks(values, placements, len(columns), len(index))
        frame = create_dataframe_from_blocks(
            list(zip(values, placements, strict=True)), index=index, columns=columns
        )
        if (attrs := extra(plain, children, "attrs")) is not None:
            frame.attrs = attrs
        if not plain["duplicates"]:
            frame.flags.allows_duplicate_labels = False
        return frame

    def step(self, obj: Any, index: int) -> str:
        if index < FIRST_BLOCK:
            return (".columns", ".index")[index]
        blocks = _blocks(obj)
        if index - FIRST_BLOCK >= len(blocks):
            return ".attrs"
        names = obj.columns[blocks[index - FIRST_BLOCK].mgr_locs.as_array].tolist()
        return f"[{names[0]!r}]" if len(names) == 1 else f"[{names!r}]"


def _blocks(frame: pd.DataFrame) -> list[Any]:
    """Return the blocks in the order of their first columns: pandas' own differs from version to version."""
    return sorted(frame._mgr.blocks, key=lambda block: block.mgr_locs.as_array[:1].tolist())


def _placement(places: npt.NDArray[np.intp]) -> list[int]:
    """Return [start, step, count] for evenly spaced places, [-1, *places] for others."""
    if len(places) < 2:
        return [int(places[0]) if len(places) else 0, 1, len(places)]
    steps = np.diff(places)
    if (steps == steps[0]).all() and steps[0] > 0:
        return [int(places[0]), int(steps[0]), len(places)]
    return [-1, *places.tolist()]


def _places(plain: list[int], width: int) -> npt.NDArray[np.intp]:
    need(all(type(number) is int for number in plain), f"places {plain}")
    if plain[0] < 0:
        return np.array(plain[1:], np.intp)
    start, step, count = plain
    need(0 <= count <= width and 0 < step <= max(1, width), f"{count} of {width} columns")
    return np.arange(start, start + step * count, step, dtype=np.intp)


def places_of(meta: bytes, block: int) -> npt.NDArray[np.intp]:
    """Return the places of a block's columns in its frame."""
    return _places(from_json(meta)["blocks"][block], sys.maxsize)


def _check_blocks(values: list[Any], placements: list[npt.NDArray[np.intp]], width: int, length: int) -> None:
    """pandas takes blocks on trust; ones that do not fill the frame exactly would crash it later."""
    taken = np.concatenate([np.empty(0, np.intp), *placements])
    taken.sort()
    if len(taken) != width or not (taken == np.arange(width)).all():
        raise ValueError(f"the blocks do not fill {width} columns")
    for block, places in zip(values, placements, strict=True):
        need_array(block)
        flat = not isinstance(block, np.ndarray | DatetimeArray | TimedeltaArray)
        need(block.ndim == 2 or (flat and block.ndim == 1), f"a block of {block.ndim} dimensions")
        shape = block.shape if block.ndim == 2 else (1, len(block))
        if shape != (len(places), length):
            raise ValueError(f"a block of {shape} for {len(places)} columns of {length} rows")


class SeriesCodec(Parts):
    """A Series: index and values."""

    id = Id.SERIES
    is_prepared = True

    def encode(self, obj: pd.Series[Any]) -> Encoded:
        values = as_child(obj._mgr.blocks[0].values)
        plain = {"duplicates": obj.flags.allows_duplicate_labels}
        return pack(plain, (obj.index, values), name=obj.name, attrs=obj.attrs or None)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> pd.Series[Any]:
        plain = from_json(meta)
        index, values = children[0], bare(children[1])
        name = extra(plain, children, "name")
        need_array(values)
        need(isinstance(index, pd.Index), "an index that is none")
        need(values.shape == (len(index),), f"{values.shape} values for {len(index)} labels")
        if isinstance(values, np.ndarray):
            block = create_dataframe_from_blocks(
                [(values[np.newaxis], np.zeros(1, np.intp))], index=index, columns=pd.RangeIndex(1)
            )
            series = block.iloc[:, 0]
            series.name = name
        else:
            series = pd.Series(values, index=index, name=name, copy=False)
        if (attrs := extra(plain, children, "attrs")) is not None:
            series.attrs = attrs
        if not plain["duplicates"]:
            series.flags.allows_duplicate_labels = False
        return series

    def step(self, obj: Any, index: int) -> str:
        return (".index", ".array", ".name", ".attrs")[index]
