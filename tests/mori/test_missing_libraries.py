"""Without the library of an object, opening it names the extra, and the rest of the region stays readable."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import pytest

import mori
from tests.fresh import run_python

OBJECTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "pyarrow": ("arrow", lambda pyarrow: pyarrow.table({"x": [1, 2]})),
    "polars": ("polars", lambda polars: polars.DataFrame({"x": [1, 2]})),
    "scipy.sparse": ("scipy", lambda sparse: sparse.eye_array(300, format="csr")),
    "torch": ("torch", lambda torch: torch.ones(3)),
}

for _library, (_, _make) in OBJECTS.items():  # what a library opens at its first use is no test's
    with contextlib.suppress(ImportError):
        mori.share([_make(importlib.import_module(_library))])


@pytest.mark.usefixtures("views")
@pytest.mark.parametrize("library", OBJECTS)
def test_without_the_library_the_error_names_the_extra(library: str, store: str) -> None:
    extra, make = OBJECTS[library]
    tree = mori.share([*range(1, 100), make(pytest.importorskip(library))])
    out = run_python(f"""
        import sys
        sys.modules[{library.partition(".")[0]!r}] = None  # its import raises
        import mori
        tree = mori.map_shared({mori.shared_name(tree)!r})
        assert tree[0] == 1
        try:
            tree[99]
        except ImportError as error:
            print(error)
    """)
    assert f"install mori[{extra}]" in out
