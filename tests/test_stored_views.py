"""What a notebook stores for live views: executed by nbclient on a laptop AKS, and converted to HTML by nbconvert."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter

from aksgpu import tutorial
from aksgpu.cluster import Cluster
from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]
pytestmark = pytest.mark.timeout(600)  # several kernels start one after another

WIDGET = "application/vnd.jupyter.widget-view+json"
START = """
import aksgpu
from aksgpu import cluster, jobs
from IPython.display import display
aks = cluster.create(aksgpu.connect(), "library", resource_group="library", location="eastus")
image = "mcr.microsoft.com/azuredocs/samples-tf-mnist-demo:gpu"
job = jobs.submit(aks, name="{name}", image=image, args=["--max_steps", "{steps}"], gpus=1)
"""
SUSPEND = """
aks.kube.patch("Job", job.name, {{"spec": {{"suspend": {value}}}}}, job.namespace)
"""
INTERRUPT = """
import signal, threading
look = job._read
def interrupting():
    if threading.current_thread() is threading.main_thread():
        signal.raise_signal(signal.SIGINT)
    return look()
job._read = interrupting
try:
    job.wait()
except KeyboardInterrupt:
    print("interrupted")
"""


def executed(laptop: Endpoint, folder: Path, *cells: str) -> Any:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = tutorial._client(notebook, folder, None)
    client.execute(env={**os.environ, "AKSGPU_HOME": str(laptop.home), "AKSGPU_PROGRESS": "1"})
    return notebook


def page(notebook: Any) -> str:
    html, _ = HTMLExporter(mathjax_url="", require_js_url="").from_notebook_node(notebook)
    return str(html)


def assert_is_static(outputs: list[Any]) -> None:
    assert not [output for output in outputs if WIDGET in output.get("data", {})]
    assert "<style" not in str(outputs), "a style that stays hides other outputs"


def test_a_view_that_ends_keeps_the_verdict_and_the_curve(aks: Cluster, laptop: Endpoint, tmp_path: Path) -> None:
    start = START.format(name="stored", steps=500) + SUSPEND.format(value=True)
    wait = SUSPEND.format(value=False) + "job.wait();"
    notebook = executed(laptop, tmp_path, start, "display(job)\nprint('beside')\njob", wait, "job")
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert_is_static(outputs)
    first, _, beside, second, _ = notebook.cells[1].outputs
    assert beside.text == "beside\n"
    (again,) = notebook.cells[3].outputs
    for output in (first, second, again):
        assert "<b>Complete</b>" in output.data["text/html"]
        assert re.search(r'<img alt="accuracy \d\d\.\d\d % at step 490"', output.data["text/html"])
        assert re.fullmatch(
            r"Job stored in default: Complete, accuracy \d\d\.\d\d % at step 490", output.data["text/plain"]
        )
    html = page(notebook)
    assert html.count("<b>Complete</b>") == 3
    assert "widget-view" not in html.partition("<body")[2]
    assert not re.search("Submitted|Running|as of", html.partition("<body")[2])


@pytest.mark.parametrize("last", ["job.wait();", "view = aksgpu.views.job_view(job)\njob.wait(); view.close()"])
def test_the_last_cell_may_be_the_wait(aks: Cluster, laptop: Endpoint, tmp_path: Path, last: str) -> None:
    notebook = executed(laptop, tmp_path, START.format(name="last", steps=30) + "job", last)
    assert_is_static(notebook.cells[0].outputs)
    assert "<b>Complete</b>" in str(notebook.cells[0].outputs)


def test_an_interrupted_wait_and_a_closed_view(aks: Cluster, laptop: Endpoint, tmp_path: Path) -> None:
    start = START.format(name="interrupted", steps=1_000_000)
    close = "del job._read\njob"
    end = "aksgpu.views.job_view(job).close()"
    notebook = executed(laptop, tmp_path, start + "job", INTERRUPT, close, end, "job.delete()")
    for cell, note in ((0, "The wait was interrupted, which also ended this view."), (2, "This view was closed.")):
        assert_is_static(notebook.cells[cell].outputs)
        html = notebook.cells[cell].outputs[0].data["text/html"]
        assert note in html
        assert re.search(r"as of</span>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", html)
    bar, printed = notebook.cells[1].outputs
    assert re.match(r"job interrupted: stopped after \d+ s", bar.data["text/plain"])
    assert printed.text == "interrupted\n"
    assert [output.data for output in notebook.cells[4].outputs] == [{"text/plain": ""}], "a bar that has ended"


def test_a_kernel_that_ends_before_the_job_keeps_the_state_and_its_time(
    aks: Cluster, laptop: Endpoint, tmp_path: Path
) -> None:
    start = START.format(name="cut", steps=1_000_000)
    notebook = executed(laptop, tmp_path, start + "job\n")
    copy, live = notebook.cells[0].outputs
    assert live.data["text/plain"] == "", "front ends without widgets show nothing beside the copy"
    assert "This is a copy of a live view, made while the Job was watched." in copy.data["text/html"]
    assert re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", copy.data["text/plain"])
    executed(laptop, tmp_path, START.format(name="cut", steps=1_000_000) + "job.delete()")
