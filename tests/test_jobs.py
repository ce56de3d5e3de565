from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Request, Server

from aksgpu import cluster, errors, jobs, manifests
from aksgpu._jobs.difference import differences, dropped, quantities_as_text
from aksgpu.cluster import Cluster
from aksgpu.jobs import Job
from aksgpu.kube import Kube

pytest_plugins = ["aksgpu.local.testing", "laptop_cluster"]

BUSYBOX = "docker.io/library/busybox:1"

MANIFEST = """
apiVersion: batch/v1
kind: Job
metadata: {name: NAME, labels: {app: NAME}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: docker.io/library/busybox:1
        command: [sh, -c, "COMMAND"]
        resources: {limits: {cpu: 1, memory: 128Mi}}
"""


def manifest(name: str, command: str = "echo hello", **changes: str) -> str:
    text = MANIFEST.replace("NAME", name).replace("COMMAND", command)
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.fixture
def name(request: pytest.FixtureRequest, aks: Cluster) -> Iterator[str]:
    """A Job name of the test's own; what it made is deleted afterwards."""
    own = request.node.name.removeprefix("test_").replace("_", "-").replace("[", "-").rstrip("]")[:40].strip("-")
    yield own
    Job(aks, own, "default").delete()


def start(aks: Cluster, name: str, command: str, **more: Any) -> Job:
    return jobs.submit(aks, image=BUSYBOX, command=["sh", "-c", command], name=name, **{"gpus": 0, **more})


def until(job: Job, phase: str) -> jobs.JobStatus:
    for _ in range(200):
        status = job.status()
        if status.phase == phase:
            return status
        time.sleep(0.05)
    raise AssertionError(f"{job.status()} is not {phase}")


def test_a_manifest_runs_from_text_file_and_dict(aks: Cluster, name: str, tmp_path: Path) -> None:
    text = manifest(name)
    job = jobs.apply(aks, text).wait()
    assert job.status() == jobs.JobStatus("Complete", succeeded=1)
    assert job.logs() == "hello\n"
    file = tmp_path / "job.yaml"
    file.write_text(text)
    import yaml

    for again in (text, file, str(file), yaml.safe_load(text)):
        assert jobs.apply(aks, again).status().phase == "Complete"  # the one that ended, not a new one


