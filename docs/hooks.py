"""What the site takes from other places: pages, the notebook, and pictures that follow its colours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
NAMES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "attacks/README.md": "attacks.md",
}
"""Pages that have another name on the site."""


def on_files(files: Any, config: Any) -> Any:
    """Add pages that stand elsewhere in the repository, and the notebook as a page."""
    for pattern in (*NAMES, "benchmarks/*.md", "benchmarks/plots/*", "examples/*.py"):
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, NAMES.get(name, name), abs_src_path=str(path)))
    files.append(File.generated(config, "tutorial.md", content=_notebook(ROOT / "docs/tutorial.ipynb")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Correct the links between places, and put pictures of lines into the page itself."""
    name = page.file.src_uri
    up = "../" * name.count("/")
    if name in NAMES.values() or up:
        markdown = re.sub(r"\]\((?:\.\./)?docs/", f"]({up}", markdown)
    for path, known in NAMES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{path}\b", f"]({up}{known}", markdown)
    if not up:
        markdown = re.sub(r"\]\(\.\./(benchmarks|examples)/", r"](\1/", markdown)
    return re.sub(r"!\[([^\]]*)\]\((assets/[a-z-]+\.svg)\)", _inline, markdown)


def _inline(found: re.Match[str]) -> str:
    picture = (ROOT / "docs" / found[2]).read_text(encoding="utf-8")
    picture = re.sub(r"<style>.*?</style>", "", picture, flags=re.DOTALL).replace("\n", "")
    return f'<figure class="lines" role="img" aria-label="{found[1]}">{picture}</figure>'


def _notebook(path: Path) -> str:
    """Return a notebook as Markdown: its text, its code, and what that printed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            text = "".join(output.get("text") or output.get("data", {}).get("text/plain", ()))
            if text:
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)
