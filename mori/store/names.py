"""Names of regions and of their parts: ``/mori_4d1b_1`` and ``/mori_4d1b_1[2,0]``.

Pure: parses and formats, opens nothing. ``mori_PID_NUMBER`` are lower-case hexadecimal without
leading zeros; the path counts from 0 and has at most 64 steps. One region has one name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["LABEL", "MAX_STEPS", "Name", "format_label", "format_name", "parse_label", "parse_name"]

MAX_STEPS = 64
_MAX_INDEX = 2**31 - 1
_NUMBER = "[1-9a-f][0-9a-f]{0,7}"
LABEL = f"mori_({_NUMBER})_({_NUMBER})"
"""What `format_label` writes, as a pattern with a group for each number."""

_LABEL = re.compile(LABEL)
_NAME = re.compile(rf"/{LABEL}(?:\[((?:0|[1-9]\d*)(?:,(?:0|[1-9]\d*))*)\])?")


class Name(NamedTuple):
    """A parsed name: the creator's pid, its running number there, and the path to a part."""

    pid: int
    number: int
    path: tuple[int, ...] = ()


def format_label(pid: int, number: int) -> str:
    """Return the region's name as a store writes it, without the slash."""
    return f"mori_{pid:x}_{number:x}"


def parse_label(text: str) -> Name | None:
    """Read what `format_label` wrote; None for anything else."""
    match = _LABEL.fullmatch(text)
    return Name(int(match[1], 16), int(match[2], 16)) if match else None


def format_name(name: Name) -> str:
    """Return the name that users see."""
    path = f"[{','.join(map(str, name.path))}]" if name.path else ""
    return f"/{format_label(name.pid, name.number)}{path}"


def parse_name(text: object) -> Name | None:
    """Read a name; None for what is not well formed, of whatever type."""
    if not isinstance(text, str) or not text.isascii():
        return None
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    digits = match[3].split(",") if match[3] else []
    if len(digits) > MAX_STEPS or any(len(step) > 10 for step in digits):
        return None
    path = tuple(map(int, digits))
    if any(step > _MAX_INDEX for step in path):
        return None
    return Name(int(match[1], 16), int(match[2], 16), path)
