"""Metrics read while a Job runs: nothing twice, nothing lost, and the view, the plot and job.metrics() agree."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.polling import wait_for

from aksgpu import curves, errors, jobs, metrics, plots, views
from aksgpu.cluster import Cluster
from aksgpu.jobs import Job
from aksgpu.jobs.device_words import DeviceWords
from aksgpu.jobs.gpu_notes import GpuNotes, gpu_notes
from aksgpu.jobs.gpu_sample_table import gpu_table
from aksgpu.jobs.job_feed import JobFeed
from aksgpu.logs import read_attempts
from aksgpu.logs.growing_logs import GrowingLogs
from aksgpu.payload.gpu_sampler import row_of

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

BUSYBOX = "docker.io/library/busybox:1"


@pytest.fixture
def name(request: pytest.FixtureRequest, aks: Cluster) -> Iterator[str]:
    own = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    yield own
    Job(aks, own).delete()


def submit(aks: Cluster, name: str, script: str, **spec: Any) -> Job:
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}
    policy = spec.pop("restartPolicy", "Never")
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": {"restartPolicy": policy, "containers": [container]}}},
    }
    return jobs.apply(aks, manifest)


def step_by_step(gate: Path, prints: str, steps: int) -> str:
    """Return a script that prints for each step, after the file of the step exists."""
    return (
        f"i=0; while [ $i -lt {steps} ]; do while [ ! -e {gate}/$i ]; do sleep 0.02; done; {prints}; i=$((i+1)); done"
    )


def assert_equal(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one[sorted(one.columns)], other[sorted(other.columns)])
    for key in ("formats", "canonical", "step_kind", "pods_gone"):
        assert one.attrs[key] == other.attrs[key]
    assert one.attrs["unread"]["lines"] == other.attrs["unread"]["lines"]


def values(found: Any) -> list[tuple[str, list[float], list[float]]]:
    return [(each.label, each.x.tolist(), each.y.tolist()) for each in found]


def drawn(job: Job) -> list[tuple[list[float], list[float]]]:
    """Return the lines of the Job's figure that have values."""
    lines = job.plot().axes[0].lines
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines if len(line.get_xdata()) > 1]


def test_the_view_the_plot_and_the_metrics_agree_for_pods_ranks_and_steps(
    aks: Cluster, name: str, tmp_path: Path
) -> None:
    prints = 'for r in 0 1; do echo "[rank$r]: step=$i loss=0.$((9 - i))$r$JOB_COMPLETION_INDEX"; done; echo no numbers'
    script = step_by_step(tmp_path, prints, 5)
    job = submit(aks, name, script, completions=2, parallelism=2, completionMode="Indexed")
    feed = JobFeed(aks, name, job.namespace)
    view = views.JobView(job, interval=0.05)
    view._repr_html_()
    for step in range(5):
        (tmp_path / str(step)).touch()
        wait_for(lambda step=step: feed.read() or len(feed.table()) == 4 * (step + 1))
        assert_equal(feed.table(), job.metrics())
    job.wait(timeout=120)
    wait_for(lambda: view._thread is not None and not view._thread.is_alive())
    final = job.metrics()
    assert final.groupby(["index", "rank"])["loss"].count().tolist() == [5, 5, 5, 5]
    wanted = values(curves.select({"": final}))
    assert [label for label, _, _ in wanted] == [f"index {i} rank {r}" for i in (0, 1) for r in (0, 1)]
    assert values(view._seen.curves) == wanted
    assert [(x, y) for _, x, y in wanted] == drawn(job)


