from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aksgpu.local.control import ControllerManager
from aksgpu.local.control.controller_runtime import Cluster
from aksgpu.local.control.node_lifecycle import NodeController, taints_for
from aksgpu.local.settings import Settings

if TYPE_CHECKING:
    from tests.local.control.conftest import World


def _node(*conditions: tuple[str, str], **spec: Any) -> dict[str, Any]:
    status = {"conditions": [{"type": kind, "status": state} for kind, state in conditions]}
    return {"metadata": {"name": "n"}, "spec": spec, "status": status}


def _names(node: dict[str, Any]) -> set[str]:
    return {f"{taint['key'].removeprefix('node.kubernetes.io/')}:{taint['effect']}" for taint in taints_for(node)}


def test_state_becomes_taints() -> None:
    assert _names(_node(("Ready", "True"))) == set()
    assert _names(_node()) == {"not-ready:NoSchedule"}
    assert _names(_node(("Ready", "False"))) == {"not-ready:NoSchedule", "not-ready:NoExecute"}
    assert _names(_node(("Ready", "Unknown"))) == {"unreachable:NoSchedule", "unreachable:NoExecute"}
    assert _names(_node(("Ready", "True"), unschedulable=True)) == {"unschedulable:NoSchedule"}
    mine = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    stale = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert taints_for(_node(("Ready", "True"), taints=[mine, stale])) == [mine]


async def test_a_silent_node_is_lost_and_its_pods_move(world: World, controllers: ControllerManager) -> None:
    await world.node("node-a")
    await world.lease("node-a", seconds=1)
    impatient = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
    impatient[0]["tolerationSeconds"] = 0
    await world.pod("impatient", tolerations=impatient)
    loyal = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists"}]
    await world.pod("loyal", tolerations=loyal)
    for name in ("impatient", "loyal"):
        await world.placed(name)
        await world.run(await world.objects.get("pods", name, "default"))
    event = await world.told("TaintManagerEviction", "impatient")
    assert event["message"] == "Marking for deletion Pod default/impatient"
    node = await world.objects.get("nodes", "node-a")
    ready = next(each for each in node["status"]["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert ready["message"] == "Kubelet stopped posting node status."
    assert (await world.told("NodeNotReady"))["message"] == "Node node-a status is now: NodeNotReady"
    assert not (await world.objects.get("pods", "loyal", "default"))["metadata"].get("deletionTimestamp")
    # Back again: the taints go.
    status = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}
    await world.objects.patch("nodes", "node-a", {"status": status}, subresource="status")

    async def clean() -> bool:
        return not (await world.objects.get("nodes", "node-a"))["spec"].get("taints")

    await world.eventually(clean)


async def test_pods_of_a_node_that_is_gone(world: World, controllers: ControllerManager) -> None:
    await world.node("node-a")
    await world.job("job")

    async def placed() -> list[dict[str, Any]]:
        return await world.pods("job", placed=True)

    [pod] = await world.eventually(placed)
    await world.run(pod)
    await world.objects.delete("nodes", "node-a")
    text = "Node node-a event: Removing Node node-a from Controller"
    assert (await world.told("RemovingNode", "node-a"))["message"] == text
    await world.node("node-b")

    async def moved() -> bool:
        return [each["spec"]["nodeName"] for each in await world.pods("job", placed=True)] == ["node-b"]

    await world.eventually(moved)

    async def gone() -> bool:
        return await world.get("pods", pod["metadata"]["name"]) is None

    await world.eventually(gone)


async def test_quota_counts_gpus(world: World, controllers: ControllerManager) -> None:
    hard = {"requests.nvidia.com/gpu": "4", "pods": "10", "requests.cpu": "2", "configmaps": "5"}
    await world.objects.create("resourcequotas", {"metadata": {"name": "team"}, "spec": {"hard": hard}}, "default")
    first = await world.pod("first", gpus=2, cpu="500m")
    await world.pod("second", gpus=1, cpu="1")

    async def used(**wanted: str) -> bool:
        quota = await world.objects.get("resourcequotas", "team", "default")
        used = (quota.get("status") or {}).get("used") or {}
        return (used.get("requests.nvidia.com/gpu"), used.get("pods"), used.get("requests.cpu")) == tuple(
            wanted.values()
        )

    await world.eventually(lambda: used(gpus="3", pods="2", cpu="1500m"))
    await world.end(first)
    await world.eventually(lambda: used(gpus="1", pods="1", cpu="1"))
    status = (await world.objects.get("resourcequotas", "team", "default"))["status"]
    assert status["hard"] == hard and "configmaps" not in status["used"]  # nothing counts them


async def test_quota_counts_a_sidecar_beside_the_containers(world: World, controllers: ControllerManager) -> None:
    hard = {"metadata": {"name": "team"}, "spec": {"hard": {"requests.cpu": "2"}}}
    await world.objects.create("resourcequotas", hard, "default")
    half = {"name": "beside", "image": "busybox", "resources": {"requests": {"cpu": "500m"}}}
    await world.pod("both", cpu="1", initContainers=[{**half, "restartPolicy": "Always"}])

    async def used() -> bool:
        quota = await world.objects.get("resourcequotas", "team", "default")
        return bool(((quota.get("status") or {}).get("used") or {}).get("requests.cpu") == "1500m")

    await world.eventually(used)


async def test_a_claim_is_bound(world: World, controllers: ControllerManager) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    await world.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")

    async def bound() -> dict[str, Any] | None:
        claim = await world.objects.get("persistentvolumeclaims", "data", "default")
        return claim if (claim.get("status") or {}).get("phase") == "Bound" else None

    claim = await world.eventually(bound)
    assert claim["spec"]["volumeName"] == f"pvc-{claim['metadata']['uid']}"
    assert claim["status"]["capacity"] == {"storage": "5Gi"}


async def test_a_claim_in_use_outlives_its_deletion(world: World, controllers: ControllerManager) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    await world.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod = await world.pod("reads", volumes=volumes)

    async def claims() -> list[Any]:
        return (await world.objects.list("persistentvolumeclaims", "default"))[0]

    async def protected() -> bool:
        return (await claims())[0]["metadata"].get("finalizers") == ["kubernetes.io/pvc-protection"]

    await world.eventually(protected)
    await world.objects.delete("persistentvolumeclaims", "data", "default")
    assert "deletionTimestamp" in (await claims())[0]["metadata"]
    await world.end(pod)

    async def gone() -> bool:
        return not await claims()

    await world.eventually(gone)


async def test_a_process_that_stood_still_does_not_blame_the_nodes(registry: Any) -> None:
    controller = NodeController(Cluster(registry, Settings()))
    node = {"metadata": {"name": "n"}, "status": {}}
    assert controller._grace_left(node) == 40
    sign = controller._heartbeats["n"][0]
    now = asyncio.get_running_loop().time()
    controller._heartbeats["n"] = sign, now - 41
    assert controller._grace_left(node) < 0
    controller._heartbeats["n"] = sign, now - 3600
    assert controller._grace_left(node) == 40
