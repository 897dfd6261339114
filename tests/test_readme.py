"""README.md and docs/: every block of Python in them runs as it stands, and prints what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mori
import mori.adapters
import mori_dask
import mori_ray

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
# A Ray of its own, whatever else runs on this machine.
SETTINGS = {"RAY_ADDRESS": "local", "RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def blocks(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


BLOCKS = blocks(README)
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if blocks(path)]


def check(code: str, folder: Path) -> None:
    for library in ("torch", "sklearn"):
        if re.search(rf"^(import|from) .*\b{library}\b", code, re.MULTILINE):
            pytest.importorskip(library)
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=os.environ | SETTINGS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)


def test_the_readme_has_its_examples() -> None:
    text = "".join(BLOCKS)
    assert all(word in text for word in ("ProcessPoolExecutor", "mori_dask", "mori_ray"))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    check(BLOCKS[number], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    check("\n".join(blocks(page)), tmp_path)


_RUN = """
import json, sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=50, kernel_name="python3").execute()
cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
print(json.dumps(["".join(o.text for o in cell.outputs if o.get("name") == "stdout") for cell in cells]))
"""


@pytest.mark.timeout(120)
def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    shown = [
        "".join("".join(output["text"]) for output in cell["outputs"])
        for cell in cells
        if cell["cell_type"] == "code"
    ]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(NOTEBOOK)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | SETTINGS,
    )
    assert done.returncode == 0, done.stderr
    sizes = re.compile(r"[\d.]+ (?=k?B )")  # change with the format
    assert [sizes.sub("", one) for one in json.loads(done.stdout)] == [sizes.sub("", one) for one in shown]
    assert any(shown)


@pytest.mark.parametrize("package", [mori, mori_dask, mori_ray])
def test_the_interface_is_documented(package: object) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = {*re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    names = {name for name in package.__all__ if not name.startswith("_")}
    assert {f"{package.__name__}.{name}" for name in names} <= listed
    assert [name for name in names if not getattr(package, name).__doc__] == []


def test_the_site_names_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert {page for page in pages if not re.search(rf": {page}$", site, re.MULTILINE)} == set()


@pytest.mark.parametrize("page", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.stem)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    made = {"tutorial.md", "changelog.md"}  # by docs/hooks.py
    assert [link for link in links if link not in made and not (page.parent / link).exists()] == []
