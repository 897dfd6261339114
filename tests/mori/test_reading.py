"""Reading never copies: private memory grows by an operation's result, and the object stays shared.

Every operation of benchmarks/operations.py runs on an object that is shared and on one that is not, each in
a process of its own; `make reading` writes the same for 400 MB into docs/reading.md.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import mori
from benchmarks import reading
from benchmarks.operations import OPERATIONS

pytestmark = pytest.mark.skipif(
    not reading.can_measure(), reason="/proc/self/clear_refs, which resets the peak, cannot be written here"
)

SIZE = 20_000_000
# Pages of libraries, and what the kernel counts late; less than one column of the frame. Python's own
# objects come in arenas of 1 MB, and the strings of a list in blocks of 4 MB.
SLACK = {"array": 1_000_000, "frame": 1_000_000, "list": 6_000_000, "dict": 3_000_000}
DOC = Path(__file__).parents[2] / "docs" / "reading.md"
ALL = [(kind, code) for kind, codes in OPERATIONS.items() for code in codes]


@functools.cache
def readings(kind: str) -> dict[str, reading.Reading]:
    return {each.code: each for each in reading.measure(kind, SIZE)}


@pytest.mark.parametrize(("kind", "code"), ALL, ids=[f"{kind}: {code}" for kind, code in ALL])
def test_an_operation_takes_the_memory_of_its_result_and_leaves_the_object_shared(
    kind: str, code: str
) -> None:
    found = readings(kind)[code]
    assert found.peak <= found.allowed + SLACK[kind]
    assert found.kept <= max(found.own, found.plain_kept) + SLACK[kind]
    assert found.is_shared
    assert found.pickled <= 100


def test_a_copy_of_the_object_would_be_seen() -> None:
    found = readings("array")["x + 1"]
    assert found.own >= 0.99 * SIZE
    for seen in (found.peak, found.kept, found.plain_peak, found.plain_kept):
        assert 0.9 * SIZE <= seen <= 1.2 * SIZE


def test_the_document_has_every_operation() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert sum(map(len, OPERATIONS.values())) >= 60
    assert [code for _, code in ALL if f"| `{code}` |" not in text] == []


@pytest.mark.parametrize("dtype", ["?", "i1", "u8", ">i4", "f2", "f8", ">f8", "g", "c16", "M8[s]", "m8[ns]"])
def test_argmax_and_argmin_are_numpys_though_they_do_not_copy(dtype: str) -> None:
    plain = np.array([[3, 0, 2], [1, 3, 0]]).astype(dtype)
    if np.dtype(dtype).kind in "fcmM":
        plain[0, 1] = "NaT" if np.dtype(dtype).kind in "mM" else np.nan
    shared = mori.share(plain)
    for axis in (None, 0, 1):
        for name in ("argmax", "argmin"):
            for view in (lambda x: x, lambda x: x.T, lambda x: x[:, ::-1]):
                expected = getattr(view(plain), name)(axis)
                assert np.array_equal(getattr(view(shared), name)(axis), expected)
                assert np.array_equal(getattr(np, name)(view(shared), axis=axis, keepdims=False), expected)
    out = mori.share(np.zeros(3, "i8"))
    assert np.argmax(shared, axis=0, out=out) is out
    assert out.tolist() == plain.argmax(0).tolist()
    assert mori.is_shared(shared)
