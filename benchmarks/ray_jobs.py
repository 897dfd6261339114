"""Whole jobs with Ray, from the object to the results: `ray.put`, `mori_ray.put` and `mori.share`.

Each run has a Ray of its own, or one way would write to pages that another has brought to memory. Memory is
the most by which the PSS of the driver and all of Ray's processes grew, looked at some ten times a second:
what several of them map counts once, Ray's object store and regions are in it.
"""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import psutil
import ray
from ray.util import ActorPool

import mori
import mori_ray

__all__ = ["WAYS", "connect", "report"]

WAYS: Final[dict[str, Callable[[Any], Any]]] = {
    "ray.put": ray.put,
    "mori_ray.put": mori_ray.put,
    "mori.share": mori.share,
}
_ACTORS: Final = 4
_TEXTS: Final = 32
_LOOK: Final = 0.1  # seconds


def connect(megabytes: int) -> None:
    """Start a Ray whose two workers have imported all there is to import."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=megabytes << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    small = {"a": np.arange(1000), "b": "text"}
    ray.get([_look.remote(publish(small)) for publish in WAYS.values() for _ in range(4)])


@ray.remote
def _look(x: Mapping[str, Any]) -> str:
    time.sleep(0.05)  # or one worker would do them all
    return str(x["b"])


@ray.remote
def _score(numbers: Mapping[str, int], words: Sequence[str]) -> int:
    return sum(numbers.get(word, 0) for word in words)


@ray.remote(num_cpus=0.5)
class _Directory:
    def keep(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers

    def score(self, words: Sequence[str]) -> int:
        return sum(self.numbers.get(word, 0) for word in words)


@ray.remote
def _error(data: Mapping[str, Any], penalty: float) -> float:
    x, y, train = data["x"], data["y"], data["train"]
    gram = x[:train].T @ x[:train] + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x[:train].T @ y[:train])
    return float(np.mean((x[train:] @ weights - y[train:]) ** 2))


def _numbers(rows: int) -> dict[str, int]:
    return {f"word number {i}": i * 7 for i in range(rows)}


def _texts(rows: int) -> list[list[str]]:
    draw = random.Random(7)
    return [[f"word number {draw.randrange(rows * 10 // 9)}" for _ in range(1000)] for _ in range(_TEXTS)]


def _training_set(rows: int) -> dict[str, Any]:
    x = np.random.default_rng(7).normal(size=(rows, 25))
    return {"x": x, "y": x @ np.arange(25.0), "train": rows * 3 // 4}


def _directories() -> list[Any]:
    actors = [_Directory.remote() for _ in range(_ACTORS)]
    ray.get([actor.keep.remote(publish({})) for publish in WAYS.values() for actor in actors])
    return actors


def _look_up_in_tasks(sent: Any, rows: int, _: Any) -> Any:
    return ray.get([_score.remote(sent, words) for words in _texts(rows)])


def _look_up_in_actors(sent: Any, rows: int, actors: list[Any]) -> Any:
    ray.get([actor.keep.remote(sent) for actor in actors])
    return list(ActorPool(actors).map(lambda actor, words: actor.score.remote(words), _texts(rows)))


def _search(sent: Any, rows: int, _: Any) -> Any:
    return ray.get([_error.remote(sent, 10.0**i) for i in range(-6, 6)])


class _Job(NamedTuple):
    name: str
    make: Callable[[int], Any]
    start: Callable[[], Any]
    run: Callable[[Any, int, Any], Any]


_JOBS: Final = (
    _Job(
        f"{_TEXTS} tasks look 1,000 words each up in a dict of {{rows:,}}",
        _numbers,
        lambda: None,
        _look_up_in_tasks,
    ),
    _Job(
        f"the same by a pool of {_ACTORS} actors that keep the dict",
        _numbers,
        _directories,
        _look_up_in_actors,
    ),
    _Job(
        "12 trials of a search over a matrix of {rows:,} x 25 float64", _training_set, lambda: None, _search
    ),
)


@contextmanager
def _watched(samples: list[int]) -> Iterator[None]:
    """Note the memory of this process and its descendants until the end."""
    samples.append(_pss())
    over = threading.Event()

    def watch() -> None:
        pause = _LOOK
        while not over.wait(pause):
            start = time.perf_counter()
            samples.append(_pss())
            pause = max(
                _LOOK, 5 * (time.perf_counter() - start)
            )  # or looking would be a good part of the job

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        samples.append(_pss())


def _pss() -> int:
    total = 0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has ended
            continue
    return total


def _run(job: _Job, obj: Any, way: str, rows: int, store: int) -> tuple[float, float, Any]:
    connect(store)
    workers = job.start()
    gc.collect()
    samples: list[int] = []
    with _watched(samples):
        start = time.perf_counter()
        sent = WAYS[way](obj)
        result = job.run(sent, rows, workers)
        seconds = time.perf_counter() - start
    del sent, workers
    ray.shutdown()
    return seconds, (max(samples) - samples[0]) / 1e6, result


def _line(job: _Job, rows: int, rounds: int, store: int) -> str:
    obj = job.make(rows)
    found: dict[str, list[tuple[float, float, Any]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(_run(job, obj, way, rows, store))
    results = [result for runs in found.values() for _, _, result in runs]
    if not all(np.allclose(result, results[0]) for result in results):
        raise SystemExit(f"the results of {job.name!r} differ")
    seconds = " / ".join(f"{median(run[0] for run in found[way]):.2f}" for way in WAYS)
    memory = " / ".join(f"{median(run[1] for run in found[way]):.0f}" for way in WAYS)
    times = [a[0] / b[0] for a, b in zip(found["ray.put"], found["mori.share"], strict=True)]
    ratio = f"{median(times):.1f} ({min(times):.1f}-{max(times):.1f})"
    return f"| {job.name.format(rows=rows)} | {seconds} | {memory} | {ratio} |"


def report(rows: int, rounds: int, store: int) -> str:
    """Run all jobs each way, in turn; return the table, in Markdown."""
    lines = []
    for job in _JOBS:
        lines.append(_line(job, rows, rounds, store))
        print(lines[-1], flush=True)
    head = "| job | time, s | memory, MB more | time, x |\n|---|---|---|---|"
    about = (
        "From the object in the driver to the results there; workers and actors are up before. Memory is\n"
        "the most by which the PSS of the driver and all Ray processes grew: what they share counts once.\n"
        "Cells are as above; the last column is the ratio of ray.put to mori.share, with its range."
    )
    return f"## Whole jobs\n\n{about}\n\n{head}\n" + "\n".join(lines) + "\n"
