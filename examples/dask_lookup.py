"""Tasks that look words up in one large dict: ``python examples/dask_lookup.py --megabytes 200``.

Plain Dask pickles the dict to the scheduler and from there to every worker, and each builds it anew
(``client.scatter`` serializes its values one by one, which takes far longer). Shared, the dict is written
once; a worker opens it in no time, and finds a word without building anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import dask
import numpy as np
from dask_ways import cluster, measured, options, report

import mori_dask

BYTES_A_WORD = 100  # of a dict of str and int, with its keys and its table


def words(count: int) -> dict[str, int]:
    """Make a vocabulary."""
    return {f"word-{number:09d}": number * 7 for number in range(count)}


def score(seed: int, vocabulary: Mapping[str, int]) -> int:
    """Look a text of a thousand words up; one in ten is not known."""
    chosen = np.random.default_rng(seed).integers(0, len(vocabulary) * 10 // 9, 1000)
    return sum(vocabulary.get(f"word-{number:09d}", 0) for number in chosen)


def main() -> None:
    """Compare the two ways."""
    chosen = options(__doc__, 200)
    vocabulary = words(int(chosen.megabytes * 1e6 / BYTES_A_WORD))
    texts = range(16 * chosen.workers)
    rows = []
    warnings.simplefilter("ignore", UserWarning)  # of the large graph, where it is plain
    for way in ("dask.delayed", "mori_dask.scatter"):
        with cluster(chosen.workers) as client:

            def job(way: str = way) -> list[int]:
                if way == "dask.delayed":
                    there = client.compute(dask.delayed(vocabulary, traverse=False))
                else:  # in a list, or the values would be scattered one by one
                    (there,) = mori_dask.scatter(client, [vocabulary])
                return client.gather(client.map(score, texts, [there] * len(texts), pure=False))

            rows.append(measured(client, way, job))
    report(f"{len(texts)} texts, a dict of {len(vocabulary):,} words", rows, lambda one, other: one == other)


if __name__ == "__main__":
    main()
