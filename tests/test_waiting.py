from __future__ import annotations

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
