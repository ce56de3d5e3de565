"""GPU samples: how they are taken in a pod, thinned and read, and the reasons for missing samples."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.polling import wait_for

from aksgpu import errors, history, jobs, runs
from aksgpu.cluster import Cluster
from aksgpu.jobs import Job, nvidia_smi_samples
from aksgpu.payload import gpu_sampler
from aksgpu.payload.gpu_sampler import Nvml, NvmlProblem, Samples, from_lines, read_lines, row_of, to_line

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

GIB = 1 << 30
PYTHON = "docker.io/library/python:3"


def sample(now: float, *utilizations: float | None) -> list[dict[str, Any]]:
    return [row_of(now, gpu, each, 12e9, 16e9, 70.5, 55) for gpu, each in enumerate(utilizations)]


# Rows


def test_ten_minutes_of_samples_and_then_one_row_a_minute() -> None:
    samples = Samples()
    for number in range(241):  # twenty minutes
        samples.add(sample(1000 + 5 * number, number % 100))
    samples.close()
    fine = [row for row in samples.rows if row["count"] == 1]
    coarse = [row for row in samples.rows if row["count"] > 1]
    assert len(fine) == 122, "ten minutes, and the sample at the end of the twentieth"
    assert len(coarse) == 10
    assert sum(row["count"] for row in samples.rows) == 241
    second = coarse[1]
    assert (second["utilization_min"], second["utilization"], second["utilization_max"]) == (32, 37.5, 43)


def test_a_long_run_keeps_few_rows_and_every_sample_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sampler, "MOST_ROWS", 300)
    samples = Samples()
    count = 0
    for number in range(20_000):
        samples.add(sample(1000 + 5 * number, 50, 100))
        count += 2
        assert len(samples.rows) <= 302
    samples.close()
    assert sum(row["count"] for row in samples.rows) == count
    assert {row["gpu"]: row["utilization"] for row in samples.rows} == {0: 50, 1: 100}
    times = [row["time"] for row in samples.rows]
    assert times == sorted(times)


def test_unreported_values_stay_unknown_when_rows_are_joined() -> None:
    samples = Samples()
    for number in range(150):
        samples.add(sample(5 * number, None))
    assert {row["utilization"] for row in samples.rows} == {None}
    assert {row["utilization_max"] for row in samples.open_rows()} == {None}


def test_lines_that_are_cut_are_left_out() -> None:
    line = to_line(sample(1.5, 87)[0])
    assert from_lines([line, line[:-3], "Epoch 1", "aksgpu1-gpu 5", ""]) == sample(1.5, 87)


# NVML


class FakeNvml:
    """The driver's library as ctypes sees it, for GPUs that this machine does not have."""

    def __init__(self, *uuids: str, mig: bool = False, broken: bool = False) -> None:
        self.uuids = uuids
        self.mig = mig
        self.broken = broken
        self.nvmlErrorString = self._error_string

    @staticmethod
    def _error_string(status: int) -> bytes:
        return {9: b"Driver Not Loaded"}.get(status, b"Unknown Error")

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 9 if self.broken else 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.uuids)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 77
        return 0 if uuid.value.startswith(b"MIG-") else 3

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        text.value = self.uuids[handle.value - 1].encode()
        return 0 if size.value >= 80 else 7

    def nvmlDeviceGetUtilizationRates(self, handle: Any, found: Any) -> int:  # noqa: N802
        found._obj.gpu = 10 * handle.value
        return 3 if self.mig else 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, found: Any) -> int:  # noqa: N802
        found._obj.total = 16 * GIB
        found._obj.used = handle.value * GIB
        return 0

    def nvmlDeviceGetPowerUsage(self, handle: Any, found: Any) -> int:  # noqa: N802
        found._obj.value = 70_500
        return 3 if self.mig else 0

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, found: Any) -> int:  # noqa: N802
        found._obj.value = 55
        return 0 if sensor.value == 0 else 2


class Library(FakeNvml):
    """The same with a function whose result type can be set."""

    def __init__(self, *uuids: str, **options: bool) -> None:
        super().__init__(*uuids, **options)
        self.nvmlErrorString = SimpleFunction(self._error_string)


class SimpleFunction:
    restype: Any = None

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        assert self.restype is ctypes.c_char_p
        return self._call(*args)


@pytest.mark.parametrize(
    ("visible", "read"),
    [
        ("all", [10, 20, 30]),
        ("GPU-b", [20]),
        ("GPU-c,GPU-a", [10, 30]),
        ("1", [20]),
        ("0,1,2", [10, 20, 30]),
    ],
)
def test_the_gpus_of_the_container_are_read(visible: str, read: list[int]) -> None:
    rows = Nvml(visible, Library("GPU-a", "GPU-b", "GPU-c")).sample(5.0)
    assert [row["utilization"] for row in rows] == read
    assert [row["gpu"] for row in rows] == list(range(len(read)))
    assert rows[0]["memory_total"] == 16 * GIB
    assert (rows[0]["power"], rows[0]["temperature"]) == (70.5, 55)


