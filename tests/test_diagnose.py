from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Request, Server

from aksgpu import capacity, diagnose, errors, jobs
from aksgpu._kube.nodes import read
from aksgpu._kube.placement import obstacles
from aksgpu.capacity import Usage
from aksgpu.cluster import Cluster
from aksgpu.diagnose import Diagnosis
from aksgpu.jobs import Job
from aksgpu.kube import Kube
from aksgpu.waiting import wait_until

pytest_plugins = ["aksgpu.local.testing", "laptop_cluster"]

BUSYBOX = "docker.io/library/busybox:1"


def said(job: Job, words: str) -> Diagnosis:
    """The diagnosis, once it says that."""

    def poll() -> tuple[Diagnosis | None, str]:
        found = job.why()
        return (found if words in found.verdict else None), found.verdict

    return wait_until(poll, words, timeout=20, interval=0.1)


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


def test_a_gpu_that_is_taken(submit: Submit) -> None:
    holder = submit("sleep 600", gpus=1)
    said(holder, "is running")
    waiting = submit(gpus=1)
    said(waiting, "1 of 1 nvidia.com/gpu taken by default/a-gpu-that-is-taken-0")
    found = wait_until(
        lambda: (d if "event FailedScheduling" in (d := waiting.why()).evidence["what"].tolist() else None, "no event"),
        "event",
        timeout=10,
        interval=0.1,
    )
    assert "cluster.scale(aks, 'gpunp', n)" in found.fix
    says = found.evidence.set_index("what")["says"]
    assert "0/2 nodes are available" in says["event FailedScheduling"]
    assert isinstance(found.error, errors.PodPending)
    assert (found.error.nodes, found.error.causes["Insufficient nvidia.com/gpu"]) == (2, 2)
    with pytest.raises(errors.WaitTimeout) as raised:
        waiting.wait(0)
    assert isinstance(raised.value.original, errors.PodPending)
    assert says.filter(like="node aks-nodepool1").tolist() == ["the node has no GPU"]


def test_a_taint_that_is_not_tolerated(submit: Submit) -> None:
    found = said(submit(gpus=1, tolerate=False), "taint sku=gpu:NoSchedule is not tolerated")
    assert "tolerations" in found.fix


def test_more_gpus_than_a_node_has(submit: Submit) -> None:
    found = said(submit(gpus=8), "no node has 8 nvidia.com/gpu; the largest has 1")
    assert "at most 1" in found.fix


def test_a_selector_that_no_node_matches(submit: Submit) -> None:
    found = said(submit(gpus=1, node_selector={"zone": "moon"}), "the node has no label zone=moon")
    assert "nodeSelector" in found.fix


def test_no_cpu_is_told_in_the_schedulers_words(submit: Submit) -> None:
    found = said(submit(cpu=500), "Insufficient cpu")
    assert "Ask for less cpu" in found.fix


def test_no_plugin(aks: Cluster, submit: Submit) -> None:
    node = capacity.gpus(aks)["node"][0]
    daemon = aks.kube.get("DaemonSet", "nvidia-device-plugin-daemonset", "gpu-resources")
    selector = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "true"}}}}}
    aks.kube.patch("DaemonSet", daemon["metadata"]["name"], selector, "gpu-resources")
    try:
        wait_until(
            lambda: (True if not capacity.gpus(aks)["allocatable"][0] else None, "advertised"),
            node,
            timeout=20,
            interval=0.1,
        )
        found = said(submit(gpus=1), "no node advertises nvidia.com/gpu")
        assert found.fix == "plugin.install(aks)"
        assert isinstance(found.error, errors.GpuNotAdvertised)
        assert found.error.nodes == (node,)
        with pytest.raises(errors.WaitTimeout):
            capacity.wait_schedulable(aks, timeout=0)
    finally:
        selector["spec"]["template"]["spec"]["nodeSelector"]["nowhere"] = None  # type: ignore[assignment]
        aks.kube.patch("DaemonSet", daemon["metadata"]["name"], selector, "gpu-resources")
        capacity.wait_schedulable(aks, timeout=30)


