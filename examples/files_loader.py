"""torch's DataLoader over a file: its workers get a path of some bytes, and map one copy of the samples.

Run it: python examples/files_loader.py
"""

import os
import tempfile

import numpy as np
from torch.utils.data import DataLoader, Dataset

import mori

SAMPLES = 20_000


class Samples(Dataset):
    """Features and labels that lie in a file; what is pickled for a worker is its path."""

    def __init__(self, path: str) -> None:
        self.data = mori.load(path)

    def __len__(self) -> int:
        return len(self.data["labels"])

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.array(self.data["features"][index]), int(self.data["labels"][index])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "samples.mori")
        rng = np.random.default_rng(0)
        features = rng.random((SAMPLES, 64), dtype="f4")
        mori.save({"features": features, "labels": np.arange(SAMPLES) % 10}, path)
        loader = DataLoader(Samples(path), batch_size=500, num_workers=2, multiprocessing_context="spawn")
        total = sum(float(batch.sum()) for batch, _ in loader)
        print(f"{SAMPLES:,} samples, and their sum is right: {abs(total - features.sum()) < 1}")
