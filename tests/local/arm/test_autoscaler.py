"""The autoscaler: pools grow for pending pods, shrink, and explain why they do not grow. The tests act as scheduler."""

from __future__ import annotations

import time
from typing import Any

from azure.mgmt.containerservice.models import AgentPool
from support.polling import wait_for

from aksgpu.local.arm import autoscaler

from .conftest import Arm, body, pool
from .test_faults import inject

TAINT = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}


def gpu_pool(**properties: Any) -> dict[str, Any]:
    limits = {"enableAutoScaling": True, "minCount": 0, "maxCount": 2, "count": 0}
    taints = {"nodeTaints": ["sku=gpu:NoSchedule"]}
    return pool("gpunp", mode="User", vmSize="Standard_NC4as_T4_v3", **(limits | taints | properties))


def make(arm: Arm, *pools: dict[str, Any], **properties: Any) -> Any:
    profile = {"scale-down-unneeded-time": "10s"}
    document = body(pool(), *pools, autoScalerProfile=profile, **properties)
    arm.client().managed_clusters.begin_create_or_update("rg", "aks", document).result()
    (registry,) = arm.clusters.open_clusters.values()
    return registry


def pending(arm: Arm, registry: Any, name: str, gpus: int = 1, **spec: Any) -> None:
    """Create a pod that the scheduler could not place."""
    container = {"name": "main", "image": "busybox", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    pod = {"metadata": {"name": name}, "spec": {"containers": [container], "tolerations": [TAINT], **spec}}
    arm.run(registry.create("pods", pod, "default"))
    reported = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    arm.run(registry.patch("pods", name, {"status": {"conditions": [reported]}}, "default", subresource="status"))


def events(arm: Arm, registry: Any, about: str) -> list[tuple[str, str, str]]:
    found, _ = arm.run(registry.list("events"))
    return [
        (event["reason"], event["message"], event["source"]["component"])
        for event in found
        if event["involvedObject"]["name"] == about
    ]


def gpu_nodes(arm: Arm) -> list[dict[str, Any]]:
    return [node for node in arm.nodes() if node["metadata"]["labels"]["agentpool"] == "gpunp"]


def serve(arm: Arm, registry: Any, gpus: str = "1") -> None:
    """Make the GPU nodes ready, as the node agent and a device plugin do."""
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": gpus}}
    for node in gpu_nodes(arm):
        arm.run(registry.patch("nodes", node["metadata"]["name"], {"status": status}, subresource="status"))


def test_a_pool_grows_from_zero_and_shrinks_back(arm: Arm) -> None:
    registry = make(arm, gpu_pool())
    serial = arm.manager._state.clusters["rg/aks"]["serial"]
    pending(arm, registry, "one")
    wait_for(lambda: gpu_nodes(arm))
    group = f"aks-gpunp-{serial}-vmss"
    text = f"pod triggered scale-up: [{{{group} 0->1 (max: 2)}}]"
    assert events(arm, registry, "one") == [("TriggeredScaleUp", text, "cluster-autoscaler")]
    time.sleep(1.2)  # two more scans: the node that is starting is counted
    (node,) = gpu_nodes(arm)
    name = node["metadata"]["name"]
    # The pod is placed before the node is ready. Otherwise, a scan in between would find an empty node without need.
    target = {"metadata": {"name": "one"}, "target": {"kind": "Node", "name": name}}
    arm.run(registry.create("pods", target, "default", name="one", subresource="binding"))
    serve(arm, registry)
    for number in range(2):
        pending(arm, registry, f"more{number}")
    wait_for(lambda: len(gpu_nodes(arm)) == 2)
    assert arm.client().agent_pools.get("rg", "aks", "gpunp").count == 2
    serve(arm, registry)

    def left_out() -> list[str]:
        reported = [event for number in range(2) for event in events(arm, registry, f"more{number}")]
        return [message for reason, message, _ in reported if reason == "NotTriggerScaleUp"]

    assert wait_for(left_out)[0] == "pod didn't trigger scale-up: 1 max node group size reached"
    for name in ("one", "more0", "more1"):
        arm.run(registry.delete("pods", name, "default", grace_period_seconds=0))
    wait_for(lambda: not gpu_nodes(arm))
    assert arm.client().agent_pools.get("rg", "aks", "gpunp").count == 0
    assert ("ScaleDown", "marked the node as toBeDeleted/unschedulable", "cluster-autoscaler") in events(
        arm, registry, f"{group}000000"
    )


def scaler_after_a_scan(arm: Arm) -> tuple[autoscaler.Scaler, autoscaler.Pool]:
    """Return the autoscaler of a new cluster, and a pool as it has scanned it."""
    make(arm, gpu_pool(count=1))
    context = arm.manager._context
    (cluster,) = context.state.clusters.values()
    return autoscaler.Scaler(context, cluster), autoscaler.Pool(cluster, cluster["pools"]["gpunp"], [], False)


def test_a_deleted_cluster_is_not_started_again(arm: Arm) -> None:
    """The autoscaler is about to scan it, or to create a node."""
    scaler, scanned = scaler_after_a_scan(arm)
    arm.client().managed_clusters.begin_delete("rg", "aks").result()
    arm.run(scaler.scan())
    arm.run(scaler._reconcile(scanned))
    assert arm.clusters.open_clusters == {}


def test_a_stopped_cluster_is_not_started_again(arm: Arm) -> None:
    scaler, scanned = scaler_after_a_scan(arm)
    arm.client().managed_clusters.begin_stop("rg", "aks").result()
    arm.run(scaler._reconcile(scanned))
    assert arm.clusters.open_clusters == {}


def test_a_deleted_node_is_replaced(arm: Arm) -> None:
    registry = make(arm, gpu_pool(count=1))
    (node,) = gpu_nodes(arm)
    arm.run(registry.delete("nodes", node["metadata"]["name"]))
    (other,) = wait_for(lambda: gpu_nodes(arm))
    assert other["metadata"]["uid"] != node["metadata"]["uid"]


def test_why_a_pool_does_not_grow(arm: Arm) -> None:
    cpu = pool("cpu", mode="User", enableAutoScaling=True, minCount=1, maxCount=1)
    registry = make(arm, gpu_pool(), cpu)
    pending(arm, registry, "big", gpus=2)
    pending(arm, registry, "untolerated", tolerations=[])
    pending(arm, registry, "elsewhere", nodeSelector={"zone": "moon"})
    full = "1 max node group size reached"
    for name, why in {
        "big": f"1 Insufficient nvidia.com/gpu, {full}",
        "untolerated": f"{full}, 1 node(s) had untolerated taint(s)",
        "elsewhere": f"{full}, 1 node(s) didn't match Pod's node affinity/selector",
    }.items():
        reported = wait_for(lambda name=name: events(arm, registry, name))
        assert reported == [("NotTriggerScaleUp", f"pod didn't trigger scale-up: {why}", "cluster-autoscaler")]
    assert gpu_nodes(arm) == []


def test_a_pool_does_not_grow_without_quota(arm: Arm) -> None:
    registry = make(arm, gpu_pool())
    inject(arm, "quota", family="Standard NCASv3_T4 Family", limit=0)
    pending(arm, registry, "one")
    wait_for(lambda: events(arm, registry, "one"))
    assert "in backoff after failed scale-up" in events(arm, registry, "one")[0][1]
    ((reason, why, _),) = events(arm, registry, "cluster-autoscaler-status")
    assert (reason, "requested 4, remaining 0 for family Standard NCASv3_T4" in why) == ("FailedToScaleUpGroup", True)
    assert gpu_nodes(arm) == []
    assert arm.client().agent_pools.get("rg", "aks", "gpunp").count == 0


def test_empty_nodes_within_the_limits_stay(arm: Arm) -> None:
    registry = make(arm, gpu_pool(minCount=1, count=2))
    serve(arm, registry)
    wait_for(lambda: len(gpu_nodes(arm)) == 1)
    time.sleep(1.2)
    assert len(gpu_nodes(arm)) == 1
    arm.client().agent_pools.begin_create_or_update(
        "rg", "aks", "gpunp", AgentPool(enable_auto_scaling=False, count=2)
    ).result()
    serve(arm, registry)
    time.sleep(1.2)
    assert len(gpu_nodes(arm)) == 2


def test_deallocated_nodes_are_started_again(arm: Arm) -> None:
    registry = make(arm, gpu_pool(count=1, scaleDownMode="Deallocate"))
    serve(arm, registry)

    def ready() -> set[str]:
        return {one["status"] for node in gpu_nodes(arm) for one in node["status"].get("conditions", [])}

    wait_for(lambda: ready() == {"Unknown"})
    assert arm.client().agent_pools.get("rg", "aks", "gpunp").count == 0
    pending(arm, registry, "one")
    wait_for(lambda: not gpu_nodes(arm)[0]["spec"].get("unschedulable"))
    assert arm.client().agent_pools.get("rg", "aks", "gpunp").count == 1
    (node,) = gpu_nodes(arm)
    assert node["metadata"]["name"].endswith("000000")
    assert [taint["key"] for taint in node["spec"]["taints"]] == ["sku"]