def test_a_cordoned_node(aks: Cluster, submit: Submit) -> None:
    node = capacity.gpus(aks)["node"][0]
    aks.kube.patch("Node", node, {"spec": {"unschedulable": True}})
    try:
        found = said(submit(gpus=1), "the node is cordoned")
        assert "uncordon" in found.fix
    finally:
        aks.kube.patch("Node", node, {"spec": {"unschedulable": None}})


def test_an_image_without_a_stand_in(submit: Submit) -> None:
    found = said(submit(image="registry.invalid/nothing:1"), "The image registry.invalid/nothing:1 cannot be pulled")
    assert "aksgpu.local.images.register" in found.fix


def test_a_program_that_fails(submit: Submit) -> None:
    found = said(submit("echo the disk is on fire; exit 7"), "exit code 7: the disk is on fire")
    assert found.evidence["what"].tolist()[-1] == "log"


@pytest.mark.parametrize(
    ("line", "verdict", "kind"),
    [
        ("CUDA driver version is insufficient for CUDA runtime version", "do not fit together", errors.DriverMismatch),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.", "memory is too small", errors.JobFailed),
        ("Failed to initialize NVML: Unknown Error", "lost its GPU", errors.GpuLost),
    ],
)
def test_known_last_words(submit: Submit, line: str, verdict: str, kind: type[errors.AksGpuError]) -> None:
    job = submit(f"echo '{line}'; exit 1")
    assert type(said(job, verdict).error) is kind
    with pytest.raises(errors.JobFailed) as raised:
        job.wait(20)
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
def test_what_keeps_a_pod_from_starting(aks: Cluster, spec: dict[str, Any], verdict: str, fix: str) -> None:
    pod = {"restartPolicy": "Never", "containers": [MAIN], **spec}
    metadata, template = {"name": "starting"}, {"spec": pod}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": template},
    }
    made = jobs.apply(aks, job)
    try:
        assert fix in said(made, verdict).fix
        if made.status().phase == "Failed":
            with pytest.raises(errors.JobFailed, match=r"ends:\nno data|no such file"):
                made.wait(0)
    finally:
        made.delete()


def test_a_program_that_wants_too_much_memory(submit: Submit) -> None:
    hungry = ["python3", "-c", "import time; x = bytearray(200 << 20); time.sleep(20)"]
    found = said(submit(command=hungry, memory="48Mi"), "OOMKilled")
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
            timeout=20,
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
    found = said(submit(gpus=1, namespace="team"), "ResourceQuota is used up")
    assert any("exceeded quota: gpus" in says for says in found.evidence["says"])
    aks.kube.delete("Namespace", "team")


def test_a_suspended_job(aks: Cluster, submit: Submit) -> None:
    job = submit("sleep 600")
    aks.kube.patch("Job", job.name, {"spec": {"suspend": True}}, "default")
    found = said(job, "is suspended")
    assert "patch" in found.fix
    assert job.status().phase == "Suspended"


def test_a_deadline(aks: Cluster, submit: Submit) -> None:
    job = submit("sleep 600")
    aks.kube.patch("Job", job.name, {"spec": {"activeDeadlineSeconds": 1}}, "default")
    with pytest.raises(errors.JobFailed) as raised:
        job.wait(30)
    assert raised.value.reason == "DeadlineExceeded"
    assert "longer than the 1 s" in raised.value.message


def test_nothing_wrong(submit: Submit) -> None:
    job = submit("echo fine")
    found = said(job, "is complete: nothing is wrong")
    assert (found.fix, str(found)) == ("", found.verdict)
    assert found.evidence.empty


def test_reprs() -> None:
    found = Diagnosis("It <fails>.", "Do this.", (("log", "a & b"),))
    assert repr(found) == "Diagnosis(verdict='It <fails>.', fix='Do this.')"
    assert str(found) == "It <fails>.\nFix: Do this."
    assert "a &amp; b" in found._repr_html_() and "&lt;fails&gt;" in found._repr_html_()


def test_no_such_job(aks: Cluster) -> None:
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