def test_a_mig_instance_has_memory_and_no_utilization() -> None:
    (row,) = Nvml("MIG-1234", Library("GPU-a", mig=True)).sample(5.0)
    assert row["utilization"] is row["utilization_max"] is row["power"] is None
    assert row["memory_total"] == 16 * GIB


@pytest.mark.parametrize(
    ("visible", "library", "words"),
    [
        ("all", Library("GPU-a", broken=True), "Driver Not Loaded"),
        ("GPU-x", Library("GPU-a"), "none of the GPUs that the container was given"),
        ("all", None, "has no NVML"),
    ],
)
def test_why_nvml_cannot_be_used(visible: str, library: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sampler, "_LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(NvmlProblem, match=words):
        Nvml(visible, library)


def test_the_sampler_writes_rows_while_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sampler, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(gpu_sampler, "FINE_SECONDS", 0.05)
    monkeypatch.setattr(gpu_sampler.ctypes, "CDLL", lambda _: Library("GPU-a", "GPU-b"))
    with gpu_sampler.sampling(tmp_path, {"NVIDIA_VISIBLE_DEVICES": "GPU-b"}):
        wait_for(lambda: any(row.get("open") for row in from_lines(read_lines(tmp_path))))
    rows = from_lines(read_lines(tmp_path))
    assert {row["utilization"] for row in rows} == {20}
    assert not any(row.get("open") for row in rows), "its last minute has ended"
    last = max(row["time"] for row in rows)
    assert from_lines(read_lines(tmp_path, last - 0.001)) == [rows[-1]]
    assert list(read_lines(tmp_path, last)) == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, "the container has no GPU"),
        ({"AKSGPU_GPUS": '[{"simulated": true}]'}, "the GPU is simulated"),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-a"}, "the sampler stopped: ZeroDivisionError"),
    ],
)
def test_a_sampler_that_cannot_work_says_why_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(gpu_sampler.ctypes, "CDLL", lambda _: 1 / 0)
    with gpu_sampler.sampling(tmp_path, environment):
        wait_for(lambda: list(read_lines(tmp_path)))
    (found,) = from_lines(read_lines(tmp_path))
    assert words in found["problem"]


def test_a_directory_that_is_gone_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sampler.ctypes, "CDLL", lambda _: Library("GPU-a"))
    with gpu_sampler.sampling(tmp_path / "gone", {"NVIDIA_VISIBLE_DEVICES": "GPU-a"}):
        pass
    assert list(read_lines(tmp_path / "gone")) == []


# nvidia-smi


def test_the_output_of_nvidia_smi_is_read() -> None:
    output = "0, 87, 11540, 15360, 68.31, 61\n1, [N/A], [N/A], [N/A], [Not Supported], N/A\nsome warning\n"
    first, second = nvidia_smi_samples.parse(output, 5.0)
    assert first["utilization"] == 87
    assert first["memory_used"] == 11540 * 1024 * 1024
    assert (first["power"], first["temperature"]) == (68.31, 61)
    assert {second[name] for name in ("utilization", "memory_used", "memory_total", "power", "temperature")} == {None}


# Jobs


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AKSGPU_HISTORY", str(tmp_path / "history"))
    return tmp_path / "history"


@pytest.fixture
def made(aks: Cluster) -> Iterator[list[Job]]:
    found: list[Job] = []
    yield found
    for job in found:
        job.delete()


def write_samples(then_wait_for: str = "") -> None:
    """Write what the sampler writes on a machine with a GPU."""
    directory = Path(os.environ["AKSGPU_RUN"])
    row = {"time": 1764331200.0, "gpu": 0, "count": 1, "utilization": 87, "utilization_min": 87, "utilization_max": 87}
    row.update(memory_used=12_100_000_000, memory_total=16_000_000_000, power=70.5, temperature=55)
    later = {**row, "time": 1764331260.0, "count": 12, "utilization": 50, "utilization_min": 0, "utilization_max": 99}
    (directory / "gpu.jsonl").write_text("aksgpu1-gpu " + json.dumps(row) + "\n")
    (directory / "gpu-open.jsonl").write_text("aksgpu1-gpu " + json.dumps({**later, "open": True}) + "\n")
    sys.stdout.write("epoch 1 loss=0.5\n")
    sys.stdout.flush()
    while then_wait_for and not Path(then_wait_for).exists():
        time.sleep(0.05)


