"""Runs of real Jobs in the history: saved by wait and delete, compared after the Jobs are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for

from aksgpu import cluster, errors, history, jobs, runs
from aksgpu.cluster import Cluster
from aksgpu.jobs import Job

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

BUSYBOX = "docker.io/library/busybox:1"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AKSGPU_HISTORY", str(tmp_path / "history"))
    return tmp_path / "history"


@pytest.fixture
def names(request: pytest.FixtureRequest, aks: Cluster) -> Iterator[list[str]]:
    own = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    found = [f"{own}-a", f"{own}-b"]
    yield found
    for name in found:
        Job(aks, name).delete()


def train(aks: Cluster, name: str, loss: float, **more: Any) -> Job:
    script = f"echo epoch 1 loss={2 * loss}; sleep 1.2; echo epoch 2 loss={loss}"
    command = ["sh", "-c", script, "--", "--loss", str(loss)]
    return jobs.submit(aks, image=BUSYBOX, command=command, name=name, **{"gpus": 1, **more})


def test_runs_are_compared_after_their_jobs_are_deleted(aks: Cluster, names: list[str]) -> None:
    first = train(aks, names[0], 0.4).wait()
    second = train(aks, names[1], 0.2).wait()
    first.delete()
    second.delete()
    with pytest.raises(errors.NotFound):
        first.status()
    compared = runs.compare([first, second])
    assert compared.differences().loc["--loss"].tolist() == ["0.4", "0.2"]
    assert compared.best("loss").set_index("run")["best"].to_dict() == {names[0]: 0.4, names[1]: 0.2}
    listed = runs.list(job=names[0]).iloc[0]
    assert listed["phase"] == "Complete"
    assert listed["gpu_model"] == "Tesla T4"
    assert 0 < listed["usd"] < 1
    assert runs.get(names[0]).logs() == "epoch 1 loss=0.8\nepoch 2 loss=0.4\n"


def test_jobs_of_a_cluster_that_cannot_be_read_are_compared_with_a_warning(
    aks: Cluster, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs_ = [train(aks, name, 0.4, gpus=0).wait() for name in names]

    def refuse(*_: object, **__: object) -> None:
        raise errors.Unauthorized("Unauthorized")  # the answer of a cluster that was created again

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="its newest saved run is used"):
        patch.setattr(Job, "facts", refuse)
        compared = runs.compare(jobs_)
    assert set(compared.metrics()["run"]) == set(names)


def test_functions_are_compared_by_their_arguments(aks: Cluster) -> None:
    def learn(lr: float, api_key: str, steps: int = 3) -> None:
        sys.stdout.write(f"step={steps} loss={lr}\n")

    executor = jobs.Executor(aks, gpus=0)
    found = [executor.submit(learn, lr, api_key="private") for lr in (0.1, 0.2)]
    try:
        for job in found:
            job.result("2m")
        differences = runs.compare(found).differences()
        assert differences.loc["argument lr"].tolist() == ["0.1", "0.2"]
        assert "argument steps" not in differences.index
        assert runs.get(found[0].name).facts["annotations"]["parameters"] == '{"lr": 0.1, "steps": 3}'
    finally:
        for job in found:
            job.delete()


def test_a_running_job_and_a_saved_run_are_compared(aks: Cluster, names: list[str]) -> None:
    train(aks, names[0], 0.4).wait()
    command = ["sh", "-c", "echo epoch 1 loss=0.7; sleep 600"]
    running = jobs.submit(aks, image=BUSYBOX, command=command, name=names[1], gpus=0)
    wait_for(lambda: "loss" in running.logs() if running.status().phase == "Running" else None)
    compared = runs.compare({"saved": names[0], "running": running})
    assert compared.differences().loc["phase"].tolist() == ["Complete", "Running"]
    assert compared.metrics().groupby("run")["loss"].last().to_dict() == {"running": 0.7, "saved": 0.4}


def test_a_job_that_is_deleted_while_it_runs_is_saved(aks: Cluster, names: list[str]) -> None:
    command = ["sh", "-c", "echo epoch 1 loss=0.7; sleep 600"]
    job = jobs.submit(aks, image=BUSYBOX, command=command, name=names[0], gpus=0)
    wait_for(lambda: "loss" in job.logs() if job.status().phase == "Running" else None)
    job.delete()
    run = runs.get(names[0])
    assert run.facts["phase"] == "Running"
    assert run.metrics()["loss"].tolist() == [0.7]


def test_a_job_that_is_being_deleted_does_not_replace_what_was_saved(aks: Cluster, names: list[str]) -> None:
    command = ["sh", "-c", "echo epoch 1 loss=0.7; sleep 600"]
    job = jobs.submit(aks, image=BUSYBOX, command=command, name=names[0], gpus=0)
    wait_for(lambda: "loss" in job.logs() if job.status().phase == "Running" else None)
    hold = {"metadata": {"finalizers": ["example.com/hold"]}}
    aks.kube.patch("Job", job.name, hold, job.namespace)
    job.save()
    aks.kube.delete("Job", job.name, job.namespace, propagation_policy="Foreground")
    try:
        wait_for(lambda: job.pods().empty)
        with pytest.raises(errors.WaitTimeout):
            job.delete(timeout=5)
    finally:
        aks.kube.patch("Job", job.name, {"metadata": {"finalizers": None}}, job.namespace)
    facts = runs.get(job.name).facts
    assert (facts["phase"], facts["pods"], len(facts["nodes"])) == ("Running", 1, 1)


def test_two_saves_at_the_same_time_save_once(aks: Cluster, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save = Job.save
    saves: list[Job] = []

    def save_with_another(job: Job) -> history.StoredRun:
        saves.append(job)
        if len(saves) == 1:
            other.start()
            other.join(1)
        return save(job)

    with monkeypatch.context() as patch:
        patch.setenv("AKSGPU_HISTORY", "0")
        job = train(aks, names[0], 0.4, gpus=0).wait()
    monkeypatch.setattr(Job, "save", save_with_another)
    other = threading.Thread(target=job._save_quietly)
    job._save_quietly()
    other.join(60)
    assert len(saves) == 1


def test_a_failed_job_is_saved(aks: Cluster, names: list[str]) -> None:
    job = jobs.submit(aks, image=BUSYBOX, command=["sh", "-c", "echo loss=1.5; exit 3"], name=names[0], gpus=0)
    with pytest.raises(errors.JobFailed):
        job.wait()
    run = runs.get(names[0])
    assert run.facts["phase"] == "Failed"
    assert run.metrics()["loss"].tolist() == [1.5]


def test_nothing_is_saved_if_the_history_is_off(
    aks: Cluster, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AKSGPU_HISTORY", "0")
    train(aks, names[0], 0.4, gpus=0).wait().delete()
    assert runs.list(job=names[0]).empty


def test_a_history_that_cannot_be_written_does_not_stop_the_wait(
    aks: Cluster, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AKSGPU_HISTORY", str(tmp_path / "file"))
    job = train(aks, names[0], 0.4, gpus=0).wait()
    with pytest.raises(OSError, match=r"."):
        job.save()


def test_values_of_secrets_are_not_saved(aks: Cluster, names: list[str], directory: Path) -> None:
    environment = {"LR": "0.1", "HF_TOKEN": "hf_private", "AWS_SECRET_ACCESS_KEY": "private"}
    train(aks, names[0], 0.4, gpus=0, env=environment).wait()
    assert runs.get(names[0]).facts["env"] == {"LR": "0.1"}
    saved = b"".join(path.read_bytes() for path in directory.rglob("run.json"))
    assert b"private" not in saved


def test_metrics_name_pod_index_attempt_and_time(aks: Cluster, names: list[str]) -> None:
    script = "echo step=$((JOB_COMPLETION_INDEX + 1)) loss=0.5; test $JOB_COMPLETION_INDEX = 0 || sleep 0"
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": names[0]},
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "completionMode": "Indexed",
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}],
                }
            },
        },
    }
    job = jobs.apply(aks, manifest).wait()
    table = job.metrics()
    assert table["index"].tolist() == [0, 1]
    assert table["step"].tolist() == [1, 2]
    assert table["attempt"].tolist() == [0, 0]
    assert table["time"].notna().all()
    assert set(table["pod"]) == set(job.pods()["pod"])
    assert table.attrs["pods_gone"] == 0


def test_metrics_of_a_pod_that_failed_are_those_of_an_earlier_attempt(
    aks: Cluster, names: list[str], tmp_path: Path
) -> None:
    script = f"if mkdir {tmp_path}/once; then echo step=1 loss=9; exit 1; else echo step=1 loss=8; fi"
    job = jobs.submit(aks, image=BUSYBOX, command=["sh", "-c", script], name=names[0], gpus=0, retries=3).wait()
    table = job.metrics()
    assert table[["attempt", "loss"]].to_numpy().tolist() == [[0, 9], [1, 8]]
    assert table["pod"].nunique() == 2


def test_metrics_of_a_run_before_a_restart_in_place(aks: Cluster, names: list[str], tmp_path: Path) -> None:
    script = f"if mkdir {tmp_path}/once; then echo step=1 loss=9; exit 1; else echo step=1 loss=8; sleep 600; fi"
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": names[0]},
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "OnFailure",
                    "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}],
                }
            },
        },
    }
    job = jobs.apply(aks, manifest)
    wait_for(lambda: "loss=8" in job.logs() if job.status().phase == "Running" else None)
    table = job.metrics()
    assert table[["attempt", "loss"]].to_numpy().tolist() == [[0, 9], [1, 8]]
    assert table["pod"].nunique() == 1


def test_a_function_is_saved_with_its_result(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0).submit(print, "epoch 1 loss=0.25")
    try:
        job.result("2m")
        run = runs.get(job.name)
        assert run.facts["phase"] == "Complete"
        assert run.metrics()["loss"].tolist() == [0.25]
    finally:
        job.delete()


def test_a_run_that_has_ended_is_saved_once(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0).submit(print, "epoch 1 loss=0.25")
    try:
        job.wait("2m")
        file = history.load()[0].path / "run.json"
        saved = file.stat().st_mtime_ns
        job.result("2m")
        jobs.get(aks, job.name).result("2m")
        assert len(history.load()) == 1  # waits for saves
        assert file.stat().st_mtime_ns == saved
        runs.delete(file.parent.name)
        job.result("2m")
        assert runs.get(job.name).metrics()["loss"].tolist() == [0.25]
    finally:
        job.delete()


def test_a_program_that_ends_at_once_saves_its_run(aks: Cluster, names: list[str], tmp_path: Path) -> None:
    """The save is the first to load pandas, while Python exits."""
    program = (
        "import sys, threading\n"
        "from aksgpu import cluster, jobs\n"
        "save = jobs.Job.save\n"
        "def save_late(job):\n"
        "    threading.main_thread().join()\n"
        "    print('pandas' in sys.modules)\n"
        "    return save(job)\n"
        "jobs.Job.save = save_late\n"
        f"aks = cluster.from_kubeconfig({str(cluster.kubeconfig(aks))!r})\n"
        f"job = jobs.submit(aks, image={BUSYBOX!r}, command=['echo', 'loss=0.5'], name={names[0]!r}, gpus=0)\n"
        "job.wait(timeout=120)\n"
    )
    environment = {**os.environ, "AKSGPU_HISTORY": str(tmp_path / "history")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=150
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert runs.get(names[0]).metrics()["loss"].tolist() == [0.5]


def test_an_error_about_a_log_that_is_gone_names_the_saved_run(aks: Cluster, names: list[str]) -> None:
    job = train(aks, names[0], 0.4, gpus=0).wait()
    assert runs.get(job.name).logs()
    (pod,) = aks.kube.list("Pod", job.namespace, label_selector=f"job-name={job.name}")
    aks.kube.delete("Pod", pod["metadata"]["name"], job.namespace)
    wait_for(lambda: job.pods().empty)
    for read in (job.logs, job.metrics, lambda: list(job.follow())):
        with pytest.raises(errors.LogsGone) as raised:
            read()
        assert f"runs.get('{job.name}').logs()" in raised.value.hint
    job.delete()
    with pytest.raises(errors.NotFound) as deleted:
        job.logs()
    assert f"runs.get('{job.name}').logs()" in deleted.value.hint
    runs.clear()
    with pytest.raises(errors.NotFound) as unsaved:
        job.logs()
    assert "runs.get" not in unsaved.value.hint
