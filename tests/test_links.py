"""Links between the pages, the notebooks and the files of the repository lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"\]\(([^()\s]+)\)")


def text_of(path: Path) -> str:
    """Return the prose of a page or a notebook, without code."""
    if path.suffix == ".md":
        return re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def targets(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the file and the heading of each link that is not on the web."""
    for link in LINK.findall(text_of(path)):
        if "://" not in link:
            file, _, heading = link.partition("#")
            yield file, heading


def headings(path: Path) -> set[str]:
    """Return the names by which GitHub links to the headings of a page."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in found}


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for file, heading in targets(path):
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), file
        assert not heading or heading in headings(target), f"{file}#{heading}"


def test_the_readme_leads_to_every_page_and_notebook() -> None:
    linked = {(ROOT / file).resolve() for file, _ in targets(ROOT / "README.md")}
    assert [path.name for path in [*PAGES, *NOTEBOOKS] if path != ROOT / "README.md" and path not in linked] == []
