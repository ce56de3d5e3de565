from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Request, Server

from aksgpu import capacity, diagnose, errors, jobs, manifests
from aksgpu.capacity import Usage
from aksgpu.cluster import Cluster
from aksgpu.diagnose import Diagnosis
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.placement import Obstacle, ObstacleKind, obstacles
from aksgpu.diagnose.scheduling_rules import RULES, Situation, first_rule
from aksgpu.jobs import Job
from aksgpu.kube import Kube
from aksgpu.kube.node_facts import read
from aksgpu.waiting import wait_until

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

BUSYBOX = "docker.io/library/busybox:1"


def diagnosis_with(job: Job, text: str) -> Diagnosis:
    """Return the diagnosis once its text contains ``text``."""

    def poll() -> tuple[Diagnosis | None, str]:
        found = job.why()
        return (found if text in found.verdict else None), found.verdict

    return wait_until(poll, text, timeout=60, interval=0.1)


@pytest.fixture
def submit(aks: Cluster, request: pytest.FixtureRequest) -> Any:
    made: list[Job] = []

    def start(script: str = "true", **options: Any) -> Job:
        name = request.node.originalname.removeprefix("test_").replace("_", "-")[:30].strip("-") + f"-{len(made)}"
        options = {"image": BUSYBOX, "command": ["sh", "-c", script], "gpus": 0, **options}
        made.append(jobs.submit(aks, name=name, **options))
        return made[-1]

    yield start
    for job in made:
        job.delete()


Submit = Callable[..., Job]


def test_a_gpu_that_is_in_use(submit: Submit) -> None:
    holder = submit("sleep 600", gpus=1)
    diagnosis_with(holder, "is running")
    waiting = submit(gpus=1)
    diagnosis_with(waiting, "1 of 1 nvidia.com/gpu taken by default/a-gpu-that-is-in-use-0")
    found = wait_until(
        lambda: (d if "event FailedScheduling" in (d := waiting.why()).evidence["what"].tolist() else None, "no event"),
        "event",
        timeout=60,
        interval=0.1,
    )
    assert "cluster.scale_pool(aks, 'gpunp', count=2)" in found.fix
    says = found.evidence.set_index("what")["says"]
    assert "0/2 nodes are available" in says["event FailedScheduling"]
    assert isinstance(found.error, errors.PodPending)
    assert (found.error.nodes, found.error.causes["Insufficient nvidia.com/gpu"]) == (2, 2)
    with pytest.raises(errors.WaitTimeout) as raised:
        waiting.wait(0)
    assert isinstance(raised.value.original, errors.PodPending)
    assert says.filter(like="node aks-nodepool1").tolist() == ["the node has no GPU"]


def test_a_taint_that_is_not_tolerated(submit: Submit) -> None:
    found = diagnosis_with(submit(gpus=1, tolerate=False), "taint sku=gpu:NoSchedule is not tolerated")
    assert "tolerations" in found.fix


def test_more_gpus_than_a_node_has(submit: Submit) -> None:
    found = diagnosis_with(submit(gpus=8), "no node has 8 nvidia.com/gpu; the largest has 1")
    assert "at most 1" in found.fix


def test_a_selector_that_no_node_matches(submit: Submit) -> None:
    found = diagnosis_with(submit(gpus=1, node_selector={"zone": "moon"}), "the node has no label zone=moon")
    assert "nodeSelector" in found.fix


def test_missing_cpu_is_reported_in_the_schedulers_words(submit: Submit) -> None:
    found = diagnosis_with(submit(cpu=500), "Insufficient cpu")
    assert "Ask for less cpu" in found.fix


