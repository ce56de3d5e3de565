from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Request, Server

from aksgpu import capacity, errors, jobs
from aksgpu._kube import nodes as _nodes
from aksgpu._kube import pods as _pods
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube

pytest_plugins = ["aksgpu.local.testing", "laptop_cluster"]


class Stub:
    """A cluster by its name and its API."""

    def __init__(self, kube: Kube) -> None:
        self.name, self.kube = "stub", kube


def node(name: str, gpus: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    labels = spec.pop("labels", {"agentpool": "gpunp", "accelerator": "nvidia"})
    ready = spec.pop("ready", "True")
    status = {"capacity": gpus or {}, "allocatable": gpus or {}, "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def pod(name: str, on: str, resource: str = "nvidia.com/gpu", count: int = 1, job: str = "") -> dict[str, Any]:
    owners = [{"controller": True, "kind": "Job", "name": job}] if job else []
    containers = [{"name": "c", "resources": {"limits": {resource: str(count)}}}]
    metadata = {"name": name, "namespace": "default", "ownerReferences": owners}
    return {"metadata": metadata, "spec": {"nodeName": on, "containers": containers}}


def table(tmp_path: Path, nodes: list[Any], pods: list[Any] | None, use: Callable[[Stub], Any] = capacity.gpus) -> Any:
    def answer(request: Request) -> None:
        if request.route.endswith("/nodes"):
            request.json({"items": nodes, "metadata": {}})
        elif pods is None:
            request.refuse(403, "Forbidden", "pods is forbidden")
        else:
            request.json({"items": pods, "metadata": {}})

    with Server(answer) as server:
        return use(Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path))))


def test_a_gpu_node_of_the_laptop(aks: Cluster) -> None:
    found = capacity.gpus(aks)
    assert dict(found.dtypes.astype(str)) == {**capacity._GPU_COLUMNS}
    row = found.iloc[0].to_dict()
    assert re.fullmatch(r"aks-gpunp-\d{8}-vmss000000", row.pop("node"))
    assert row == {
        "pool": "gpunp",
        "vm_size": "Standard_NC4as_T4_v3",
        "model": "Tesla T4",
        "simulated": True,
        "resource": "nvidia.com/gpu",
        "capacity": 1,
        "allocatable": 1,
        "used": 0,
        "free": 1,
        "ready": True,
        "schedulable": True,
        "taints": "sku=gpu:NoSchedule",
        "used_by": "",
    }


def test_the_job_that_holds_a_gpu_is_named(aks: Cluster) -> None:
    job = jobs.submit(aks, image="docker.io/library/busybox:1", command=["sleep", "600"], name="holder")
    try:
        for _ in range(100):
            if job.status().phase == "Running":
                break
            time.sleep(0.05)
        assert capacity.gpus(aks)[["used", "free", "used_by"]].iloc[0].tolist() == [1, 0, "default/holder"]
        with pytest.raises(errors.WaitTimeout, match="1 GPUs on 1 nodes, 0 free"):
            capacity.wait_schedulable(aks, timeout=0)
    finally:
        job.delete()
    assert capacity.wait_schedulable(aks, timeout=30)["free"].tolist() == [1]


def test_all_nodes_in_the_order_of_their_pools(aks: Cluster) -> None:
    found = capacity.nodes(aks)
    assert found["pool"].tolist() == ["gpunp", "nodepool1"]
    assert found["mode"].tolist() == ["user", "system"]
    assert found["gpus"].tolist() == [1, 0]
    assert found["schedulable"].all()


def test_cordoned_lost_and_empty_nodes_are_shown(tmp_path: Path) -> None:
    nodes = [
        node("c", {"nvidia.com/gpu": "4"}, unschedulable=True),
        node("b", {"nvidia.com/gpu": "4"}, ready="Unknown"),
        node("a"),
        node("cpu", labels={}),
    ]
    found = table(tmp_path, nodes, [pod("p", "c", count=3), pod("q", "c", job="j")])
    assert found["node"].tolist() == ["a", "b", "c"]
    assert found["allocatable"].tolist() == [0, 4, 4]
    assert found["free"].tolist() == [0, 4, 0]
    assert found["schedulable"].tolist() == [True, False, False]
    assert found["used_by"].tolist() == ["", "", "default/j, default/p (3)"]


