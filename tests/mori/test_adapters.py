"""The adapter of docs/adapters.md, for an engine of worker processes behind sockets."""

from __future__ import annotations

import operator
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mori
from mori import adapters

_ROOT = Path(__file__).parents[2]
_DOC = (_ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the module of the documentation, which worker processes import, too."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", _DOC, re.MULTILINE | re.DOTALL)
    (tmp_path / "engine.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(_ROOT)]))
    monkeypatch.setenv("MORI_GRACE", "0")  # the adapter keeps what is on its way
    module = types.ModuleType("engine")
    exec(compile(source, "docs/adapters.md", "exec"), module.__dict__)
    return module


def test_a_worker_of_this_domain_gets_references_and_returns_them(engine: Any) -> None:
    worker = engine.Worker()
    try:
        x = mori.share(np.arange(100_000.0))
        assert worker.channel.is_near
        assert worker.call(mori.shared_name, x) == mori.shared_name(x)
        assert worker.call(operator.getitem, x, slice(5, 9)).tolist() == [5, 6, 7, 8]
        made = worker.call(mori.share, {"a": np.ones(1000)})
        assert mori.is_shared(made["a"])
        assert made["a"].sum() == 1000
        assert worker.call(len, mori.share([*range(1000)])) == 1000  # which nobody but the channel keeps
        assert worker.channel.sent == {}
    finally:
        worker.close()


def test_a_worker_of_another_domain_gets_bytes_and_adopts_them(engine: Any, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    worker = engine.Worker(MORI_STORE=f"files:{tmp_path / 'store'}")
    try:
        x = mori.share(np.arange(100_000.0))
        assert not worker.channel.is_near
        name = worker.call(mori.shared_name, x)
        assert name is not None
        assert worker.call(np.sum, x) == x.sum()
        got = worker.call(operator.itemgetter(0), [x])
        assert np.array_equal(got, x)
        assert not mori.is_shared(got)
    finally:
        worker.close()


class _Dead:
    """Pickles as a reference to a region that nobody holds."""

    def __init__(self) -> None:
        with adapters.use_transport("reference"):
            self.reduced = mori.share(np.arange(100_000.0)).__reduce_ex__(5)

    def __reduce__(self) -> Any:
        return self.reduced


def test_a_region_that_is_gone_fails_its_task_and_not_the_worker(engine: Any) -> None:
    worker = engine.Worker()
    try:
        with pytest.raises(mori.RegionNotFoundError):
            worker.call(np.sum, _Dead())
        with pytest.raises(ValueError, match="invalid literal"):
            worker.call(int, "no")
        assert worker.call(operator.add, 1, 2) == 3
    finally:
        worker.close()


def test_a_worker_without_a_task_holds_no_region(engine: Any, wait: Callable[..., None]) -> None:
    worker = engine.Worker()
    try:
        x = mori.share(np.arange(100_000.0))
        assert worker.call(np.sum, x) == x.sum()
        name = mori.shared_name(x)
        wait(lambda: [entry.holders for entry in mori.regions() if entry.name == name] == [(os.getpid(),)])
    finally:
        worker.close()


def test_the_documentation_names_all_of_the_contract() -> None:
    missing = [name for name in adapters.__all__ if not re.search(rf"\b{name}\b", _DOC)]
    assert missing == []


def test_the_contract_is_imported_by_who_asks_for_it() -> None:
    code = "import sys, mori; assert 'mori.adapters' not in sys.modules; from mori import adapters"
    subprocess.run([sys.executable, "-c", code], check=True)
