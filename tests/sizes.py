"""The sizes from which on containers are written in other ways, made small to test large containers."""

from __future__ import annotations

import pytest

from mori.codecs import containers
from mori.format import codec, survey

__all__ = ["write_nodes", "write_views"]


def write_views(patch: pytest.MonkeyPatch) -> None:
    """Make every container that is shared a large one."""
    patch.setattr(containers, "SMALL", -1)


def write_nodes(patch: pytest.MonkeyPatch) -> None:
    """Make every container that is shared a large one, and every one inside another a node of its own."""
    write_views(patch)
    patch.setattr(containers, "LARGE", 0)
    patch.setattr(survey, "LARGE", 0)
    patch.setattr(codec, "_PART_NBYTES", 0)
    patch.setattr(codec, "_PART_IN_BLOCK_NBYTES", 0)
