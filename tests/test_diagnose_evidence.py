"""What a diagnosis reads besides the pod: NodeClaims, Workloads, volumes, conditions of nodes, several pods.

The clusters are scripted where the laptop AKS does not have the kind.
"""

from __future__ import annotations

import ast
import itertools
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scripted import Server
from support.failure_cases import cluster_answers

from aksgpu import diagnose, errors
from aksgpu.cluster import Cluster
from aksgpu.diagnose import Diagnosis, job_pods
from aksgpu.diagnose.job_diagnosis import explain_job
from aksgpu.kube import Kube

GPU = {"nvidia.com/gpu": "1"}
READY = {"type": "Ready", "status": "True"}
NOW = datetime.now(UTC)


def stamp(minutes: float) -> str:
    """A time some minutes ago."""
    return (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(name: str = "gpu-0", gpus: int = 1, conditions: tuple[Any, ...] = (), **spec: Any) -> dict[str, Any]:
    zone = spec.pop("zone", "eastus-1")
    healthy = str(spec.pop("healthy", gpus))
    labels = {
        "kubernetes.azure.com/agentpool": "gpunp",
        "kubernetes.azure.com/accelerator": "nvidia",
        "topology.kubernetes.io/zone": zone,
    }
    return {
        "metadata": {"name": name, "labels": labels, "uid": f"uid-{name}"},
        "spec": spec,
        "status": {
            "capacity": {"nvidia.com/gpu": str(gpus)},
            "allocatable": {"nvidia.com/gpu": healthy},
            "conditions": [READY, *conditions],
        },
    }


def pod(message: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "default", "uid": "u", "creationTimestamp": stamp(10), **more.pop("meta", {})}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    spec = {"containers": [{"name": "c", "image": "i", "resources": {"limits": GPU}}], **more}
    return {
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Pending", "conditions": [condition] if message else []},
    }


def explained(tmp_path: Path, shown: dict[str, Any], call: Any = None) -> Diagnosis:
    """The diagnosis of the pod ``p`` in a scripted cluster."""
    shown = {"nodes": [], "events": [], **shown}
    with Server(cluster_answers(shown)) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        stub: Any = object()
        aks = Cluster("c", resource_group="g", location="eastus", azure=stub, kube=kube)
        found: Diagnosis = call(aks) if call else diagnose.pod(aks, "p")
    ast.parse(found.python)
    if found.error is not None and found.fix:
        assert found.error.hint == found.fix
    return found


# Node auto-provisioning


def claim(*, minutes: float = 3, **failed: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "gpu-x7k2p", "creationTimestamp": stamp(minutes)},
        "status": {"conditions": [{"type": "Launched", "status": "False", **failed}]} if failed else {},
    }


NOMINATED = ["Normal", "Nominated", "Pod should schedule on: nodeclaim/gpu-x7k2p"]


@pytest.mark.parametrize(
    ("claims", "verdict", "fix", "kind"),
    [
        (
            [claim()],
            "node auto-provisioning is adding a node for it (NodeClaim gpu-x7k2p)",
            "some minutes",
            "PodPending",
        ),
        (
            [claim(reason="LaunchFailed", message="creating instance, OperationNotAllowed: exceeding quota")],
            "NodeClaim gpu-x7k2p is not Launched: LaunchFailed: creating instance",
            "Ask for more quota",
            "NoScaleUp",
        ),
        (
            [claim(reason="LaunchFailed", message="OverconstrainedZonalAllocationRequest: Allocation failed")],
            "Azure has no capacity",
            "Allow more sizes, zones",
            "NoScaleUp",
        ),
        (
            [claim(minutes=90)],
            "NodeClaim gpu-x7k2p is not Launched: no reason is given",
            "Look at the NodeClaim",
            "NoScaleUp",
        ),
        ([], "made NodeClaim gpu-x7k2p for it, which is gone", "Look at the NodeClaim", "NoScaleUp"),
    ],
    ids=["young", "quota", "capacity", "old", "gone"],
)
def test_a_node_claim(tmp_path: Path, claims: list[Any], verdict: str, fix: str, kind: str) -> None:
    shown = {"pod": pod("0/0"), "events": [NOMINATED], "custom": {"karpenter.sh/nodeclaims": claims}}
    found = explained(tmp_path, shown)
    assert verdict in found.verdict
    assert fix in found.fix
    assert type(found.error) is getattr(errors, kind)


