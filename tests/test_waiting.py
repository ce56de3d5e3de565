from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from tqdm.auto import tqdm

from aksgpu.errors import WaitTimeout
from aksgpu.waiting import wait_until


def test_no_thread_outlives_a_wait(capsys: pytest.CaptureFixture[str]) -> None:
    before, interval = set(threading.enumerate()), tqdm.monitor_interval
    answers = iter([(None, "first"), (None, "second"), ("done", "")])
    assert wait_until(lambda: next(answers), "thing", timeout=10, interval=0.01, progress=True) == "done"
    assert set(threading.enumerate()) <= before
    assert tqdm.monitor_interval == interval > 0  # other people's bars keep their monitor
    assert "thing" in capsys.readouterr().err


def test_running_out_of_time_tells_the_last_state_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with pytest.raises(WaitTimeout, match="thing: not done after 0 s; last state: half") as raised:
        wait_until(lambda: (None, "half"), "thing", timeout=0, progress=True, hint="Wait longer.")
    assert (raised.value.state, raised.value.hint) == ("half", "Wait longer.")
    assert set(threading.enumerate()) <= before


def test_the_bar_is_the_notebooks_own_in_a_notebook() -> None:
    program = (
        "from ipykernel.zmqshell import ZMQInteractiveShell as Shell; Shell.instance();"
        "from aksgpu.progress import _bar_class; print(*(base.__module__ for base in _bar_class().__mro__))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "tqdm.notebook" in said.stdout
