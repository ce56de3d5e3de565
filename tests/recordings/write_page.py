"""Write docs/metrics.md from page.md, the formats of the package and the recorded logs.

python tests/recordings/write_page.py
"""

from __future__ import annotations

import json
from pathlib import Path

import scores

from aksgpu.metrics.formats import FORMATS

TEMPLATE = Path(__file__).parent / "page.md"
PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
READERS = {
    "aksgpu": scores.with_aksgpu,
    "epochix": scores.with_epochix,
    "Katib": scores.with_katib,
}
ORDER = ("right", "partial", "wrong", "nothing")


def page() -> str:
    """Return the page's text."""
    stored = json.loads((scores.LOGS / "epochix" / "found.json").read_text())
    text = TEMPLATE.read_text()
    text = text.replace("(families)\n", families())
    text = text.replace("(version)", stored["version"])
    return text.replace("(scores)\n", table_of_scores())


def families() -> str:
    """Return the table of formats, each with an example."""
    lines = ["| format | for example |", "|---|---|"]
    for form in FORMATS:
        example = form.example.strip().replace("|", "\\|").replace("\t", " ")
        lines.append(f"| {form.name} | `{example}` |")
    return "\n".join(lines) + "\n"


def table_of_scores() -> str:
    """Return the table of scores, and how often each reader has each score."""
    lines = [
        "| log | versions | values | " + " | ".join(READERS) + " |",
        "|---|---|---|" + "---|" * len(READERS),
    ]
    counts = {reader: dict.fromkeys(ORDER, 0) for reader in READERS}
    for recording in scores.recordings():
        found = {reader: scores.score(recording, read(recording)) for reader, read in READERS.items()}
        for reader, result in found.items():
            counts[reader][result] += 1
        versions = ", ".join(f"{name} {number}" for name, number in recording.versions.items())
        cells = [recording.family, versions, str(len(recording.values)), *found.values()]
        lines.append("| " + " | ".join(cells) + " |")
    summary = (" / ".join(str(counts[reader][result]) for result in ORDER) for reader in READERS)
    lines.append(f"| **{' / '.join(ORDER)}** | | | " + " | ".join(summary) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