def test_they_agree_after_restarts_and_failed_pods(aks: Cluster, name: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    count = f"n=$(ls {tmp_path}/runs | wc -l); touch {tmp_path}/runs/$n"
    script = (
        f"{count}; echo step=1 loss=$n.5; while [ ! -e {gate}/$n ]; do sleep 0.02; done; "
        "echo step=2 loss=$n.25; [ $n -ge 2 ]"
    )
    (tmp_path / "runs").mkdir()
    job = submit(aks, name, script, restartPolicy="OnFailure", backoffLimit=5)
    feed = JobFeed(aks, name, job.namespace)
    view = views.JobView(job, interval=0.05)
    view._repr_html_()
    for run in range(3):
        wait_for(lambda run=run: feed.read() or run + 0.5 in feed.table().get("loss", pd.Series()).to_list())
        (gate / str(run)).touch()
    job.wait(timeout=120)
    wait_for(lambda: view._thread is not None and not view._thread.is_alive())
    feed.read()
    followed = feed.table()
    assert followed[["attempt", "step", "loss"]].to_numpy().tolist() == [
        [0, 1, 0.5],
        [0, 2, 0.25],
        [1, 1, 1.5],
        [1, 2, 1.25],
        [2, 1, 2.5],
        [2, 2, 2.25],
    ]
    # The cluster itself keeps the last two runs of a container.
    kept = job.metrics()
    newest = followed[followed["attempt"] > 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(newest, kept[newest.columns])
    assert values(view._seen.curves) == values(curves.select({"": kept}))


def test_every_byte_comes_once(aks: Cluster, name: str, tmp_path: Path) -> None:
    prints = "echo same; echo same; printf 'step=%s loss=0.5\\rstep=%s ' $i $i; sleep 0.05; printf 'loss=0.25\\n'"
    script = step_by_step(tmp_path, prints, 20) + "; printf 'no newline 7'"
    job = submit(aks, name, script)
    growing = GrowingLogs(aks, name, job.namespace)
    read = b""
    for step in range(20):
        (tmp_path / str(step)).touch()
        read += b"".join(piece.data for piece in growing.read())
    job.wait(timeout=120)
    read += b"".join(piece.data for piece in growing.read())
    assert growing.read() == []
    (whole,) = read_attempts(aks, name).logs
    assert read.decode() == whole.text


def test_a_log_that_was_missed_is_read_in_full(aks: Cluster, name: str) -> None:
    job = submit(aks, name, "seq 1 50000 | sed 's/^/loss=/'").wait(timeout=120)
    feed = JobFeed(aks, name, job.namespace)
    feed.read()
    assert feed.table()["loss"].tolist() == list(range(1, 50001))
    assert feed.text().splitlines()[-1] == "loss=50000"
    assert len(feed.text().splitlines()) == 2000


def test_pods_that_are_gone(aks: Cluster, name: str) -> None:
    job = submit(aks, name, "echo step=1 loss=0.5").wait(timeout=120)
    feed = JobFeed(aks, name, job.namespace)
    feed.read()
    for pod in job.pods()["pod"]:
        aks.kube.delete("Pod", pod, job.namespace)
    wait_for(lambda: job.pods().empty)
    feed.read()
    assert feed.table()["loss"].tolist() == [0.5], "what was read stays"
    assert feed.table().attrs["pods_gone"] == 1
    with pytest.raises(errors.LogsGone):
        JobFeed(aks, name, job.namespace).read()
    job.delete()
    with pytest.raises(errors.NotFound):
        feed.read()


def test_pods_without_an_index_that_run_side_by_side_have_curves_of_their_own() -> None:
    reader = metrics.MetricsReader()
    for pod in ("b", "a"):
        reader.feed("step=1 loss=1\nstep=2 loss=2\n", pod=pod, attempt=0)
    found = curves.select({"": reader.frame()})
    assert [(each.label, each.y.tolist()) for each in found] == [("pod a", [1, 2]), ("pod b", [1, 2])]
    assert len(plots.curve(reader.frame()).axes[0].lines) == 2


# Notes about the GPUs


NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
FACTS = {"gpus": 1, "usd_per_hour": 0.526}
NO_METRICS = metrics.parse("")


def samples(minutes: float, *utilizations: float | None, ago: float = 0, pod: str = "p") -> pd.DataFrame:
    """Return samples every five seconds until a time; the last ones have the given utilizations."""
    count = int(minutes * 12) + 1
    found = [0.0] * max(count - len(utilizations), 0) + list(utilizations)
    end = (NOW - timedelta(seconds=ago)).timestamp()
    rows = [row_of(end - 5 * (len(found) - 1 - n), 0, value, 12.1e9, 16e9, 70, 50) for n, value in enumerate(found)]
    return gpu_table([{**row, "pod": pod, "index": 0, "attempt": 0} for row in rows], {pod: "NVML"})


def notes(table: pd.DataFrame, *log: str, **more: Any) -> GpuNotes:
    words = DeviceWords()
    for line in log:
        words.feed(line)
    return gpu_notes(table, {**FACTS, **more}, words, metrics.parse("\n".join(log)), NOW)


def test_the_use_of_the_gpu_now() -> None:
    assert notes(samples(1, 80, 87)) == GpuNotes("GPU 87 %, 12.1 of 16.0 GB")
    assert notes(samples(1, 87, ago=600)) == GpuNotes(), "that is not now"
    assert notes(gpu_table([], {})) == GpuNotes()
    assert notes(samples(0, None)).line == "GPU, 12.1 of 16.0 GB"
    two = pd.concat([samples(0, 40), samples(0, 80, pod="q")], ignore_index=True)
    assert notes(two).line == "2 GPUs 60 % (40 to 80 %), 24.2 of 32.0 GB"
    assert notes(samples(1, 87), gpus=0) == GpuNotes()


def test_a_gpu_that_was_idle_for_ten_minutes_and_its_cost() -> None:
    assert notes(samples(10)).warnings == ("GPU at 0 % for 10 minutes, 0.09 USD so far",)
    assert notes(samples(10), usd_per_hour=None).warnings == (
        "GPU at 0 % for 10 minutes, at a price that is not known",
    )
    assert notes(samples(9.5)).warnings == ()
    assert notes(samples(30, 5)).warnings == (), "it is used now"
    assert notes(samples(30, ago=400)).warnings == (), "nothing is known about the last minutes"
    assert notes(samples(30, None)).warnings == (), "not all is known"


def test_the_log_says_that_the_cpu_trains() -> None:
    (note,) = notes(samples(1), "Using cpu device").warnings
    assert note == 'Training on the CPU although a GPU is paid for: the log says "Using cpu device"'
    assert notes(samples(1, 50), "Using cpu device").warnings == (), "the samples say otherwise"
    assert notes(samples(1), "Using cpu device", "Using cuda device").warnings == ()
    assert notes(gpu_table([], {}), "Using cpu device").warnings == (note,)


def test_a_guess_says_that_it_is_one() -> None:
    (note,) = notes(samples(3), "step=1 loss=0.5").warnings
    assert "a guess, because the log has metrics and the GPU was at 0 % in all 37 samples of 3 minutes" in note
    assert notes(samples(3)).warnings == (), "it may still load its data"
    assert notes(samples(1), "step=1 loss=0.5").warnings == ()


@pytest.mark.parametrize(
    "line",
    [
        "Using cpu device",
        "Using device: cpu",
        "device: cpu",
        "device = cpu",
        "device=cpu",
        "Running on device: cpu",
        "Device: device(type='cpu')",
        "GPU available: False, used: False",
        "GPU available: True (cuda), used: False",
        "2026-01-01 10:00:00.1: I external/local_xla/xla/tsl/cuda/cudart_stub.cc:31] Could not find cuda drivers on "
        "your machine, GPU will not be used.",
        "Skipping registering GPU devices...",
        "WARNING:jax._src.xla_bridge:909] An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is "
        "not installed. Falling back to cpu.",
        "CUDA is not available",
        "CUDA available: False",
        "torch.cuda.is_available(): False",
        "Num GPUs Available:  0",
        "Ultralytics 8.3.0 Python-3.12.3 torch-2.9.1 CPU (Intel Xeon)",
    ],
)
def test_words_of_programs_on_the_cpu(line: str) -> None:
    words = DeviceWords()
    words.feed(line)
    assert words.cpu
    assert not words.uses_gpu


@pytest.mark.parametrize(
    "line",
    [
        "Using cuda device",
        "Using device: cuda:0",
        "device: cuda",
        "GPU available: True (cuda), used: True",
        "Created device /job:localhost/replica:0/task:0/device:GPU:0 with 14000 MB memory",
        "Num GPUs Available:  1",
        "Ultralytics 8.3.0 torch-2.9.1 CUDA:0 (Tesla T4, 15102MiB)",
    ],
)
def test_words_of_programs_on_the_gpu(line: str) -> None:
    words = DeviceWords()
    words.feed(line)
    assert words.uses_gpu
    assert not words.cpu


@pytest.mark.parametrize(
    "line", ["cpu usage: 50 %", "loss: 0.5", "GPU 87 %", "8 CPUs", "pin_memory device", "cpuset=0-3"]
)
def test_words_that_say_nothing(line: str) -> None:
    words = DeviceWords()
    words.feed(line)
    assert not words.uses_gpu
    assert not words.cpu


def test_why_says_that_a_running_job_trains_on_the_cpu(aks: Cluster, name: str) -> None:
    job = jobs.submit(aks, image=BUSYBOX, command=["sh", "-c", "echo Using cpu device; sleep 600"], name=name, gpus=1)
    wait_for(lambda: job.status().phase == "Running" and "cpu" in job.logs())
    diagnosis = job.why()
    words = 'Training on the CPU although a GPU is paid for: the log says "Using cpu device".'
    assert words in diagnosis.verdict
    assert "job.delete()" in diagnosis.fix
    assert np.isin("GPU", diagnosis.evidence["what"])
    view = views.JobView(job, interval=0.05)
    wait_for(lambda: view.refresh() or "the log says &quot;Using cpu device&quot;" in view._repr_html_())
    view.close()