def test_no_node_pool_may_add_a_gpu(tmp_path: Path) -> None:
    message = (
        'Failed to schedule pod, incompatible with nodepool "default", daemonset overhead={"cpu":"1"}, '
        'no instance type satisfied resources {"nvidia.com/gpu":"1"} and requirements (no instance type met all)'
    )
    wanted = [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]
    template = {"spec": {"requirements": wanted}}
    pool = {"metadata": {"name": "default"}, "spec": {"template": template, "limits": {"cpu": 8}}}
    shown = {
        "pod": pod(),
        "events": [["Warning", "FailedScheduling", message]],
        "custom": {"karpenter.sh/nodeclaims": [], "karpenter.sh/nodepools": [pool]},
    }
    found = explained(tmp_path, shown)
    assert "No NodePool of the cluster names GPU sizes" in found.verdict
    assert "daemonset overhead" not in found.verdict
    assert "sku-gpu-count" in found.fix
    assert "limits: {'cpu': 8}" in dict(found.rows)["NodePool default"]


# Kueue and ProvisioningRequests

JOB: dict[str, Any] = {
    "metadata": {
        "name": "j",
        "namespace": "default",
        "uid": "ju",
        "labels": {"kueue.x-k8s.io/queue-name": "team"},
    },
    "spec": {
        "suspend": True,
        "selector": {"matchLabels": {"job-name": "j"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
    },
}


def workload(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "job-j-1", "namespace": "default", "labels": {"kueue.x-k8s.io/job-uid": "ju"}},
        "spec": {"queueName": "team", **status.pop("spec", {})},
        "status": status,
    }


CHECK = {"name": "prov", "state": "Pending", "message": "waiting"}
EVICTED = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "by another"}


def reserved(message: str, status: str = "False") -> dict[str, Any]:
    return {"type": "QuotaReserved", "status": status, "reason": "Pending", "message": message}


@pytest.mark.parametrize(
    ("workloads", "verdict", "fix"),
    [
        ([], "no Workload of Kueue for it", "make sure that Kueue is installed"),
        (
            [workload(conditions=[reserved("couldn't assign flavors to pod set main: insufficient unused quota for "
            "nvidia.com/gpu in flavor a10, 1 more needed")])],
            "the quota of its queue is in use by other Jobs",
            "Wait until a Job of the queue ends",
        ),
        (
            [workload(conditions=[reserved("insufficient quota for cpu in flavor default, previously considered "
            "podsets requests (0) + current podset request (100) > maximum capacity (10)")])],
            "more than its queue may ever have",
            "Waiting does not help",
        ),
        ([workload(conditions=[reserved("LocalQueue team doesn't exist")])], "its queue does not exist", "queue-name"),
        ([workload(conditions=[reserved("something new")])], "something new", "Look at the Workload"),
        ([workload()], "Kueue has not looked at it yet, or does not run", "Look at the Workload"),
        ([workload(spec={"active": False})], "is deactivated", "spec.active"),
        (
            [workload(conditions=[EVICTED])],
            "Kueue took it back (Preempted: by another)",
            "higher priority",
        ),
        (
            [workload(conditions=[reserved("", "True")], admissionChecks=[CHECK])],
            "an admission check is not done (prov is Pending: waiting)",
            "admission check",
        ),
        ([workload(conditions=[{"type": "Admitted", "status": "True"}])], "Job j is suspended", "aks.kube.patch"),
    ],
    ids=["none", "in use", "too much", "no queue", "unknown", "new", "deactivated", "evicted", "check", "admitted"],
)  # fmt: skip
def test_a_job_in_a_queue(tmp_path: Path, workloads: list[Any], verdict: str, fix: str) -> None:
    shown = {"pod": pod(), "custom": {"kueue.x-k8s.io/workloads": workloads}}
    found = explained(tmp_path, shown, lambda aks: explain_job(aks, JOB))
    assert verdict in found.verdict
    assert fix in found.fix


