"""How long the tests of endurance run: some seconds in the suite, as long as one likes in `make stress`."""

from __future__ import annotations

import os

__all__ = ["IS_LONG", "LIMIT", "SECONDS"]

SECONDS = float(os.environ.get("STRESS_SECONDS", "8"))
IS_LONG = SECONDS > 8
LIMIT = 60 + 20 * SECONDS if IS_LONG else 120.0  # of one test, in seconds; other tests may run beside it
