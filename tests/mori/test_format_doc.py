"""docs/format.md says what the code does: its tables are compared with the structs, ids and metas."""

from __future__ import annotations

import ast
import datetime as dt
import decimal
import importlib.util
import pathlib
import re
import struct
import uuid
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mori import store as stores
from mori.codecs.hashes import stable_hash
from mori.format import codec, layout
from mori.format.survey import Survey
from mori.memory import checksums
from mori.store import base
from mori.wire import reference
from tests.mori import classes

_DOC = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def _tables(section: str) -> list[list[list[str]]]:
    """Return the tables under a heading, without their heads, as rows of cells."""
    (_, found) = re.split(rf"^##+ {re.escape(section)}.*$", _DOC, maxsplit=1, flags=re.MULTILINE)
    found = re.split(r"^##+ ", found, maxsplit=1, flags=re.MULTILINE)[0]
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", found, flags=re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()[2:]]
        tables.append([[cell.strip().replace("\\|", "|") for cell in row] for row in rows])
    return tables


def _laid_out(fields: tuple[tuple[str, str], ...]) -> list[list[str]]:
    rows, offset = [], 0
    for name, code in fields:
        size = struct.calcsize("<" + code)
        rows.append([str(offset), str(size), f"`{code}`", name])
        offset += size
    return rows


def test_the_header_is_laid_out_as_documented() -> None:
    (rows,) = _tables("Header")
    assert [row[:4] for row in rows] == _laid_out(base.HEADER_FIELDS)
    assert rows[0][4].startswith(f"`{base.MAGIC.hex(' ')}`")
    assert rows[2][4] == str(base.VERSION)
    assert rows[3][4].startswith(f"{base.ENCODED}: ")
    assert base.HEADER.size == 64
    assert f"# The byte format, version {base.VERSION}\n" in _DOC


def test_a_node_is_laid_out_as_documented() -> None:
    record, behind = _tables("Node")
    assert [row[:4] for row in record] == _laid_out(layout.NODE_FIELDS)
    assert [(row[1], row[2]) for row in behind[1:]] == [
        (str(layout.BUFFER.size), f"`{layout.BUFFER.format[1:]}`"),
        (str(layout.CHILD.size), f"`{layout.CHILD.format[1:]}`"),
    ]
    assert (base.ALIGNMENT, base.SMALL_ALIGNMENT) == (64, 8)


def test_a_checksum_covers_what_is_documented() -> None:
    head = layout.pack_head(2, b"meta", [(128, 8)], 0, 136, 0, 0)
    assert len(head) == layout.head_nbytes(4, 1) == 48 + 8 + 16
    for place in range(len(head)):
        damaged = bytearray(head)
        damaged[place] ^= 1
        assert zlib.crc32(damaged[layout.CHECKED :]) != layout.NODE.unpack_from(damaged)[0], place
    header = base.pack_header(base.Header(bytes(16), 200, 64, 1, 1, 0))
    for place in range(base.HEADER.size):
        damaged = bytearray(header)
        damaged[place] ^= 1
        assert isinstance(base.unpack_header(damaged), str), place


def _is_known(number: int) -> bool:
    try:
        return codec.for_id(number) is not None
    except ImportError as error:  # known, but its library is not installed
        return "install mori[" in str(error) and importlib.util.find_spec(str(error.name)) is None


def test_every_codec_has_the_id_that_is_documented() -> None:
    (rows,) = _tables("Codecs")
    ids = {name: number for name, number in vars(layout.Id).items() if name.isupper()}
    assert {row[1]: int(row[0]) for row in rows} == ids
    for number, name, state in rows:
        assert _is_known(int(number)) == (state == "used"), name


