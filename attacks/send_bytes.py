"""Bytes that somebody sends, to be opened by `mori.frombuffer`: damaged, lying, or meant to run."""

from __future__ import annotations

import difflib
import json
import os
import struct
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mori
from attacks.trying import attempt, row
from mori.format import writer
from mori.format.plan import measure
from mori.memory import region
from mori.memory.mapping import map_bytes
from mori.store import base
from mori.store.base import format_name


def region_of(obj: Any, meta: str | None = None, **fields: Any) -> bytearray:
    """Return the bytes of a region; with a meta and fields of the header that are none of its own."""
    plan = measure(obj)
    if meta is not None:
        plan.meta, plan.table = meta.encode(), []
        plan.close()
    header = base.Header(bytes(range(16)), writer.region_nbytes(plan), writer.ROOT, 7, 1, 0)
    return writer.to_bytes(plan, header._replace(**fields))


def opened(data: bytes | bytearray) -> str:
    return f"opened: {mori.materialize(mori.frombuffer(data))!r}"[:60]


def every_bit() -> str:
    data = region_of({"a": np.arange(128), "b": ["x", None]})
    right = opened(data)
    counts = {"refused": 0, "right": 0, "another value of an element": 0}
    for place in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        try:
            counts["right" if opened(damaged) == right else "another value of an element"] += 1
        except mori.CorruptRegionError:
            counts["refused"] += 1
    assert min(counts.values()) > 0
    return "refused; where the bit belongs to an element or to nothing, another value or the right one"


def every_cut() -> str:
    data = region_of({"a": np.arange(3), "b": ["x", None]})
    for length in range(len(data)):
        try:
            opened(data[:length])
        except mori.CorruptRegionError:
            continue
        return "**opened**"
    return "refused, at each length"


def claimed_size() -> str:
    return opened(region_of(np.arange(3), nbytes=1 << 62))


def claimed_shape() -> str:
    return opened(region_of(np.arange(3), f'["<i8",[{1 << 40}],"C"]'))


def claimed_strings() -> str:
    return opened(region_of(["a", "b"] * 50, f'["list",{1 << 40},0]'))


def nested_metadata() -> str:
    return opened(region_of(np.arange(3), "[" * 100_000))


def deep() -> str:
    obj: Any = []
    for _ in range(100_000):
        obj = [obj]
    return f"opened, {len(mori.frombuffer(region_of(obj)))} element"


def leading_outside() -> bytearray:
    """Return a region of strings, the second of which is said to end 1 TB further on."""
    data = region_of(pd.Series(["a", "bb", "ccc"], dtype="str"))
    place = data.index(struct.pack("<3q", 0, 1, 3)) + 16
    data[place : place + 8] = struct.pack("<q", 1 << 40)
    return data


def read_outside() -> str:
    return opened(leading_outside())


def landed_outside() -> str:
    mapping = region.adopt(map_bytes(leading_outside()))
    return f"opened: {mori.map_shared(format_name(mapping.name)).str.len().sum()}"


def no_set() -> str:
    plan = measure({*range(100)})
    plan.children = [measure([[1], [2]] * 50)]
    plan.close()
    header = base.Header(bytes(range(16)), writer.region_nbytes(plan), writer.ROOT, 7, 1, 0)
    return opened(writer.to_bytes(plan, header))


class _Evil(OrderedDict[str, Any]):
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["MARK"],)


def changed_pickle() -> str:
    data = region_of([OrderedDict(a=1)])
    place = data.index(b"OrderedDict")
    data[place : place + 7] = b"ordered"
    return opened(data)


def with_pickle() -> str:
    opened(region_of([_Evil()]))
    return "**runs the code in it**" if Path(os.environ["MARK"]).exists() else "does not run it"


def with_class() -> str:
    """Name a class of a module that nobody has imported."""
    sys.modules.pop("colorsys", None)
    try:
        plan = measure(difflib.Match(1, 2, 3))
        *rest, _ = json.loads(plan.meta)
        return opened(region_of(difflib.Match(1, 2, 3), json.dumps([*rest, [["colorsys", "Match"]]])))
    except mori.ClassNotFoundError as error:
        imported = "**imports that module**; then " if "colorsys" in sys.modules else ""
        return f"{imported}refused: {type(error).__name__}"


ABUSES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("each bit flipped, one at a time", every_bit),
    ("cut off, at each length", every_cut),
    ("a header that claims 4 EB", claimed_size),
    ("an array that claims 8 TB", claimed_shape),
    ("a list that claims 2**40 strings", claimed_strings),
    ("metadata nested 100,000 deep", nested_metadata),
    ("lists nested 100,000 deep", deep),
    ("strings that lead outside", read_outside),
    ("the same, landed in the store and opened by name", landed_outside),
    ("a set of lists", no_set),
    ("a pickle that was changed on the way", changed_pickle),
    ("a pickle that creates a directory", with_pickle),
    ("an instance of a class, of a module that nobody has imported", with_class),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.environ["MARK"] = f"{directory}/made"
        for what, abuse in ABUSES:
            row(what, attempt(abuse))


if __name__ == "__main__":
    main()
