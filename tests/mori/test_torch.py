"""torch's tensors come back over the region's pages, and what is written to them is local."""

from __future__ import annotations

import gc
import json
import pickle
import re
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch")

import mori  # noqa: E402
from mori.codecs.torch import _DTYPES  # noqa: E402
from mori.format.node import open_node, root_of  # noqa: E402
from mori.format.plan import measure  # noqa: E402
from mori.memory import mapping as mappings  # noqa: E402
from tests.mori.test_memory import MB, _name, _run  # noqa: E402
from tests.regions import bytes_of  # noqa: E402


def is_mapped(tensor: Any) -> bool:
    """Say whether a tensor's memory is a private mapping of a region."""
    place = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in re.split("[- ]", line)[:2])
        if first <= place < last:
            return "mori_" in line and line.split()[1] == "rw-p"
    return False


def same(got: Any, expected: Any) -> bool:
    return (
        type(got) is type(expected)
        and got.dtype == expected.dtype
        and got.shape == expected.shape
        and got.requires_grad == expected.requires_grad
        and got.is_leaf
        and (not got.numel() or _bytes_of(got) == _bytes_of(expected))
    )


def _bytes_of(tensor: Any) -> list[int]:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("dtype", _DTYPES.values(), ids=str)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_a_tensor_of_every_dtype_comes_back_over_the_region(store: str, dtype: Any) -> None:
    expected = torch.arange(40_000, dtype=torch.float32).reshape(200, 200).to(dtype)
    shared = mori.share(expected)
    assert same(shared, expected)
    assert shared.stride() == expected.stride()
    assert is_mapped(shared)
    assert mori.is_shared(shared)
    assert mori.share(shared) is shared
    assert same(mori.share({"a": [expected]})["a"][0], expected)


LARGE = torch.arange(60_000.0).reshape(20, 30, 100)


@pytest.mark.parametrize(
    ("expected", "strides"),
    [
        (LARGE.permute(2, 0, 1), True),
        (LARGE.transpose(0, 1), True),
        (
            LARGE.to(memory_format=torch.contiguous_format)
            .unsqueeze(0)
            .to(memory_format=torch.channels_last),
            True,
        ),
        (LARGE[3:7], True),
        (LARGE[:, ::2], False),
        (torch.ones(1, 100).expand(500, 100), False),
        (torch.tensor(3), True),
        (torch.empty(0, 3), True),
        (torch.nn.Parameter(LARGE.clone()), True),
        (torch.nn.Parameter(torch.arange(9000), requires_grad=False), True),
        (torch.ones(5000, requires_grad=True), True),
    ],
)
def test_shape_order_and_gradient_are_kept(store: str, expected: Any, strides: bool) -> None:
    got = mori.share([expected])[0]
    assert same(got, expected)
    assert got.stride() == expected.stride() or not strides
    assert is_mapped(got) or expected.numel() < 4096


def test_a_write_is_local_to_the_tensor_and_never_ends_the_process(store: str, worker: Any) -> None:
    shared = mori.share(torch.zeros(10_000))
    name = mori.shared_name(shared)
    other = mori.map_shared(name)
    shared[0] = 77
    shared.add_(1)
    shared.numpy()[1] = 5
    assert shared[:3].tolist() == [78, 5, 1]
    assert other.sum() == 0
    assert worker(lambda name: float(mori.map_shared(name).add_(1).sum()), name) == 10_000
    assert mori.map_shared(name).sum() == 0


def test_a_model_learns_from_shared_parameters(store: str) -> None:
    weights = mori.share({"w": torch.nn.Parameter(torch.ones(100, 100)), "x": torch.ones(100, 100)})
    parameter, data = weights["w"], weights["x"]
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    (parameter * data).sum().backward()
    optimizer.step()
    assert parameter.detach().unique().tolist() == [0.5]
    assert weights["x"].sum() == 10_000


def test_a_state_dict_comes_back_with_its_tensors_mapped(store: str) -> None:
    model = torch.nn.Linear(100, 100)
    shared = mori.share(dict(model.state_dict()))
    again = torch.nn.Linear(100, 100)
    again.load_state_dict(dict(shared.items()), assign=True)
    assert is_mapped(again.weight)
    x = torch.ones(3, 100)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.zeros(3, dtype=torch.complex64).conj(),
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.float32,
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_tensors_go_by_pickle(store: str, make: Any) -> None:
    expected = make()
    got = mori.share([expected])[0]
    assert type(got) is type(expected)
    assert str(got) == str(expected)
    torch._utils._validate_loaded_sparse_tensors()  # torch keeps those that were unpickled until it is called