@pytest.mark.parametrize("row", _tables("SCALAR")[0], ids=lambda row: row[1].partition(":")[0])
def test_a_scalar_is_written_as_documented(row: list[str]) -> None:
    tag, _, example, meta = row
    value = eval(example.strip("`"), {"np": np})
    by = codec.for_type(type(value))
    assert by is not None
    encoded = by.encode(value)
    assert encoded is not None
    assert encoded.meta == ast.literal_eval(meta.strip("`"))
    assert encoded.meta[:1].decode() == tag.strip("`")


@pytest.mark.parametrize("row", _tables("Index")[0], ids=lambda row: row[2].strip("`"))
def test_a_key_has_the_hash_that_is_documented(row: list[str]) -> None:
    *_, example, hashed = row
    names = {"dt": dt, "decimal": decimal, "uuid": uuid, "pathlib": pathlib, "classes": classes}
    assert hash(stable_hash(eval(example.strip("`"), names))) == int(hashed)


@pytest.mark.parametrize("row", _tables("Examples")[0], ids=lambda row: row[1].strip("`"))
def test_an_example_is_encoded_as_documented(views: None, row: list[str]) -> None:
    number, example, meta, buffers, children = row
    value = eval(example.strip("`"), {"np": np, "pd": pd, "Pickled": codec.Pickled, "classes": classes})
    by = codec.for_type(type(value))
    assert by is not None
    if isinstance(by, codec.ContainerCodec):
        encoded = by.encode_in(value, Survey(), is_root=True)
    else:
        encoded = by.encode(value)
    assert encoded is not None
    assert (by.id if encoded.codec is None else encoded.codec) == int(number)
    assert encoded.meta == ast.literal_eval(meta.strip("`"))
    assert (len(encoded.buffers), len(encoded.children)) == (int(buffers), int(children))


def test_every_codec_that_is_used_has_its_row_or_section() -> None:
    rows = {row[0] for section in ("pandas", "Arrow", "scipy.sparse") for row in _tables(section)[0]}
    rows |= set(re.findall(r"\b(?:POLARS|TORCH)_[A-Z]+", _DOC.partition("### polars")[2]))
    headings = set(re.findall(r"[A-Z_]+", " ".join(re.findall(r"^### (.*)$", _DOC, flags=re.MULTILINE))))
    for _, name, state in _tables("Codecs")[0]:
        assert state == "reserved" or name in rows | headings, name
        assert state == "used" or re.search(rf"\b{name}, a ", _DOC), name


def test_a_trailer_is_laid_out_as_documented() -> None:
    (rows,) = _tables("Files")
    assert [row[:4] for row in rows] == _laid_out(checksums.TRAILER_FIELDS)
    data = checksums.pack_trailer(b"", checksums.Pickle(64, "ä" * 200))
    assert rows[0][4].startswith(f"`{data[:8].hex(' ')}`")
    assert rows[2][4].startswith(f"{int.from_bytes(data[12:16], 'little')}:")
    assert data[24:].rstrip(b"\0").decode() == "ä" * 114 + "..."
    assert len(data) == checksums.TRAILER.size


def test_a_reference_is_laid_out_as_documented() -> None:
    whole, kinds = _tables("References")
    codes = re.findall(r"\d*[a-zA-Z]", reference._FIXED.format[1:])
    codes = [part for code in codes for part in ([code] if code.endswith("s") else list(code))]
    assert [row[:3] for row in whole] == [row[:3] for row in _laid_out(tuple((c, c) for c in codes))]
    documented = {meaning: int(kind.strip("`"), 16) for kind, meaning in kinds}
    assert documented == {
        "the store is memfd": stores.MEMFD,
        "the store is files": stores.FILES,
        "a view of an array follows": reference._VIEW,
        "a part of a STRING_ARRAY or ARROW_COLUMN follows": reference._PART,
        "the place of a receipt follows, at the end": reference._RECEIPT,
        "a file of a user's: its path follows": stores.PATH,
        "pickles in the file may not be read": reference._NO_PICKLES,
    }
    assert (reference._START.format, reference._RANGE.format) == ("<qB", "<QQ")
