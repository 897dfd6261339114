"""Metas written by somebody who means harm: right checksums, wrong numbers. Nothing is allocated by them."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mori
from mori.codecs.arrow_buffers import schema_to_plain
from mori.format.node import open_node, root_of
from mori.format.plan import measure
from mori.memory import mapping as mappings
from tests.mori import classes
from tests.regions import bytes_of, region_of

_FRAME = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
_STRINGS = pd.array(["a", "b"], pd.StringDtype("pyarrow"))
_ARROW = pa.array(["a", None])
_TYPE = schema_to_plain(pa.schema([pa.field("", pa.string())]))
_CODES = pa.array(["a", None]).dictionary_encode()
_CODES_TYPE = schema_to_plain(pa.schema([pa.field("", _CODES.type)]))
_UNION = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])
_UNION_TYPE = schema_to_plain(pa.schema([pa.field("", _UNION.type)]))
_DENSE = pa.UnionArray.from_dense(
    pa.array([0, 0], pa.int8()), pa.array([0, 1], pa.int32()), [pa.array([1, 2])]
)
_DENSE_TYPE = schema_to_plain(pa.schema([pa.field("", _DENSE.type)]))
_VIEWS = pa.array(["a", "some text that is longer than twelve"], pa.string_view())
_VIEWS_TYPE = schema_to_plain(pa.schema([pa.field("", _VIEWS.type)]))
_NO_FIELDS = schema_to_plain(pa.schema([]))
_PERIODS = pd.array(["2020-01"], "period[M]")
_INTERVALS = pd.arrays.IntervalArray.from_breaks([0, 1])
_SPARSE = pd.arrays.SparseArray([0, 0, 1])
_METADATA = np.arange(4, dtype=np.dtype("i8", metadata={"k": 1}))
_OBJECTS = np.array(["a", None], object)
_MASKED = np.ma.array([1.5, 2.5], mask=[0, 1], fill_value=3)
_BLOCKS = [[i] for i in range(1000)]
_STREAM = classes.Point(1, 2)
_SUM = json.loads(measure(_STREAM).meta)[1]
_CUSTOMER = classes.Fit("c", [1])
_ORDERS = [classes.Fit("x" * 500, _CUSTOMER) for _ in range(8)]  # blocks that refer to one object
_HUGE = (1 << 28, 1 << 40, 1 << 62, 1 << 64, 10**30)


HOSTILE: list[tuple[Any, str]] = [
    *((_FRAME, f'{{"blocks":[[0,1,{huge}]],"duplicates":true}}') for huge in _HUGE),
    *((_FRAME, f'{{"blocks":[[0,{huge},2]],"duplicates":true}}') for huge in (*_HUGE, 0, -1, 0.5, "null")),
    *((_FRAME, f'{{"blocks":[[{huge},1,2]],"duplicates":true}}') for huge in _HUGE),
    *((_FRAME, f'{{"blocks":[[-1,0,{huge}]],"duplicates":true}}') for huge in (*_HUGE, 0, -1)),
    (_FRAME, '{"blocks":[],"duplicates":true}'),
    (_FRAME, '{"blocks":[[0,1,2],[0,1,2]],"duplicates":true}'),
    (_FRAME, '{"blocks":[[0,1,2]],"duplicates":true,"attrs":[0]}'),
    *((np.arange(4), f'["<i8",[{huge}],"C"]') for huge in (*_HUGE, -4, 4.0, "true")),
    *((np.arange(4), f'["<i8",[2,{huge},{huge}],"C"]') for huge in _HUGE),
    *((np.arange(4), f'["|V{huge}",[1],"C"]') for huge in (*_HUGE[:3], 31, 33)),
    *((np.arange(4), f'[{{"base":"<i8","shape":[{huge}]}},[1],"C"]') for huge in (*_HUGE, -1)),
    *(
        (np.arange(4), f'["{name}",[4],"C"]')
        for name in ("O", "|O8", "T", "i8,i8", "(4,)i8", "<i8\\u0000", "")
    ),
    (np.arange(4), "[" * 100_000),
    (np.arange(4), "1" * 60_000),
    *(
        (np.arange(4), f'["<i8",[4],"C","{name}"]')
        for name in ("matrix", "chararray", "ndarray", "MaskedArray", "")
    ),
    (np.arange(4), '["<i8",[4],"C",["recarray"]]'),
    *((np.arange(4), f'[{form},[4],"C"]') for form in ('{"child":8}', '"<q8"', '"q"')),
    *((_METADATA, f'[{{"child":{huge}}},[4],"C"]') for huge in (*_HUGE, 0, -8, 4, '"8"')),
    *((_OBJECTS, f'["O",[{huge}],"C"]') for huge in (*_HUGE, -2, 0, 3, 2.0, '"2"')),
    *((_OBJECTS, f'["O",[{huge},0],"C"]') for huge in (*_HUGE, -2, 2)),
    *((_OBJECTS, meta) for meta in ('["O",[2]]', '["T",[2],"C"]', '["O",2,"C"]', '["O"]', "[]", "{}")),
    *((_MASKED, f'{{"hard":true,"mask":{place}}}') for place in (*_HUGE, 0, 2, 3, -4, 0.5, '"1"')),
    *((_MASKED, f'{{"hard":true,"fill":{place}}}') for place in (*_HUGE, 0, 1, 3, -4, 0.5)),
    *((_MASKED, f'{{"hard":true,"info":{place}}}') for place in (*_HUGE, 0, 1, 2, -4)),
    *((_MASKED, f'{{"hard":{hard},"mask":1}}') for hard in (0, 1, '"x"', "null", "[]")),
    (_MASKED, '{"mask":1,"fill":2}'),
    *((_STRINGS, f'{{"length":{huge},"missing":0,"na":"NA"}}') for huge in (*_HUGE, -1, 1.0)),
    *((_STRINGS, f'{{"length":2,"missing":{huge},"na":"NA"}}') for huge in (*_HUGE, -1, 1)),
    *((["a", "b"], f'["list",{huge},0]') for huge in (*_HUGE, -1, 1.0, "true", "null", 0, 1, 3)),
    *((["a", "b"], f'["list",2,{huge}]') for huge in (*_HUGE, -1, 1, 1.0)),
    *(
        (["a", "b"], meta)
        for meta in ('["set",2,0]', "[[],2,0]", "[2,0]", "{}", "3", '["list",2,0,0]', "[" * 50_000)
    ),
    *(([1, 2], f'["list","q",{huge},0]') for huge in (*_HUGE, -1, 1.0, "true", 0, 1, 3)),
    *(([1, 2], f'["list","{tag}",2,0]') for tag in ("?", "i", "b", "O", "", "<i8")),
    *(([1, 2], meta) for meta in ('["tuple","q",2,1]', '["list",[],2,0]', '["list",{},2,0]', "null")),
    *((_BLOCKS, f'["list",{length},0,[]]') for length in (*_HUGE, -1, 1.0, "true", "null", 0, 999, 1001)),
    *((_BLOCKS, f'["{kind}",1000,0,[]]') for kind in ("dict", "object", "")),
    *((_BLOCKS, meta) for meta in ('["list",1000,0]', "[]", "{}", "3", "[" * 50_000)),
    *(
        (obj, f"[{head},{flags},{names}]")
        for obj, head in ((_BLOCKS, '"list",1000'), (_STREAM, f'"object",{_SUM}'))
        for flags, names in (
            *((flags, "[]") for flags in (*_HUGE, -1, 64, 1.0, "true", "null", '"1"', "[]", "{}")),
            *((1, names) for names in (*_HUGE, "null", "true", '"ab"', '{"ab":["a","b"]}')),
            *(
                (1, f"[{name}]")
                for name in ("null", "1", '"ab"', '"abc"', "[]", '["a"]', '["a",1]', '{"0":1}')
            ),
            *(
                (1, f"[{name}]")
                for name in ('["a","b",1]', '["a","b",null]', '["a","b","c","d"]', '[["a"],"b"]')
            ),
        )
    ),
    *((_STREAM, f'["object",{number},2,[]]') for number in (*_HUGE, _SUM + 1, _SUM, -1, 0.5, "null")),
    *((_STREAM, f'["{kind}",{_SUM},8,[]]') for kind in ("list", "dict", "frozenset", "set", "", "Point")),
    *((_STREAM, meta) for meta in (f'["object",{_SUM},8]', f"[[],{_SUM},8,[]]", "[]", "{}", "3")),
    *(([b"a", None], f'["list","{tag}",2,0]') for tag in ("b", "i", "q")),
    *((pd.Index([1, 2]), f'{{"class":"{name}"}}') for name in ("DatetimeIndex", "RangeIndex", "object", "")),
    *((bytearray(5000), meta) for meta in ("", "\x03", "\0\0", "ä")),
    (pd.Index([1, 2]), '{"class":"Index","freq":"D","name":[0]}'),
    *((_PERIODS, meta) for meta in ('{"freq":""}', '{"freq":"no"}', '{"freq":7}', "{}", '{"freq":[0]}')),
    *((_INTERVALS, f'{{"closed":{side}}}') for side in ('"up"', "null", "1", "[0]")),
    *((_SPARSE, f'{{"length":{n},"blocks":false}}') for n in (*_HUGE[1:], -1, 1, "null", 3.0)),
    *((_SPARSE, f'{{"length":3,"blocks":{blocks}}}') for blocks in ("true", "1")),
    *(
        (pd.MultiIndex.from_arrays([[1], [2]]), f'{{"levels":{n},"sortorder":null}}')
        for n in (*_HUGE, -1, 0, 3)
    ),
    *(
        (_ARROW, f'{{"schema":"{_TYPE}","array":{array}}}')
        for huge in (*_HUGE, -1, 3, 2.0, "null")
        for array in (f"[{huge},1,[0,1,2],[]]", f"[2,{huge},[0,1,2],[]]", f"[2,1,[0,{huge},2],[]]")
    ),
    *(
        (_ARROW, f'{{"schema":"{_TYPE}","array":{array}}}')
        for array in ("[2,1,[-1,1,2],[]]", "[2,1,[0,-1,2],[]]", "[2,1,[0,1],[]]", "[2,1,[0,1,2],[[]]]", "[]")
    ),
    *(
        (_ARROW, f'{{"schema":"{text}","array":[2,1,[0,1,2],[]]}}')
        for text in ("", "AAAA", "ä", _TYPE[:-8], "/" * 400)
    ),
    *(
        (_CODES, f'{{"schema":"{_CODES_TYPE}","array":[2,1,{places},[[1,0,[-1,2,3],[]]]]}}')
        for places in ("[]", "[0]", "[-1]", "[0,-1]", "[0,1,2]")
    ),
    *(
        (_UNION, f'{{"schema":"{_UNION_TYPE}","array":[2,0,{places},[[2,0,[-1,1],[]]]]}}')
        for places in ("[0,0]", "[0]", "[-1]", "[-1,0,0]", "[-1,-1]")
    ),
    *(
        (_DENSE, f'{{"schema":"{_DENSE_TYPE}","array":[2,0,{places},[[2,0,[-1,2],[]]]]}}')
        for places in ("[-1,0]", "[-1,-1,1]", "[-1,0,-1]")
    ),
    *(
        (_VIEWS, f'{{"schema":"{_VIEWS_TYPE}","array":[2,0,{places},[]]}}')
        for places in ("[-1,-1,1]", "[-1]", "[]", "[-1,0,-1]")
    ),
    *((pa.table({}), f'{{"schema":"{_NO_FIELDS}","rows":{huge}}}') for huge in (1 << 62, -1, 0.5, "null")),
]


@pytest.mark.parametrize(
    ("obj", "meta"), HOSTILE, ids=lambda value: str(value)[:50] if isinstance(value, str) else ""
)
def test_a_hostile_meta_is_refused_without_asking_for_memory(views: None, obj: Any, meta: str) -> None:
    plan = measure(obj)
    plan.meta = meta.encode()
    node = root_of(mappings.map_bytes(bytes_of(plan)))
    open_node(root_of(mappings.map_bytes(region_of(obj))))
    tracemalloc.start()
    try:
        with pytest.raises(mori.CorruptRegionError) as caught:
            open_node(node)
        # From Python 3.14 on, JSON is read as deep as the stack goes: a list for each bracket.
        assert tracemalloc.get_traced_memory()[1] < (1 << 20) + 64 * len(meta)
    finally:
        tracemalloc.stop()
    assert not isinstance(caught.value.__cause__, MemoryError)


@pytest.mark.parametrize("meta", ["[]", "3", '["common",0,0]', '["list",0,0,[]]', '["common",0,0,[]]', "{"])
def test_a_hostile_meta_of_what_several_blocks_refer_to_is_refused(views: None, meta: str) -> None:
    assert [*open_node(root_of(mappings.map_bytes(region_of(_ORDERS))))] == _ORDERS
    plan = measure(_ORDERS)
    (common,) = plan.children
    common.meta = meta.encode()
    common.close()
    damaged = open_node(root_of(mappings.map_bytes(bytes_of(plan))))
    with pytest.raises(mori.CorruptRegionError):
        damaged[0]


@pytest.mark.parametrize("make", [lambda keys: dict.fromkeys(keys, 1), set])
def test_keys_that_are_arrays_are_refused(make):
    plan = measure(make(range(1000)))
    arrays = [np.arange(3.0) + number for number in range(1000)]
    plan.children[0] = measure(arrays)
    shared = mori.frombuffer(bytes_of(plan))
    with pytest.raises(mori.CorruptRegionError, match="no list of keys"):
        5 in shared  # noqa: B015


def test_keys_without_a_hash_are_refused_when_they_are_copied():
    keys = [(number,) if number else [number] for number in range(1000)]
    plan = measure(dict.fromkeys(range(1000), 1))
    plan.children[0] = measure([*keys, "x"][:1000])
    shared = mori.frombuffer(bytes_of(plan))
    with pytest.raises(mori.CorruptRegionError, match="cannot be hashed"):
        mori.materialize(shared)
