"""Environments that Ray makes for a job: what is shared of the user's modules arrives there."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import mori
from tests.mori_ray.conftest import connect
from tests.mori_ray.tasks import call
from tests.mori_ray.test_lifetime import assert_freed

ROWS = 50_000
SUM = float(np.arange(ROWS).sum())


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's, in a package of a folder that workers do not know."""
    package = tmp_path / "project" / "shared_project"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text(
        textwrap.dedent("""
        import dataclasses

        @dataclasses.dataclass
        class Settings:
            name: str
            weights: object

        def look(x):
            import mori
            settings = x[1]
            return (mori.shared_name(x), type(settings).__module__, settings.name,
                    float(settings.weights.sum()), __file__)
        """)
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("shared_project.settings")
    for name in ("shared_project", "shared_project.settings"):
        sys.modules.pop(name, None)


def environments(project: Path) -> dict[str, dict[str, Any]]:
    return {
        "working_dir": {"working_dir": str(project)},
        "py_modules": {"py_modules": [str(project / "shared_project")]},
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", ["working_dir", "py_modules"])
def test_what_is_shared_of_a_users_module_arrives_in_an_environment_of_ray(
    way: str, mine: Any, tmp_path: Path, no_ray: None
) -> None:
    connect(runtime_env=environments(tmp_path / "project")[way])
    x = mori.share([np.arange(ROWS), mine.Settings("one", np.arange(ROWS))])
    name = mori.shared_name(x)
    seen = ray.get(call.remote(mine.look, x), timeout=150)
    assert seen[:4] == (name, "shared_project.settings", "one", SUM)
    assert f"{way}_files" in seen[4], "the module is the one that Ray has brought"
    back = ray.get(call.remote(lambda x: x, x), timeout=150)
    assert back[1].name == "one"
    assert mori.shared_name(back) == name
    assert os.getcwd() == str(tmp_path)
    del x, back
    assert_freed(name)
