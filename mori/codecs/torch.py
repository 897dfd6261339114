"""torch: dense tensors in this machine's memory, and parameters.

torch knows no read-only memory, and a write to a sealed mapping would end the process: a tensor lies in a
private mapping of the same pages (copy on write), so that reading costs nothing and a write is local. Other
tensors go by pickle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from mori.format import codec
from mori.format.codec import Buffers, Encoded, LibraryCodec
from mori.format.layout import Id, from_json, to_json
from mori.memory.mapping import writable

__all__ = ["TensorCodec"]

_DTYPES: Final = {
    name: _dtype
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex128", "complex64", "complex32", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if isinstance(_dtype := getattr(torch, name, None), torch.dtype)
}
_NAMES: Final = {kind: name for name, kind in _DTYPES.items()}
_CLASSES: Final = {"Tensor": torch.Tensor, "Parameter": torch.nn.Parameter}


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is its elements and nothing else."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in _NAMES
        and tensor.is_leaf
        and not (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)
        and tensor.grad is None
        and not vars(tensor)
        and not tensor._backward_hooks
    )


def _order(tensor: torch.Tensor) -> list[int]:
    """Return the dimensions from the one with the largest stride to that with the smallest."""
    return sorted(range(tensor.dim()), key=lambda place: -tensor.stride(place))


class TensorCodec(LibraryCodec):
    """A tensor or a parameter: its elements in the order in which it has them."""

    id = Id.TORCH_TENSOR

    def encode(self, obj: torch.Tensor) -> Encoded | None:
        if not _is_dense(obj):
            return None
        order = _order(obj)
        dense = obj.detach().permute(order)
        # What is spread or repeated (a slice with steps, expand) is written once, close together.
        dense = dense if dense.is_contiguous() else dense.contiguous()
        data = dense.reshape(-1).view(torch.uint8).numpy() if dense.numel() else np.empty(0, np.uint8)
        plain = {
            "class": type(obj).__name__,
            "dtype": _NAMES[obj.dtype],
            "shape": list(obj.shape),
            "order": order,
            "grad": obj.requires_grad,
        }
        return Encoded(to_json(plain), (data,))

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> torch.Tensor:
        plain = from_json(meta)
        dtype, shape, order = _DTYPES[plain["dtype"]], plain["shape"], plain["order"]
        (buffer,) = buffers
        if not all(type(length) is int and 0 <= length < 1 << 62 for length in shape):
            raise ValueError(f"{shape} is no shape")
        if not all(type(place) is int for place in order) or sorted(order) != [*range(len(shape))]:
            raise ValueError(f"{order} is no order of {len(shape)} dimensions")
        if math.prod(shape) * dtype.itemsize != buffer.nbytes:
            raise ValueError(f"a tensor of {shape} {dtype} does not have {buffer.nbytes} bytes")
        dense = [shape[place] for place in order]
        if buffer.nbytes:
            flat = torch.frombuffer(memoryview(writable(buffer)), dtype=dtype)
        else:
            flat = torch.empty(0, dtype=dtype)
        made = flat.reshape(dense).permute([order.index(place) for place in range(len(order))])
        if plain["class"] == "Parameter":
            return torch.nn.Parameter(made, requires_grad=plain["grad"] is True)
        return made.requires_grad_() if plain["grad"] is True else made


codec.register(TensorCodec(), torch.Tensor, torch.nn.Parameter)
