"""What a run found, as benchmarks/results.json keeps it: every round of every figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

__all__ = ["FILE", "Cell", "Results"]

FILE: Final = Path(__file__).parent / "results.json"


@dataclass
class Cell:
    """One way and one job: for each figure the values of all rounds, or why there are none."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    failed: str = ""

    def add(self, figure: str, value: float) -> None:
        """Add the value of one more round."""
        self.figures.setdefault(figure, []).append(value)

    def median(self, figure: str) -> float | None:
        """Return the middle of the rounds, or None where the figure was not measured."""
        values = self.figures.get(figure)
        return median(values) if values else None

    def ratio(self, figure: str, other: Cell, unit: str) -> float | None:
        """Return the middle of the rounds' ratios to what another cell found in the same round."""
        pairs = list(zip(self.figures.get(figure, []), other.figures.get(unit, []), strict=False))
        return median(mine / theirs for mine, theirs in pairs) if pairs else None


@dataclass
class Results:
    """A whole run. Times in seconds, memory in bytes."""

    machine: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, dict[str, Cell]] = field(default_factory=dict)
    payloads: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    alone: dict[str, list[float]] = field(default_factory=dict)  # of mori without peers
    scaling: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def cell(self, job: str, peer: str) -> Cell:
        """Return a cell; an empty one where there is none."""
        return self.jobs.get(job, {}).get(peer, Cell())

    def cells(self, peer: str) -> Iterator[tuple[str, Cell]]:
        """Yield one way's cells by job."""
        yield from ((job, peers[peer]) for job, peers in self.jobs.items() if peer in peers)

    def save(self, file: Path = FILE) -> None:
        """Write the file."""
        file.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path = FILE) -> Results:
        """Read the file."""
        found = json.loads(file.read_text(encoding="utf-8"))
        jobs = {
            job: {peer: Cell(**cell) for peer, cell in peers.items()}
            for job, peers in found.pop("jobs").items()
        }
        return cls(jobs=jobs, **found)


def _rounded(value: Any) -> Any:
    """Keep five digits: what a clock and a page count are worth."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
