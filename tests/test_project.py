"""What the files around the code name is there: commands of make, extras, and the version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import mori

ROOT = Path(mori.__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = {*re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)}
TEXTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob(".github/**/*.yml"),
    *ROOT.glob(".ci/*"),
]


def test_every_command_of_make_that_is_named_is_there() -> None:
    named = {
        target
        for path in TEXTS
        for line in re.findall(
            r"(?:`|run: |^)make ([^`\n#]*)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        for target in line.split()[:1]
        if re.fullmatch("[a-z-]+", target)
    }
    assert len(named) > 15
    assert named <= TARGETS


def test_every_command_of_make_that_has_no_file_is_phony() -> None:
    phony = {*re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()}
    assert phony == TARGETS


def test_every_extra_that_is_named_is_there() -> None:
    named = {
        extra
        for path in TEXTS
        for extras in re.findall(r"(?:mori|\.)\[([a-z,]+)\]", path.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert {"dask", "ray"} <= named <= {*PROJECT["project"]["optional-dependencies"]}


def test_the_citation_has_this_version() -> None:
    assert f"version: {mori.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{mori.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
