"""The tutorial's lines in a log: its transcript, and the prefixes, colours and unusual numbers that a line may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aksgpu import errors, metrics
from aksgpu.metrics import lines as lines_of_logs

TYPES = {
    "step": "Int64",
    "epoch": "Float64",
    "time": "datetime64[ns, UTC]",
    "pod": "string",
    "index": "Int64",
    "rank": "Int64",
    "attempt": "Int64",
}
TRANSCRIPT = Path(__file__).parent / "data" / "mnist-log-2019.txt"


def points(text: str | bytes | list[str] | list[bytes]) -> list[tuple[int, float]]:
    frame = metrics.parse(text)
    if "accuracy" not in frame:
        return []
    return list(zip(frame["step"].tolist(), frame["accuracy"].tolist(), strict=True))


@pytest.mark.parametrize("source", ["text", "bytes", "lines", "bare lines", "file"])
def test_the_tutorials_transcript(source: str) -> None:
    text = TRANSCRIPT.read_text()
    with TRANSCRIPT.open() as file:
        frame = metrics.parse(
            {
                "text": text,
                "bytes": text.encode(),
                "lines": text.splitlines(keepends=True),
                "bare lines": iter(text.splitlines()),
                "file": file,
            }[source]
        )
    assert frame.dtypes.astype(str).to_dict() == TYPES | {"accuracy": "float64"}
    assert list(frame["step"]) == list(range(0, 500, 10))
    assert frame["accuracy"].iloc[0] == 0.1081
    assert frame["accuracy"].iloc[-1] == 0.9494
    assert frame.attrs["formats"] == {"tensorflow tutorial": 50}
    assert frame.attrs["step_kind"] == {"step": 50}
    assert frame.attrs["facts"] == {
        "gpu_model": "Tesla K80",
        "device": "/device:GPU:0",
        "memory": "11.17GiB",
        "simulated": False,
        "error": None,
    }


@pytest.mark.parametrize("empty", ["", b"", [], "\n", "no accuracy here\n", ["Accuracy at step"]])
def test_no_accuracy_is_an_empty_table_with_its_types(empty: str | bytes | list[str]) -> None:
    frame = metrics.parse(empty)
    assert len(frame) == 0
    assert frame.dtypes.astype(str).to_dict() == TYPES
    assert frame.attrs["facts"]["gpu_model"] is None
    assert frame.attrs["formats"] == {}


@pytest.mark.parametrize(
    "line",
    [
        "Accuracy at step 10: 0.75",
        "2026-11-24T06:00:00.123456789Z Accuracy at step 10: 0.75",
        "2026-11-24T06:00:00Z Accuracy at step 10: 0.75",
        "2026-11-24T07:00:00.1+01:00 Accuracy at step 10: 0.75",
        "[pod/samples-tf-mnist-demo-mtd44/samples-tf-mnist-demo] Accuracy at step 10: 0.75",
        "[pod/a/b] 2026-11-24T06:00:00.123456789Z Accuracy at step 10: 0.75",
        "Accuracy at step 10: 0.75\r",
        "  9/10 [====>.]\r 10/10 [=====]\rAccuracy at step 10: 0.75",
        "Accuracy at step 10: 0.75\r 11/20 [>....]",
        "Accuracy at step 10: 7.5e-1",
        "Accuracy at step 10: .75  ",
        "Accuracy at step 10: +0.75",
    ],
)
def test_a_line_with_prefixes_and_colours(line: str) -> None:
    before, after = "Accuracy at step 0: 0.5", "Accuracy at step 20: 1.0"
    assert points(f"{before}\n{line}\n{after}\n") == [(0, 0.5), (10, 0.75), (20, 1.0)]
    assert points(line) == [(10, 0.75)]


@pytest.mark.parametrize(
    "line",
    [
        "Accuracy at step 10: 0.75 (best)",
        "Accuracy at step 10: n/a",
        "Accuracy at step 10: ",
        "Accuracy at step 10",
        "Accuracy at step -1: 0.75",
        "Accuracy at step 1.5: 0.75",
        "Accuracy at step 10: 0.75.1",
        "Accuracy at step 9999999999999999999999: 0.75",
        "Accuracy at step 10:\n0.75",
        "1970 Accuracy at step 10: 0.75",
    ],
)
def test_lines_of_other_forms(line: str) -> None:
    assert points(f"Accuracy at step 0: 0.5\n{line}\nAccuracy at step 20: 1.0\n") == [(0, 0.5), (20, 1.0)]


def test_numbers_keep_their_last_digit() -> None:
    values = [0.1081, 0.9493999481201172, 1e-3, 5e-324, 0.1 + 0.2, 1.0]
    text = "".join(f"Accuracy at step {step}: {value!r}\n" for step, value in enumerate(values))
    assert points(text) == list(enumerate(values))
    not_numbers = points("Accuracy at step 1: nan\nAccuracy at step 2: NaN\nAccuracy at step 3: inf\n")
    assert [step for step, _ in not_numbers] == [1, 2, 3]
    assert math.isnan(not_numbers[0][1])
    assert math.isnan(not_numbers[1][1])
    assert not_numbers[2][1] == math.inf


def test_colours_do_not_hide_a_line() -> None:
    green, plain, terminfo, hide = "\x1b[1;32m", "\x1b[0m", "\x1b(B\x1b[m", "\x1b[?25l"
    log = f"{green}Accuracy at step 0: 0.5{plain}\nAccuracy at step 10: {green}0.75{plain}\x1b[K\r\n"
    log += f"{hide}Accuracy at step 20: {green}0.8{terminfo}\n"
    assert points(log) == [(0, 0.5), (10, 0.75), (20, 0.8)]


def test_a_last_line_that_is_cut() -> None:
    text = "Accuracy at step 0: 0.5\nAccuracy at step 10: 0.75\n"
    for length in range(len("Accuracy at step 0: 0.5\n"), len("Accuracy at step 0: 0.5\nAccuracy at step 10: ")):
        assert points(text[:length]) == [(0, 0.5)]


def test_both_runs_of_a_restarted_container_are_kept() -> None:
    assert [step for step, _ in points("Accuracy at step 0: 0.1\nAccuracy at step 10: 0.7\n" * 2)] == [0, 10, 0, 10]


@pytest.mark.parametrize("kind", ["text", "bytes", "lines"])
def test_a_log_longer_than_a_block(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(lines_of_logs, "PIECE", 100)
    filler = "x" * 250
    lines = [line for step in range(200) for line in (f"Accuracy at step {step}: 0.5", "Größe", filler[: step * 2])]
    text = "\n".join(lines)
    source: str | bytes | list[str] = {"text": text, "bytes": text.encode(), "lines": lines}[kind]  # type: ignore[assignment]
    assert [step for step, _ in points(source)] == list(range(200))


def test_bytes_that_are_not_text() -> None:
    assert points(b"\xff\xfe\x00\nAccuracy at step 10: 0.75\n\x80") == [(10, 0.75)]
    assert points("\udc80\nAccuracy at step 10: 0.75\n") == [(10, 0.75)]
    assert points([b"\xff\n", b"Accuracy at step 10: 0.75\n"]) == [(10, 0.75)], "such as of a file opened for bytes"


def test_facts_of_a_newer_tensorflow() -> None:
    line = (
        "2026-11-24 06:00:00.1: I tensorflow/core/common_runtime/gpu/gpu_device.cc:2020] Created device "
        "/job:localhost/replica:0/task:0/device:GPU:0 with 13949 MB memory:  -> device: 0, name: Tesla T4, "
        "pci bus id: 0001:00:00.0, compute capability: 7.5\n"
    )
    assert metrics.facts(line)["gpu_model"] == "Tesla T4"
    assert metrics.facts(line)["device"] == "/job:localhost/replica:0/task:0/device:GPU:0"


def test_facts_contain_whether_the_gpu_is_simulated() -> None:
    found = metrics.facts("name: Tesla T4 (simulated) major: 7 minor: 5\n")
    assert (found["gpu_model"], found["simulated"]) == ("Tesla T4", True)


@pytest.mark.parametrize(
    "line",
    [
        "failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
        "E1: cudaGetDevice() failed. Status: CUDA driver version is insufficient for CUDA runtime version",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    ],
)
def test_facts_report_a_driver_mismatch(line: str) -> None:
    assert metrics.facts(f"starting\r\n{line}\r\nbye\n")["error"] == line
    noise = "x\n" * 400_000
    assert metrics.facts(noise + line)["error"] == line, "at the end of a long log"
    assert metrics.parse(noise + line).attrs["facts"]["error"] == line


@pytest.mark.parametrize("call", [metrics.parse, metrics.facts])
@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (None, "got None"),
        (5, "got 5"),
        (True, "got True"),
        (Path("log.txt"), "type PosixPath"),
        ({"a": "Accuracy at step 1: 0.5"}, "type dict"),
        (pd.DataFrame({"step": [1]}), "type DataFrame"),
        (["Accuracy at step 1: 0.5", None], "got None as line 1"),
        ([["Accuracy at step 1: 0.5"]], "type list as line 0"),
    ],
)
def test_arguments_that_are_not_a_log_are_refused(call: Callable[[Any], Any], wrong: Any, shown: str) -> None:
    with pytest.raises(errors.InvalidInput, match=rf"^`text` must .*{shown}"):
        call(wrong)


def test_lines_of_both_kinds_and_bytes_that_can_change() -> None:
    lines: list[Any] = ["Accuracy at step 1: 0.5\n", b"Accuracy at step 2: 0.5\n", "\ud800Accuracy at step 3: 0.5", ""]
    assert [step for step, _ in points(lines)] == [1, 2]
    assert points(bytearray(b"Accuracy at step 1: 0.5\n")) == [(1, 0.5)]
    assert metrics.facts(memoryview(b"totalMemory: 1GiB"))["memory"] == "1GiB"


def test_the_name_nearest_to_the_version_is_the_model() -> None:
    log = "pod name: a\nname: x major: one\nlog name: b name: Tesla K80 major: 3 minor: 7 x\nname: c major: 1 minor: 2"
    assert metrics.facts(log)["gpu_model"] == "Tesla K80"


def test_a_device_without_its_model_does_not_hide_the_next() -> None:
    line = "Created device /device:GPU:{} with 1 MB"
    log = f"{line.format(0)}\n{line.format(1)} -> device: 1, name: Tesla T4, pci"
    assert (metrics.facts(log)["device"], metrics.facts(log)["gpu_model"]) == ("/device:GPU:1", "Tesla T4")
