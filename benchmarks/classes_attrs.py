"""Classes of attrs for `benchmarks.catalogue`, imported only where it is installed."""

from __future__ import annotations

import attrs


@attrs.define
class Reading:
    """A class with slots, as `attrs.define` makes it."""

    number: int
    sensor: str
    value: float


@attrs.frozen(slots=False)
class FrozenReading:
    """A frozen one with a ``__dict__``."""

    number: int
    sensor: str
    value: float
