"""A DataLoader whose workers share the dataset, where each would copy what it reads of it.

A forked worker writes to the reference count of each object that it reads, so the pages of the dataset's
list become its own, one after the other (pytorch#13246); a spawned one is sent all of it. A shared list,
dict, array or frame is mapped by all workers, and a spawned one is sent a reference.

Columns rather than records: an element of a shared list of strings or numbers takes about a microsecond, one
of a list of dicts, which is decoded with its neighbours, about fifteen.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

import mori


class Images(Dataset):  # type: ignore[type-arg]
    """What a dataset of images knows of each of them: the path, the class and the box."""

    def __init__(self, paths: Any, labels: Any, boxes: Any) -> None:
        self.paths = paths
        self.labels = labels
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        return len(self.paths[index]), int(self.labels[index]), float(self.boxes[index].sum())


def private_mb(pids: list[int]) -> float:
    """Return the memory that processes have for themselves."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, kilobytes = line.split()[:2]
            total += int(kilobytes) if name in ("Private_Clean:", "Private_Dirty:") else 0
    return total / 1000


def processor_seconds(pids: list[int]) -> float:
    """Return the time of the processor that processes have taken."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(times[11]) + int(times[12]) for times in fields) / os.sysconf("SC_CLK_TCK")


def measure(dataset: Images, workers: int, start: str) -> tuple[float, float, list[int]]:
    """Return what the workers take for the second of two epochs: seconds of the processor, memory in MB."""
    loader = DataLoader(
        dataset,
        batch_size=256,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context=start,
        persistent_workers=True,
    )
    pids: list[int] = []
    for _ in range(2):
        sums = [0, 0]
        began = processor_seconds(pids)
        epoch = iter(loader)
        pids = [worker.pid for worker in epoch._workers]  # type: ignore[attr-defined]
        for lengths, labels, _ in epoch:
            sums = [sums[0] + int(lengths.sum()), sums[1] + int(labels.sum())]
    return processor_seconds(pids) - began, private_mb(pids), sums


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start", choices=["fork", "spawn", "forkserver"], default="fork")
    chosen = parser.parse_args()
    paths = [f"/data/images/{number:08}.jpg" for number in range(chosen.records)]
    labels = [number % 1000 for number in range(chosen.records)]
    boxes = np.random.default_rng(0).random((chosen.records, 4))
    found = {}
    for way, parts in (
        ("plain", (paths, labels, boxes)),
        ("shared", tuple(map(mori.share, (paths, labels, boxes)))),
    ):
        seconds, memory, found[way] = measure(Images(*parts), chosen.workers, chosen.start)
        print(f"{way:6}  an epoch takes {seconds:5.2f} s of the workers, with {memory:6.1f} MB of their own")
    print("the results are equal" if found["plain"] == found["shared"] else f"the results DIFFER: {found}")


if __name__ == "__main__":
    main()
