"""The tutorial's notebooks: each is stored with its outputs and runs alone. nbval compares their outputs in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from aksgpu import local, tutorial

NOTEBOOKS = [*tutorial.notebooks(), *tutorial.further()]
NAMES = [path.stem for path in NOTEBOOKS]
REPO = Path(__file__).parents[1]
CHANGING = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6}| UTC)", "TIME"),
    (r"(aks-[a-z0-9]+)-\d{8}-vmss", r"\1-NUMBER-vmss"),
    (r"(>ran for</span>)[^<]+", r"\1DURATION"),
    (r'"[^"]*ipykernel_\d+/', '"'),
    (r"\d+ s on a Tesla T4: USD \d\.\d{4}", "COST"),
    (r"session-\w+: 1 GPU, \d+:\d\d:\d\d, \$\d+\.\d\d", "SESSION"),
)
LIVE = {("04-run-the-workload", "04-05")}
"""Cells whose output nbval ignores. test_it_runs_alone compares their final output."""


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: Any) -> list[Any]:
    """Return the outputs of all cells, without what may differ between two executions."""
    found: list[Any] = []
    for cell in code(notebook):
        for output in cell.outputs:
            data = output.get("data") or {"text/plain": output.get("text")}
            for kind in sorted(data.keys() - {"image/png"}):
                text = str(data[kind])
                for pattern, replacement in CHANGING:
                    text = re.sub(pattern, replacement, text)
                found.append((cell.source, kind, text))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_is_stored_with_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not [key for output in outputs for key in output.get("data", {}) if "widget" in key], (
        "useless without a kernel"
    )
    assert "widgets" not in notebook.metadata
    ignored = {cell.id for cell in notebook.cells if re.search("nbval", str(cell.metadata))}
    assert ignored == {cell for name, cell in LIVE if name == path.stem}, "every other output is compared"
    assert all(cell.metadata.nbval_ignore_reason for cell in notebook.cells if cell.id in ignored)
    assert "NBVAL" not in path.read_text()
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_links_to_the_next_one(path: Path) -> None:
    last = nbformat.read(path, as_version=4).cells[-1].source
    following = NAMES[NAMES.index(path.stem) + 1 :][:1]
    assert not following or f"({following[0]}.ipynb)" in last


ALONE = [
    # nbval compares the notebooks in order, except for a live view in the fourth.
    pytest.param(path, marks=[] if path.stem.startswith("04") else pytest.mark.slow, id=path.stem)
    for path in NOTEBOOKS[1:]
]
"""The notebooks that continue others. The first one does not."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", ALONE)
def test_it_runs_alone(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as when the outputs were stored
    with local.laptop(time_scale=0.05) as endpoint:
        executed = tutorial._execute(path, tmp_path / path.name, endpoint.home, False)
    assert texts(executed) == texts(nbformat.read(path, as_version=4))


@pytest.mark.timeout(120)
def test_the_readmes_ten_lines_run_as_a_script(tmp_path: Path) -> None:
    with local.laptop(time_scale=0.05) as endpoint:
        done = subprocess.run(
            [sys.executable, str(REPO / "examples" / "mnist.py"), "curve.png"],
            env={**os.environ, "AKSGPU_HOME": str(endpoint.home), "AKSGPU_PROGRESS": "0"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert (done.returncode, done.stderr) == (0, "")
    *_, last_row, deleted = done.stdout.splitlines()
    assert last_row.split()[:2] == ["49", "490"]
    assert deleted == "Deletion(deleted cluster myAKSCluster and resource group myResourceGroup)"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_notebook_shows_how_the_job_ended(tmp_path: Path) -> None:
    for number, cell_id in (("04", "04-05"), ("05", "05-03")):
        (path,) = [path for path in NOTEBOOKS if path.stem.startswith(number)]
        notebook = nbformat.read(path, as_version=4)
        (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
        (output,) = cell.outputs
        assert "<b>Complete</b>" in output.data["text/html"]
        assert re.search(r'<img alt="accuracy \d\d\.\d\d % at step 490"', output.data["text/html"])
        page = tutorial._write_page(notebook, tmp_path / path.name).read_text()
        assert "<b>Complete</b>" in page
        assert re.search(r'<img alt="accuracy \d\d\.\d\d % at step 490" [^>]*src="data:image/svg', page)
        assert not re.search("Submitted|as of", page)
