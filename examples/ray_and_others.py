"""What a Ray driver has shared, a process that knows nothing of Ray reads, and the other way round.

``python examples/ray_and_others.py``
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import ray

import mori

READER = """
import sys
import mori

table = mori.map_shared(sys.argv[1])
column = table["prices"]
print(f"a process without Ray ({'ray' in sys.modules}) reads {mori.shared_name(column)}: {column.mean():.3f}")
"""


@ray.remote
def adjust(table: dict[str, np.ndarray], factor: float) -> float:
    return float((table["prices"] * factor).mean())


@ray.remote
def read_by_name(name: str) -> int:
    return len(mori.map_shared(name)["prices"])


def main() -> None:
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    table = mori.share({"prices": np.linspace(1, 2, 1_000_000), "currency": "EUR"})
    name = mori.shared_name(table)
    print(f"a task of Ray reads it: {ray.get(adjust.remote(table, 2)):.3f}")
    print(
        subprocess.run(
            [sys.executable, "-c", READER, name], check=True, capture_output=True, text=True
        ).stdout,
        end="",
    )
    print(
        f"a task of Ray that is told no more than the name {name}: {ray.get(read_by_name.remote(name))} rows"
    )


if __name__ == "__main__":
    main()
