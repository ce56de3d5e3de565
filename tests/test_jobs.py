from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from scripted import Request, Server
from support.fault_proxy import FaultProxy
from support.polling import wait_for

from aksgpu import cluster, diagnose, errors, jobs, manifests
from aksgpu.cluster import Cluster
from aksgpu.jobs import Job, apply_rules, job_ending, run_notices, state_explanation
from aksgpu.jobs.manifest_diff import differences, dropped, quantities_as_text
from aksgpu.kube import Kube
from aksgpu.local import Endpoint, images

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

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
    """A Job name for one test. The Job is deleted afterwards."""
    own = request.node.name.removeprefix("test_").replace("_", "-").replace("[", "-").rstrip("]")[:40].strip("-")
    yield own
    Job(aks, own, namespace="default").delete()


def start(aks: Cluster, name: str, command: str, **more: Any) -> Job:
    return jobs.submit(aks, image=BUSYBOX, command=["sh", "-c", command], name=name, **{"gpus": 0, **more})


def until(job: Job, phase: str) -> jobs.JobStatus:
    def status_in_phase() -> jobs.JobStatus | None:
        status = job.status()
        return status if status.phase == phase else None

    status = wait_for(status_in_phase)
    assert status is not None
    return status


def test_a_manifest_may_be_text_a_file_or_a_dict(aks: Cluster, name: str, tmp_path: Path) -> None:
    text = manifest(name)
    job = jobs.apply(aks, text).wait()
    assert job.status() == jobs.JobStatus("Complete", succeeded=1)
    assert job.logs() == "hello\n"
    file = tmp_path / "job.yaml"
    file.write_text(text)
    for again in (text, file, str(file), yaml.safe_load(text)):
        with pytest.warns(UserWarning, match=r"ended \d+ seconds? ago and is complete\. This is the old run"):
            assert jobs.apply(aks, again).status().phase == "Complete"