@pytest.mark.parametrize(
    ("requests", "verdict", "fix"),
    [
        ([], "waits for ProvisioningRequest pr, which does not exist", "Create the ProvisioningRequest"),
        (
            [{"type": "Provisioned", "status": "False", "message": "no capacity yet"}],
            "no nodes yet: no capacity yet",
            "Wait",
        ),
        ([{"type": "Failed", "status": "True", "message": "quota"}], "failed: quota", "quota or capacity"),
        ([{"type": "BookingExpired", "status": "True"}], "has expired", "reservation has ended"),
        ([{"type": "Provisioned", "status": "True"}], "The pod is not scheduled", ""),
    ],
    ids=["missing", "waiting", "failed", "expired", "provisioned"],
)
def test_a_provisioning_request(tmp_path: Path, requests: list[Any], verdict: str, fix: str) -> None:
    annotations = {"autoscaling.x-k8s.io/consume-provisioning-request": "pr"}
    found_requests = [{"metadata": {"name": "pr"}, "status": {"conditions": requests}}] if requests else []
    shown = {
        "pod": pod("0/1 nodes are available: 1 Insufficient cpu.", meta={"annotations": annotations}),
        "nodes": [node()],
        "custom": {"autoscaling.x-k8s.io/provisioningrequests": found_requests},
    }
    found = explained(tmp_path, shown)
    assert verdict in found.verdict
    assert fix in found.fix


# Volumes, schedulers, and waits that are too long


def test_the_zone_of_a_disk_is_named(tmp_path: Path) -> None:
    message = "0/1 nodes are available: 1 node(s) had volume node affinity conflict."
    terms = [
        {"matchExpressions": [{"key": "topology.disk.csi.azure.com/zone", "operator": "In", "values": ["eastus-2"]}]}
    ]
    claimed = {"metadata": {"name": "data"}, "spec": {"volumeName": "pv-1"}}
    volume = {"metadata": {"name": "pv-1"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}
    shown = {
        "pod": pod(message, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]),
        "nodes": [node()],
        "objects": [claimed, volume],
    }
    found = explained(tmp_path, shown)
    assert "claim data is in zone eastus-2; the nodes that the pod could use are in: eastus-1" in found.verdict
    assert "the volume's zone eastus-2" in found.fix
    assert 'zones=["2"]' in found.python
    assert dict(found.rows)["claim data"] == "volume pv-1 in zone eastus-2"


def test_another_scheduler_that_does_not_report(tmp_path: Path) -> None:
    found = explained(tmp_path, {"pod": pod(schedulerName="volcano"), "nodes": [node()]})
    assert "for the scheduler 'volcano', which has not reported anything" in found.verdict
    assert "schedulerName" in found.fix


def test_a_scheduler_that_does_not_report_for_long(tmp_path: Path) -> None:
    old = explained(tmp_path, {"pod": pod(), "nodes": [node()]})
    assert "has not reported anything for minutes" in old.fix
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    new = explained(tmp_path, {"pod": pod(meta={"creationTimestamp": now}), "nodes": [node()]})
    assert "Wait a moment" in new.fix


