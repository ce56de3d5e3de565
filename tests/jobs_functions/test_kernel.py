"""Functions of a real notebook kernel run on the laptop AKS."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from aksgpu.cluster import Cluster
from aksgpu.local import Endpoint

CELLS = (
    """
    import os, time
    import aksgpu
    from aksgpu import cluster, jobs
    aks = cluster.get(aksgpu.connect(), "library", resource_group="library")
    cpu = jobs.Executor(aks, gpus=0)
    """,
    """
    def train(seconds):
        aksgpu.log(step=1, loss=0.5)
        time.sleep(seconds)
        return os.getpid()
    first = cpu.submit(train, 3600)
    """,
    "cpu.submit(train, 0).result(120) != os.getpid()",
    """
    def train(seconds):
        raise ValueError("edited")
    print(repr(cpu.submit(train, 0).exception(120)))
    """,
    "first.cancel(timeout=120), first.cancelled()",
)


def text_of(cell: Mapping[str, Any]) -> str:
    """Return what a cell has printed and its value."""
    found = []
    for output in cell["outputs"]:
        found.append(output.get("text") or output.get("data", {}).get("text/plain") or "")
    return "".join(found)


@pytest.mark.slow
def test_a_notebook_submits_edits_and_cancels(
    aks: Cluster, laptop: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AKSGPU_HOME", str(laptop.home))
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in CELLS]
    client = NotebookClient(
        notebook, timeout=170, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    again = text_of(notebook.cells[2])
    assert "still runs the same function" in again
    assert again.endswith("True")
    assert "ValueError('edited')" in text_of(notebook.cells[3])
    assert text_of(notebook.cells[4]).endswith("(True, True)")
