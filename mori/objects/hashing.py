"""joblib's hashes: a shared object has the one of its plain equal, and `joblib.Memory` finds what it stored.

joblib hashes what its pickler, written in Python, is given to save; an array's class is part of that, and a
reference would differ from one share to the next. The pickler is told when a region is mapped.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from typing import Any

from mori._imports import imported
from mori.objects.array import SharedArray
from mori.objects.bytes import SharedBytes
from mori.objects.materialize import private_copy

__all__ = ["patch"]


def patch(module: Any) -> None:
    """Patch `joblib.hashing` so that it hashes the plain equal of a shared object."""
    for cls in (module.Hasher, module.NumpyHasher):
        cls.save = _saving_plain(cls.save)


def _saving_plain(usual: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(usual)
    def save(self: Any, obj: Any, *args: Any) -> None:
        cls = type(obj)
        if _is_ours(cls.__mro__):
            # What stands there twice is saved once: its plain equal stands for it in the pickler's memo.
            plain = vars(self).setdefault("_mori_plain", {})
            if id(obj) not in plain:
                plain[id(obj)] = obj, _plain(obj)
            obj = plain[id(obj)][1]
        elif id(obj) not in self.memo and _is_ours_to_reduce(cls):
            self.save_reduce(*obj.__reduce_ex__(self.proto), obj=obj)
            return
        usual(self, obj, *args)

    return save


@functools.lru_cache(maxsize=1024)
def _is_ours(classes: tuple[type, ...]) -> bool:
    return any(cls.__module__.startswith("mori.") for cls in classes)


def _is_ours_to_reduce(cls: type) -> bool:
    reducer = copyreg.dispatch_table.get(cls)
    return reducer is not None and reducer.__module__.startswith("mori.")


def _plain(obj: Any) -> Any:
    if isinstance(obj, SharedArray) and not isinstance(obj, SharedBytes):
        return obj.view(obj._ordinary)  # with its strides, which count, and which a copy would not keep
    frames = imported("mori.objects.pandas")
    plain = None if frames is None else frames.plain_over(obj)
    return private_copy(obj) if plain is None else plain
