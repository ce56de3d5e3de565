"""Files in, files out: volumes, checkpoints that the next attempt finds, and results that outlive their node."""

from __future__ import annotations

import os
import pickle
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for

from aksgpu import cluster, errors, jobs, storage
from aksgpu.cluster import Cluster
from aksgpu.jobs import output_claim
from aksgpu.payload import records

HERE = Path(__file__).parent
TIMEOUT = 180


@pytest.fixture(scope="module")
def runs(aks: Cluster) -> Iterator[str]:
    """The name of a claim."""
    storage.create(aks, "runs", size_gb=1)
    yield "runs"
    for job in aks.kube.list("Job"):
        jobs.Job(aks, job["metadata"]["name"]).delete()
    storage.delete(aks, "runs", timeout=60)


@pytest.fixture
def gpu(aks: Cluster, runs: str) -> jobs.Executor:
    """An Executor without GPUs whose output is kept."""
    return jobs.Executor(aks, gpus=0, root=HERE, out=runs)


def large(size: int) -> bytes:
    return os.urandom(size)


def write_files(data: str) -> list[str]:
    out = Path(os.environ["AKSGPU_OUT"])
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "1.pt").write_bytes(b"weights")
    (out / "log.txt").write_text("done")
    return sorted(path.name for path in Path(data).iterdir())


def train(steps: int, signal: str) -> dict[str, int]:
    """Count steps with a checkpoint after each. The first attempt stops in the middle until it is killed."""
    checkpoint = Path(os.environ["AKSGPU_OUT"], "step")
    begun = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(begun, steps):
        checkpoint.write_text(str(step + 1))
        if step + 1 == steps // 2 and not begun:
            Path(signal).touch()
            time.sleep(600)
    return {"begun": begun, "ended": steps, "attempt": int(os.environ["AKSGPU_ATTEMPT"])}


