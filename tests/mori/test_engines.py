"""Where an engine's adapter cannot be imported, mori says so once and everything stays right."""

from __future__ import annotations

import pytest

from tests.fresh import run_python

_CODE = """
import pickle, sys, warnings
import numpy as np
import {engine}
import mori
sys.modules["{adapter}"] = None  # its import raises
with warnings.catch_warnings(record=True) as met:
    warnings.simplefilter("always")
    x = mori.share(np.arange(100_000))
    again = [pickle.loads(pickle.dumps(x, 5)) for _ in range(3)]
texts = [str(warning.message) for warning in met if "mori" in str(warning.message)]
assert len(texts) == 1, texts
assert "{engine}" in texts[0] and "go by value" in texts[0] and "pip install 'mori[" in texts[0], texts
assert len(pickle.dumps(x, 5)) > x.nbytes
assert not mori.is_shared(again[0]) and (again[0] == x).all()
"""


@pytest.mark.parametrize(("engine", "adapter"), [("distributed", "mori_dask"), ("ray", "mori_ray")])
def test_an_adapter_that_cannot_be_imported_is_one_warning_and_everything_goes_by_value(
    engine: str, adapter: str
) -> None:
    pytest.importorskip(engine)
    run_python(_CODE.format(engine=engine, adapter=adapter))
