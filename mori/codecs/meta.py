"""The meta of most nodes: plain data as compact JSON."""

from __future__ import annotations

import functools
import json
from typing import Any, Final

__all__ = ["from_json", "to_json"]

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder each time
_SHORT: Final = 256  # bytes


def to_json(plain: object) -> bytes:
    """Return plain data as bytes."""
    return _encode(plain).encode()


def from_json(meta: bytes) -> Any:
    """Read what `to_json` wrote; nobody may change it: short ones, which columns repeat, are remembered."""
    return (_read if len(meta) <= _SHORT else json.loads)(meta)


_read = functools.lru_cache(maxsize=1024)(json.loads)
