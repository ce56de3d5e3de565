"""aksgpu.log: the line that it prints, and that job.metrics() reads it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading

import numpy as np
import pytest

import aksgpu
from aksgpu import metrics


def test_it_prints_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    aksgpu.log(step=3, loss=0.41)
    assert capsys.readouterr().out == '{"step": 3, "loss": 0.41}\n'


def test_job_metrics_reads_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    aksgpu.log(step=1, epoch=0, loss=math.nan, reward=math.inf, kl=-math.inf, anything=1e-300)
    line = capsys.readouterr().out
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    frame = metrics.parse(line)
    row = frame.iloc[0]
    assert (row["step"], row["epoch"], row["reward"], row["kl"], row["anything"]) == (1, 0, math.inf, -math.inf, 1e-300)
    assert "loss" in frame
    assert math.isnan(row["loss"])


def test_numpy_scalars_and_similar_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    class Scalar:
        def __float__(self) -> float:
            return 0.25

    aksgpu.log(step=np.int64(7), loss=np.float32(0.5), acc=np.array(0.75), other=Scalar())
    assert json.loads(capsys.readouterr().out) == {"step": 7, "loss": 0.5, "acc": 0.75, "other": 0.25}


@pytest.mark.parametrize("value", ["0.5", True, None, [0.5], np.zeros(2)])
def test_values_that_are_not_numbers_are_refused(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match="`loss` must be a number, got"):
        aksgpu.log(step=1, loss=value)  # type: ignore[arg-type] - the wrong type is what is tested
    assert capsys.readouterr().out == ""


def test_nothing_to_print_is_refused() -> None:
    with pytest.raises(ValueError, match="`log` needs at least one value"):
        aksgpu.log()


def test_a_line_arrives_at_once_and_only_the_standard_library_is_loaded() -> None:
    program = (
        "import sys, aksgpu\n"
        "aksgpu.log(step=1, loss=0.5)\n"
        "print(sorted(set(sys.modules) & {'pandas', 'numpy', 'matplotlib', 'kubernetes'}), flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == '{"step": 1, "loss": 0.5}\n', "while the program still runs"
    assert process.stdout.readline() == "[]\n"
    process.communicate("")
    assert process.returncode == 0


def test_lines_of_several_threads_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    def work(number: int) -> None:
        for step in range(200):
            aksgpu.log(step=step, loss=number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1600
    assert all(json.loads(line).keys() == {"step", "loss"} for line in lines)
