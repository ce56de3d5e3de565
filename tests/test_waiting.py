from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from scripted import Request, Server
from tqdm.auto import tqdm

from aksgpu import waiting
from aksgpu.errors import AzureUnreachable, InvalidInput, Unreachable, WaitTimeout
from aksgpu.waiting import wait_until


def test_no_thread_outlives_a_wait(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    interval = tqdm.monitor_interval
    answers = iter([(None, "first"), (None, "second"), ("done", "")])
    assert wait_until(lambda: next(answers), "thing", timeout=10, interval=0.01, progress=True) == "done"
    assert set(threading.enumerate()) <= before
    assert tqdm.monitor_interval == interval > 0  # bars of other programs keep their monitor
    assert "thing" in capsys.readouterr().err


def test_a_timeout_error_has_the_last_state_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with pytest.raises(WaitTimeout, match="thing: not done after 0 s; last state: half") as raised:
        wait_until(lambda: (None, "half"), "thing", timeout=0, progress=True, hint="Wait longer.")
    assert (raised.value.state, raised.value.hint) == ("half", "Wait longer.")
    assert set(threading.enumerate()) <= before


def test_a_wait_continues_without_a_response() -> None:
    failures = iter([Unreachable("the connection was refused"), AzureUnreachable("no route"), Unreachable("silence")])

    def poll() -> tuple[str | None, str]:
        for failed in failures:
            raise failed
        return "done", ""

    assert wait_until(poll, "thing", timeout=10, interval=0.01, progress=False) == "done"


class Clock:
    """A clock that only a sleep moves on."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.mark.parametrize("kind", [Unreachable, AzureUnreachable])
def test_the_error_of_a_wait_without_any_response(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "time", Clock())
    states = iter(["half"])

    def poll() -> tuple[str | None, str]:
        for state in states:
            return None, state
        raise kind("the connection was refused", hint="Start it.")  # type: ignore[call-arg]

    with pytest.raises(kind) as raised:
        wait_until(poll, "thing", timeout=0.1, interval=0.01, progress=False)
    assert str(raised.value) == (
        "thing: unknown after 0.1 s, because there was no response: "
        "the connection was refused. The last known state: half"
        "\nHint: Start it."
    )


def test_a_permanent_error_ends_a_wait_at_once() -> None:
    def poll() -> tuple[str | None, str]:
        raise Unreachable("another certificate", permanent=True)

    with pytest.raises(Unreachable, match=r"^another certificate$"):
        wait_until(poll, "thing", timeout=60, progress=False)


def test_the_earliest_of_nested_deadlines_applies() -> None:
    assert waiting.time_left() is None
    with waiting.deadline(100):
        with waiting.deadline(1000):
            assert 90 < (waiting.time_left() or 0) <= 100
        with waiting.deadline(None):
            assert 90 < (waiting.time_left() or 0) <= 100
        with waiting.deadline(0):
            assert waiting.time_left() == 0
            assert waiting.Timer(50).left == 0
        assert 90 < (waiting.time_left() or 0) <= 100
    assert waiting.time_left() is None


def test_a_poll_sees_the_deadline_of_its_wait() -> None:
    assert 5 < wait_until(lambda: (waiting.time_left(), ""), "thing", timeout=10, progress=False) <= 10
    assert wait_until(lambda: (waiting.time_left(), ""), "thing", timeout=None, progress=False) == float("inf")
    assert waiting.time_left() is None


@pytest.mark.parametrize(
    "timeout",
    [
        "",
        " ",
        "5",
        "h",
        "2 hours",
        "-2h",
        "1m1h",
        "1h1h",
        "2H",
        "٢h",
        "9" * 400 + "s",
        True,
        float("nan"),
        -0.1,
        [],
        b"5h",
        1j,
    ],
)
def test_invalid_timeouts(timeout: object) -> None:
    wanted = "`timeout` must be a number of seconds, 0 or more, text such as '90m' or '2h', or None for no limit, got "
    with pytest.raises(InvalidInput, match=wanted):
        wait_until(lambda: ("done", ""), "thing", timeout=timeout, progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("30s", 30),
        ("90m", 5400),
        ("2h", 7200),
        ("1h30m", 5400),
        (" 1 h 30 m ", 5400),
        ("1.5h", 5400),
        ("1d12h", 129600),
    ],
)
def test_text_is_a_timeout(text: str, seconds: float) -> None:
    assert waiting.check_timeout(text) == seconds
    assert waiting.Timer(text).limit == seconds


def test_numbers_of_other_libraries_are_timeouts() -> None:
    import numpy as np

    for timeout in (0, 2.5, np.int64(3), np.float32(1.5), float("inf")):
        assert waiting.check_timeout(timeout) == float(timeout)


# Interrupts


WAITING = """
import os, signal, sys, threading, time
from pathlib import Path
from aksgpu.kube import Kube
from aksgpu.waiting import wait_until
kube = Kube.from_kubeconfig(sys.argv[1])
def interrupt():
    while not Path(sys.argv[2]).exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
"""


def silent_server(asked: Path) -> Server:
    """Return a server that does not answer. It creates a file when it gets a request."""

    def answer(request: Request) -> None:
        asked.touch()
        request.silence()

    return Server(answer)


def interrupted(program: str, tmp_path: Path) -> str:
    """Return the output of a program that is interrupted while it waits for a silent server."""
    asked = tmp_path / "asked"
    with silent_server(asked) as server:
        command = [sys.executable, "-c", WAITING + program, str(server.kubeconfig(tmp_path)), str(asked)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stderr


def test_an_interrupted_wait_shows_one_sentence(tmp_path: Path) -> None:
    wait = "wait_until(lambda: (kube.find('Job', 'j'), ''), 'job j', timeout=60, on_interrupt='The Job goes on.')"
    shown = interrupted(wait, tmp_path)
    assert shown.rstrip().endswith("aksgpu.waiting.Interrupted: job j: the wait was interrupted. The Job goes on.")
    assert "urllib3" not in shown
    assert shown.count("\n") < 12


def test_an_interrupted_request_does_not_show_the_http_library(tmp_path: Path) -> None:
    shown = interrupted("kube.list('Node')", tmp_path)
    assert "urllib3" not in shown
    assert "aksgpu.waiting.Interrupted: GET /api/v1/nodes was interrupted." in shown


def test_an_interrupt_stays_a_keyboard_interrupt() -> None:
    def poll() -> tuple[str | None, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        wait_until(poll, "thing", timeout=60, progress=False)
    assert isinstance(raised.value, waiting.Interrupted)
    assert raised.value.__suppress_context__


def test_a_notebook_shows_an_interrupt_in_one_line(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    asked = tmp_path / "asked"
    with silent_server(asked) as server:
        path = str(server.kubeconfig(tmp_path))
        wait = "wait_until(lambda: (kube.find('Job', 'j'), ''), 'job j', timeout=60, on_interrupt='The Job goes on.')"
        cell = WAITING.replace("sys.argv[1]", repr(path)).replace("sys.argv[2]", repr(str(asked))) + wait
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        with pytest.raises(CellExecutionError):
            NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (error,) = [output for output in notebook.cells[0].outputs if output.output_type == "error"]
    assert error.ename == "Interrupted"
    assert error.traceback == ["Interrupted: job j: the wait was interrupted. The Job goes on."]
