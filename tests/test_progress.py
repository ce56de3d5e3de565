"""Progress of waits in a notebook: what its file contains during the wait and after it."""

from __future__ import annotations

import os
import re
from typing import Any

import nbformat
import pytest

from aksgpu import tutorial

WAIT = """
from aksgpu.waiting import wait_until
answers = iter([(None, "Creating <b>"), (None, "Creating"), ({}, "")])
result = wait_until(lambda: next(answers), "cluster", timeout=20, interval=0.01)
"""
FAILING = """
def poll():
    if next(states) == "second":
        raise {error}
    return None, "first"
states = iter(["first", "second"])
try:
    wait_until(poll, "cluster", timeout=20, interval=0.01)
except BaseException as error:
    print(type(error).__name__)
"""
THREAD = """
import threading
thread = threading.Thread(target=wait_until, args=(lambda: ({}, ""), "thread"), kwargs={"timeout": 20})
thread.start()
thread.join()
"""
DURING = """
from aksgpu.progress import Progress
bar = Progress("pool <1>", total=3).__enter__()
bar.say("Creating", done=2)
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Return the outputs of each cell, as nbclient stores them."""
    folder = tmp_path_factory.mktemp("progress")
    interrupt = "KeyboardInterrupt"
    cells = [WAIT, FAILING.format(error="ValueError('no')"), FAILING.format(error=interrupt), THREAD, DURING]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = tutorial._client(notebook, folder, None)
    client.execute(env={**os.environ, "AKSGPU_PROGRESS": "1"})
    return [cell.outputs for cell in notebook.cells]


def test_a_wait_leaves_no_output(executed: list[list[Any]]) -> None:
    (output,) = executed[0]
    assert output.data == {"text/plain": ""}


def test_a_failed_and_an_interrupted_wait_leave_their_last_state(executed: list[list[Any]]) -> None:
    for outputs, error in ((executed[1], "ValueError"), (executed[2], "Interrupted")):
        line, printed = outputs
        assert re.fullmatch(r"cluster: stopped after \d+ s; last state: first", line.data["text/plain"])
        assert printed.text == f"{error}\n"


def test_a_wait_in_a_thread_shows_nothing(executed: list[list[Any]]) -> None:
    assert executed[3] == []


def test_a_notebook_saved_during_a_wait_is_readable(executed: list[list[Any]]) -> None:
    (output,) = executed[4]
    assert set(output.data) == {"text/plain", "text/html"}, "no widget"
    line = r"pool <1>: 2 of 3 Creating \(\d+ s since \d\d:\d\d:\d\d UTC\)"
    assert re.fullmatch(line, output.data["text/plain"])
    assert "pool &lt;1&gt;: 2 of 3 Creating" in output.data["text/html"]


def test_the_text_is_limited(capsys: pytest.CaptureFixture[str]) -> None:
    from aksgpu.progress import Progress

    with Progress("thing", show=True) as bar:
        bar.say("x" * 200)
    shown = capsys.readouterr().err
    assert "x" * 99 + "…" in shown
    assert "x" * 100 not in shown
