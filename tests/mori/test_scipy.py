"""scipy.sparse's matrices and arrays come back as what they are, over the region's memory."""

from __future__ import annotations

import gc
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sparse = pytest.importorskip("scipy.sparse")

import mori  # noqa: E402
from mori.format.node import open_node, root_of  # noqa: E402
from mori.format.plan import measure  # noqa: E402
from mori.memory import mapping as mappings  # noqa: E402
from tests.mori.test_memory import _name, _run  # noqa: E402
from tests.regions import bytes_of  # noqa: E402

FORMATS = ("csr", "csc", "coo", "bsr", "dia")
CLASSES = [f"{kind}_{form}" for kind in FORMATS for form in ("matrix", "array")]
DENSE = np.diag([1.0, 2.0, 0.0, 4.0])[:, :2] + np.array([[0, 0], [0, 0], [5.0, 0], [0, 0]])


def make(name: str, dtype: Any = float) -> Any:
    return getattr(sparse, name)(DENSE.astype(dtype))


def arrays_of(obj: Any) -> dict[str, Any]:
    found = {name: value for name, value in vars(obj).items() if isinstance(value, np.ndarray)}
    return found | {f"coords{i}": part for i, part in enumerate(vars(obj).get("coords", ()))}


def same(got: Any, expected: Any) -> bool:
    ours, theirs = arrays_of(got), arrays_of(expected)
    flags = ("_has_sorted_indices", "_has_canonical_format", "has_canonical_format", "maxprint")
    return (
        type(got) is type(expected)
        and got.shape == expected.shape
        and got.dtype == expected.dtype
        and ours.keys() == theirs.keys()
        and all(ours[key].dtype == theirs[key].dtype for key in ours)
        and all(np.array_equal(ours[key], theirs[key]) for key in ours)
        and all(vars(got).get(flag) == vars(expected).get(flag) for flag in flags)
    )


@pytest.mark.parametrize("dtype", [float, "i1", bool, complex])
@pytest.mark.parametrize("name", CLASSES)
def test_each_class_comes_back_with_its_arrays_in_the_region(store: str, name: str, dtype: Any) -> None:
    expected = make(name, dtype)
    shared = mori.share(expected)
    assert same(shared, expected)
    for array in arrays_of(shared).values():
        assert mappings.held_by(array) is not None
        assert mori.is_shared(array)
    assert (shared.toarray() == expected.toarray()).all()
    assert (shared @ np.ones(2) == expected @ np.ones(2)).all()
    assert (shared + shared != expected + expected).nnz == 0
    assert (shared.tocsr()[1:3].toarray() == expected.tocsr()[1:3].toarray()).all()
    assert mori.share(shared) is shared
    assert same(mori.share({"a": [expected]})["a"][0], expected)


@pytest.mark.parametrize("name", ["lil_matrix", "dok_array"])
def test_other_classes_go_by_pickle(store: str, name: str) -> None:
    got = mori.share([make(name)])[0]
    assert type(got) is getattr(sparse, name)
    assert (got.toarray() == DENSE).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: sparse.csr_array(np.array([1.0, 0, 2])),
        lambda: sparse.coo_array(np.array([1.0, 0, 2])),
        lambda: sparse.coo_array(np.ones((2, 3, 4))),
        lambda: sparse.csr_matrix((0, 5)),
        lambda: sparse.bsr_matrix(np.kron(np.eye(2), np.ones((2, 3))), blocksize=(2, 3)),
        lambda: sparse.csr_matrix(([1, 2, 3], [2, 0, 0], [0, 2, 3]), shape=(2, 3)),  # not sorted
        lambda: sparse.coo_matrix(([1, 2], ([0, 0], [1, 1])), shape=(1 << 40, 3)),
        lambda: sparse.random(20, 30, 0.2, format="csc", rng=1),
    ],
)
def test_shapes_blocks_and_what_is_not_sorted_are_kept(store: str, make: Any) -> None:
    try:
        expected = make()
    except (ValueError, TypeError) as error:
        pytest.skip(f"this scipy has no such array: {error}")
    assert same(mori.share(expected), expected)


@pytest.mark.parametrize("flag", ["has_sorted_indices", "has_canonical_format"])
def test_what_scipy_knows_of_the_order_is_not_found_out_again(store: str, flag: str) -> None:
    expected = make("csr_array")
    assert f"_{flag}" not in vars(mori.share(expected))
    assert getattr(expected, flag)
    assert vars(mori.share(expected))[f"_{flag}"] is True
    unsorted = sparse.csr_array(([1, 2], [1, 0], [0, 2]), shape=(1, 2))
    assert not unsorted.has_sorted_indices
    assert vars(mori.share(unsorted))["_has_sorted_indices"] is False


