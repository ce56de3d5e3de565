"""Causes that are brought about on a real laptop AKS, and cured with the code that the diagnosis contains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.polling import wait_for

from aksgpu import capacity, cluster, diagnose, errors, jobs, local
from aksgpu.cluster import Cluster
from aksgpu.diagnose import Diagnosis
from aksgpu.jobs import Job
from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

BUSYBOX = "docker.io/library/busybox:1"
PATIENCE = 90.0
"""Seconds until the cluster must have got that far, also on a busy machine."""

Submit = Callable[..., Job]


@pytest.fixture
def submit(aks: Cluster, request: pytest.FixtureRequest) -> Iterator[Submit]:
    """Submit a Job that is deleted at the end."""
    made: list[Job] = []

    def start(script: str = "true", **options: Any) -> Job:
        name = request.node.originalname.removeprefix("test_").replace("_", "-")[:30].strip("-") + f"-{len(made)}"
        options = {"image": BUSYBOX, "command": ["sh", "-c", script], "gpus": 0, **options}
        made.append(jobs.submit(aks, name=name, **options))
        return made[-1]

    yield start
    for job in made:
        job.delete()


def found(ask: Callable[[], Diagnosis], cause: str) -> Diagnosis:
    """The diagnosis, once it names the cause."""

    def poll() -> Diagnosis | None:
        diagnosis = ask()
        return diagnosis if diagnosis.cause == cause else None

    result = wait_for(poll, PATIENCE)
    assert result is not None
    return result


def paste(code: str, aks: Cluster) -> None:
    """Run code as in a notebook in which ``aks`` is the cluster."""
    exec(code, {"aks": aks})


def failed(job: Job) -> Diagnosis:
    """The diagnosis of a Job that fails."""
    with pytest.raises(errors.JobFailed):
        job.wait(PATIENCE)
    return job.why()


SUMMARY = "for line in $(seq 600); do echo torchrun summary $line; done; exit 1"


def test_a_cause_above_the_end_of_the_log_and_its_cure(aks: Cluster, submit: Submit) -> None:
    text = "RuntimeError: DataLoader worker (pid 125) is killed by signal: Bus error. Out of shared memory."
    job = submit(f"echo 'Traceback (most recent call last):'; echo '  File x'; echo '{text}'; {SUMMARY}")
    diagnosis = failed(job)
    assert diagnosis.cause == "/dev/shm is too small"
    before = aks.kube.get("Job", job.name, job.namespace)["metadata"]["uid"]
    paste(diagnosis.python, aks)
    after = aks.kube.get("Job", job.name, job.namespace)
    assert after["metadata"]["uid"] != before
    pod = after["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}]


def test_a_taint_is_cured_by_the_code(aks: Cluster, submit: Submit) -> None:
    job = submit(gpus=1, tolerate=False)
    diagnosis = found(job.why, "a taint is not tolerated")
    paste(diagnosis.python, aks)
    job.wait(PATIENCE)


def test_too_many_gpus_are_cured_by_the_code(aks: Cluster, submit: Submit) -> None:
    job = submit(gpus=4)
    diagnosis = found(job.why, "too few GPUs")
    assert "Wait" not in diagnosis.fix
    paste(diagnosis.python, aks)
    job.wait(PATIENCE)


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        # Kubernetes makes one dollar sign of two.
        ("kill -SEGV $$$$", "a library of the program crashed (SIGSEGV)"),
        ("kill -KILL $$$$", "the program was killed (SIGKILL)"),
        ("no-such-program", "no-such-program"),
        ("exit 126", "the program exists and cannot be executed"),
        ("exit 9", "exit code 9."),
    ],
    ids=["segmentation", "killed", "not found", "not executable", "silent"],
)
def test_exit_codes(submit: Submit, script: str, verdict: str) -> None:
    diagnosis = failed(submit(script))
    assert verdict in diagnosis.verdict
    assert diagnosis.fix


@pytest.mark.parametrize(
    ("taint", "cause", "fix"),
    [
        ("node.cloudprovider.kubernetes.io/uninitialized", "the node is being set up", "Wait some minutes"),
        ("karpenter.sh/disrupted", "the node is about to leave", "Wait until another one is there"),
    ],
)
def test_a_taint_that_is_not_of_the_pool(aks: Cluster, submit: Submit, taint: str, cause: str, fix: str) -> None:
    node = capacity.gpus(aks)["node"][0]
    taints = aks.kube.get("Node", node)["spec"].get("taints") or []
    aks.kube.patch("Node", node, {"spec": {"taints": [*taints, {"key": taint, "effect": "NoSchedule"}]}})
    try:
        job = submit(gpus=1)
        diagnosis = found(job.why, cause)
        assert fix in diagnosis.fix
        assert "toleration" not in diagnosis.fix
        assert diagnose.node(aks, node).cause.startswith("a taint of a node")
        assert "1 problem more" in diagnose.cluster(aks).verdict
    finally:
        aks.kube.patch("Node", node, {"spec": {"taints": taints}})
    job.wait(PATIENCE)


def test_a_scheduler_that_the_cluster_does_not_have(aks: Cluster, submit: Submit) -> None:
    first = submit()
    first.wait(PATIENCE)
    manifest = first.manifest()
    manifest["metadata"]["name"] = "foreign-scheduler"
    manifest["spec"]["template"]["spec"]["schedulerName"] = "volcano"
    job = jobs.apply(aks, manifest)
    try:
        diagnosis = found(job.why, "another scheduler")
        paste(diagnosis.python, aks)
        job.wait(PATIENCE)
    finally:
        job.delete()


def test_a_program_that_does_not_use_its_gpu(submit: Submit) -> None:
    line = "No GPU/TPU found, falling back to CPU. (Set TF_CPP_MIN_LOG_LEVEL=0 and rerun for more info.)"
    job = submit(f"echo '{line}'; sleep 600", gpus=1)
    diagnosis = found(job.why, "JAX continues on the CPU")
    assert "The pod is running, but JAX does not use the GPU" in diagnosis.verdict


def test_the_list_of_jobs_says_why(aks: Cluster, submit: Submit) -> None:
    waiting = submit(gpus=8)
    done = submit()
    done.wait(PATIENCE)
    found(waiting.why, "too few GPUs")
    table = jobs.list(aks).set_index("job")
    assert "no node has 8 nvidia.com/gpu" in table.loc[waiting.name, "why"]
    assert table["why"].isna()[done.name]


def test_a_manifest_of_a_job_runs_again(aks: Cluster, submit: Submit) -> None:
    job = submit("echo again")
    job.wait(PATIENCE)
    manifest = job.manifest()
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert "selector" not in manifest["spec"]
    again = jobs.apply(aks, manifest, replace=True)
    again.wait(PATIENCE)
    assert again.logs() == "again\n"
    live = aks.kube.get("Job", job.name, job.namespace)
    live["metadata"]["annotations"] = {"note": "mine"}
    from_live = jobs.live_manifest.manifest_of(live)
    assert from_live["metadata"]["annotations"] == {"note": "mine"}
    assert "controller-uid" not in str(from_live)


def test_an_autoscaler_at_its_limit_and_after_a_failure(aks: Cluster, laptop: Endpoint, submit: Submit) -> None:
    holder = submit("sleep 600", gpus=1)
    wait_for(lambda: holder.status().phase == "Running", PATIENCE)
    cluster.scale_pool(aks, "gpunp", min_count=1, max_count=1)
    try:
        job = submit(gpus=1)
        full = found(job.why, "the pool has its maximum size")
        assert isinstance(full.error, errors.NoScaleUp)
        # A quota for one node: the autoscaler fails each time that it tries.
        local.inject("quota", home=laptop.home, family="Standard NCASv3_T4 Family", limit=4)
        paste(full.python, aks)
        paused = found(job.why, "an earlier scale-up failed")
        assert "sizes.preflight" in paused.fix
        assert dict(paused.rows)["pool gpunp"].startswith("NodePool(gpunp")
    finally:
        local.inject("none", home=laptop.home)
        cluster.scale_pool(aks, "gpunp", 1, autoscaler=False)


def test_of_several_pods_the_first_that_failed_is_named(aks: Cluster, tmp_path: Any) -> None:
    go = tmp_path / "go"
    script = (
        'if [ "$JOB_COMPLETION_INDEX" = 1 ]; then echo "torch.OutOfMemoryError: CUDA out of memory"; exit 1; fi; '
        f"while [ ! -e {go} ]; do sleep 0.1; done; sleep 2; "
        'echo "NCCL error: remote process exited or there was a network error"; exit 1'
    )
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}
    spec = {
        "completions": 3,
        "parallelism": 3,
        "completionMode": "Indexed",
        "backoffLimit": 2,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
    }
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "several-pods"}, "spec": spec}
    job = jobs.apply(aks, manifest)
    try:
        # The others fail after the cluster has recorded the first failure, in another second.
        wait_for(
            lambda: (job.pods()["exit_code"] == 1).any() and (job.pods()["state"] == "Running").sum() >= 2, PATIENCE
        )
        go.touch()
        diagnosis = failed(job)
    finally:
        job.delete()
    assert "the GPU's memory is too small" in diagnosis.verdict
