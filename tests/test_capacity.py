from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Request, Server
from support.polling import wait_for

from aksgpu import capacity, errors, jobs
from aksgpu.capacity import gpu_table
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube
from aksgpu.kube import node_facts as _nodes
from aksgpu.kube import pod_facts as _pods

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]


class Stub:
    """A minimal cluster: a name and an API."""

    def __init__(self, kube: Kube) -> None:
        self.name = "stub"
        self.kube = kube


def node(name: str, gpus: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    labels = spec.pop("labels", {"agentpool": "gpunp", "accelerator": "nvidia"})
    ready = spec.pop("ready", "True")
    words = {"reason": "KubeletNotReady", "message": "the network is not ready"} if ready != "True" else {}
    conditions = [{"type": "Ready", "status": ready, **words}]
    status = {"capacity": gpus or {}, "allocatable": gpus or {}, "conditions": conditions}
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
    assert dict(found.dtypes.astype(str)) == {**gpu_table.COLUMNS}
    row = found.iloc[0].to_dict()
    assert re.fullmatch(r"aks-gpunp-\d{8}-vmss000000", row.pop("node"))
    assert row == {
        "pool": "gpunp",
        "nap": False,
        "vm_size": "Standard_NC4as_T4_v3",
        "gpu_model": "Tesla T4",
        "simulated": True,
        "resource": "nvidia.com/gpu",
        "capacity": 1,
        "allocatable": 1,
        "used": 0,
        "free": 1,
        "health": None,
        "problem": None,
        "ready": True,
        "schedulable": True,
        "taints": "sku=gpu:NoSchedule",
        "used_by": "",
    }


def test_the_job_that_holds_a_gpu_is_named(aks: Cluster) -> None:
    job = jobs.submit(aks, image="docker.io/library/busybox:1", command=["sleep", "600"], name="holder")
    try:
        wait_for(lambda: job.status().phase == "Running")
        assert capacity.gpus(aks)[["used", "free", "used_by"]].iloc[0].tolist() == [1, 0, "default/holder"]
        with pytest.raises(errors.WaitTimeout, match=r": 1 of 1 nvidia\.com/gpu taken by default/holder"):
            capacity.wait_schedulable(aks, timeout=0)
    finally:
        job.delete()
    assert capacity.wait_schedulable(aks, timeout=60)["free"].tolist() == [1]


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


def test_amd_and_windows_nodes_are_not_nvidia_nodes() -> None:
    marks = [{"accelerator": "nvidia"}, {"kubernetes.azure.com/accelerator": "amd"}, {}]
    marks.append({"accelerator": "nvidia", "kubernetes.io/os": "windows"})
    found = [_nodes.read(node("a", labels=labels)) for labels in marks]
    assert [(n.gpu, n.nvidia) for n in found] == [(True, True), (True, False), (False, False), (True, False)]


def test_a_model_label_takes_precedence_over_the_vm_size() -> None:
    size = {"node.kubernetes.io/instance-type": "Standard_NC24ads_A100_v4", "accelerator": "nvidia"}
    assert "A100" in _nodes.read(node("a", labels=size)).gpu_model
    assert (
        _nodes.read(node("a", labels={**size, "nvidia.com/gpu.product": "NVIDIA-A100-80GB"})).gpu_model
        == "NVIDIA A100 80GB"
    )
    assert _nodes.read(node("a", labels={"accelerator": "nvidia"})).gpu_model == ""


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


def test_tolerations_follow_the_taints_of_gpu_nodes() -> None:
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
    assert spec == {"tolerations": [{"operator": "Exists"}]}  # it already tolerated everything


def test_a_cordoned_node_is_called_cordoned_and_the_hint_uncordons_it(aks: Cluster) -> None:
    name = capacity.gpus(aks)["node"][0]
    aks.kube.patch("Node", name, {"spec": {"unschedulable": True}})
    try:
        with pytest.raises(errors.WaitTimeout, match=f"node {name}: cordoned") as raised:
            capacity.wait_schedulable(aks, timeout=0)
        assert f"kubectl uncordon {name}" in raised.value.hint
        assert "not ready" not in str(raised.value)
    finally:
        aks.kube.patch("Node", name, {"spec": {"unschedulable": None}})
    assert capacity.wait_schedulable(aks, timeout=60)["schedulable"].all()


ONE = {"nvidia.com/gpu": "1"}
PRESSURE = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("nodes", "words", "action"),
    [
        (
            [node("a", ONE, ready="False")],
            "node a: not ready (KubeletNotReady: the network",
            "kubectl describe node a",
        ),
        ([node("a", ONE, unschedulable=True)], "node a: cordoned", "kubectl uncordon a"),
        ([node("a", ONE, ready="False", unschedulable=True)], "node a: cordoned and not ready", "kubectl uncordon a"),
        ([node("a", ONE, taints=[PRESSURE])], "node a: taint node.kubernetes.io/disk-pressure:NoSchedule", "removes"),
        ([node("a")], "node a: no GPU advertised, because no device plugin serves it", "plugin.install(aks)"),
        ([node("a", ONE)], "node a: 1 of 1 nvidia.com/gpu taken by default/j", "capacity.gpus(aks)"),
        ([node("b"), node("a")], "nodes a, b: no GPU advertised", "plugin.status(aks)"),
        ([node(n) for n in "abcde"], "nodes a, b, c and 2 more: no GPU advertised", "plugin.status(aks)"),
        (
            [node("a"), node("b", ONE, unschedulable=True)],
            "no device plugin serves it yet; node b: cordoned",
            "uncordon b",
        ),
        ([node("cpu", labels={})], "no GPU node", "capacity.advertise(aks, node, gpus=1)"),
    ],
)
def test_each_obstacle_has_a_name_and_a_hint(tmp_path: Path, nodes: list[Any], words: str, action: str) -> None:
    with pytest.raises(errors.WaitTimeout, match=re.escape(words)) as raised:
        table(tmp_path, nodes, [pod("p", "a", job="j")], lambda a: capacity.wait_schedulable(a, timeout=0))
    assert action in raised.value.hint