def test_a_missing_device_plugin(aks: Cluster, submit: Submit) -> None:
    node = capacity.gpus(aks)["node"][0]
    daemon = aks.kube.get("DaemonSet", "nvidia-device-plugin-daemonset", "gpu-resources")
    selector = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "true"}}}}}
    aks.kube.patch("DaemonSet", daemon["metadata"]["name"], selector, "gpu-resources")
    try:
        wait_until(
            lambda: (True if not capacity.gpus(aks)["allocatable"][0] else None, "advertised"),
            node,
            timeout=60,
            interval=0.1,
        )
        found = diagnosis_with(submit(gpus=1), "no node advertises nvidia.com/gpu")
        assert found.fix == "plugin.install(aks)"
        assert isinstance(found.error, errors.GpuNotAdvertised)
        assert found.error.nodes == (node,)
        with pytest.raises(errors.WaitTimeout):
            capacity.wait_schedulable(aks, timeout=0)
    finally:
        selector["spec"]["template"]["spec"]["nodeSelector"]["nowhere"] = None  # type: ignore[assignment]
        aks.kube.patch("DaemonSet", daemon["metadata"]["name"], selector, "gpu-resources")
        capacity.wait_schedulable(aks, timeout=60)


def test_a_cordoned_node(aks: Cluster, submit: Submit) -> None:
    node = capacity.gpus(aks)["node"][0]
    aks.kube.patch("Node", node, {"spec": {"unschedulable": True}})
    try:
        found = diagnosis_with(submit(gpus=1), "the node is cordoned")
        assert "uncordon" in found.fix
    finally:
        aks.kube.patch("Node", node, {"spec": {"unschedulable": None}})


def test_an_image_without_a_program(submit: Submit) -> None:
    found = diagnosis_with(
        submit(image="registry.invalid/nothing:1"), "The image registry.invalid/nothing:1 cannot be pulled"
    )
    assert "aksgpu.local.images.register" in found.fix


def test_a_program_that_fails(submit: Submit) -> None:
    found = diagnosis_with(submit("echo the disk is on fire; exit 7"), "exit code 7: the disk is on fire")
    assert found.evidence["what"].tolist()[-1] == "log"


@pytest.mark.parametrize(
    ("line", "verdict", "kind"),
    [
        ("CUDA driver version is insufficient for CUDA runtime version", "do not fit together", errors.DriverMismatch),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.", "memory is too small", errors.JobFailed),
        ("Failed to initialize NVML: Unknown Error", "lost its GPU", errors.GpuLost),
    ],
)
def test_known_texts_at_the_end_of_a_log(
    submit: Submit, line: str, verdict: str, kind: type[errors.AksGpuError]
) -> None:
    job = submit(f"echo '{line}'; exit 1")
    assert type(diagnosis_with(job, verdict).error) is kind
    with pytest.raises(errors.JobFailed) as raised:
        job.wait(60)
    assert type(raised.value.original) is kind


