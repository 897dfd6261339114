"""numpy's masked arrays: data and mask, each an array of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mori.format.codec import Buffers, BuiltinCodec, Encoded, Pickled
from mori.format.layout import Id, from_json, to_json

__all__ = ["MaskedArrayCodec"]

_PARTS: Final = (".data", ".mask", ".fill_value", "._optinfo")


class MaskedArrayCodec(BuiltinCodec):
    """A MaskedArray over plain elements: data, then mask, fill value and what numpy calls the optinfo."""

    id = Id.NUMPY_MASKED
    is_mapped = True

    def encode(self, obj: Any) -> Encoded | None:
        if not issubclass(obj._baseclass, np.ndarray) or obj._baseclass.__name__ not in (
            "ndarray",
            "SharedArray",
        ):
            return None  # a mask over a subclass with a life of its own
        if obj.dtype.hasobject or obj.dtype.kind == "T":
            return None
        plain: dict[str, object] = {"hard": bool(obj._hardmask)}
        children: list[object] = [obj.data.view(np.ndarray)]
        for key, value in (("mask", _mask_of(obj)), ("fill", obj._fill_value)):
            if value is not None:
                plain[key] = len(children)
                children.append(np.asarray(value))
        if obj._optinfo:
            plain["info"] = len(children)
            children.append(Pickled(obj._optinfo))
        return Encoded(to_json(plain), (), children)

    def decode(self, meta: bytes, buffers: Buffers, children: Sequence[Any]) -> Any:
        plain = from_json(meta)
        data = _plain_array(children[0])
        masked = data.view(np.ma.MaskedArray)
        masked._mask = np.ma.nomask
        if "mask" in plain:
            mask = _plain_array(children[plain["mask"]])
            if mask.shape != data.shape or mask.dtype != np.ma.make_mask_descr(data.dtype):
                raise ValueError(f"a mask of {mask.shape} {mask.dtype} for {data.shape} {data.dtype}")
            masked._mask = mask
        if "fill" in plain:
            fill = _plain_array(children[plain["fill"]])
            if fill.shape != () or fill.dtype != data.dtype:
                raise ValueError(f"a fill value of {fill.shape} {fill.dtype} for {data.dtype}")
            masked._fill_value = fill.copy()
        if "info" in plain:
            info = children[plain["info"]]
            if type(info) is not dict:
                raise ValueError(f"{type(info).__name__} for a dict")
            masked._optinfo = info
        if type(plain["hard"]) is not bool:
            raise ValueError("a mask that is neither hard nor soft")
        masked._hardmask = plain["hard"]
        return masked

    def step(self, obj: Any, index: int) -> str:
        return _PARTS[index] if index < 2 else ""


def _mask_of(obj: Any) -> Any:
    return None if obj._mask is np.ma.nomask else obj._mask


def _plain_array(child: Any) -> Any:
    if not isinstance(child, np.ndarray) or child.dtype.hasobject:
        raise ValueError(f"{type(child).__name__} for an array")
    return child.view(np.ndarray)