def test_more_gpus_than_a_node_has(tmp_path: Path) -> None:
    with pytest.raises(errors.WaitTimeout, match=r"node a: 2 nvidia\.com/gpu, fewer than 4"):
        table(
            tmp_path,
            [node("a", {"nvidia.com/gpu": "2"})],
            [],
            lambda a: capacity.wait_schedulable(a, gpus=4, timeout=0),
        )


def test_a_node_that_has_reported_nothing_has_an_unknown_number_of_gpus(tmp_path: Path) -> None:
    new = {"metadata": {"name": "new", "labels": {"accelerator": "nvidia"}}, "spec": {}}
    row = table(tmp_path, [new], []).iloc[0]
    assert row[["capacity", "allocatable", "free"]].isna().all()
    assert row["used"] == 0
    assert table(tmp_path, [new], [], capacity.nodes)["gpus"].isna().all()
    with pytest.raises(errors.WaitTimeout, match=r"not ready \(its kubelet has not reported yet\)"):
        table(tmp_path, [new], [], lambda a: capacity.wait_schedulable(a, timeout=0))


def test_a_quantity_of_1k_gpus_is_read(aks: Cluster) -> None:
    name = capacity.nodes(aks)["node"][1]
    capacity.advertise(aks, name, gpus=1000)
    try:
        assert aks.kube.get("Node", name)["status"]["capacity"]["nvidia.com/gpu"] == "1k"
        assert capacity.gpus(aks).set_index("node").loc[name, "allocatable"] == 1000
    finally:
        capacity.advertise(aks, name, gpus=0)


@pytest.mark.parametrize("value", ["500m", "1.5", "-1", "", "1_0", "k", "9" * 5000, True, None, "\u0661"])
def test_a_number_of_gpus_that_is_not_whole_is_refused(value: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="must be an integer, 0 or more"):
        _nodes.gpus_of({"nvidia.com/gpu": value})


CALLS: dict[str, Callable[[Any], Any]] = {
    "gpus": capacity.gpus,
    "nodes": capacity.nodes,
    "usage": capacity.usage,
    "wait_schedulable": capacity.wait_schedulable,
    "advertise": lambda aks: capacity.advertise(aks, "n"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", ["subscription", "kube", None, "myAKSCluster"])
def test_the_first_argument_is_a_cluster(azure: Any, aks: Cluster, call: str, wrong: str | None) -> None:
    given = {"subscription": azure, "kube": aks.kube}.get(wrong or "", wrong)
    with pytest.raises(errors.InvalidInput, match=r"^`aks` must be a cluster, got"):
        CALLS[call](given)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: capacity.wait_schedulable(a, gpus=0),
        lambda a: capacity.wait_schedulable(a, gpus="1"),
        lambda a: capacity.wait_schedulable(a, gpus=0.5),
        lambda a: capacity.wait_schedulable(a, gpus=True),
        lambda a: capacity.wait_schedulable(a, timeout="5"),
        lambda a: capacity.wait_schedulable(a, timeout=float("nan")),
        lambda a: capacity.wait_schedulable(a, timeout=-1),
        lambda a: capacity.wait_schedulable(a, timeout=True),
        lambda a: capacity.wait_schedulable(a, timeout=[5]),
        lambda a: capacity.advertise(a, "n", gpus=-1),
        lambda a: capacity.advertise(a, "n", gpus=True),
        lambda a: capacity.advertise(a, "n", gpus=10**5000),
        lambda a: capacity.advertise(a, None),
        lambda a: capacity.advertise(a, ""),
    ],
)
def test_invalid_arguments_are_refused_before_a_request(tmp_path: Path, call: Callable[[Stub], Any]) -> None:
    def answer(request: Request) -> None:
        request.refuse(500, "InternalError", "no request was expected")

    with Server(answer) as server:
        stub = Stub(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        with pytest.raises(errors.InvalidInput, match=r"^`(gpus|timeout|node)` must be"):
            call(stub)
        assert server.requests == []
