"""Notebook cells run on the cluster: ``%%gpu`` and ``%gpu`` in a real Jupyter kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from support.polling import wait_for

from aksgpu import cluster
from aksgpu.cluster import Cluster

TIMEOUT = 120


class Notebook:
    """A kernel, and the outputs of the cells that it runs."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def run(self, code: str, on_output: Callable[[str], None] | None = None) -> dict[str, Any]:
        """Run a cell, and return its outputs: ``stdout``, ``stderr``, ``data`` and ``error``."""
        number = self.client.execute(code)
        found: dict[str, Any] = {"stdout": "", "stderr": "", "data": [], "error": None}
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") != number:
                continue
            kind = message["msg_type"]
            content = message["content"]
            if kind == "stream":
                found[content["name"]] += content["text"]
                if on_output is not None:
                    on_output(found[content["name"]])
            elif kind in ("display_data", "execute_result"):
                found["data"].append(content["data"])
            elif kind == "error":
                found["error"] = content
            elif kind == "status" and content["execution_state"] == "idle":
                return found

    def text(self, code: str) -> str:
        """Run a cell that must not fail, and return what it prints."""
        found = self.run(code)
        assert found["error"] is None, found["error"]
        return str(found["stdout"])


@contextlib.contextmanager
def start_kernel(directory: Path) -> Iterator[Notebook]:
    manager, client = start_new_kernel(startup_timeout=TIMEOUT, cwd=str(directory))
    try:
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def notebook(aks: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel with the magics and the cluster, whose sessions are ended at the end."""
    directory = tmp_path_factory.mktemp("magic")
    config = directory / "config"
    cluster.get_credentials(aks, file=config)
    with start_kernel(directory) as found:
        found.text("%load_ext aksgpu\nfrom aksgpu import cluster, jobs")
        found.text(f"aks = cluster.from_kubeconfig({str(config)!r})")
        yield found
        found.text("%gpu stop")


def last_value(found: dict[str, Any]) -> str:
    assert found["error"] is None, found["error"]
    return str(found["data"][-1]["text/plain"])


def test_names_stay_defined_between_cells_in_one_process(notebook: Notebook) -> None:
    notebook.text("%%gpu --gpus 0\nimport os\nx = os.getpid()")
    assert last_value(notebook.run("%%gpu --gpus 0\nx == os.getpid()")) == "True"
    here = notebook.run("import os\nos.getpid()")
    there = notebook.run("%%gpu --gpus 0\nx")
    assert last_value(here) != last_value(there)


def test_variables_travel_both_ways(notebook: Notebook) -> None:
    notebook.text("first = [1, 2]\nsecond = {'a': 3}")
    code = "total = sum(first) + second['a']\ndef double(x):\n    return 2 * x"
    notebook.text(f"%%gpu --gpus 0 -i first,second -o total,double\n{code}")
    assert last_value(notebook.run("total, double(21)")) == "(6, 42)"


def test_output_streams_in(notebook: Notebook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = (
        "%%gpu --gpus 0\nimport sys, time\nfrom pathlib import Path\nprint('begun')\n"
        f"while not Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        "print('problem', file=sys.stderr)"
    )

    def answer(text: str) -> None:
        if "begun" in text:
            go.touch()

    found = notebook.run(code, answer)
    assert (found["stdout"], found["stderr"], found["error"]) == ("begun\n", "problem\n", None)


def test_the_last_expression_and_displayed_objects_are_shown_in_order(notebook: Notebook) -> None:
    code = """%%gpu --gpus 0
class Table:
    def _repr_html_(self):
        return "<b>bold</b>"
    def _repr_png_(self):
        return b"png"
    def __repr__(self):
        return "a table"
display(1)
Table()
"""
    found = notebook.run(code)
    assert [each["text/plain"] for each in found["data"]] == ["1", "a table"]
    assert found["data"][1]["text/html"] == "<b>bold</b>"
    assert found["data"][1]["image/png"] == "cG5n"
    assert notebook.run("%%gpu --gpus 0\n5;")["data"] == []
    assert notebook.run("%%gpu --gpus 0\nNone")["data"] == []


def test_figures_are_shown(notebook: Notebook) -> None:
    code = "%%gpu --gpus 0\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 2])"
    found = notebook.run(code)
    assert found["error"] is None
    assert found["data"][-1]["image/png"].startswith("iVBOR")


def test_commands_run_in_the_pod(notebook: Notebook) -> None:
    found = notebook.run("%%gpu --gpus 0\n%matplotlib inline\n!echo $AKSGPU_RUN\nlines = !echo one\nprint(lines)")
    assert found["error"] is None
    assert found["stdout"].startswith("/")
    assert "['one']" in found["stdout"]
    assert notebook.run("%%gpu --gpus 0\n%timeit 1")["error"]["ename"] == "NotImplementedError"


def test_a_traceback_shows_the_lines_of_the_cell(notebook: Notebook) -> None:
    notebook.text("%%gpu --gpus 0\ndef divide(x):\n    return x / 0  # the first cell's line")
    error = notebook.run("%%gpu --gpus 0\nx = 1\ndivide(x)  # the second cell's line")["error"]
    assert error["ename"] == "ZeroDivisionError"
    text = "\n".join(error["traceback"])
    assert "return x / 0  # the first cell's line" in text
    assert "divide(x)  # the second cell's line" in text
    assert "Cell In[" in text
    assert "aksgpu" not in text
    error = notebook.run("%%gpu --gpus 0\ny = (")["error"]
    assert error["ename"] == "SyntaxError"
    assert last_value(notebook.run("%%gpu --gpus 0\nx")) == "1"


def test_an_interrupt_reaches_the_cell_and_names_stay(notebook: Notebook) -> None:
    # The traceback has the last line, whatever part of it is interrupted.
    code = "%%gpu --gpus 0\nkept = 'kept'\nimport time\nwhile True:\n    print('begun') or time.sleep(600)"
    sent: list[bool] = []

    def interrupt(text: str) -> None:
        if "begun" in text and not sent:
            sent.append(True)
            notebook.manager.interrupt_kernel()

    error = notebook.run(code, interrupt)["error"]
    assert error["ename"] == "KeyboardInterrupt"
    assert "time.sleep(600)" in "\n".join(error["traceback"])
    assert last_value(notebook.run("%%gpu --gpus 0\nkept")) == "'kept'"


def test_the_default_number_of_gpus_is_the_same_session(aks: Cluster, tmp_path: Path) -> None:
    with start_kernel(tmp_path) as other:
        other.text("%load_ext aksgpu\nfrom aksgpu import cluster")
        other.text(f"aks = cluster.from_kubeconfig({str(cluster.kubeconfig(aks))!r})")
        try:
            other.text("%%gpu --gpus 1\nkept = 5")
            assert other.text("%%gpu\nprint(kept)").endswith("5\n")
            note = other.text("%%gpu --gpus 0\n1")
            assert note.startswith("another session stays open and keeps its GPU: ")
            assert "%gpu stop ends all sessions and frees their GPUs" in note
            note = other.text("%%gpu --gpus 0 --env OTHER=1\n1").splitlines()[1]
            assert "keeps" not in note
        finally:
            other.run("%gpu stop")


def test_other_options_have_another_session(notebook: Notebook) -> None:
    notebook.text("%%gpu --gpus 0\nmode = 1")
    code = "%%gpu --gpus 0 --env MODE=fast --idle 5m\nimport os\nos.environ['MODE'], 'mode' in globals()"
    assert last_value(notebook.run(code)) == "('fast', False)"
    lines = notebook.text("%gpu").splitlines()
    assert len(lines) == 2
    assert all("0 GPUs" in line and "cost not known" in line for line in lines)
    assert "ends after 300 s without a cell" in lines[1]


def test_an_executor_gives_the_options(notebook: Notebook) -> None:
    notebook.text("executor = jobs.Executor(aks, gpus=0, env={'MODE': 'executor'})\n%gpu use executor")
    assert last_value(notebook.run("%%gpu\nimport os\nos.environ['MODE']")) == "'executor'"
    notebook.text("executor = jobs.Executor(aks, gpus=0, env={'MODE': 'executor'})")
    assert last_value(notebook.run("%%gpu\n'os' in globals()")) == "True"
    assert "--gpus cannot be used with an Executor" in notebook.run("%%gpu --gpus 0\n1")["stderr"]
    notebook.text("%gpu use aks")


def test_a_session_that_has_ended_is_replaced_with_a_word(notebook: Notebook, aks: Cluster) -> None:
    first = "%%gpu --gpus 0 --env ROUND=1 --idle 5s\nname = 1"
    notebook.text(first)
    before = notebook.text("%gpu").splitlines()[-1].partition(":")[0]

    def is_over() -> bool:
        status = aks.kube.get("Job", before)["status"]
        return any(each["type"] == "Complete" for each in status.get("conditions") or ())

    wait_for(is_over, 60)
    found = notebook.text("%%gpu --gpus 0 --env ROUND=1\nprint('name' in globals())")
    assert "was idle for 5 s. A new session starts; the names of the old one are gone." in found
    assert found.endswith("False\n")


def test_a_cell_that_ends_the_process_says_why(notebook: Notebook) -> None:
    code = "%%gpu --gpus 0 --env DIES=1\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    error = notebook.run(code)["error"]
    assert error["ename"] == "JobFailed"
    assert "SIGKILL" in error["evalue"]
    assert last_value(notebook.run("%%gpu --gpus 0 --env DIES=1\n7")) == "7"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("%%gpu --gpus 0 -i nothing\n1", "-i must name variables that are defined, got nothing"),
        ("%%gpu --gpus 0 -i a-b\n1", "-i must be names of variables"),
        ("%%gpu --gpus 0 -o missing\n1", "name 'missing' is not defined after the cell"),
        ("%%gpu --gpus 0 -o lock\nimport threading\nlock = threading.Lock()", "the output lock of type lock"),
        ("lock = __import__('threading').Lock()\n%gpu status x", "unrecognized arguments: x"),
        ("%%gpu --gpus many\n1", "invalid int value: 'many'"),
        ("%%gpu --cpus 1\n1", "unrecognized arguments: --cpus 1"),
        ("%%gpu --idle soon\n1", "UsageError: --idle must be a time above 0"),
        ("%%gpu --idle 5x\n1", "such as 90s, 10m or 2h, got 5x"),
        ("%%gpu --gpus -1\n1", "UsageError: `gpus` must be an integer"),
        ("%%gpu --env MODE\n1", "--env must be NAME=VALUE"),
        ("%gpu use nothing", "got nothing"),
        ("%gpu use", "%gpu use needs the name of a variable"),
        ("%gpu go", "invalid choice: 'go'"),
        ("%gpu --idle 0", "UsageError: --idle must be a time above 0"),
        ('%gpu "', "No closing quotation"),
    ],
)
def test_wrong_words_are_refused(notebook: Notebook, code: str, message: str) -> None:
    error = notebook.run(code)
    text = str(error["error"] or "") + error["stderr"]
    assert message in text


def test_a_wrong_option_is_one_line_and_nothing_else(notebook: Notebook) -> None:
    notebook.text("%%gpu --gpus 0\n1")
    for wrong in ("--idle 5x", "--gpus -1"):
        found = notebook.run(f"%%gpu {wrong} --env OTHER=1\n1")
        assert (found["error"], found["stdout"]) == (None, "")
        assert found["stderr"].startswith("UsageError: ")
        assert len(found["stderr"].splitlines()) == 1


def test_help_is_printed(notebook: Notebook) -> None:
    assert "--gpu-model" in notebook.text("%%gpu --help\n1")
    assert "{status,stop,use}" in notebook.text("%gpu --help")


def test_the_cluster_must_be_clear(tmp_path: Path) -> None:
    with start_kernel(tmp_path) as other:
        other.text("%load_ext aksgpu\nfrom aksgpu import cluster")
        assert "no variable is a cluster" in other.run("%%gpu\n1")["stderr"]
        other.text("first = cluster.Cluster('one')\nsecond = cluster.Cluster('two')")
        assert "several variables are clusters: first, second" in other.run("%%gpu\n1")["stderr"]


def test_stop_ends_all_sessions_and_says_what_they_cost(notebook: Notebook, aks: Cluster) -> None:
    notebook.text("%%gpu --gpus 0\n1")
    names = [line.partition(":")[0] for line in notebook.text("%gpu").splitlines()]
    lines = notebook.text("%gpu stop").splitlines()
    assert [line.partition(":")[0] for line in lines] == names
    assert all(line.endswith("it has been ended") for line in lines)
    assert all(aks.kube.find("Job", name) is None for name in names)
    assert notebook.text("%gpu stop") == "no session is open\n"