def test_reprs_are_the_same_whenever_they_are_made(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true")
    assert repr(job) == f"Job({name!r}, namespace='default')"
    assert repr(job.status()).startswith("JobStatus(phase=")
    assert "0x" not in repr(job.status()) + repr(job.why())


def test_differences_are_named_and_replaced_only_on_request(aks: Cluster, name: str) -> None:
    jobs.apply(aks, manifest(name)).wait()
    with pytest.raises(errors.AlreadyExists, match=r"differs in .*containers\[main\]\.command\[2\]") as raised:
        jobs.apply(aks, manifest(name, "echo other"))
    assert "replace=True" in raised.value.hint
    with pytest.raises(errors.AlreadyExists, match=r"differs in spec\.backoffLimit\n"):
        jobs.apply(aks, manifest(name, **{"backoffLimit: 0": "completionMode: NonIndexed"}))
    with pytest.warns(UserWarning, match="the old run"):  # the same amount, written in another way
        assert jobs.apply(aks, manifest(name, **{"128Mi": "134217728"})).name == name
    job = jobs.apply(aks, manifest(name, "echo other"), replace=True).wait()
    assert job.logs() == "other\n"


def test_the_manifest_of_2020_gets_tolerations_for_the_taints_of_the_nodes(aks: Cluster) -> None:
    job = jobs.apply(aks, manifests.mnist("2020", max_steps=20, name="mnist-2020"))
    try:
        spec = aks.kube.get("Job", "mnist-2020", "default")["spec"]["template"]["spec"]
        assert spec["tolerations"] == [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]
        assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        assert list(job.wait(120).metrics()["step"]) == [0, 10]
        assert len(job.plot().axes) == 1
    finally:
        job.delete()


def test_an_unchanged_manifest_stays_pending_and_replacing_it_helps(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true", gpus=1, tolerate=False)
    wait_for(lambda: job.status().reason == "Unschedulable")
    with pytest.raises(errors.WaitTimeout, match=r"taint sku=gpu:NoSchedule is not tolerated") as raised:
        job.wait(1)
    assert "untolerated taint(s)" in raised.value.state
    assert "replace=True" in raised.value.hint
    with pytest.raises(errors.AlreadyExists, match=r"differs in spec\.template\.spec\.tolerations"):
        start(aks, name, "true", gpus=1)
    start(aks, name, "true", gpus=1, replace=True).wait(120)


def test_a_failure_has_a_reason_a_log_and_a_hint(aks: Cluster, name: str) -> None:
    job = start(aks, name, "echo one; echo two; exit 3")
    with pytest.raises(errors.JobFailed) as raised:
        job.wait(120)
    assert raised.value.reason == "BackoffLimitExceeded"
    assert raised.value.log_tail == "one\ntwo"
    assert "exit code 3: two" in raised.value.message
    assert "log" in raised.value.hint
    assert job.pods()["exit_code"].tolist() == [3]


def test_a_failure_whose_pod_kubernetes_deletes_keeps_its_reason(aks: Cluster, name: str) -> None:
    text = manifest(
        name,
        "echo boom; sleep 3; exit 4",
        **{"restartPolicy: Never": "restartPolicy: OnFailure", "Limit: 0": "Limit: 2"},
    )
    job = jobs.apply(aks, text)
    with pytest.raises(errors.JobFailed, match=r"exit code 4, and was started again .*: boom") as raised:
        job.wait(120)
    assert raised.value.log_tail == "boom"
    assert job.pods().empty


def test_retries_are_followed_from_pod_to_pod(aks: Cluster, name: str) -> None:
    job = start(aks, name, "echo try; exit 1", retries=1)
    assert list(job.follow()) == ["try", "try"]
    assert job.status().failed == 2
    assert job.logs() == "try\n"  # of the newest attempt


def test_restarts_in_place_are_followed(aks: Cluster, name: str, tmp_path: Path) -> None:
    gate = f"while [ ! -e {tmp_path}/$n ]; do sleep 0.02; done"
    command = f"n=$(cat count 2>/dev/null || echo 0); echo $((n+1)) > count; echo run $n; {gate}; [ $n -ge 1 ]"
    text = manifest(name, "PROGRAM", **{"restartPolicy: Never": "restartPolicy: OnFailure", "Limit: 0": "Limit: 4"})
    job = jobs.apply(
        aks,
        text.replace('"PROGRAM"', json.dumps(f"cd /shared; {command}")).replace(
            "        resources:", "        volumeMounts: [{name: s, mountPath: /shared}]\n        resources:"
        )
        + "      volumes: [{name: s, emptyDir: {}}]\n",
    )
    lines = job.follow()
    for run in range(2):
        assert next(lines) == f"run {run}", job.why()
        (tmp_path / str(run)).touch()
    assert list(lines) == []
    assert job.pods()["restarts"].tolist() == [1]


def test_lines_arrive_live_and_in_order(aks: Cluster, name: str, tmp_path: Path) -> None:
    gate = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    job = start(aks, name, f"echo line 1; {gate}; for i in 2 3 4; do echo line $i; sleep 0.2; done; printf end")
    lines = job.follow()
    assert next(lines) == "line 1"
    assert job.status().phase == "Running"
    (tmp_path / "go").touch()
    assert list(lines) == ["line 2", "line 3", "line 4", "end"]


def test_an_image_that_cannot_be_pulled_ends_the_wait_early(aks: Cluster, name: str) -> None:
    job = jobs.submit(aks, image="registry.invalid/nothing:1", name=name, gpus=0)
    with pytest.raises(errors.JobFailed, match=r"registry\.invalid/nothing:1 cannot be pulled") as raised:
        job.wait(120)
    assert "aksgpu.local.images.register" in raised.value.hint
    with pytest.raises(errors.WaitTimeout):
        job.wait(0.5, fail_fast=False)


def test_more_gpus_than_any_node_has(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true", gpus=2)
    wait_for(lambda: job.status().reason == "Unschedulable")
    with pytest.raises(errors.WaitTimeout, match=r"no node has 2 nvidia\.com/gpu; the largest has 1"):
        job.wait(1)


def test_a_wait_for_a_gpu_shows_who_has_it(
    aks: Cluster, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state_explanation, "_AFTER", 0.0)
    holder = start(aks, f"{name}-holder", "sleep 300", gpus=1)
    try:
        until(holder, "Running")
        words = f"The pod is not scheduled: 1 of 1 nvidia.com/gpu taken by default/{holder.name}"
        job = start(aks, name, "true", gpus=1)
        wait_for(lambda: job.status().reason == "Unschedulable")
        with pytest.raises(errors.WaitTimeout) as raised:
            job.wait(1, progress=True)
    finally:
        holder.delete()
    assert words[:70] in capsys.readouterr().err
    assert raised.value.message.count(words) == 1
    assert raised.value.state.startswith("Pending: Unschedulable: 0/")


def test_wrong_manifests_are_refused_with_the_field_named(aks: Cluster) -> None:
    with pytest.raises(errors.Invalid, match=r'unknown field "spec\.template\.spec\.gpuCount"'):
        jobs.apply(aks, manifest("x", **{"restartPolicy: Never": "restartPolicy: Never\n      gpuCount: 1"}))
    for wrong, words in {
        "a: [": "not YAML",
        "\n": "empty",
        "kind: Pod\napiVersion: v1": "exactly one Job, got Pod",
        manifest("a") + "---" + manifest("b"): "exactly one Job, got Job, Job",
        "kind: Job\napiVersion: batch/v1\nmetadata: {name: a}": "`spec` must be a mapping",
        "hello: world": "exactly one Job, got an object without `kind`",
        "no-such-file.yaml": "cannot read",
        b"kind: Job": "got bytes",
        None: "got NoneType",
        5: "got int",
        ("Job",): "got str",
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
    with pytest.raises(errors.InvalidInput, match=r"tail.* -1"):
        jobs.Job(aks, "any", namespace="default").logs(tail_lines=-1)
    with pytest.raises(errors.NotFound, match='namespaces "nowhere"') as raised:
        jobs.submit(aks, image=BUSYBOX, namespace="nowhere")
    assert "Namespace" in raised.value.hint


def test_gpus_must_be_a_whole_number(aks: Cluster) -> None:
    half = manifest("half", **{"limits: {cpu: 1,": "limits: {nvidia.com/gpu: 500m,"})
    with pytest.raises(
        errors.InvalidInput, match=r"containers\[0\]\.resources\.limits`: nvidia\.com/gpu must .*'500m'"
    ) as raised:
        jobs.apply(aks, half)
    assert "MIG" in raised.value.hint
    for wrong in (0.5, "1", None, -1):
        with pytest.raises(errors.InvalidInput, match=f"`gpus` must be an integer.*got {wrong!r}") as raised:
            jobs.submit(aks, image=BUSYBOX, gpus=wrong)  # type: ignore[arg-type]
        assert "gpus=1" in raised.value.hint
    with pytest.raises(errors.InvalidInput, match=r"`retries` must .*got -1"):
        jobs.submit(aks, image=BUSYBOX, retries=-1)


def test_a_submitted_job_reserves_resources_and_is_not_evicted(aks: Cluster, name: str) -> None:
    job = jobs.submit(aks, image=BUSYBOX, command=["true"], name=name, gpus=0)
    job.wait(120)
    (pod,) = aks.kube.list("Pod", "default", label_selector=f"job-name={name}")
    (container,) = pod["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "100m", "memory": "256Mi"}}
    annotations = pod["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def test_the_same_call_names_the_same_job_and_another_call_another(aks: Cluster) -> None:
    made = [jobs.submit(aks, image=BUSYBOX, command=["echo", n], args=[n], gpus=0, env={"N": n}) for n in (1, 1, 2)]
    try:
        assert made[0].name == made[1].name != made[2].name
        assert made[0].name.startswith("busybox-")
        assert [job.wait(120).logs() for job in made] == ["1 1\n", "1 1\n", "2 2\n"]
    finally:
        for job in made:
            job.delete()


def test_logs_of_a_parallel_job_are_ordered_by_index(aks: Cluster, name: str) -> None:
    text = manifest(name, "echo index $JOB_COMPLETION_INDEX").replace(
        "backoffLimit: 0", "completions: 3, parallelism: 3, completionMode: Indexed".replace(", ", "\n  ")
    )
    job = jobs.apply(aks, text).wait(120)
    assert job.logs() == "index 0\nindex 1\nindex 2\n"
    assert sorted(job.follow()) == ["index 0", "index 1", "index 2"]
    assert sorted(job.pods()["index"]) == [0, 1, 2]
    assert job.status().completions == 3


def test_get_and_list_find_existing_jobs(aks: Cluster, name: str) -> None:
    start(aks, name, "echo hi").wait(120)
    assert jobs.get(aks, name).logs() == "hi\n"
    row = jobs.list(aks).set_index("job").loc[name]
    assert row[["namespace", "phase", "gpus", "image"]].tolist() == ["default", "Complete", 0, BUSYBOX]
    with pytest.raises(errors.NotFound, match="Job 'nope' does not exist") as raised:
        jobs.get(aks, "nope")
    assert name in raised.value.hint


def test_delete_removes_everything_and_may_be_repeated(aks: Cluster, name: str) -> None:
    job = start(aks, name, "sleep 600")
    until(job, "Running")
    job.delete()
    job.delete()
    assert aks.kube.list("Pod", "default", label_selector=f"app={name}") == []
    with pytest.raises(errors.NotFound):
        job.status()
    with pytest.raises(errors.NotFound):
        job.wait(1)


@pytest.mark.parametrize(
    ("call", "last_request", "words"),
    [
        ("job.wait()", r"/pods\?", "The Job continues; job.wait() waits again."),
        ("print(*job.follow())", r"/log\?", "The Job continues; job.follow() starts again from the first line."),
    ],
)
def test_an_interrupted_wait_leaves_the_job_running(
    aks: Cluster, name: str, tmp_path: Path, call: str, last_request: str, words: str
) -> None:
    job = start(aks, name, "sleep 600")
    until(job, "Running")
    program = (
        "import sys\n"
        "from aksgpu import cluster, jobs\n"
        "job = jobs.get(cluster.from_kubeconfig(sys.argv[1]), sys.argv[2])\n"
        f"{call}\n"
    )
    with FaultProxy.for_kubeconfig(cluster.kubeconfig(aks)) as proxy:
        command = [sys.executable, "-c", program, str(proxy.kubeconfig(tmp_path)), name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: any(request.matches(last_request) for request in proxy.calls))
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=120)
    assert words in shown
    assert "urllib3" not in shown
    assert job.status().phase == "Running"


def test_a_server_that_refuses_until_the_timeout_ends_the_wait(tmp_path: Path) -> None:
    job: dict[str, Any] = {"metadata": {"name": "j", "namespace": "default", "uid": "1"}}
    job["spec"] = {"selector": {"matchLabels": {"job-name": "j"}}, "template": {"spec": {"containers": []}}}

    def answer(request: Request) -> None:
        if request.route.endswith("/pods"):
            server.server_close()
        request.close_connection = True
        request.json(job if request.route.endswith("/jobs/j") else {"metadata": {}, "items": []})

    with Server(answer) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        with pytest.raises(errors.Unreachable, match="the connection was refused") as raised:
            Job(SimpleNamespace(name="c", kube=kube), "j", namespace="default").wait(4)
    assert raised.value.refused
    assert "aksgpu.connect(" in raised.value.hint


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateways_refusals_do_not_end_a_wait(tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AKSGPU_HISTORY", "0")
    job: dict[str, Any] = {"metadata": {"name": "j", "namespace": "default", "uid": "1"}, "spec": {}}
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    server = Server(
        lambda request: request.refuse(status, "", "again") if len(server.requests) < 3 else request.json(job)
    )
    with server:
        waiting = Job(
            SimpleNamespace(name="c", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path))), "j", namespace="default"
        )
        assert waiting.wait(120) is waiting
        assert [request.route.rpartition("/")[2] for request in server.requests[:3]] == ["j"] * 3


def test_a_notebook_gets_a_live_view(aks: Cluster, name: str) -> None:
    job = start(aks, name, "true").wait(120)
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
    assert list(differences({"backoffLimit": None}, {"backoffLimit": 6})) == []
    twice = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    assert list(differences({"env": twice}, {"env": twice})) == []
    assert list(dropped({"a": 1}, {"a": None})) == ["a"]


def test_quantities_become_text() -> None:
    job: dict[str, Any] = {"limits": {"nvidia.com/gpu": 1, "cpu": 0.5}, "x": [{"requests": {"memory": "1Gi"}}], "n": 3}
    quantities_as_text(job)
    assert job == {"limits": {"nvidia.com/gpu": "1", "cpu": "0.5"}, "x": [{"requests": {"memory": "1Gi"}}], "n": 3}


# Jobs that ended


def test_an_edited_manifest_of_a_job_that_ended_says_when_and_how_it_ended(aks: Cluster, name: str) -> None:
    job = start(aks, name, "echo old; exit 3")
    with pytest.raises(errors.JobFailed):
        job.wait(120)
    with pytest.raises(errors.AlreadyExists) as raised:
        start(aks, name, "echo new")
    ended = rf"Job '{name}' ended \d+ seconds? ago with exit code 3 \(BackoffLimitExceeded\)"
    assert re.match(
        rf"{ended}; it differs in spec\.template\.spec\.containers\[main\]\.command\[2\]", str(raised.value)
    )
    assert "replace=True deletes the existing Job" in raised.value.hint
    with pytest.warns(UserWarning, match=rf"{ended}\. This is the old run\. The same call with replace=True") as warned:
        assert start(aks, name, "echo old; exit 3").logs() == "old\n"
    assert Path(warned[0].filename) == Path(__file__), "the warning names the caller's line"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start(aks, name, "echo old; exit 3", replace=False)
    assert start(aks, name, "echo new", replace=True).wait(120).logs() == "new\n"


def test_an_edited_manifest_of_a_job_that_runs_is_refused(aks: Cluster, name: str) -> None:
    job = start(aks, name, "sleep 600")
    until(job, "Running")
    assert start(aks, name, "sleep 600").name == name
    for edited in ({"retries": 2}, {"args": ["x"]}, {"env": {"A": 1}}, {"memory": "64Mi"}):
        with pytest.raises(errors.AlreadyExists, match=r"has not ended, and differs in spec\.") as raised:
            start(aks, name, "sleep 600", **edited)
        assert "replace=True deletes the existing Job" in raised.value.hint


def test_labels_belong_to_the_manifest(aks: Cluster, name: str) -> None:
    jobs.apply(aks, manifest(name))
    with pytest.raises(errors.AlreadyExists, match=r"differs in metadata\.labels\.team"):
        jobs.apply(aks, manifest(name, **{"labels: {": "labels: {team: a, "}))


def test_a_generated_name_is_refused_since_a_repeated_call_would_start_another_job(aks: Cluster, name: str) -> None:
    text = manifest(name).replace(f"name: {name}, labels", "generateName: train-, labels")
    before = len(jobs.list(aks))
    with pytest.raises(errors.InvalidInput, match=r"`metadata\.name` must be given") as raised:
        jobs.apply(aks, text)
    assert "aks.kube.create(manifest)" in raised.value.hint
    assert len(jobs.list(aks)) == before


def test_two_kernels_that_apply_at_once_get_the_same_job(aks: Cluster, name: str) -> None:
    found: list[Job | BaseException] = []

    def run() -> None:
        try:
            found.append(start(aks, name, "sleep 600"))
        except BaseException as failed:
            found.append(failed)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [repr(each) for each in found] == [f"Job({name!r}, namespace='default')"] * 8


# Images that cannot be pulled


def test_the_next_wait_succeeds_once_the_image_exists(aks: Cluster, laptop: Endpoint, name: str) -> None:
    image = f"registry.invalid/{name}:1"
    job = jobs.submit(aks, image=image, name=name, gpus=1)
    with pytest.raises(errors.JobFailed, match="cannot be pulled") as raised:
        job.wait(120)
    assert "the Job holds 1 nvidia.com/gpu until it is deleted" in raised.value.message
    assert f"jobs.get(aks, '{name}', namespace='default').delete() frees 1 nvidia.com/gpu" in raised.value.hint
    images.register(image, ["sh", "-c", "echo pulled"], home=laptop.home)
    try:
        assert jobs.get(aks, name).wait(120).logs() == "pulled\n"
    finally:
        images.unregister(image, home=laptop.home)


def test_a_further_failed_pull_is_reported_again(aks: Cluster, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A real kubelet shows ErrImagePull for seconds, and the laptop of the tests for 0.2 s.
    monkeypatch.setitem(Job._wait_until.__kwdefaults__, "interval", 0.02)
    job = jobs.submit(aks, image="registry.invalid/nothing:2", name=name, gpus=0)
    for _ in range(2):
        with pytest.raises(errors.JobFailed, match="cannot be pulled"):
            job.wait(120)
    assert "frees" not in str(job.why())


# A scripted API server: states and faults that the laptop does not show


class Scripted:
    """The content of a scripted API server: one Job, its pods, their log and events. ``broken`` refuses requests."""

    def __init__(self) -> None:
        self.job = job_object()
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.log: str | None = None
        self.broken: Callable[[Request], bool] = lambda request: False
        self.before: Callable[[Request], None] = lambda request: None

    def answer(self, request: Request) -> None:
        self.before(request)
        kind = request.route.rpartition("/")[2]
        if self.broken(request):
            request.refuse(403, "Forbidden", "refused by the test")
        elif kind == "log":
            if self.log is None:
                request.refuse(404, "NotFound", "pods not found")
            else:
                stamped = enumerate(self.log.splitlines(keepends=True))
                request.text("".join(f"2026-11-23T10:59:03.{number:09d}Z {line}" for number, line in stamped))
        elif kind in ("pods", "events", "nodes", "jobs"):
            found = {"pods": self.pods, "events": self.events, "nodes": [], "jobs": [self.job]}[kind]
            request.json({"kind": "List", "metadata": {}, "items": found})
        elif "/jobs/" in request.route:
            request.json(self.job)
        elif "/pods/" in request.route and any(pod["metadata"]["name"] == kind for pod in self.pods):
            request.json(next(pod for pod in self.pods if pod["metadata"]["name"] == kind))
        else:
            request.refuse(404, "NotFound", f"{kind} not found")

    def cluster(self, server: Server, folder: Path, **context: str) -> Any:
        path = server.kubeconfig(folder)
        config = yaml.safe_load(path.read_text())
        config["contexts"][0]["context"].update(context)
        path.write_text(yaml.safe_dump(config))
        return SimpleNamespace(name="scripted", kube=Kube.from_kubeconfig(path))


def job_object(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    """Return a Job like those of a real API server: conditions with status True, and counts."""
    selector = {"matchLabels": {"batch.kubernetes.io/job-name": "j"}}
    pod = {"containers": [{"name": "main", "image": BUSYBOX}], "restartPolicy": "Never"}
    return {
        "metadata": {"name": "j", "namespace": "default", "uid": "1", "creationTimestamp": "2026-11-23T10:59:03Z"},
        "spec": {"backoffLimit": 0, "completions": 1, "selector": selector, "template": {"spec": pod}},
        "status": {**status, "conditions": [{"status": "True", **each} for each in conditions]},
    }


FAILED = {
    "type": "Failed",
    "reason": "BackoffLimitExceeded",
    "message": "Job has reached the specified backoff limit",
    "lastTransitionTime": "2026-11-23T10:59:10Z",
}
OOM = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-23T10:59:07Z"}


def pod_object(phase: str, terminated: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    state = {"terminated": terminated} if terminated else {"running": {}}
    return {
        "metadata": {
            "name": "j-abcde",
            "namespace": "default",
            "uid": "2",
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-23T10:59:03Z",
            **metadata,
        },
        "spec": {"nodeName": "n", "containers": [{"name": "main", "image": BUSYBOX}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "main", "restartCount": 0, "state": state}]},
    }


def test_a_pod_that_is_deleted_with_its_failed_job_is_diagnosed(tmp_path: Path) -> None:
    """As in a real cluster, the pod fails 1 to 3 s before the Job, which then deletes the pod (OnFailure)."""
    scripted = Scripted()
    scripted.job = job_object(active=1)
    scripted.pods = [pod_object("Running")]
    scripted.log = "loading\nepoch 1\n"
    looks = 0

    def before(request: Request) -> None:
        nonlocal looks
        looks += request.route.endswith("/jobs/j")
        if looks == 3:
            scripted.pods = [pod_object("Failed", OOM)]
        if looks == 7:
            scripted.job = job_object(FAILED, failed=1)
            scripted.pods = []
            scripted.log = None

    scripted.before = before
    with Server(scripted.answer) as server, pytest.raises(errors.JobFailed) as raised:
        Job(scripted.cluster(server, tmp_path), "j", namespace="default").wait(120)
    assert "more memory than its limit (OOMKilled)" in raised.value.message
    assert "resources.limits.memory" in raised.value.hint
    assert raised.value.log_tail == "loading\nepoch 1"
    assert raised.value.reason == "BackoffLimitExceeded"


def test_a_log_that_could_not_be_read_at_first_is_read_while_the_pod_exists(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.job = job_object(active=1)
    scripted.pods = [pod_object("Failed", {**OOM, "exitCode": 1, "reason": "Error"})]
    scripted.log = "CUDA out of memory"
    looks = 0

    def before(request: Request) -> None:
        nonlocal looks
        looks += request.route.endswith("/jobs/j")
        scripted.broken = lambda request: request.route.endswith("/events") and looks < 3
        if looks == 6:
            scripted.job = job_object(FAILED, failed=1)
            scripted.pods = []
            scripted.log = None

    scripted.before = before
    with Server(scripted.answer) as server, pytest.raises(errors.JobFailed) as raised:
        Job(scripted.cluster(server, tmp_path), "j", namespace="default").wait(120)
    assert "the GPU's memory is too small" in raised.value.message
    assert "Not known" not in raised.value.message
    assert raised.value.log_tail == "CUDA out of memory"


@pytest.mark.parametrize("what", ["/jobs/j", "/pods", "/events", "/log", "everything"])
def test_job_failed_stays_job_failed_when_its_reason_cannot_be_read(tmp_path: Path, what: str) -> None:
    scripted = Scripted()
    scripted.job = job_object(FAILED, failed=1)
    scripted.pods = [pod_object("Failed", {**OOM, "reason": "Error"})]
    scripted.log = "last words"
    looks = 0

    def broken(request: Request) -> bool:
        nonlocal looks
        looks += 1
        return looks > 1 and (what == "everything" or request.route.endswith(what))

    scripted.broken = broken
    with Server(scripted.answer) as server, pytest.raises(errors.JobFailed) as raised:
        Job(scripted.cluster(server, tmp_path), "j", namespace="default").wait(120)
    assert raised.value.reason == "BackoffLimitExceeded"
    assert "Job j failed" in raised.value.message
    if what != "/log":
        assert "refused by the test" in raised.value.message


def test_wait_timeout_stays_wait_timeout_when_its_reason_cannot_be_read(tmp_path: Path) -> None:
    scripted = Scripted()
    scripted.pods = [pod_object("Running")]
    looks = 0

    def broken(request: Request) -> bool:
        nonlocal looks
        looks += 1
        return looks > 2

    scripted.broken = broken
    with Server(scripted.answer) as server, pytest.raises(errors.WaitTimeout) as raised:
        Job(scripted.cluster(server, tmp_path), "j", namespace="default").wait(0)
    assert "could not be determined: refused by the test" in raised.value.message
    assert "job.wait() waits again" in raised.value.hint


@pytest.mark.parametrize(
    ("job", "pods", "phase", "reason"),
    [
        (job_object(active=1, ready=0), [pod_object("Succeeded")], "Running", "Completing"),
        (job_object(active=1, ready=1), [pod_object("Succeeded")], "Running", "Completing"),
        (job_object({"type": "SuccessCriteriaMet"}), [pod_object("Succeeded")], "Running", "Completing"),
        (job_object(succeeded=1), [], "Running", "Completing"),
        (job_object(active=1), [pod_object("Failed", OOM)], "Running", "Failing"),
        (job_object({"type": "FailureTarget"}), [], "Running", "Failing"),
        (job_object(active=1), [], "Pending", ""),
        (job_object(), [], "Pending", ""),
    ],
)
def test_the_status_between_the_pods_end_and_the_jobs(
    tmp_path: Path, job: dict[str, Any], pods: list[dict[str, Any]], phase: str, reason: str
) -> None:
    scripted = Scripted()
    scripted.job = job
    scripted.pods = pods
    with Server(scripted.answer) as server:
        aks = scripted.cluster(server, tmp_path)
        status = Job(aks, "j", namespace="default").status()
        assert (status.phase, status.reason) == (phase, reason)
        if not pods:
            assert jobs.list(aks)[["phase", "reason"]].values.tolist() == [[phase, reason]]


def test_a_function_that_has_returned_does_not_run_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Job controller records the end some seconds after the value is there."""
    execution = 1
    monkeypatch.setattr(run_notices, "in_kernel", lambda: True)
    monkeypatch.setattr(run_notices, "_execution", lambda: execution)
    scripted = Scripted()
    scripted.job = job_object(active=1)
    with Server(scripted.answer) as server:
        run_notices.remember(manifest, Job(scripted.cluster(server, tmp_path), "j", namespace="default"))
        execution = 2
        for phase, is_noted in (("Running", True), ("Succeeded", False)):
            scripted.pods = [pod_object(phase)]
            run_notices.note_earlier_runs(manifest)
            assert ("still runs the same function" in capsys.readouterr().out) is is_noted


# Namespaces


def test_namespace_none_is_the_contexts_namespace_everywhere(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(request: Request) -> None:
        asked.append(request.route)
        if request.command == "POST":
            request.json(request.body, 201)
        elif request.route.endswith("/nodes") or request.route.endswith(("/pods", "/events")):
            request.json({"metadata": {}, "items": []})
        elif request.route.endswith("/jobs"):
            listed = job_object()
            listed["metadata"]["namespace"] = "team"
            request.json({"metadata": {}, "items": [listed]})
        else:
            request.json(job_object()) if looking else request.refuse(404, "NotFound", "not found")

    with Server(answer) as server:
        aks = Scripted().cluster(server, tmp_path, namespace="team")
        looking = False
        assert jobs.submit(aks, image=BUSYBOX, name="j").namespace == "team"
        assert jobs.apply(aks, manifest("j")).namespace == "team"
        looking = True
        assert jobs.get(aks, "j").namespace == "team"
        jobs.list(aks)
        assert Job(aks, "j").namespace == "team"
    places = {route for route in asked if "nodes" not in route}
    assert places == {
        "/api/v1/namespaces/team/events",
        "/api/v1/namespaces/team/pods",
        "/apis/batch/v1/namespaces/team/jobs",
        "/apis/batch/v1/namespaces/team/jobs/j",
    }


def test_a_user_of_one_namespace_lists_its_jobs_and_is_refused_the_others(tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        if request.route == "/apis/batch/v1/namespaces/team/jobs":
            request.json({"metadata": {}, "items": [job_object()] if there else []})
        else:
            request.refuse(403, "Forbidden", 'jobs.batch is forbidden: User "dev" cannot list it at the cluster scope')

    with Server(answer) as server:
        aks = Scripted().cluster(server, tmp_path, namespace="team")
        there = True
        assert jobs.list(aks)["job"].tolist() == ["j"]
        with pytest.raises(errors.Forbidden):
            jobs.list(aks, all_namespaces=True)
        there = False
        assert jobs.list(aks).empty
        with pytest.raises(errors.InvalidInput, match="`namespace` must be None"):
            jobs.list(aks, namespace="team", all_namespaces=True)


def test_a_namespace_that_does_not_exist_is_not_an_empty_one(aks: Cluster, name: str) -> None:
    start(aks, name, "true")
    with pytest.raises(errors.NotFound, match="nowhere"):
        jobs.list(aks, namespace="nowhere")
    assert name in jobs.list(aks, all_namespaces=True)["job"].tolist()


def test_get_names_existing_jobs_or_says_that_they_cannot_be_read(tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        if request.route.endswith("/jobs"):
            request.refuse(403, "Forbidden", "jobs is forbidden")
        else:
            request.refuse(404, "NotFound", "not found")

    with Server(answer) as server:
        aks = Scripted().cluster(server, tmp_path)
        with pytest.raises(errors.NotFound, match="Job 'nope' does not exist") as raised:
            jobs.get(aks, "nope")
    assert "could not be read: jobs is forbidden" in raised.value.hint


# Input


LONG = "x" * 80


@pytest.mark.parametrize(
    ("call", "words", "hint"),
    [
        ({"memory": 8}, "`memory` must be a quantity with a unit", "'8Gi'"),
        ({"memory": "8"}, "which is 8 bytes", "'8Gi'"),
        ({"memory": "8GB"}, "`memory`.*got '8GB'", "'8Gi'"),
        ({"memory": "8 GiB"}, "`memory`", "'8Gi'"),
        ({"memory": "512mb"}, "`memory`", "'512Mi'"),
        ({"memory": "500m"}, "which is 0.500 bytes", "'500Mi'"),
        ({"memory": 8589934592}, "`memory`", "'8Gi'"),
        ({"memory": "-1Gi"}, "`memory`", "'8Gi'"),
        ({"memory": True}, "`memory`", "'8Gi'"),
        ({"memory": 10**5000}, "`memory`.*a very large integer", "'8Gi'"),
        ({"cpu": 10**5000}, "`cpu`.*a very large integer", "'2'"),
        ({"memory": "a lot"}, "`memory`", "'8Gi'"),
        ({"memory": "9" * 5000}, "`memory`", "Did you mean"),
        ({"cpu": "2 cores"}, "`cpu` must be cores", "'2'"),
        ({"cpu": "500M"}, "`cpu`", "'500m'"),
        ({"cpu": float("nan")}, "`cpu`", "'2'"),
        ({"cpu": -1}, "`cpu`", "'2'"),
        ({"cpu": True}, "`cpu`", "'2'"),
        ({"cpu": [1]}, "`cpu`", "'2'"),
        ({"args": [None]}, r"`args\[0\]` must be a string or a number, got None", "args="),
        ({"args": [True]}, r"`args\[0\]`.*got True", "'true', 'True' or '1'"),
        ({"args": [["a"]]}, r"`args\[0\]`", "args="),
        ({"args": {"a"}}, "`args` must be a list", "args="),
        ({"args": "--steps 5"}, "`args` must be a list", "args="),
        ({"args": [b"x"]}, r"`args\[0\]`", "args="),
        ({"args": ["\ud800"]}, r"`args\[0\]` must be valid Unicode", "args="),
        ({"command": ["a\0b"]}, r"`command\[0\]` must not have NUL", "command="),
        ({"env": {"A": None}}, r"`env\['A'\]` must be a string or a number, got None", "env="),
        ({"env": {"A": {}}}, r"`env\['A'\]`", "env="),
        ({"env": {1: "x"}}, "`env` must have names as keys, got 1", "env="),
        ({"env": {"A=B": "x"}}, "`env` must have names as keys", "env="),
        ({"env": {"A": "\udfff"}}, "valid Unicode", "env="),
        ({"env": ["A=1"]}, "`env` must be a dict", "env="),
        ({"node_selector": {"gpu": True}}, "`node_selector", "'true'"),
        ({"image": None}, "`image` must be the name of a container image .*got None", "image="),
        ({"image": ""}, "`image`", "image="),
        ({"image": "https://docker.io/a:1"}, "`image`", "Did you mean image='docker.io/a:1'"),
        ({"image": "Busybox:1"}, "`image`", "Did you mean image='busybox:1'"),
        ({"image": "a b"}, "`image`", "image="),
        ({"image": "a\ud800"}, "`image`", "image="),
        ({"name": "MyJob"}, "`name` must be the name of a new Job .lower case letters", "name='myjob'"),
        ({"name": LONG}, r"`name`.*\(82 characters\)|`name`", f"name='{LONG[:63]}'"),
        ({"name": ""}, "`name`", "name='training-1'"),
        ({"name": "."}, "`name`", "name='training-1'"),
        ({"name": "a/b"}, "`name`", "name='a-b'"),
        ({"name": "a\ud800"}, "`name`", "name='a'"),
        ({"name": 5}, "`name`.*got 5", "name="),
        ({"namespace": ".."}, "`namespace` must be the name of a namespace", "namespace='default'"),
        ({"namespace": "Team A"}, "`namespace`", "namespace='team-a'"),
        ({"namespace": ""}, "`namespace`", "namespace="),
        ({"gpus": True}, "`gpus` must be an integer, 0 or more, got True", "gpus=1"),
        ({"gpus": "2"}, "gpus", "gpus="),
        ({"retries": 1.5}, "retries", "retries="),
        ({"replace": "no"}, "`replace` must be True, False or None, got 'no'", "replace=True"),
        ({"tolerate": 0}, "`tolerate` must be True or False", "tolerate="),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_invalid_argument_is_refused_before_any_request(
    tmp_path: Path, call: dict[str, Any], words: str, hint: str
) -> None:
    with Server(lambda request: request.refuse(500, "", "asked")) as server:
        aks = Scripted().cluster(server, tmp_path)
        with pytest.raises(errors.InvalidInput, match=words) as refused:
            jobs.submit(aks, **{"image": BUSYBOX, **call})
        assert server.requests == []
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("old", "new", "words", "hint"),
    [
        ("name: NAME", "name: My_Job", r"`metadata\.name`.*got 'My_Job'", "metadata.name='my-job'"),
        ("name: NAME", f"name: {LONG}", r"`metadata\.name`", "metadata.name='xxx"),
        ("name: NAME", "name: 5", r"`metadata\.name`.*got 5", "metadata.name='training-1'"),
        ("name: NAME, ", "", r"`metadata\.name`.*got None", "metadata.name='training-1'"),
        ("{name: NAME", "{namespace: a/b, name: NAME", r"`metadata\.namespace`", "'a-b'"),
        ("labels: {app: NAME}", "labels: {app: 1}", r"`metadata\.labels`", "quotes"),
        ("batch/v1", "v1", "`apiVersion` must be 'batch/v1', got 'v1'", "batch/v1"),
        ("memory: 128Mi", "memory: 8", r"limits\.memory`.*which is 8 bytes", "'8Gi'"),
        ("memory: 128Mi", "memory: 8GB", r"limits\.memory`", "'8Gi'"),
        ("cpu: 1", "cpu: 2vcpu", r"limits\.cpu`", "'2'"),
        ('"COMMAND"', "5", r"containers\[0\]\.command\[2\]` must be a string, got 5", '"5"'),
        ("command: [", "args: [--steps, 500]\n        command: [", r"args\[1\]` must be a string, got 500", '"500"'),
        ("command: [", "env: [{name: A, value: true}]\n        command: [", r"env\[0\]\.value`", '"true"'),
        ("resources: {limits: {cpu: 1, memory: 128Mi}}", "resources: {limits: [1]}", r"limits` must be a mapp", "cpu"),
        ("resources: {limits: {cpu: 1, memory: 128Mi}}", "resources: 5", r"resources` must be a mapping", "cpu"),
        ("restartPolicy: Never", "tolerations: x\n      restartPolicy: Never", "tolerations` must be a list", "sku"),
    ],
)
def test_an_invalid_manifest_is_refused_with_the_field_named(
    tmp_path: Path, old: str, new: str, words: str, hint: str
) -> None:
    assert old in MANIFEST
    with Server(lambda request: request.refuse(500, "", "asked")) as server:
        aks = Scripted().cluster(server, tmp_path)
        with pytest.raises(errors.InvalidInput, match=words) as refused:
            jobs.apply(aks, MANIFEST.replace(old, new).replace("NAME", "n").replace("COMMAND", "true"))
        assert server.requests == []
    assert hint in refused.value.hint


@pytest.mark.parametrize("wrong", [None, 5, "aks", object()])
@pytest.mark.parametrize(
    "call",
    [
        lambda aks: jobs.submit(aks, image=BUSYBOX),
        lambda aks: jobs.apply(aks, manifest("n")),
        lambda aks: jobs.get(aks, "n"),
        jobs.list,
        lambda aks: diagnose.job(aks, "n"),
        lambda aks: diagnose.pod(aks, "n"),
        lambda aks: Job(aks, "n", namespace="default"),
    ],
)
def test_the_first_argument_must_be_a_cluster(call: Any, wrong: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="`aks` must be a cluster, got a"):
        call(wrong)


def test_a_subscription_and_a_kube_are_not_a_cluster(azure: Any, aks: Cluster) -> None:
    with pytest.raises(errors.InvalidInput, match="`aks` must be a cluster, got an Azure") as refused:
        jobs.submit(azure, image=BUSYBOX)
    assert "cluster.get(azure, 'myAKSCluster', resource_group='myGroup')" in refused.value.hint
    with pytest.raises(errors.InvalidInput, match="got its Kube") as refused:
        jobs.apply(aks.kube, manifest("n"))  # type: ignore[arg-type]
    assert "not jobs.list(aks.kube)" in refused.value.hint


def test_numbers_and_paths_are_arguments(aks: Cluster, name: str) -> None:
    import numpy as np

    given = [1, 0.5, np.int64(3), np.float32(0.25), Path("/data")]
    job = jobs.submit(aks, image=BUSYBOX, command=["echo"], args=given, name=name, gpus=0, cpu=0.1 + 0.2)
    assert job.wait(120).logs() == "1 0.5 3 0.25 /data\n"
    with pytest.warns(UserWarning, match="the old run"):
        jobs.submit(aks, image=BUSYBOX, command=["echo"], args=given, name=name, gpus=0, cpu=0.1 + 0.2)
    spec = aks.kube.get("Job", name, "default")["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["requests"] == {"cpu": "300m", "memory": "256Mi"}


# The rules for repeated calls, in the same sentences everywhere


@pytest.mark.parametrize("sentence", [apply_rules.REPLACE, apply_rules.GENERATED_NAME, apply_rules.ONE_JOB])
def test_the_rules_of_apply_are_the_same_sentences_in_docstring_and_page(sentence: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "jobs.md").read_text()
    for text in (page, jobs.apply.__doc__ or ""):
        assert sentence in " ".join(text.replace("`", "").split())


def test_a_hint_about_a_manifest_is_the_rule(aks: Cluster, name: str) -> None:
    with pytest.raises(errors.InvalidInput) as refused:
        jobs.apply(aks, manifest(name) + "---" + manifest("other"))
    assert refused.value.hint == apply_rules.ONE_JOB
    with pytest.raises(errors.InvalidInput) as refused:
        jobs.apply(aks, manifest(name).replace(f"name: {name}, labels", "generateName: train-, labels"))
    assert refused.value.hint == apply_rules.GENERATED_NAME
    jobs.apply(aks, manifest(name, "sleep 600"))
    with pytest.raises(errors.AlreadyExists) as exists:
        jobs.apply(aks, manifest(name, "sleep 601"))
    assert exists.value.hint == apply_rules.REPLACE


def test_a_missing_exit_code_does_not_delay_a_repeated_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_ending, "_READ_TIMEOUT", 0.5)
    answered = threading.Event()
    scripted = Scripted()
    scripted.job = job_object(FAILED, failed=1)
    scripted.pods = [pod_object("Failed", OOM)]

    def before(request: Request) -> None:
        if request.route.endswith("/pods"):
            answered.wait(60)

    scripted.before = before
    with Server(scripted.answer) as server:
        aks = scripted.cluster(server, tmp_path)
        wanted = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": scripted.job["spec"]}
        with pytest.warns(UserWarning, match=r"and failed \(BackoffLimitExceeded; its exit code could not be read\)"):
            jobs.apply(aks, wanted)
        answered.set()


def test_attach_is_another_name_for_get() -> None:
    assert jobs.attach is jobs.get


def test_tab_completion_shows_what_a_user_may_use() -> None:
    assert dir(jobs) == sorted(jobs.__all__)
    assert dir(diagnose) == sorted(diagnose.__all__)
    assert dir(manifests) == sorted(manifests.__all__)
