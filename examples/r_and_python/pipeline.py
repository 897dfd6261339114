"""A pipeline in R and a model in Python, with one region in each direction and no file between them.

`python examples/r_and_python/pipeline.py [TRIPS]` needs R with its package mori: an Rscript on the PATH, or
the one that MORI_RSCRIPT names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import mori

TRIPS = Path(__file__).with_name("trips.R")


def predict(trips: pd.DataFrame) -> pd.DataFrame:
    """Fit minutes by distance and zone; the columns of numbers lie in the memory that R wrote."""
    zones = pd.get_dummies(trips["zone"], dtype=float)
    features = np.column_stack([trips["distance"], zones])
    weights, *_ = np.linalg.lstsq(features, trips["minutes"], rcond=None)
    return pd.DataFrame({"predicted": features @ weights})


def main(trips: int) -> None:
    rscript = os.environ.get("MORI_RSCRIPT", "Rscript")
    with subprocess.Popen(
        [rscript, str(TRIPS), str(trips)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as r:
        assert r.stdin is not None
        assert r.stdout is not None
        frame = mori.map_shared(r.stdout.readline().strip())
        nbytes = frame["distance"].nbytes + frame["minutes"].nbytes
        print(f"Python: {len(frame):,} trips from R, {nbytes / 1e6:.1f} MB of numbers without a copy")
        fitted = mori.share(predict(frame), layout="r")  # kept until R has opened it
        print(r.communicate(f"{mori.shared_name(fitted)}\n")[0].strip())
    if r.returncode:
        raise SystemExit(r.returncode)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