def test_each_mig_resource_has_a_row(tmp_path: Path) -> None:
    slices = {"nvidia.com/mig-1g.5gb": "4", "nvidia.com/mig-2g.10gb": "1", "cpu": "24"}
    found = table(tmp_path, [node("m", slices)], [pod("p", "m", "nvidia.com/mig-1g.5gb", 2)])
    assert found[["resource", "free"]].values.tolist() == [["nvidia.com/mig-1g.5gb", 2], ["nvidia.com/mig-2g.10gb", 1]]


def test_without_the_right_to_list_all_pods_used_is_unknown(tmp_path: Path) -> None:
    found = table(tmp_path, [node("a", {"nvidia.com/gpu": "2"})], None)
    assert found[["used", "free", "used_by"]].isna().all(axis=None)
    assert found["allocatable"].tolist() == [2]


def test_amd_and_windows_nodes_are_not_nvidias() -> None:
    marks = [{"accelerator": "nvidia"}, {"kubernetes.azure.com/accelerator": "amd"}, {}]
    marks.append({"accelerator": "nvidia", "kubernetes.io/os": "windows"})
    found = [_nodes.read(node("a", labels=labels)) for labels in marks]
    assert [(n.gpu, n.nvidia) for n in found] == [(True, True), (True, False), (False, False), (True, False)]


def test_a_label_names_the_model_before_the_vm_size_does() -> None:
    size = {"node.kubernetes.io/instance-type": "Standard_NC24ads_A100_v4", "accelerator": "nvidia"}
    assert "A100" in _nodes.read(node("a", labels=size)).model
    assert (
        _nodes.read(node("a", labels={**size, "nvidia.com/gpu.product": "NVIDIA-A100-80GB"})).model
        == "NVIDIA A100 80GB"
    )
    assert _nodes.read(node("a", labels={"accelerator": "nvidia"})).model == ""


def test_gpus_of_a_pod_are_counted_as_the_scheduler_does() -> None:
    def container(count: int, **more: Any) -> dict[str, Any]:
        return {"resources": {"limits": {"nvidia.com/gpu": str(count)}}, **more}

    assert _pods.gpus({"containers": [container(1), container(2)]}) == {"nvidia.com/gpu": 3}
    assert _pods.gpus({"containers": [container(1)], "initContainers": [container(4)]}) == {"nvidia.com/gpu": 4}
    sidecar = container(1, restartPolicy="Always")
    assert _pods.gpus({"containers": [container(1)], "initContainers": [sidecar]}) == {"nvidia.com/gpu": 2}
    assert _pods.gpus({"containers": [container(1)], "initContainers": [sidecar, container(2)]}) == {
        "nvidia.com/gpu": 3
    }
    assert _pods.gpus({"containers": [{}], "overhead": {"nvidia.com/gpu": "1"}}) == {"nvidia.com/gpu": 1}
    assert _pods.gpus({"containers": [{"resources": {"limits": {"cpu": "1"}}}]}) == {}


def test_tolerations_are_those_that_gpu_nodes_call_for() -> None:
    spot = {"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}
    sku = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    lost = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
    system = {"key": "CriticalAddonsOnly", "value": "true", "effect": "NoSchedule"}
    nodes = [_nodes.read(node(n, taints=t)) for n, t in (("a", [sku, spot]), ("b", [sku, lost, system]), ("c", []))]
    assert [t["key"] for t in _nodes.tolerations(nodes)] == [spot["key"], "sku"]
    assert [t["key"] for t in _nodes.tolerations(nodes, system=True)] == ["CriticalAddonsOnly", spot["key"], "sku"]
    assert [t["key"] for t in _nodes.tolerations([])] == ["sku", "nvidia.com/gpu"]
    spec: dict[str, Any] = {"tolerations": [{"operator": "Exists"}]}
    _nodes.add_tolerations(spec, _nodes.tolerations(nodes))
    assert spec == {"tolerations": [{"operator": "Exists"}]}  # it tolerated everything already


@pytest.mark.parametrize(
    "call",
    [
        lambda a: capacity.wait_schedulable(a, 0),
        lambda a: capacity.wait_schedulable(a, "1"),
        lambda a: capacity.wait_schedulable(a, 0.5),
        lambda a: capacity.advertise(a, "n", -1),
    ],
)
def test_impossible_numbers_are_refused(tmp_path: Path, call: Callable[[Stub], Any]) -> None:
    with pytest.raises(errors.InvalidInput):
        table(tmp_path, [], [], call)