def test_reprs_are_the_same_whenever_they_are_made(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true")
    assert repr(job) == f"Job({name!r}, namespace='default')"
    assert repr(job.status()).startswith("JobStatus(phase=")
    assert "0x" not in repr(job.status()) + repr(job.why())


def test_what_differs_is_named_and_replaced_only_when_told_to(aks: Cluster, name: str) -> None:
    jobs.apply(aks, manifest(name)).wait()
    with pytest.raises(errors.AlreadyExists, match=r"differs in .*containers\[main\]\.command\[2\]") as raised:
        jobs.apply(aks, manifest(name, "echo other"))
    assert "replace=True" in raised.value.hint
    with pytest.raises(errors.AlreadyExists, match=r"differs in spec\.backoffLimit\n"):
        jobs.apply(aks, manifest(name, **{"backoffLimit: 0": "completionMode: NonIndexed"}))
    assert jobs.apply(aks, manifest(name, **{"128Mi": "134217728"})).name == name  # the same amount, spelt otherwise
    job = jobs.apply(aks, manifest(name, "echo other"), replace=True).wait()
    assert job.logs() == "other\n"


def test_the_tutorials_manifest_of_2020_gets_the_tolerations_that_the_nodes_call_for(aks: Cluster) -> None:
    job = jobs.apply(aks, manifests.mnist("2020", max_steps=20, name="mnist-2020"))
    try:
        spec = aks.kube.get("Job", "mnist-2020", "default")["spec"]["template"]["spec"]
        assert spec["tolerations"] == [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]
        assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        assert list(job.wait(60).metrics()["step"]) == [0, 10]
        jobs.apply(aks, manifests.mnist("2020", max_steps=20, name="mnist-2020"))
        assert len(job.plot().axes) == 1
    finally:
        job.delete()


def test_left_as_it_is_it_stays_pending_and_is_mended_by_replacing(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true", gpus=1, tolerate=False)
    with pytest.raises(errors.WaitTimeout, match=r"taint sku=gpu:NoSchedule is not tolerated") as raised:
        job.wait(1.5)
    assert "untolerated taint {sku: gpu}" in raised.value.state
    assert "replace=True" in raised.value.hint
    with pytest.raises(errors.AlreadyExists, match=r"differs in spec\.template\.spec\.tolerations"):
        start(aks, name, "true", gpus=1)
    start(aks, name, "true", gpus=1, replace=True).wait(30)


def test_a_failure_carries_reason_log_and_advice(aks: Cluster, name: str) -> None:
    job = start(aks, name, "echo one; echo two; exit 3")
    with pytest.raises(errors.JobFailed) as raised:
        job.wait(30)
    assert raised.value.reason == "BackoffLimitExceeded"
    assert raised.value.log_tail == "one\ntwo"
    assert "exit code 3: two" in raised.value.message
    assert "log" in raised.value.hint
    assert job.pods()["exit_code"].tolist() == [3]


def test_a_failure_whose_pod_kubernetes_takes_away_is_remembered(aks: Cluster, name: str) -> None:
    text = manifest(
        name, "echo boom; exit 4", **{"restartPolicy: Never": "restartPolicy: OnFailure", "Limit: 0": "Limit: 2"}
    )
    job = jobs.apply(aks, text)
    with pytest.raises(errors.JobFailed, match=r"exit code 4 \(Error\)") as raised:
        job.wait(60)
    assert raised.value.log_tail == "boom"
    assert job.pods().empty


def test_retries_are_followed_from_pod_to_pod(aks: Cluster, name: str) -> None:
    job = start(aks, name, "echo try; exit 1", retries=1)
    assert list(job.follow()) == ["try", "try"]
    assert job.status().failed == 2
    assert job.logs() == "try\n"  # of the newest attempt


def test_restarts_in_place_are_followed(aks: Cluster, name: str) -> None:
    command = "n=$(cat count 2>/dev/null || echo 0); echo $((n+1)) > count; echo run $n; [ $n -ge 1 ]"
    text = manifest(name, "PROGRAM", **{"restartPolicy: Never": "restartPolicy: OnFailure", "Limit: 0": "Limit: 4"})
    job = jobs.apply(
        aks,
        text.replace('"PROGRAM"', json.dumps(f"cd /shared; {command}")).replace(
            "        resources:", "        volumeMounts: [{name: s, mountPath: /shared}]\n        resources:"
        )
        + "      volumes: [{name: s, emptyDir: {}}]\n",
    )
    lines = list(job.follow())
    assert lines == ["run 0", "run 1"], job.why()
    assert job.pods()["restarts"].tolist() == [1]


def test_lines_come_live_and_in_order(aks: Cluster, name: str) -> None:
    job = start(aks, name, "for i in 1 2 3 4; do echo line $i; sleep 0.2; done; printf end")
    lines = job.follow()
    assert next(lines) == "line 1"
    assert job.status().phase == "Running"
    assert list(lines) == ["line 2", "line 3", "line 4", "end"]


def test_an_image_that_cannot_be_pulled_ends_the_wait_early(aks: Cluster, name: str) -> None:
    job = jobs.submit(aks, image="registry.invalid/nothing:1", name=name, gpus=0)
    with pytest.raises(errors.JobFailed, match=r"registry\.invalid/nothing:1 cannot be pulled") as raised:
        job.wait(30)
    assert "aksgpu.local.images.register" in raised.value.hint
    with pytest.raises(errors.WaitTimeout):
        job.wait(0.5, fail_fast=False)


def test_more_gpus_than_any_node_has(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true", gpus=2)
    assert until(job, "Pending")
    with pytest.raises(errors.WaitTimeout, match=r"no node has 2 nvidia\.com/gpu; the largest has 1"):
        job.wait(1)


def test_wrong_manifests_are_refused_with_the_field_named(aks: Cluster) -> None:
    with pytest.raises(errors.Invalid, match=r'unknown field "spec\.template\.spec\.gpuCount"'):
        jobs.apply(aks, manifest("x", **{"restartPolicy: Never": "restartPolicy: Never\n      gpuCount: 1"}))
    with pytest.raises(errors.Invalid, match=r"metadata\.name: Invalid value"):
        jobs.apply(aks, manifest("Bad_Name"))
    for wrong, words in {
        "a: [": "not YAML",
        "\n": "empty",
        "kind: Pod\napiVersion: v1": "exactly one Job, this one has: Pod",
        manifest("a") + "---" + manifest("b"): "this one has: Job, Job",
        "kind: Job\napiVersion: batch/v1": "no spec",
        "hello: world": "this one has: an object without `kind`",
        "no-such-file.yaml": "cannot read",
        b"kind: Job": "a manifest is no bytes",
        None: "a manifest is no NoneType",
        5: "a manifest is no int",
        ("Job",): "not str",
    }.items():
        with pytest.raises(errors.InvalidInput, match=words) as refused:
            jobs.apply(aks, wrong)  # type: ignore[arg-type]
        assert refused.value.hint
    for wrong in (
        {"args": "--steps 5"},
        {"command": 5},
        {"env": ["A=1"]},
        {"env": {"A": None}},
        {"node_selector": "a"},
    ):
        with pytest.raises(errors.InvalidInput, match=next(iter(wrong))) as refused:
            jobs.submit(aks, image=BUSYBOX, **wrong)
        assert refused.value.hint
    with pytest.raises(errors.InvalidInput, match="tail is -1"):
        jobs.Job(aks, "any", "default").logs(tail=-1)
    with pytest.raises(errors.NotFound, match='namespaces "nowhere"') as raised:
        jobs.submit(aks, image=BUSYBOX, namespace="nowhere")
    assert "Namespace" in raised.value.hint


def test_gpus_are_whole(aks: Cluster) -> None:
    half = manifest("half", **{"limits: {cpu: 1,": "limits: {nvidia.com/gpu: 500m,"})
    with pytest.raises(errors.InvalidInput, match=r"'main': resources\.limits: nvidia\.com/gpu is '500m'") as raised:
        jobs.apply(aks, half)
    assert "MIG" in raised.value.hint
    for wrong in (0.5, "1", None, -1):
        with pytest.raises(errors.InvalidInput, match=f"gpus is {wrong!r}.*GPUs are whole") as raised:
            jobs.submit(aks, image=BUSYBOX, gpus=wrong)  # type: ignore[arg-type]
        assert "gpus=1" in raised.value.hint
    with pytest.raises(errors.InvalidInput, match="retries is -1"):
        jobs.submit(aks, image=BUSYBOX, retries=-1)


def test_the_same_call_names_the_same_job_and_another_call_another(aks: Cluster) -> None:
    made = [jobs.submit(aks, image=BUSYBOX, command=["echo", n], args=[n], gpus=0, env={"N": n}) for n in (1, 1, 2)]
    try:
        assert made[0].name == made[1].name != made[2].name
        assert made[0].name.startswith("busybox-")
        assert [job.wait(30).logs() for job in made] == ["1 1\n", "1 1\n", "2 2\n"]
    finally:
        for job in made:
            job.delete()


def test_a_parallel_jobs_logs_come_by_index(aks: Cluster, name: str) -> None:
    text = manifest(name, "echo index $JOB_COMPLETION_INDEX").replace(
        "backoffLimit: 0", "completions: 3, parallelism: 3, completionMode: Indexed".replace(", ", "\n  ")
    )
    job = jobs.apply(aks, text).wait(60)
    assert job.logs() == "index 0\nindex 1\nindex 2\n"
    assert sorted(job.follow()) == ["index 0", "index 1", "index 2"]
    assert job.pods()["index"].tolist() == [0, 1, 2]
    assert job.status().completions == 3


def test_attach_and_list_find_what_is_there(aks: Cluster, name: str) -> None:
    start(aks, name, "echo hi").wait(30)
    assert jobs.attach(aks, name).logs() == "hi\n"
    row = jobs.list(aks).set_index("job").loc[name]
    assert row[["namespace", "phase", "gpus", "image"]].tolist() == ["default", "Complete", 0, BUSYBOX]
    with pytest.raises(errors.NotFound, match="no Job 'nope'") as raised:
        jobs.attach(aks, "nope")
    assert name in raised.value.hint


def test_delete_leaves_nothing_and_works_twice(aks: Cluster, name: str) -> None:
    job = start(aks, name, "sleep 600")
    until(job, "Running")
    job.delete()
    job.delete()
    assert aks.kube.list("Pod", "default", label_selector=f"app={name}") == []
    with pytest.raises(errors.NotFound):
        job.status()
    with pytest.raises(errors.NotFound):
        job.wait(1)


def test_an_interrupted_wait_leaves_the_job_running(aks: Cluster, name: str) -> None:
    job = start(aks, name, "sleep 600")
    until(job, "Running")
    program = (
        "import sys, threading, _thread\n"
        "from aksgpu import cluster, jobs\n"
        "job = jobs.attach(cluster.from_kubeconfig(sys.argv[1]), sys.argv[2])\n"
        "threading.Timer(0.7, _thread.interrupt_main).start()\n"
        "job.wait()\n"
    )
    path = str(cluster.kubeconfig(aks))
    ended = subprocess.run([sys.executable, "-c", program, path, name], capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in ended.stderr
    assert job.status().phase == "Running"


@pytest.mark.parametrize("ask", [lambda job: job.wait(60), lambda job: next(job.follow())])
def test_a_server_that_refuses_for_long_ends_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    monkeypatch.setattr("aksgpu._jobs.job.REFUSED_PATIENCE", 0.2)
    monkeypatch.setattr("aksgpu._kube.backoff.REFUSED_PATIENCE", 0.2)
    job: dict[str, Any] = {"metadata": {"name": "j", "namespace": "default", "uid": "1"}}
    job["spec"] = {"selector": {"matchLabels": {"job-name": "j"}}, "template": {"spec": {"containers": []}}}
    stopped = threading.Event()

    def answer(request: Request) -> None:
        request.json(job if request.route.endswith("/jobs/j") else {"metadata": {}, "items": []})
        request.close_connection = True
        if request.route.endswith("/pods"):
            stopped.set()

    with Server(answer) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        stopper = threading.Thread(target=lambda: (stopped.wait(20), server.server_close()))
        stopper.start()
        with pytest.raises(errors.Unreachable, match="nobody listens there") as raised:
            ask(Job(SimpleNamespace(name="c", kube=kube), "j", "default"))
        stopper.join()
    assert raised.value.refused
    assert "aksgpu.connect(" in raised.value.hint


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateways_refusals_do_not_end_a_wait(tmp_path: Path, status: int) -> None:
    job: dict[str, Any] = {"metadata": {"name": "j", "namespace": "default", "uid": "1"}, "spec": {}}
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    server = Server(
        lambda request: request.refuse(status, "", "again") if len(server.requests) < 3 else request.json(job)
    )
    with server:
        waiting = Job(SimpleNamespace(name="c", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path))), "j", "default")
        assert waiting.wait(20) is waiting
        assert len(server.requests) == 3


def test_a_notebook_gets_a_live_view(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true").wait(30)
    assert "<b>Complete</b>" in job._repr_html_()


def test_with_rights_in_one_namespace_only_the_documented_taints_are_tolerated(tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        if request.route.endswith("/nodes"):
            request.refuse(403, "Forbidden", 'nodes is forbidden: User "dev" cannot list resource "nodes"')
        elif request.command == "GET":
            request.refuse(404, "NotFound", "not found")
        else:
            request.json(request.body, 201)

    with Server(answer) as server:
        stub = SimpleNamespace(name="stub", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        jobs.apply(stub, manifests.mnist("2020"))
        sent = server.requests[-1].body["spec"]["template"]["spec"]["tolerations"]
    assert [toleration["key"] for toleration in sent] == ["sku", "nvidia.com/gpu"]


def test_differences_ignore_what_the_server_adds() -> None:
    wanted = {"a": 1, "e": [], "limits": {"memory": "1024Mi"}, "c": [{"name": "x", "v": 1}], "n": None}
    live = {"a": 1, "limits": {"memory": "1Gi"}, "c": [{"name": "x", "v": 1, "added": True}], "status": 1}
    assert list(differences({"spec": wanted}, {"spec": live})) == []
    live["c"] = [{"name": "y", "v": 1}, {"name": "x", "v": 1}]
    assert list(differences({"spec": wanted}, {"spec": live})) == ["spec.c"]
    assert list(differences({"a": 2, "m": {"b": 1}}, {"a": 1})) == ["a", "m"]
    assert list(dropped({"a": {"b": 1, "c": {}}, "l": [{"d": 1}]}, {"a": {}, "l": [{}]})) == ["a.b", "l[0].d"]


def test_quantities_become_text() -> None:
    job: dict[str, Any] = {"limits": {"nvidia.com/gpu": 1, "cpu": 0.5}, "x": [{"requests": {"memory": "1Gi"}}], "n": 3}
    quantities_as_text(job)
    assert job == {"limits": {"nvidia.com/gpu": "1", "cpu": "0.5"}, "x": [{"requests": {"memory": "1Gi"}}], "n": 3}