@pytest.mark.parametrize(
    ("minutes", "fix"), [(2, "Wait: the autoscaler is adding a node"), (60, "Waiting does not help")]
)
def test_a_node_that_the_autoscaler_adds(tmp_path: Path, minutes: int, fix: str) -> None:
    taken = pod(meta={"name": "q", "uid": "u2"}, nodeName="gpu-0")
    shown = {
        "pod": pod("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        "nodes": [node()],
        "other_pods": [taken],
    }
    event = {
        "type": "Normal",
        "reason": "TriggeredScaleUp",
        "message": "pod triggered scale-up",
        "lastTimestamp": stamp(minutes),
        "metadata": {},
    }
    answer = cluster_answers({"events": [], **shown})

    def with_time(request: Any) -> None:
        if request.route.endswith("/events"):
            request.json({"metadata": {}, "items": [event]})
        else:
            answer(request)

    with Server(with_time) as server:
        aks = Cluster("c", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        assert fix in diagnose.pod(aks, "p").fix


def test_tolerations_that_the_pod_has_are_not_suggested(tmp_path: Path) -> None:
    event = ["Normal", "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 node(s) had untolerated taint {sku: gpu}, "
    "1 max node group size reached"]  # fmt: skip
    tolerated = pod(
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", tolerations=[{"key": "sku", "operator": "Exists"}]
    )
    found = explained(tmp_path, {"pod": tolerated, "nodes": [node()], "events": [event]})
    assert "max_count" in found.fix
    assert "toleration" not in found.fix


@pytest.mark.parametrize(
    ("taint", "fix"),
    [
        ("node.cloudprovider.kubernetes.io/uninitialized", "Wait some minutes"),
        ("node.kubernetes.io/disk-pressure", "lacks disk or memory"),
        ("remediator.aks.microsoft.com/unschedulable", "Wait until another one is there"),
        ("ToBeDeletedByClusterAutoscaler", "Wait until another one is there"),
        ("CriticalAddonsOnly", "must not tolerate"),
        ("team", "adds the tolerations"),
    ],
)
def test_a_taint_of_the_gpu_node(tmp_path: Path, taint: str, fix: str) -> None:
    tainted = node(taints=[{"key": taint, "effect": "NoSchedule"}])
    found = explained(
        tmp_path, {"pod": pod("0/1 nodes are available: 1 node(s) had untolerated taint(s)."), "nodes": [tainted]}
    )
    assert fix in found.fix
    assert ("adds the tolerations" in found.fix) == (taint == "team")


# Nodes

MISSING = {"type": "GPUMissing", "status": "True", "reason": "GPUMissing", "message": "Expected 8, found 7"}
XID = {"type": "GPUXIDErrors", "status": "True", "reason": "XIDErrors", "message": "Detected XID 79 on GPU 3"}
HEALTHY = {"type": "GPUMissing", "status": "False", "reason": "NoGPUMissing", "message": ""}
UNKNOWN = {"type": "XIDErrors", "status": "Unknown", "reason": "NotChecked", "message": ""}
FABRIC = {"type": "GPUFabricDown", "status": "True", "reason": "Stopped", "message": "fabric manager is not active"}
READY_GPUS = {"type": "GPUDriverReady", "status": "True", "reason": "Loaded", "message": ""}


@pytest.mark.parametrize(
    ("obj", "verdict", "fix", "kind"),
    [
        (node(conditions=(HEALTHY,)), "is ready: nothing is wrong", "", None),
        (node(conditions=(UNKNOWN,)), "nothing is known to be wrong. The node problem detector has not determined "
        "XIDErrors", "", None),
        (node(conditions=(MISSING,)), "fewer GPUs than its size", "Replace the node: cordon gpu-0", "GpuLost"),
        (node(conditions=(XID,)), "(XID 79)", "Replace the node", "GpuLost"),
        (node(conditions=(FABRIC,)), "a problem of its GPUs (GPUFabricDown)", "describe node gpu-0", "GpuStackError"),
        (node(conditions=(READY_GPUS,)), "is ready: nothing is wrong", "", None),
        (node(healthy=0), "has 0 healthy of 1 nvidia.com/gpu", "Restart the device plugin on gpu-0", "GpuLost"),
        (node(gpus=0), "advertises none", "plugin.install(aks)", "GpuNotAdvertised"),
        (node(unschedulable=True), "is cordoned", "kubectl uncordon gpu-0", None),
        (
            node(taints=[{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]),
            "is about to be removed by node auto-provisioning",
            "Wait until another one is there",
            None,
        ),
    ],
)  # fmt: skip
def test_a_node(tmp_path: Path, obj: dict[str, Any], verdict: str, fix: str, kind: str | None) -> None:
    found = explained(tmp_path, {"pod": pod(), "nodes": [obj]}, lambda aks: diagnose.node(aks, "gpu-0"))
    assert verdict in found.verdict
    assert fix in found.fix
    assert (type(found.error).__name__ if found.error else None) == kind
    if isinstance(found.error, errors.GpuLost):
        assert found.error.nodes == ("gpu-0",)


def test_a_node_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound):
        explained(tmp_path, {"pod": pod(), "nodes": []}, lambda aks: diagnose.node(aks, "nope"))
    with pytest.raises(errors.InvalidInput, match="name"):
        explained(tmp_path, {"pod": pod(), "nodes": []}, lambda aks: diagnose.node(aks, "../x"))


def test_a_pod_that_waits_for_a_sick_node_learns_what_the_node_reports(tmp_path: Path) -> None:
    plugin = {
        "metadata": {"name": "plugin", "namespace": "gpu-resources", "uid": "u3"},
        "spec": {
            "nodeName": "gpu-0",
            "containers": [{"name": "c", "image": "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"}],
        },
        "status": {"phase": "Running"},
    }
    sick = node(healthy=0, conditions=(MISSING,))
    shown = {
        "pod": pod("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        "nodes": [sick],
        "other_pods": [plugin],
    }
    found = explained(tmp_path, shown)
    assert "node gpu-0 reports: the node has fewer GPUs than its size" in found.verdict
    assert isinstance(found.error, errors.GpuLost)


def test_a_pod_that_runs_on_a_sick_node(tmp_path: Path) -> None:
    running = pod(nodeName="gpu-0")
    running["status"] = {
        "phase": "Running",
        "containerStatuses": [{"name": "c", "restartCount": 0, "state": {"running": {}}}],
    }
    found = explained(tmp_path, {"pod": running, "nodes": [node(conditions=(XID,))], "log": ""})
    assert "The pod is running, but the driver of the node's GPUs reports errors (XID 79)." in found.verdict


@pytest.mark.parametrize(
    ("shown", "verdict", "fix"),
    [
        ({"nodes": [node()]}, "1 GPU node is ready, and no pod waits for a GPU: nothing is wrong.", ""),
        ({"nodes": []}, "The cluster has no GPU node", "cluster.add_gpu_pool"),
        (
            {"nodes": [node(conditions=(XID,)), node("gpu-1", unschedulable=True)]},
            "(XID 79). 1 problem more",
            "Replace",
        ),
        (
            {"nodes": [node()], "pod": pod("0/1 nodes are available: 1 Insufficient cpu.")},
            "Pod default/p waits for a GPU. The pod is not scheduled: 0/1 nodes",
            "Ask for less cpu",
        ),
    ],
    ids=["healthy", "no node", "sick", "waiting"],
)
def test_a_cluster(tmp_path: Path, shown: dict[str, Any], verdict: str, fix: str) -> None:
    done = pod(nodeName="gpu-0")
    done["status"] = {"phase": "Succeeded"}
    found = explained(tmp_path, {"pod": done, **shown}, diagnose.cluster)
    assert verdict in found.verdict
    assert fix in found.fix


def test_a_cluster_whose_nodes_cannot_be_read(tmp_path: Path) -> None:
    with Server(lambda request: request.refuse(403, "Forbidden", "no")) as server:
        aks = Cluster("c", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        found = diagnose.cluster(aks)
    assert "could not be found out" in found.verdict
    assert found.unknown


# Programs

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"


def ran(code: int = 1, reason: str = "Error") -> dict[str, Any]:
    done = pod(nodeName="gpu-0")
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": stamp(1)}}
    done["status"] = {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{"name": "c", "restartCount": 0, "state": state}],
    }
    return done


def test_the_cause_is_found_far_above_the_end_of_the_log(tmp_path: Path) -> None:
    before = "step 1 loss 0.5\n" * 50
    traceback = f'Traceback (most recent call last):\n  File "t.py", line 1, in <module>\n{OOM}'
    after = "[rank1]: waiting for the other ranks\n" * 3000
    found = explained(tmp_path, {"pod": ran(), "nodes": [node()], "log": before + traceback + after})
    assert "the GPU's memory is too small" in found.verdict
    assert "torch.OutOfMemoryError" in dict(found.rows)["first error"]
    assert found.log_tail.count("\n") == 19


@pytest.mark.parametrize("before", [0, 1_000, 12_000])
def test_the_cause_is_found_among_many_lines_that_look_like_errors(tmp_path: Path, before: int) -> None:
    words = ["".join(letters) for letters in itertools.islice(itertools.product("abcdefghijklmnop", repeat=4), 12_000)]
    log = [f"ERROR: the file {word} could not be read\n" for word in words]
    log.insert(before, OOM)
    found = explained(tmp_path, {"pod": ran(), "nodes": [node()], "log": "".join(log)})
    assert "the GPU's memory is too small" in found.verdict


@pytest.mark.parametrize(
    ("code", "log", "verdict"),
    [
        (137, "", "was killed (SIGKILL)"),
        (137, "step 10\n", "exit code 137: step 10. The exit code says: the program was killed"),
        (135, "", "a guess: in a container"),
        (1, "", "exit code 1."),
        (1, "all is lost\n", "exit code 1: all is lost"),
        (139, 'Traceback (most recent call last):\n  File "t.py", line 1\nKeyError: 7\n', "exit code 139: KeyError: 7"),
    ],
)
def test_an_exit_code(tmp_path: Path, code: int, log: str, verdict: str) -> None:
    found = explained(tmp_path, {"pod": ran(code), "nodes": [node()], "log": log})
    assert verdict in found.verdict
    assert found.fix


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_program_that_does_not_use_its_gpu(tmp_path: Path, phase: str) -> None:
    using = ran(0)
    using["status"]["phase"] = phase
    if phase == "Running":
        using["status"]["containerStatuses"][0]["state"] = {"running": {}}
    line = "I cudart_stub.cc:28] Could not find cuda drivers on your machine, GPU will not be used."
    found = explained(tmp_path, {"pod": using, "nodes": [node()], "log": f"{line}\n" + "Epoch 1\n" * 50})
    assert "runs on the CPU while the GPU is paid for" in found.verdict
    assert found.log_tail == line
    fine = explained(tmp_path, {"pod": using, "nodes": [node()], "log": "Created device GPU:0\n"})
    assert "nothing is wrong" in fine.verdict


# Pods that cannot be started

ASSIGNED = ["Normal", "Scheduled", "Successfully assigned default/p to gpu-0"]


@pytest.mark.parametrize(
    ("events", "verdict", "fix"),
    [
        ([["Normal", "Pulling", 'Pulling image "i"']], 'being started on gpu-0: Pulling image "i"', "half an hour"),
        (
            [["Warning", "FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already exclusively '
            'attached to one node']],
            "waits for a volume: Multi-Attach error",
            "Azure Files",
        ),
        (
            [["Warning", "FailedCreatePodSandBox", 'plugin type="azure-vnet" failed (add): Failed to allocate pool: no '
            'more addresses']],
            "no free address",
            "larger subnet",
        ),
        ([["Warning", "FailedCreatePodSandBox", "a new text"]], "a new text", "not a known one"),
        ([["Warning", "FailedMount", 'secret "s" not found'], ["Normal", "Pulled", ""]], "is being started", "Wait"),
    ],
    ids=["pulling", "attached elsewhere", "no address", "unknown", "over"],
)  # fmt: skip
def test_a_pod_that_is_being_started(tmp_path: Path, events: list[Any], verdict: str, fix: str) -> None:
    found = explained(tmp_path, {"pod": pod(nodeName="gpu-0"), "nodes": [node()], "events": [ASSIGNED, *events]})
    assert verdict in found.verdict
    assert fix in found.fix


def test_a_start_that_takes_too_long(tmp_path: Path) -> None:
    starting = pod(nodeName="gpu-0")
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(90)}
    starting["status"] = {"phase": "Pending", "conditions": [scheduled]}
    found = explained(tmp_path, {"pod": starting, "nodes": [node()]})
    assert re.search(r"has been starting on gpu-0 for \d\d minutes", found.verdict)
    assert "Wait:" not in found.fix


# Several pods


def member(name: str, start: float, end: float, log_code: int = 1) -> dict[str, Any]:
    found = ran(log_code)
    found["metadata"] = {**found["metadata"], "name": name, "uid": name, "creationTimestamp": stamp(start)}
    found["status"]["startTime"] = stamp(start)
    found["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = stamp(end)
    return found


LOST = "torch.distributed.DistBackendError: NCCL error: remote process exited or there was a network error\n"
FAILED_JOB: dict[str, Any] = {
    "metadata": {"name": "j", "namespace": "default", "uid": "ju"},
    "spec": {"selector": {"matchLabels": {"job-name": "j"}}, "template": {"spec": {"containers": []}}},
    "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]},
}


def of_job(tmp_path: Path, pods: list[Any], logs: dict[str, str], job: dict[str, Any] = FAILED_JOB) -> Diagnosis:
    answer = cluster_answers({"pod": pods[0], "other_pods": pods[1:], "nodes": [node()], "events": []})

    def answer_logs(request: Any) -> None:
        if request.route.endswith("/log"):
            text = logs[request.route.split("/")[-2]]
            stamped = f"2026-01-01T00:00:00.000000000Z {text}" if request.query.get("timestamps") else text
            request.text(stamped)
        else:
            answer(request)

    with Server(answer_logs) as server:
        aks = Cluster("c", kube=Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        return explain_job(aks, job)


def test_the_pod_that_failed_first_is_named_and_the_others_died_of_it(tmp_path: Path) -> None:
    pods = [member("j-0", 30, 5), member("j-1", 30, 9), member("j-2", 29, 4)]
    found = of_job(tmp_path, pods, {"j-0": LOST, "j-1": OOM, "j-2": LOST})
    assert "Pod j-1 failed first. The program ended with exit code 1: the GPU's memory is too small." in found.verdict
    assert "Of 2 other pods: 2 died of it (lost the connection to it)." in found.verdict
    assert found.cause == "the GPU's memory is too small"


def test_pods_that_fail_in_the_same_way_or_another_are_told_apart(tmp_path: Path) -> None:
    git = "FileNotFoundError: [Errno 2] No such file or directory: 'git'\n"
    pods = [member("j-0", 30, 9), member("j-1", 30, 5), member("j-2", 30, 4), member("j-3", 30, 3, 143)]
    found = of_job(tmp_path, pods, {"j-0": OOM, "j-1": OOM, "j-2": git, "j-3": "step 1\n"})
    assert "1 failed in the same way" in found.verdict
    assert "1 failed for another reason (the image has no git)" in found.verdict
    assert "1 died of it (ended from outside)" in found.verdict


def test_of_attempts_one_after_the_other_the_newest_is_explained(tmp_path: Path) -> None:
    pods = [member("j-a", 30, 20), member("j-b", 20, 10)]
    found = of_job(tmp_path, pods, {"j-a": OOM, "j-b": LOST})
    assert "failed first" not in found.verdict
    assert "lost the connection" in found.verdict


def test_pods_that_wait_for_one_that_does_not_run(tmp_path: Path) -> None:
    running = member("j-0", 30, 1, 0)
    running["status"]["phase"] = "Running"
    running["status"]["containerStatuses"][0]["state"] = {"running": {}}
    waiting = pod("0/1 nodes are available: 1 Insufficient cpu.", meta={"name": "j-1", "uid": "w"})
    job = {**FAILED_JOB, "status": {}}
    found = of_job(tmp_path, [running, waiting], {"j-0": ""}, job)
    assert "1 of 2 pod does not run yet. Pod j-1: The pod is not scheduled" in found.verdict
    assert "1 runs and may wait for the others" in found.verdict


def test_of_two_pods_that_fail_in_one_second_the_one_that_is_deleted_is_not_the_first() -> None:
    """The Job controller deletes the other pods after the first failure. They can end with any exit code."""
    terminated = {"exitCode": 1, "finishedAt": "2026-11-28T10:00:00Z"}
    status = {"containerStatuses": [{"name": "main", "state": {"terminated": terminated}}]}
    deletion = {"deletionTimestamp": "2026-11-28T10:00:30Z", "deletionGracePeriodSeconds": 30}
    deleted = {"metadata": {"name": "train-0", **deletion}, "status": status}
    first = {"metadata": {"name": "train-1"}, "status": status}
    assert job_pods.earliest([deleted, first]) is first
    assert job_pods.earliest([first, deleted]) is first
