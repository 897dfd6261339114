"""`make compat`: numpy's and pandas' own tests on shared objects; writes docs/compatibility.md.

A test that fails here runs again without mori: what fails there too is not counted. What is left has
a reason in `expected.py`, or is listed as open.
"""

from __future__ import annotations

import collections
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import mori
from tests.compat.expected import REASONS, Reason, reason_of
from tests.compat.shared_arrays import MAKERS

ROOT = Path(__file__).parents[2]
SITE = Path(np.__file__).parents[1]
DOC = ROOT / "docs" / "compatibility.md"
SUITES = {
    "numpy": (
        "tests.compat.shared_arrays",
        [
            *(
                "_core/tests/test_indexing.py",
                "_core/tests/test_multiarray.py",
                "_core/tests/test_numeric.py",
            ),
            *("_core/tests/test_item_selection.py", "_core/tests/test_einsum.py"),
            *("_core/tests/test_shape_base.py", "lib/tests/test_function_base.py"),
            *("lib/tests/test_arraysetops.py", "lib/tests/test_nanfunctions.py"),
            "lib/tests/test_shape_base.py",
        ],
    ),
    "pandas": (
        "tests.compat.shared_fixtures",
        [
            *("tests/frame/methods", "tests/frame/indexing", "tests/frame/test_reductions.py"),
            *("tests/series/methods", "tests/series/indexing", "tests/reductions", "tests/copy_view"),
            *("tests/groupby/methods", "tests/groupby/aggregate", "tests/groupby/transform"),
        ],
    ),
}
Outcomes = dict[str, tuple[str, str]]


def run(targets: list[str], *options: str) -> Outcomes:
    """Run tests, and return what became of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcomes.json"
        command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "tests/compat/pytest.ini")]
        command += ["--rootdir", str(SITE), "-p", "tests.compat.outcomes", "--outcomes", str(file)]
        command += ["-m", "not slow and not network and not single_cpu", *options, *targets]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not file.exists():
            raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}")
        found: Outcomes = {name: (each[0], each[1]) for name, each in json.loads(file.read_text()).items()}
    return found


def compare(library: str) -> tuple[Outcomes, dict[str, str]]:
    """Return what became of a library's tests, and what those said that fail with mori alone."""
    plugin, targets = SUITES[library]
    found = run([str(SITE / library / target) for target in targets], "-p", plugin)
    failed = {name: said for name, (outcome, said) in found.items() if outcome == "failed"}
    again = run([str(SITE / name) for name in failed]) if failed else {}
    for name in list(failed):
        if again.get(name, ("failed", ""))[0] != "passed":
            del failed[name], found[name]
    return found, failed


def table(failed: dict[str, str]) -> tuple[str, list[str]]:
    """Return the reasons with their numbers, and the tests that have none."""
    reasons: collections.Counter[Reason | None] = collections.Counter()
    unexplained = []
    for name, said in failed.items():
        reason = reason_of(name, said)
        reasons[reason] += 1
        if reason is None:
            first = re.sub(r"0x[0-9a-f]+", "0x…", said.strip().partition("\n")[0])[:100].replace("`", "'")
            unexplained.append(f"- `{name.partition('/tests/')[2]}`: {first}")
    rows = [f"| {each.name} | {reasons[each]} | {each.why} |" for each in REASONS if reasons[each]]
    rows += [f"| open | {len(unexplained)} | not yet looked into, listed below |"] if unexplained else []
    return "\n".join(["| reason | tests | what it is |", "|---|---:|---|", *rows]), unexplained


_HEAD = """# Compatibility

Written by `make compat`: tests of numpy and pandas themselves, run on shared objects. In numpy's, the
functions that make arrays (`np.array`, `np.zeros`, `np.arange` and {makers} more) share what they made; in
pandas', what fixtures give is shared. A test that fails runs again without mori, and counts if it passes
then.

Estimators of scikit-learn and statsmodels (tests/compat/test_estimators.py) learn from shared arrays and
frames, with two jobs, exactly what they learn from private ones.

Python {python}, mori {mori}, {system}."""
_TAIL = """\
What is made of a shared array is plain, `subok=True` included: `np.zeros_like(x)`, `np.ones_like(x)`,
`np.full_like(x, 1)`, `np.empty_like(x)`, `np.unique(x)` and `x.copy()` give an `np.ndarray`, since a
result in private memory is no shared array. A shared array as `out` of a ufunc, of a function of numpy,
or of a method of a shared array becomes private and takes the result. A method of a plain array that is
no ufunc (`y.take(i, out=x)`) does not ask `x`: numpy raises that it is read-only.

Code that ignores `flags.writeable` (ctypes, LAPACK called directly, `torch.from_dlpack(x)`) changes this
process's pages of the region, as it would a plain array's, and no other process sees it. numpy 1 exports no
read-only memory by DLPack, and raises BufferError.
"""


def document(results: dict[str, tuple[Outcomes, dict[str, str]]]) -> bool:
    """Write the document; say whether every failure has a reason."""
    versions = {"numpy": np.__version__, "pandas": pd.__version__}
    head = _HEAD.format(
        makers=len(MAKERS) - 3,
        python=platform.python_version(),
        mori=mori.__version__,
        system=platform.system(),
    )
    parts, is_explained = [head], True
    for library, (found, failed) in results.items():
        numbers = collections.Counter(outcome for outcome, _ in found.values())
        reasons, unexplained = table(failed)
        is_explained &= not unexplained
        parts += [
            f"## {library} {versions[library]}",
            "\n".join(f"- `{target}`" for target in SUITES[library][1]),
            f"{numbers['passed']:,} passed; {len(failed):,} failed that pass without mori; "
            f"{numbers['skipped'] + numbers['xfailed']:,} skipped, or expected to fail by {library} itself.",
            reasons,
        ]
        if unexplained:
            parts.append("Open:\n\n" + "\n".join(unexplained))
    parts.append(_TAIL)
    DOC.write_text("\n\n".join(parts), encoding="utf-8")
    return is_explained


if __name__ == "__main__":
    raise SystemExit(0 if document({library: compare(library) for library in SUITES}) else 1)
