"""Models of pydantic for `benchmarks.catalogue`, imported only where it is installed."""

from __future__ import annotations

from pydantic import BaseModel


class User(BaseModel):
    """A flat model."""

    number: int
    name: str
    score: float
    tags: list[str] = []