MAIN: dict[str, Any] = {"name": "main", "image": BUSYBOX, "command": ["true"]}
SECRET: dict[str, Any] = {
    "volumes": [{"name": "v", "secret": {"secretName": "nope"}}],
    "containers": [{**MAIN, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
}


@pytest.mark.parametrize(
    ("spec", "verdict", "fix"),
    [
        (SECRET, 'waits for a volume: MountVolume.SetUp failed for volume "v" : secret "nope" not found', "Secret"),
        (
            {"containers": [{**MAIN, "command": ["/no/such"]}]},
            "The program cannot be started: failed to",
            "in the image",
        ),
        ({"initContainers": [{"name": "i", "image": "no/such:1"}]}, "The image docker.io/no/such:1 cannot", "Register"),
        (
            {"initContainers": [{"name": "i", "image": BUSYBOX, "command": ["sh", "-c", "echo no data; exit 4"]}]},
            "The init container's program ended with exit code 4: no data",
            "correct the program",
        ),
        (
            {
                "initContainers": [
                    {"name": "side", "image": BUSYBOX, "restartPolicy": "Always", "command": ["sleep", "60"]}
                ],
                "containers": [MAIN, {**MAIN, "name": "other", "command": ["sh", "-c", "echo no data here; exit 3"]}],
            },
            "The program ended with exit code 3: no data here",
            "correct the program",
        ),
        ({"schedulingGates": [{"name": "queue/wait"}]}, "non-empty scheduling gates", "schedulingGates"),
        (
            {"containers": [{**MAIN, "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}]},
            "no node has nvidia.com/mig-1g.5gb",
            "gpu_instance_profile",
        ),
    ],
    ids=["secret", "command", "init image", "init program", "second container", "gate", "slice"],
)
def test_reasons_why_a_pod_does_not_start(aks: Cluster, spec: dict[str, Any], verdict: str, fix: str) -> None:
    pod = {"restartPolicy": "Never", "containers": [MAIN], **spec}
    metadata = {"name": "starting"}
    template = {"spec": pod}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": template},
    }
    made = jobs.apply(aks, job)
    try:
        assert fix in diagnosis_with(made, verdict).fix
        if made.status().phase == "Failed":
            with pytest.raises(errors.JobFailed, match=r"ends:\nno data|no such file"):
                made.wait(0)
    finally:
        made.delete()


def test_a_program_that_uses_too_much_memory(submit: Submit) -> None:
    hungry = ["python3", "-c", "import time; x = bytearray(200 << 20); time.sleep(600)"]
    found = diagnosis_with(submit(command=hungry, memory="48Mi"), "OOMKilled")
    assert "limits.memory" in found.fix


def test_a_node_that_is_lost(tmp_path: Path) -> None:
    pod = {
        "metadata": {"name": "p", "namespace": "default", "uid": "1"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running"},
    }
    node = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}

    def answer(request: Request) -> None:
        if request.route.endswith("/nodes/n"):
            request.json(node)
        else:
            request.json(pod if request.route.endswith("/p") else {"items": [], "metadata": {}})

    with Server(answer) as server:
        stub = SimpleNamespace(name="stub", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        assert diagnose.pod(stub, "p").verdict == "The pod's node n is not ready."


def test_a_crash_loop(aks: Cluster, submit: Submit) -> None:
    pod = {"containers": [{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", "echo boom; exit 1"]}]}
    aks.kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loop"}, "spec": pod})
    try:
        found = wait_until(
            lambda: (d if "CrashLoop" in str((d := diagnose.pod(aks, "loop")).rows) else None, d.verdict),
            "crash loop",
            timeout=60,
            interval=0.1,
        )
        assert "exit code 1" in found.verdict
        assert "boom" in found.verdict
    finally:
        aks.kube.delete("Pod", "loop")


def test_a_quota_that_is_used_up(aks: Cluster, submit: Submit) -> None:
    aks.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    quota = {"hard": {"requests.nvidia.com/gpu": "0"}}
    metadata = {"name": "gpus", "namespace": "team"}
    aks.kube.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": quota})
    found = diagnosis_with(submit(gpus=1, namespace="team"), "ResourceQuota is used up")
    assert any("exceeded quota: gpus" in says for says in found.evidence["says"])
    aks.kube.delete("Namespace", "team")


def test_a_suspended_job(aks: Cluster, submit: Submit) -> None:
    job = submit("sleep 600")
    aks.kube.patch("Job", job.name, {"spec": {"suspend": True}}, "default")
    found = diagnosis_with(job, "is suspended")
    assert "patch" in found.fix
    assert job.status().phase == "Suspended"


def test_a_deadline(aks: Cluster, submit: Submit) -> None:
    job = submit("sleep 600")
    aks.kube.patch("Job", job.name, {"spec": {"activeDeadlineSeconds": 1}}, "default")
    with pytest.raises(errors.JobFailed) as raised:
        job.wait(60)
    assert raised.value.reason == "DeadlineExceeded"
    assert "longer than the 1 s" in raised.value.message


def test_a_job_without_problems(submit: Submit) -> None:
    job = submit("echo fine")
    found = diagnosis_with(job, "is complete: nothing is wrong")
    assert (found.fix, str(found)) == ("", found.verdict)
    assert found.evidence.empty


def test_reprs() -> None:
    found = Diagnosis("It <fails>.", "Do this.", (("log", "a & b"),))
    assert repr(found) == "Diagnosis(verdict='It <fails>.', fix='Do this.')"
    assert str(found) == "It <fails>.\nFix: Do this."
    assert "a &amp; b" in found._repr_html_() and "&lt;fails&gt;" in found._repr_html_()


def test_a_job_that_does_not_exist(aks: Cluster) -> None:
    with pytest.raises(errors.NotFound):
        diagnose.job(aks, "nope")
    with pytest.raises(errors.NotFound):
        diagnose.pod(aks, "nope")


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["x"], True),
        ("In", ["y"], False),
        ("NotIn", ["x"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_required_affinity(operator: str, values: list[str], fits: bool) -> None:
    node = read(
        {
            "metadata": {"name": "n", "labels": {"l": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    terms = [{"matchExpressions": [{"key": "l", "operator": operator, "values": values}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    found = obstacles({"affinity": {"nodeAffinity": required}, "containers": []}, {}, node, Usage())
    assert [o.kind for o in found] == ([] if fits else ["selector"])


# Pods that the cluster ends


def deployed(pod: dict[str, Any], **more: Any) -> Callable[[Request], None]:
    """Serve one pod, and what ``more`` has for the last part of other routes. All other lists are empty."""

    def answer(request: Request) -> None:
        last = request.route.rpartition("/")[2]
        if last in more:
            found = more[last]
            if isinstance(found, int):
                request.refuse(found, "Forbidden" if found == 403 else "BadRequest", "refused by the test")
            elif isinstance(found, list):
                request.json({"metadata": {}, "items": found})
            else:
                request.json(found)
        elif last == pod["metadata"]["name"]:
            request.json(pod)
        elif last == "log":
            words = "last words of the run before" if "previous" in request.query else "last words"
            request.text(f"2026-11-28T09:59:00.000000000Z {words}\n")
        else:
            request.json({"metadata": {}, "items": []})

    return answer


def on_node(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "1", **metadata},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", **status},
    }


NODE = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
DELETION = "2026-11-28T10:00:00Z"
DELETED = {"deletionTimestamp": "2026-11-28T10:00:30Z", "deletionGracePeriodSeconds": 30}
KILLED = {"exitCode": 143, "reason": "Error", "finishedAt": "2026-11-28T10:00:05Z"}


def container(before: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    """Return the status of a container, and how it ended before its last restart."""
    entry: dict[str, Any] = {"name": "c", "restartCount": 0, "state": state}
    if before:
        entry |= {"restartCount": 1, "lastState": {"terminated": before}}
    return {"containerStatuses": [entry]}


def disrupted(reason: str, **status: Any) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "its message"}
    return {"conditions": [condition], **status}


@pytest.mark.parametrize(
    ("pod", "verdict", "fix"),
    [
        (on_node(container(running={}), **DELETED), "The pod is being deleted: its program was asked to end", "30 s"),
        (on_node(container(terminated=KILLED), **DELETED), "The pod is being deleted: its program was", "30 s"),
        (
            on_node(container(terminated={**KILLED, "finishedAt": "2026-11-28T09:59:00Z"}), **DELETED),
            "The program ended with exit code 143: last words",
            "orrect the program",
        ),
        (
            on_node(container(terminated={**KILLED, "finishedAt": DELETION}), **DELETED),
            "The pod is being deleted: its program was",
            "30 s",
        ),
        (
            on_node(container(terminated={"exitCode": 4, "finishedAt": DELETION}), **DELETED),
            "The program ended with exit code 4: last words",
            "orrect the program",
        ),
        (
            on_node(container({"exitCode": 4, "finishedAt": "2026-11-28T09:59:58Z"}, terminated=KILLED), **DELETED),
            "The program ended with exit code 4, and was started again once: last words of the run before",
            "orrect the program",
        ),
        (
            on_node(container({"exitCode": 4, "finishedAt": "2026-11-28T09:59:58Z"}, running={}), **DELETED),
            "The program ended with exit code 4, and was started again once: last words of the run before",
            "orrect the program",
        ),
        (
            on_node(container(terminated={"exitCode": 137, "reason": "OOMKilled", "finishedAt": DELETION}), **DELETED),
            "The container used more memory than its limit (OOMKilled)",
            "memory",
        ),
        (on_node(disrupted("PreemptionByScheduler"), **DELETED), "deleted: the scheduler gave its place", "capacity"),
        (
            on_node(disrupted("PreemptionByScheduler", phase="Failed", **container(terminated=KILLED)), **DELETED),
            "The pod was ended: the scheduler gave its place to a pod of higher priority (its message)",
            "priorityClassName",
        ),
        (on_node(disrupted("EvictionByEvictionAPI"), **DELETED), "it was evicted", "safe-to-evict"),
        (on_node(disrupted("DeletionByTaintManager"), **DELETED), "its node got a taint", "capacity.nodes(aks)"),
        (on_node(disrupted("DeletionByPodGC"), **DELETED), "its node is gone", "capacity.nodes(aks)"),
        (on_node(disrupted("TerminationByKubelet"), **DELETED), "its node ended it", "resources.requests"),
        (on_node(disrupted("Unheard")), "the cluster ended it (Unheard)", "Run it again"),
        (on_node(container(running={})), "The pod is running: nothing is wrong.", ""),
    ],
)
def test_a_pod_that_is_ended_by_the_cluster(tmp_path: Path, pod: dict[str, Any], verdict: str, fix: str) -> None:
    with Server(deployed(pod, n=NODE)) as server:
        stub = SimpleNamespace(name="stub", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        found = diagnose.pod(stub, "p")
    assert verdict in found.verdict
    assert fix in found.fix


def test_a_job_that_is_preempted(aks: Cluster, submit: Submit) -> None:
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}}
    aks.kube.apply({**priority, "value": 1000, "preemptionPolicy": "PreemptLowerPriority"})
    low = submit("trap 'sleep 8; exit 0' TERM; while :; do sleep 0.1; done", gpus=1, retries=3)
    diagnosis_with(low, "is running")
    urgent = manifests.mnist("current", max_steps=20, name="urgent-job")
    urgent["spec"]["template"]["spec"]["priorityClassName"] = "urgent"
    urgent["spec"]["template"]["spec"]["containers"][0].update(image=BUSYBOX, command=["sleep", "600"], args=[])
    high = jobs.apply(aks, urgent)
    try:
        found = diagnosis_with(low, "was preempted")
        assert "made room for a pod of higher priority" in found.verdict
        assert any("Preempted by pod" in says for says in found.evidence["says"])
        assert found.fix
        assert "nothing is wrong" not in found.verdict
    finally:
        high.delete()
        aks.kube.delete("PriorityClass", "urgent")


JOB: dict[str, Any] = {
    "metadata": {"name": "j", "namespace": "default", "uid": "9"},
    "spec": {"selector": {"matchLabels": {"job-name": "j"}}, "template": {"spec": {"containers": []}}},
    "status": {"failed": 1},
}
CREATED = {"reason": "SuccessfulCreate", "message": "Created pod: j-abc", "metadata": {}, "involvedObject": {}}
PREEMPTED = {
    "reason": "Preempted",
    "message": "Preempted by pod 77 on node n",
    "metadata": {},
    "involvedObject": {"kind": "Pod", "name": "j-abc"},
}


@pytest.mark.parametrize(
    ("job", "events", "verdict"),
    [
        (JOB, [CREATED, PREEMPTED], "Job j has no pod: its pod j-abc was preempted by a pod of higher priority."),
        (JOB, [CREATED], "Job j has no pod: the last one failed and is gone."),
        ({**JOB, "status": {}}, [], "Job j has no pod yet: the Job controller has not created one."),
        (
            {**JOB, "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}},
            [CREATED, PREEMPTED],
            "Job j failed: its pod j-abc was preempted by a pod of higher priority, which counts as a failure.",
        ),
    ],
)
def test_a_job_whose_pod_is_gone(tmp_path: Path, job: dict[str, Any], events: Any, verdict: str) -> None:
    with Server(deployed(job, events=events)) as server:
        stub = SimpleNamespace(name="stub", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        assert verdict in diagnose.job(stub, "j").verdict


FAILED = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
OF_A_CALL = {**JOB["metadata"], "labels": {"aksgpu.dev/executor": "j"}}


@pytest.mark.parametrize(
    ("metadata", "events", "fix"),
    [
        (JOB["metadata"], [CREATED, PREEMPTED], "Raise spec.backoffLimit"),
        (JOB["metadata"], [CREATED], "Run it again with replace=True, and follow it"),
        (OF_A_CALL, [CREATED, PREEMPTED], "Set Executor(retries=), or a higher Executor(priority=); then submit it"),
        (OF_A_CALL, [CREATED], "Submit it again, and follow it"),
    ],
)
def test_what_helps_a_failed_job_without_pods(tmp_path: Path, metadata: Any, events: Any, fix: str) -> None:
    job = {**JOB, "metadata": metadata, "status": FAILED}
    with Server(deployed(job, events=events)) as server:
        stub = SimpleNamespace(name="stub", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        assert fix in diagnose.job(stub, "j").fix


# What cannot be read


@pytest.mark.parametrize("code", [400, 403])
@pytest.mark.parametrize("what", ["n", "events", "log"])
def test_unreadable_facts_are_listed_and_the_rest_is_diagnosed(tmp_path: Path, what: str, code: int) -> None:
    running = on_node(container(running={}))
    failed = on_node({**container(terminated={**KILLED, "exitCode": 1}), "phase": "Failed"})
    pod = failed if what == "log" else running
    with Server(deployed(pod, **{"n": NODE, what: code})) as server:
        stub = SimpleNamespace(name="stub", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        found = diagnose.pod(stub, "p")
    if what == "log":
        assert "The program ended with exit code 1" in found.verdict
        return
    assert "nothing is wrong" not in found.verdict
    assert "nothing is known to be wrong" in found.verdict
    assert "refused by the test" in str(found)
    assert "Not known: " in str(found)
    assert found.evidence["what"].tolist()[-1] == "not known"
    assert "not known" in found._repr_html_()


def test_a_silent_server_is_not_asked_for_each_fact() -> None:
    reader = ClusterReader(SimpleNamespace(name="stub", kube=None))

    def away() -> str:
        raise errors.Unreachable("no answer from the API server")

    def never() -> str:
        raise AssertionError("asked again")

    assert reader.attempt("the nodes", away) is None
    assert reader.attempt("the log", never) is None
    assert reader.finish(Diagnosis("It hangs.")).unknown == (
        "the nodes: no answer from the API server",
        "the log: not asked for, since the API server does not answer",
    )


# Hints


def unscheduled(message: str = "", **spec: Any) -> dict[str, Any]:
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "1"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}], **spec},
        "status": {"phase": "Pending", "conditions": [condition]},
    }


def gpu_node(name: str = "node-1", gpus: int = 1, **spec: Any) -> dict[str, Any]:
    counts = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    labels = {"kubernetes.azure.com/agentpool": "gpunp", "accelerator": "nvidia"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {**NODE["status"], "capacity": counts, "allocatable": counts},
    }


PLAIN = {"metadata": {"name": "plain"}, "status": NODE["status"]}
HOLDER = {
    "metadata": {"name": "h", "namespace": "team", "uid": "5"},
    "spec": {**unscheduled()["spec"], "nodeName": "node-1"},
    "status": {"phase": "Running"},
}
EVENT = {"type": "Warning", "metadata": {"creationTimestamp": ""}, "involvedObject": {}}
FULL = {**EVENT, "reason": "NotTriggerScaleUp", "message": "pod didn't trigger scale-up: 1 max node group size reached"}
NO_GPU = {
    **EVENT,
    "reason": "NotTriggerScaleUp",
    "message": "pod didn't trigger scale-up: 2 Insufficient nvidia.com/gpu",
}
SITUATIONS: dict[str, tuple[dict[str, Any], list[Any], list[Any], list[Any]]] = {
    "no gpu node": (unscheduled(), [PLAIN], [], []),
    "no node": (unscheduled(), [], [], []),
    "taken": (unscheduled(), [gpu_node()], [HOLDER], []),
    "no plugin": (unscheduled(), [gpu_node(gpus=0)], [], []),
    "too small": (
        unscheduled(containers=[{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]),
        [gpu_node()],
        [],
        [],
    ),
    "other": (
        unscheduled(containers=[{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/mig-1g": "1"}}}]),
        [gpu_node()],
        [],
        [],
    ),
    "taint": (unscheduled(), [gpu_node(taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}])], [], []),
    "cordoned": (unscheduled(), [gpu_node(unschedulable=True)], [], []),
    "selector": (unscheduled(nodeSelector={"a": "b"}), [gpu_node()], [], []),
    "memory": (unscheduled("0/1 nodes are available: 1 Insufficient memory."), [gpu_node()], [], []),
    "autoscaler full": (unscheduled(), [gpu_node()], [HOLDER], [FULL]),
    "autoscaler blind": (unscheduled(), [PLAIN], [], [NO_GPU]),
}


def explained(tmp_path: Path, situation: str, *, azure: bool) -> Diagnosis:
    pod, nodes, pods, events = SITUATIONS[situation]
    with Server(deployed(pod, nodes=nodes, pods=pods, events=events)) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        aks = Cluster("c", location="eastus", azure=object() if azure else None, kube=kube)  # type: ignore[arg-type]
        return diagnose.pod(aks, "p")


@pytest.mark.parametrize("azure", [True, False], ids=["azure", "kubeconfig"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_call_in_a_fix_can_be_made(tmp_path: Path, situation: str, azure: bool) -> None:
    found = explained(tmp_path, situation, azure=azure)
    assert found.fix, found
    assert found.error is not None
    assert found.error.hint == found.fix
    for call in calls(found.fix):
        bind(call)
    if not azure:
        assert not re.search(r"\bcluster\.\w|sizes\.|az aks|pool", found.fix)


def test_the_hint_for_a_test_cluster_without_gpus(tmp_path: Path) -> None:
    assert "capacity.advertise(aks, 'plain')" in explained(tmp_path, "no gpu node", azure=False).fix
    assert "cluster.add_gpu_pool(aks, count=1)" in explained(tmp_path, "no gpu node", azure=True).fix


def calls(text: str) -> list[ast.Call]:
    """Return the calls of this library in a text."""
    found = []
    for match in re.finditer(r"\b(?:cluster|capacity|plugin|jobs|sizes|diagnose|aks)\.[\w.]+\(", text):
        for end in range(match.end(), len(text) + 1):
            try:
                node = ast.parse(text[match.start() : end], mode="eval").body
            except SyntaxError:
                continue
            assert isinstance(node, ast.Call)
            found.append(node)
            break
        else:
            raise AssertionError(f"no whole call in {text[match.start() :]!r}")
    return found


def bind(call: ast.Call) -> None:
    """Bind a call to the function's signature. Raises TypeError if it does not fit."""
    path = ast.unparse(call.func).split(".")
    if path[0] == "aks":
        target: Any = getattr(Kube, path[2])
        first: list[Any] = [None]
    else:
        target = importlib.import_module(f"aksgpu.{path[0]}")
        for name in path[1:]:
            target = getattr(target, name)
        first = []
    positional = first + [None] * len(call.args)
    inspect.signature(target).bind(*positional, **{str(word.arg): None for word in call.keywords})


# Scheduling rules


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        (["taken"], "the GPUs are taken"),
        (["taint"], "a taint is not tolerated"),
        (["no plugin"], "no device plugin"),
        (["no plugin", "taint"], "no device plugin"),
        (["other gpu", "taint"], "another GPU resource"),
        (["taken", "taint"], "a taint, and the GPUs are taken"),
        (["selector", "taint"], "a label is missing"),
        (["too small", "taint"], "too few GPUs"),
        (["cordoned", "taken"], "the node is not available"),
        (["not ready", "no plugin", "taint"], "the node is not available"),
        (["selector", "taken"], "a label is missing, and more"),
        (["cordoned", "selector"], None),
        (["too small", "taken"], None),
    ],
)
def test_the_rule_for_the_obstacles_of_a_node(kinds: list[str], name: str | None) -> None:
    found = first_rule(situation({"node-1": kinds}))
    assert (found.name if found else None) == name


def test_a_node_without_obstacles_leaves_the_verdict_to_the_scheduler() -> None:
    assert first_rule(situation({"node-1": ["taint"], "node-2": []})) is None


def test_the_first_rule_of_the_table_decides_between_nodes() -> None:
    found = first_rule(situation({"node-1": ["too small"], "node-2": ["taken"]}))
    assert found is not None
    assert found.name == "the GPUs are taken"


def test_each_rule_has_a_name_and_a_documented_predicate() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(rule.applies.__doc__ for rule in RULES)


def situation(kinds: dict[str, list[str]]) -> Situation:
    """A pod that asks for one GPU, and nodes with obstacles of these kinds."""
    nodes = [read(gpu_node(name)) for name in kinds]
    against = {name: [Obstacle(ObstacleKind(kind), kind) for kind in found] for name, found in kinds.items()}
    return Situation(unscheduled(), {"nvidia.com/gpu": 1}, nodes, against, None, has_azure=True)