def test_a_tensor_outlives_its_container_and_by_value_it_travels(store: str) -> None:
    tree = mori.share({"t": torch.arange(10_000)})
    tensor = tree["t"]
    with mori.by_value():
        data = pickle.dumps(tree)
    del tree
    gc.collect()
    assert tensor.sum() == 49_995_000
    del tensor
    gc.collect()
    arrived = pickle.loads(data)["t"]
    arrived[0] = 1
    assert arrived.sum() == 49_995_001
    assert pickle.loads(data)["t"][0] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [4, 2]},
        {"shape": [1 << 62, 2]},
        {"shape": [-2, -3]},
        {"shape": [2.0, 3]},
        {"order": [0]},
        {"order": [0, 0]},
        {"order": [0, 2]},
        {"order": [0, True]},
        {"dtype": "float64"},
        {"dtype": "load"},
        {"dtype": "int32", "grad": True},
    ],
)
def test_a_meta_that_does_not_fit_is_refused(changed: dict[str, Any]) -> None:
    plan = measure(torch.zeros(2, 3))
    plan.meta = json.dumps({**json.loads(plan.meta), **changed}).encode()
    with pytest.raises(mori.CorruptRegionError):
        open_node(root_of(mappings.map_bytes(bytes_of(plan))))


def _resident() -> int:
    """Return the bytes of pages of regions that this process has mapped and touched."""
    with open("/proc/self/status", encoding="ascii") as lines:
        found = dict(line.split(":", 1) for line in lines)
    return sum(int(found[key].split()[0]) << 10 for key in ("RssShmem", "RssFile"))


def test_to_pass_a_tensor_reads_none_of_it_and_carries_what_was_written(store: str) -> None:
    shared = mori.share(torch.zeros(8_000_000))
    mori.is_shared(shared)  # what the first question imports
    before = _resident()
    assert len(ForkingPickler.dumps(shared)) < 200
    assert mori.is_shared(shared)
    assert _resident() - before < MB
    shared[4_000_000] = 0.0  # a page of its own, as it was
    assert len(ForkingPickler.dumps(shared)) < 200
    shared[7_999_999] = 1.0
    assert not mori.is_shared(shared)
    shared[7_999_999] = 0.0
    assert mori.is_shared(shared)


def test_a_module_is_a_reference_until_one_of_its_weights_changes(store: str) -> None:
    module = mori.share(torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.Linear(300, 300)))
    assert len(ForkingPickler.dumps(module)) < 200
    with torch.no_grad():
        module[1].weight[17, 3] += 1
    assert not mori.is_shared(module)
    assert pickle.loads(pickle.dumps(module))[1].weight[17, 3] == module[1].weight[17, 3]


_READ = """
import torch
torch.ones(10).sum().item()
mori.map_shared(sys.argv[1]).sum()
gc.collect(); gc.disable()
before = private()
tensor = mori.map_shared(sys.argv[2])
total = float(tensor.sum())
read = private() - before
tensor[:1024] = 0
report(total=total, read=read, written=private() - before - read)
"""


def test_a_reader_of_a_large_tensor_has_no_copy_and_a_writer_one_of_its_pages(store: str) -> None:
    small, large = mori.share(torch.ones(10_000)), mori.share(torch.ones(25_000_000))
    found = _run(_READ, _name(small), _name(large))
    assert found["total"] == 25_000_000
    assert found["read"] <= 2 * MB
    assert 4096 <= found["written"] <= MB


_NUMBERS = st.sampled_from(["?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"])
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@settings(max_examples=100, deadline=None)
@given(_NUMBERS.flatmap(lambda dtype: hnp.arrays(dtype, _SHAPES)), st.integers(0, 3), st.booleans())
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_any_tensor_comes_back(array: Any, times: int, is_turned: bool) -> None:
    expected = torch.from_numpy(np.tile(array, (4**times, *[1] * max(0, array.ndim - 1))) if times else array)
    expected = expected.T if is_turned and expected.ndim == 2 else expected
    shared = mori.share([expected])[0]
    assert same(shared, expected)
    assert same(pickle.loads(pickle.dumps(mori.share({"t": expected})))["t"], expected)