def test_it_travels_as_references_to_its_arrays(store: str, worker: Any) -> None:
    expected = sparse.random(1000, 1000, 0.1, format="csr", rng=1)
    shared = mori.share(expected)
    assert len(pickle.dumps(shared, 5)) < 1000
    assert worker(lambda m: (mori.is_shared(m.data), m.sum()), shared) == (True, expected.sum())
    name = mori.shared_name(shared)
    assert worker(lambda name: mori.map_shared(name).sum(), name) == expected.sum()


def test_a_write_is_local(store: str) -> None:
    shared = mori.share(make("csr_array"))
    name = mori.shared_name(shared)
    shared.data[0] = 77.0
    shared *= 2
    assert shared[0, 0] == 154.0
    assert mori.map_shared(name)[0, 0] == 1.0


def test_a_strided_view_of_an_array_in_its_place_is_a_write(store: str) -> None:
    shared = mori.share([make("csr_array"), 1])
    data = shared[0].data
    shared[0].data = np.broadcast_to(data[:1], data.shape)  # where the array is, and of as many bytes
    again = pickle.loads(pickle.dumps(shared))
    assert again[0].data.tolist() == [data[0]] * len(data)


def test_by_value_it_outlives_its_region(store: str) -> None:
    shared = mori.share([make("coo_matrix")])
    with mori.by_value():
        data = pickle.dumps(shared)
    del shared
    gc.collect()
    assert same(pickle.loads(data)[0], make("coo_matrix"))


@settings(max_examples=100, deadline=None, database=None)
@given(
    st.sampled_from(CLASSES),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_any_matrix_comes_back(name: str, rows: int, columns: int, density: float, seed: int) -> None:
    expected = getattr(sparse, name)(sparse.random(rows, columns, density, rng=seed))
    assert same(mori.share(expected), expected)


def _region(obj: object, **changed: Any) -> Any:
    plan = measure(obj)
    plan.meta = json.dumps({**json.loads(plan.meta), **changed}).encode()
    return root_of(mappings.map_bytes(bytes_of(plan)))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("csr_array", {"shape": [3, 2]}),
        ("csr_array", {"shape": [1 << 61, 2]}),
        ("csr_array", {"shape": [4, 1]}),
        ("csr_array", {"shape": [4, -1]}),
        ("csr_array", {"shape": [4.0, 2]}),
        ("csr_array", {"class": "coo_array"}),
        ("csr_array", {"class": "csc_array"}),
        ("csr_array", {"class": "__name__"}),
        ("csc_matrix", {"shape": [1, 2]}),
        ("bsr_matrix", {"shape": [5, 2]}),
        ("coo_array", {"shape": [4, 1]}),
        ("coo_array", {"shape": [4]}),
        ("coo_matrix", {"shape": [1 << 70, 2]}),
        ("dia_array", {"shape": [4]}),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(name: str, changed: Any) -> None:
    assert same(open_node(_region(make(name))), make(name))
    with pytest.raises(mori.CorruptRegionError):
        open_node(_region(make(name), **changed))


@pytest.mark.parametrize("name", ["csr_array", "csc_matrix", "bsr_array", "coo_matrix"])
@pytest.mark.parametrize("value", [-1, 2, 1 << 28])
def test_indices_that_lead_outside_are_refused(name: str, value: int) -> None:
    bad = make(name)
    (bad.coords[1] if bad.format == "coo" else bad.indices)[0] = value * 4
    with pytest.raises(mori.CorruptRegionError, match="not inside"):
        open_node(_region(bad))


def test_rows_that_end_before_they_start_are_refused() -> None:
    bad = make("csr_array")
    bad.indptr[1] = 3
    with pytest.raises(mori.CorruptRegionError, match="before they start"):
        open_node(_region(bad))


_READ = """
mori.map_shared(sys.argv[1]).sum()
gc.collect(); gc.disable()
before = private()
matrix = mori.map_shared(sys.argv[2])
value = float(matrix.data[-1])
report(value=value, nnz=matrix.nnz, opened=private() - before)
"""


def test_a_reader_of_a_large_matrix_has_no_copy_of_it(store: str) -> None:
    count = 3_000_000
    large = sparse.csr_array(
        (np.ones(count), np.zeros(count, np.int32), np.arange(count + 1, dtype=np.int32))
    )
    small, large = mori.share(make("csr_array")), mori.share(large)
    found = _run(_READ, _name(small), _name(large))
    assert (found["nnz"], found["value"]) == (count, 1)
    assert found["opened"] <= (256 << 10 if store == "memfd" else 16 << 20)  # of a file, indices are checked
