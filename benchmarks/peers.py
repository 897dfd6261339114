"""The ways to hand an object to another process that `run.py` compares, by name.

A job is left out where the library has no way for it that its users would take: a dash in the tables.
"""

from __future__ import annotations

from typing import Final

from benchmarks.objects import OBJECTS
from benchmarks.servers import SERVED
from benchmarks.tables import TABLES

__all__ = ["PEERS"]

PEERS: Final = {peer.name: peer for peer in (*OBJECTS, *TABLES, *SERVED)}