def test_a_function_reads_a_volume_and_writes_files(aks: Cluster, runs: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"1")
    storage.upload(aks, runs, tmp_path / "images", to="sets/images")
    gpu = jobs.Executor(aks, gpus=0, root=HERE, volumes={"/data": runs}, out=runs)
    job = gpu.submit(write_files, "/data/sets/images")
    assert job.result(TIMEOUT) == ["a.png"]
    files = job.files()
    assert list(files["path"]) == ["checkpoints", "checkpoints/1.pt", "log.txt"]
    assert files.set_index("path").loc["checkpoints/1.pt", "size"] == 7
    got = job.download(to=tmp_path / "back")
    assert got.files == 2
    assert (tmp_path / "back" / "checkpoints" / "1.pt").read_bytes() == b"weights"
    job.download("log.txt", to=tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == "done"
    job.delete()
    assert len(storage.ls(aks, runs, job.name)) == 2, "the files outlive the Job"


def test_the_next_attempt_finds_the_checkpoint(gpu: jobs.Executor, aks: Cluster, runs: str, tmp_path: Path) -> None:
    again = jobs.Executor(aks, gpus=0, root=HERE, out=runs, retries=1)
    signal = tmp_path / "reached"
    job = again.submit(train, 10, str(signal))
    wait_for(signal.exists, 120)
    (pod,) = job.pods()["pod"]
    aks.kube.delete("Pod", pod)
    value = job.result(TIMEOUT)
    assert (value["begun"], value["ended"]) == (5, 10)
    assert value["attempt"] == 1


def test_a_later_job_of_the_same_name_continues(aks: Cluster, runs: str, tmp_path: Path) -> None:
    (tmp_path / "reached").touch()
    named = jobs.Executor(aks, gpus=0, root=HERE, out=runs, name="continued")
    assert named.submit(train, 1, str(tmp_path / "reached")).result(TIMEOUT)["begun"] == 0
    jobs.get(aks, "continued").delete()
    job = named.submit(train, 3, str(tmp_path / "reached"))
    assert job.result(TIMEOUT)["begun"] == 1


def test_a_result_that_is_too_large_for_the_log_comes_back(gpu: jobs.Executor) -> None:
    size = records.LARGEST_FRAMED_BODY + 1_000_000
    assert len(gpu.submit(large, size).result(TIMEOUT)) == size
    assert len(pickle.loads(gpu.submit(large, size).result(TIMEOUT, raw=True))) == size


def test_a_result_outlives_its_pod(gpu: jobs.Executor, aks: Cluster) -> None:
    for size in (10, 100_000):
        job = gpu.submit(large, size)
        wait_for(lambda job=job: job.status().phase == "Complete", 120)
        for pod in job.pods()["pod"]:
            aks.kube.delete("Pod", pod)
        wait_for(lambda job=job: job.pods().empty, 60)
        assert len(job.result(TIMEOUT)) == size
        assert job.exception(TIMEOUT) is None


def test_without_a_claim_a_result_is_lost_with_its_pod(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, root=HERE).submit(large, 10)
    wait_for(lambda: job.status().phase == "Complete", 120)
    for pod in job.pods()["pod"]:
        aks.kube.delete("Pod", pod)
    wait_for(lambda: job.pods().empty, 60)
    with pytest.raises(errors.ResultLost) as raised:
        job.result(TIMEOUT)
    assert 'Executor(aks, out="runs")' in raised.value.hint


def test_a_changed_result_is_refused(gpu: jobs.Executor, aks: Cluster, runs: str, tmp_path: Path) -> None:
    job = gpu.submit(large, records.LARGEST_FRAMED_BODY + 1_000_000)
    wait_for(lambda: job.status().phase == "Complete", 120)
    directory = f".aksgpu/{job.name}"
    (file,) = storage.ls(aks, runs, directory)["path"]
    storage.download(aks, runs, file, to=tmp_path / "outcome")
    content = bytearray((tmp_path / "outcome").read_bytes())
    content[-100] ^= 1
    (tmp_path / "outcome").write_bytes(content)
    storage.upload(aks, runs, tmp_path / "outcome", to=file)
    with pytest.raises(errors.ResultLost, match="checksum of the result's file is wrong"):
        job.result(TIMEOUT)


def test_a_job_without_a_claim_has_no_files(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, root=HERE).submit(large, 1)
    for call in (job.files, job.download):
        with pytest.raises(errors.InvalidInput, match="must have a claim for output") as raised:
            call()
        assert 'Executor(aks, out="runs")' in raised.value.hint
    assert len(job.result(TIMEOUT)) == 1


@pytest.mark.parametrize("options", [{"out": "missing"}, {"volumes": {"/data": "missing"}}])
def test_a_claim_that_does_not_exist_is_refused_before_anything_is_created(aks: Cluster, options: Any) -> None:
    before = len(aks.kube.list("Job"))
    with pytest.raises(errors.NotFound, match="has no claim 'missing'") as raised:
        jobs.Executor(aks, gpus=0, root=HERE, **options).submit(large, 1)
    assert "storage.create(aks, 'missing'" in raised.value.hint
    assert len(aks.kube.list("Job")) == before


@pytest.mark.parametrize("path", ["/", "/aksgpu", "/aksgpu/run", "/dev/shm", "/usr/lib", "//proc", "/a/../etc", "/a:b"])
def test_paths_that_are_in_use_are_refused(aks: Cluster, path: str) -> None:
    with pytest.raises(errors.InvalidInput, match="`volumes` must have paths of their own"):
        jobs.Executor(aks, volumes={path: "data"})


def test_a_pool_that_shrinks_is_mentioned_once(azure: Any) -> None:
    made = cluster.create(azure, "shrinking", resource_group="shrinking", location="eastus")
    cluster.add_gpu_pool(made, "gpunp", vm_size="Standard_NC4as_T4_v3", count=1, min_count=0, max_count=1)
    gpu = jobs.Executor(made, gpus=1, root=HERE)
    with pytest.warns(UserWarning, match=r"Pool gpunp shrinks to 0 nodes .* Executor\(aks, out=\"runs\"\)") as warned:
        first = gpu.submit(large, 1)
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = gpu.submit(large, 1)
    for job in (first, second):
        job.delete()
    cluster.delete(made)


def test_no_warning_for_a_pool_that_stays(aks: Cluster) -> None:
    output_claim._checked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jobs.Executor(aks, gpus=1, root=HERE).submit(large, 1).delete()