def test_samples_of_a_function_are_read_while_it_runs_and_after_that(
    aks: Cluster, made: list[Job], tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    job = jobs.Executor(aks, gpus=1).submit(write_samples, str(stop))
    made.append(job)
    wait_for(lambda: len(job.gpu()) == 2)
    live = job.gpu()
    assert live["utilization"].tolist() == [87, 50]
    assert live["memory_used_gb"].tolist() == [12.1, 12.1]
    assert live[["index", "attempt", "gpu"]].iloc[0].tolist() == [0, 0, 0]
    assert str(live["time"].iloc[0]) == "2025-11-28 12:00:00+00:00"
    assert str(live["time"].dtype) == "datetime64[ns, UTC]"
    stop.touch()
    job.result("2m")
    pd.testing.assert_frame_equal(job.gpu(), live)
    assert job.gpu().attrs["sources"][live["pod"].iloc[0]].startswith("NVML in the pod")
    saved = runs.get(job.name)
    pd.testing.assert_frame_equal(saved.gpu(), live)
    job.delete()
    with pytest.raises(errors.NotFound):
        job.gpu()
    pd.testing.assert_frame_equal(runs.get(job.name).gpu(), live)
    figure = runs.get(job.name).plot(gpu=True)
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "GPU (%)", "Cost (USD)"]


def test_a_simulated_gpu_has_no_samples_and_says_so(aks: Cluster, made: list[Job]) -> None:
    job = jobs.Executor(aks, gpus=1).submit(print, "epoch 1 loss=0.5")
    made.append(job)
    job.result("2m")
    table = job.gpu()
    assert table.empty
    assert list(table.attrs["sources"].values()) == ["none: the GPU is simulated by the laptop AKS"]
    assert table["utilization"].dtype == "Float64"
    figure = job.plot(gpu=True)
    shown = " ".join(text.get_text() for text in figure.axes[1].texts)
    assert "simulated by the laptop AKS" in " ".join(shown.split())


def test_the_samples_of_any_image_are_taken_while_something_waits(
    aks: Cluster, made: list[Job], tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho '0, 87, 11540, 15360, 68.31, 61'\necho '1, [N/A], [N/A], [N/A], [N/A], [N/A]'\n"
    )
    program.chmod(0o755)
    stop = tmp_path / "stop"
    # The container's own program is found first: PATH is the pod's.
    script = f"echo epoch 1 loss=0.5; while [ ! -e {stop} ]; do sleep 0.1; done"
    job = jobs.submit(
        aks,
        image=PYTHON,
        command=["sh", "-c", script],
        name="any-image",
        gpus=1,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    made.append(job)
    wait_for(lambda: job.status().phase == "Running")
    with pytest.raises(errors.WaitTimeout):
        job.wait(timeout=3)
    wait_for(lambda: len(job.gpu()) >= 2)
    table = job.gpu()
    assert table["utilization"].iloc[0] == 87
    assert table["memory_total_gb"].iloc[0] == pytest.approx(16.106, abs=0.001)
    assert table[table["gpu"] == 1]["utilization"].isna().all()
    assert "nvidia-smi" in next(iter(table.attrs["sources"].values()))
    stop.touch()
    job.wait(timeout=120)
    kept = job.gpu()
    assert len(kept) >= len(table), "they stay when the pod has ended"
    wait_for(lambda: not history.load() or len(runs.get(job.name).gpu()) == len(kept))


def sources(job: Job) -> list[str]:
    """Return where the samples of a Job's pods are from."""
    return list(job.gpu().attrs["sources"].values())


def test_what_keeps_samples_from_being_taken_is_said(aks: Cluster, made: list[Job]) -> None:
    job = jobs.submit(aks, image=PYTHON, command=["sleep", "600"], name="simulated-any", gpus=1)
    made.append(job)
    wait_for(lambda: sources(job) == ["none: the GPU is simulated by the laptop AKS"])
    job.delete()
    job = jobs.submit(aks, image=PYTHON, command=["/bin/sleep", "600"], name="no-smi", gpus=1, env={"PATH": "/nowhere"})
    made.append(job)
    wait_for(lambda: sources(job) == ["none: the container has no nvidia-smi"])


def test_a_pod_without_a_gpu_and_one_that_has_not_started(aks: Cluster, made: list[Job]) -> None:
    plain = jobs.submit(aks, image=PYTHON, command=["sleep", "600"], name="plain", gpus=0)
    waits = jobs.submit(aks, image=PYTHON, command=["sleep", "600"], name="waits", gpus=8)
    made += [plain, waits]
    wait_for(lambda: sources(plain) == ["none: the pod requests no GPU"])
    wait_for(lambda: sources(waits) == ["none: the pod has not started"])


def test_the_files_for_the_pod_work_with_python_3_8() -> None:
    """Its syntax, and no annotation that is evaluated."""
    source = Path(gpu_sampler.__file__).read_text()
    compile(source, "gpu_sampler.py", "exec", dont_inherit=True, _feature_version=8)  # type: ignore[call-overload]
    program = "import sys, gpu_sampler; print(*sys.modules)"
    folder = Path(gpu_sampler.__file__).parent
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    outside = {name.partition(".")[0] for name in loaded.stdout.split()} - set(sys.stdlib_module_names)
    assert outside <= {"gpu_sampler", "__main__"}
