"""A pool of Ray actors that serve one dict: all of them map it, none of them has a copy.

``python examples/ray_actor_pool.py --entries 2_000_000 --actors 4``
"""

from __future__ import annotations

import argparse
import random
import time

import ray
from ray.util import ActorPool

import mori


def private_megabytes() -> float:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


@ray.remote
class Directory:
    def __init__(self, numbers: dict[str, int]) -> None:
        before = private_megabytes()
        self.numbers = numbers
        self.numbers["name 0"]
        self.grown = private_megabytes() - before

    def look_up(self, names: list[str]) -> list[int | None]:
        return [self.numbers.get(name) for name in names]

    def cost(self) -> float:
        return self.grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--requests", type=int, default=200, help="of a hundred names each (200)")
    options = parser.parse_args()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)

    numbers = mori.share({f"name {i}": i * 7 for i in range(options.entries)})
    actors = [Directory.remote(numbers) for _ in range(options.actors)]
    costs = ray.get([actor.cost.remote() for actor in actors])
    print(f"{len(numbers)} entries; private memory of each actor grew by at most {max(costs):.1f} MB")

    draw = random.Random(7)
    wanted = [
        [f"name {draw.randrange(options.entries * 2)}" for _ in range(100)] for _ in range(options.requests)
    ]
    start = time.perf_counter()
    found = list(ActorPool(actors).map(lambda actor, names: actor.look_up.remote(names), wanted))
    seconds = time.perf_counter() - start
    assert found == [[numbers.get(name) for name in names] for names in wanted]
    hits = sum(number is not None for numbers in found for number in numbers)
    print(f"{options.requests} requests in {seconds:.2f} s; {hits} of {options.requests * 100} names found")


if __name__ == "__main__":
    main()
