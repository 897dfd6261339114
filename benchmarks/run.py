"""`make bench`: mori beside its peers, in one run on one machine; writes benchmarks/RESULTS.md.

Every figure is a median over rounds that are interleaved, so that a change of the machine's speed hits all
alike. Publishing is given in units of a memcpy of the same bytes into memory that exists, measured
in the same round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peers import PEERS, Peer, private_bytes

import mori

RESULTS = Path(__file__).parent / "RESULTS.md"


def reader(pipe: Connection) -> None:
    """Serve a reader process: open what is sent, say how long the first value took, and what it costs."""
    kept: list[Any] = []
    while (message := pipe.recv_bytes()) != b"stop":
        peer = PEERS[pipe.recv()]
        before = private_bytes()
        start = time.perf_counter()
        obj = peer.open(message)
        first = obj[0] if isinstance(obj, np.ndarray | list | mori.SharedList) else obj.iloc[0, 0]
        seconds = time.perf_counter() - start
        kept.append(obj)
        pipe.send((seconds, private_bytes() - before, float(first)))
        if len(kept) > 1:
            kept.pop(0)


class Reader:
    """One spawned process that opens references."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=reader, args=(theirs,), daemon=True)
        self._process.start()

    def open(self, name: str, message: bytes) -> tuple[float, int]:
        """Return the seconds from the reference to the first value, and the private bytes it took."""
        self._pipe.send_bytes(message)
        self._pipe.send(name)
        seconds, nbytes, _ = self._pipe.recv()
        return seconds, nbytes

    def stop(self) -> None:
        """End the process."""
        self._pipe.send_bytes(b"stop")
        self._process.join()


def job(obj: Any, peers: list[Peer], rounds: int, folder: Path) -> list[list[str]]:
    """Measure publishing and opening of one object by every peer."""
    values = obj if isinstance(obj, np.ndarray) else obj.to_numpy()
    target = np.empty_like(values)
    np.copyto(target, values)
    figures: dict[str, dict[str, list[float]]] = {peer.name: {} for peer in peers}
    for number in range(rounds):
        for peer in peers:
            start = time.perf_counter()
            np.copyto(target, values)
            unit = time.perf_counter() - start
            path = folder / f"{number}-{peer.name}"
            tiny = peer.publish(obj[:10], path.with_suffix(".tiny"))
            start = time.perf_counter()
            published = peer.publish(obj, path)
            seconds = time.perf_counter() - start
            process = Reader()
            cold, _ = process.open(peer.name, tiny.message)
            first, private = process.open(peer.name, published.message)
            steady = [process.open(peer.name, published.message)[0] for _ in range(9)]
            process.stop()
            published.release()
            tiny.release()
            found = {
                "publish": seconds / unit,
                "cold": cold * 1e3,
                "first": first * 1e3,
                "steady": statistics.median(steady) * 1e3,
                "bytes": float(len(published.message)),
                "private": private / 1e6,
            }
            for key, value in found.items():
                figures[peer.name].setdefault(key, []).append(value)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return [[peer.name, *row(figures[peer.name])] for peer in peers]


def row(found: dict[str, list[float]]) -> list[str]:
    """Return medians, and for publishing the spread, as text."""
    middle = {key: statistics.median(values) for key, values in found.items()}
    spread = f"{min(found['publish']):.1f}-{max(found['publish']):.1f}"
    return [
        f"{middle['publish']:.2f} ({spread})",
        f"{middle['cold']:.1f}",
        f"{middle['first']:.3f}",
        f"{middle['steady']:.3f}",
        f"{middle['bytes']:,.0f}",
        f"{middle['private']:.2f}",
    ]


def table(rows: Iterable[list[str]]) -> str:
    """Return a Markdown table."""
    head = [
        "way",
        "publish, x memcpy (range)",
        "a new process's first use, imports included, ms",
        "reference to first value, ms",
        "the same, opened before, ms",
        "reference, bytes",
        "private memory of a reader, MB",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join(lines)


def machine() -> str:
    """Describe the machine as far as it matters."""
    cpus = multiprocessing.cpu_count()
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) / 1e6
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, pandas {pd.__version__}"
    return (
        f"{cpus} cores, {memory:.0f} GB, {platform.system()} {platform.release().split('-')[0]} "
        f"(a virtual machine shared with other work); {versions}, mori {mori.__version__}, "
        f"store {mori.store.current().name}"
    )


def main() -> None:
    """Run both jobs and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=200)
    options = parser.parse_args()
    peers = [peer for peer in PEERS.values() if peer.is_installed()]
    count = options.megabytes * 1_000_000 // 8
    array = np.random.default_rng(1).random(count)
    frame = pd.DataFrame(array.reshape(5, -1).T, columns=list("abcde"))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        arrays = job(array, peers, options.rounds, Path(folder))
        frames = job(frame, peers, options.rounds, Path(folder))
    sizes = [
        len(pickle.dumps(part, 5)) for part in (mori.share(array[:100])[10:20], mori.share(frame[:9])["a"])
    ]
    RESULTS.write_text(
        f"# Results\n\n`make bench`, medians of {options.rounds} interleaved rounds. {machine()}.\n\n"
        f"## {options.megabytes} MB of float64\n\n{table(arrays)}\n\n"
        f"## The same bytes as a DataFrame of 5 columns\n\n{table(frames)}\n\n"
        f"A slice of a shared array pickles to {sizes[0]} bytes, "
        f"a column of a shared frame to {sizes[1]}.\n\n"
        "Publishing is in units of a memcpy of the same bytes into memory that exists. Each reader is a new\n"
        "process; its first use opens ten elements, so that what is imported late is imported before the\n"
        "next column. Private memory is the growth of RssAnon from then on. A reference by pickle is the\n"
        "object itself; sending it is not in the figures.\n",
        encoding="utf-8",
    )
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
