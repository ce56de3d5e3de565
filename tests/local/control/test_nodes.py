from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aksgpu.common import times
from aksgpu.local.control import ControllerManager
from aksgpu.local.control.controller_runtime import Cluster
from aksgpu.local.control.node_lifecycle import NodeController, taints_for
from aksgpu.local.settings import Settings

if TYPE_CHECKING:
    from tests.local.control.conftest import ClusterDriver


def _node(*conditions: tuple[str, str], **spec: Any) -> dict[str, Any]:
    status = {"conditions": [{"type": kind, "status": state} for kind, state in conditions]}
    return {"metadata": {"name": "n"}, "spec": spec, "status": status}


def _names(node: dict[str, Any]) -> set[str]:
    return {f"{taint['key'].removeprefix('node.kubernetes.io/')}:{taint['effect']}" for taint in taints_for(node)}


def test_taints_follow_the_conditions() -> None:
    assert _names(_node(("Ready", "True"))) == set()
    assert _names(_node()) == {"not-ready:NoSchedule"}
    assert _names(_node(("Ready", "False"))) == {"not-ready:NoSchedule", "not-ready:NoExecute"}
    assert _names(_node(("Ready", "Unknown"))) == {"unreachable:NoSchedule", "unreachable:NoExecute"}
    assert _names(_node(("Ready", "True"), unschedulable=True)) == {"unschedulable:NoSchedule"}
    mine = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    stale = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert taints_for(_node(("Ready", "True"), taints=[mine, stale])) == [mine]


async def test_pods_are_evicted_from_a_lost_node(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("node-a")
    impatient = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
    impatient[0]["tolerationSeconds"] = 0
    await driver.create_pod("impatient", tolerations=impatient)
    loyal = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists"}]
    await driver.create_pod("loyal", tolerations=loyal)
    for name in ("impatient", "loyal"):
        await driver.wait_until_bound(name)
        await driver.start_pod(await driver.objects.get("pods", name, "default"))
    await driver.create_lease("node-a", seconds=1)
    event = await driver.wait_for_event("TaintManagerEviction", "impatient")
    assert event["message"] == "Marking for deletion Pod default/impatient"
    node = await driver.objects.get("nodes", "node-a")
    ready = next(each for each in node["status"]["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert ready["message"] == "Kubelet stopped posting node status."
    assert (await driver.wait_for_event("NodeNotReady"))["message"] == "Node node-a status is now: NodeNotReady"
    assert not (await driver.objects.get("pods", "loyal", "default"))["metadata"].get("deletionTimestamp")
    # The node is back, so the taints are removed.
    lease = {"spec": {"leaseDurationSeconds": 3600, "renewTime": times.now_micro()}}
    await driver.objects.patch("leases", "node-a", lease, "kube-node-lease")
    status = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}
    await driver.objects.patch("nodes", "node-a", {"status": status}, subresource="status")

    async def clean() -> bool:
        return not (await driver.objects.get("nodes", "node-a"))["spec"].get("taints")

    await driver.eventually(clean)


async def test_a_pod_tolerates_a_taint_without_a_time_for_some_seconds(
    driver: ClusterDriver, controllers: ControllerManager
) -> None:
    await driver.create_node("node-a")
    tolerated = {"key": "repair", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    await driver.create_pod("brief", tolerations=[tolerated])
    await driver.wait_until_bound("brief")
    taints = [{"key": "repair", "effect": "NoExecute"}]
    await driver.objects.patch("nodes", "node-a", {"spec": {"taints": taints}})
    await driver.wait_for_event("TaintManagerEviction", "brief")


async def test_a_lease_that_comes_late_counts(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("node-a")

    async def is_registered_without_taints() -> bool:
        node = await driver.objects.get("nodes", "node-a")
        return bool(await driver.events("RegisteredNode", "node-a")) and not node["spec"].get("taints")

    await driver.eventually(is_registered_without_taints)
    await asyncio.sleep(0.5)  # The controller has seen the node without a lease then.
    await driver.create_lease("node-a", seconds=1)
    await driver.wait_for_event("NodeNotReady")


async def test_pods_of_a_deleted_node_are_deleted(driver: ClusterDriver, controllers: ControllerManager) -> None:
    await driver.create_node("node-a")
    await driver.create_job("job")

    async def placed() -> list[dict[str, Any]]:
        return await driver.pods("job", bound=True)

    [pod] = await driver.eventually(placed)
    await driver.start_pod(pod)
    await driver.objects.delete("nodes", "node-a")
    text = "Node node-a event: Removing Node node-a from Controller"
    assert (await driver.wait_for_event("RemovingNode", "node-a"))["message"] == text
    await driver.create_node("node-b")

    async def moved() -> bool:
        return [each["spec"]["nodeName"] for each in await driver.pods("job", bound=True)] == ["node-b"]

    await driver.eventually(moved)
    await driver.wait_until_deleted("pods", pod["metadata"]["name"])


async def test_quota_counts_gpus(driver: ClusterDriver, controllers: ControllerManager) -> None:
    hard = {"requests.nvidia.com/gpu": "4", "pods": "10", "requests.cpu": "2", "configmaps": "5"}
    await driver.objects.create("resourcequotas", {"metadata": {"name": "team"}, "spec": {"hard": hard}}, "default")
    first = await driver.create_pod("first", gpus=2, cpu="500m")
    await driver.create_pod("second", gpus=1, cpu="1")

    async def used(**wanted: str) -> bool:
        quota = await driver.objects.get("resourcequotas", "team", "default")
        used = (quota.get("status") or {}).get("used") or {}
        return (used.get("requests.nvidia.com/gpu"), used.get("pods"), used.get("requests.cpu")) == tuple(
            wanted.values()
        )

    await driver.eventually(lambda: used(gpus="3", pods="2", cpu="1500m"))
    await driver.end_pod(first)
    await driver.eventually(lambda: used(gpus="1", pods="1", cpu="1"))
    status = (await driver.objects.get("resourcequotas", "team", "default"))["status"]
    assert (status["hard"], status["used"]["configmaps"]) == (hard, "0")


async def test_quota_counts_objects(driver: ClusterDriver, controllers: ControllerManager) -> None:
    names = ("configmaps", "count/configmaps", "count/jobs.batch", "count/pods", "pods", "requests.storage")
    spec = {"hard": dict.fromkeys(names, "5") | {"requests.storage": "10Gi"}}
    await driver.objects.create("resourcequotas", {"metadata": {"name": "objects"}, "spec": spec}, "default")
    terminating = {"hard": {"pods": "5"}, "scopes": ["Terminating"]}
    await driver.objects.create("resourcequotas", {"metadata": {"name": "short"}, "spec": terminating}, "default")
    await driver.objects.create("configmaps", {"metadata": {"name": "a"}}, "default")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    await driver.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": claim}, "default")
    await driver.create_job("train")
    ended = await driver.create_pod("ended", activeDeadlineSeconds=60)

    async def used(quota: str, **wanted: str) -> bool:
        found = await driver.objects.get("resourcequotas", quota, "default")
        return dict((found.get("status") or {}).get("used") or {}) == wanted

    counts = {"configmaps": "1", "count/configmaps": "1", "count/jobs.batch": "1", "requests.storage": "5Gi"}
    await driver.eventually(lambda: used("objects", **counts, **{"count/pods": "2", "pods": "2"}))
    await driver.eventually(lambda: used("short", pods="1"))
    await driver.end_pod(ended)
    # A pod that has ended is still an object.
    await driver.eventually(lambda: used("objects", **counts, **{"count/pods": "2", "pods": "1"}))
    await driver.eventually(lambda: used("short", pods="0"))
    await driver.objects.delete("configmaps", "a", "default")
    counts |= {"configmaps": "0", "count/configmaps": "0"}
    await driver.eventually(lambda: used("objects", **counts, **{"count/pods": "2", "pods": "1"}))


async def test_quota_follows_a_pod_into_another_scope(driver: ClusterDriver, controllers: ControllerManager) -> None:
    for scope in ("Terminating", "NotTerminating"):
        quota = {"metadata": {"name": scope.lower()}, "spec": {"hard": {"pods": "5"}, "scopes": [scope]}}
        await driver.objects.create("resourcequotas", quota, "default")
    await driver.create_pod("one")

    async def used(terminating: str, others: str) -> bool:
        quotas, _ = await driver.objects.list("resourcequotas", "default")
        found = [((each.get("status") or {}).get("used") or {}).get("pods") for each in quotas]
        return found == [others, terminating]

    await driver.eventually(lambda: used("0", "1"))
    await driver.objects.patch("pods", "one", {"spec": {"activeDeadlineSeconds": 60}}, "default")
    await driver.eventually(lambda: used("1", "0"))


async def test_quota_counts_sidecars(driver: ClusterDriver, controllers: ControllerManager) -> None:
    hard = {"metadata": {"name": "team"}, "spec": {"hard": {"requests.cpu": "2"}}}
    await driver.objects.create("resourcequotas", hard, "default")
    half = {"name": "beside", "image": "busybox", "resources": {"requests": {"cpu": "500m"}}}
    await driver.create_pod("both", cpu="1", initContainers=[{**half, "restartPolicy": "Always"}])

    async def used() -> bool:
        quota = await driver.objects.get("resourcequotas", "team", "default")
        return bool(((quota.get("status") or {}).get("used") or {}).get("requests.cpu") == "1500m")

    await driver.eventually(used)


async def test_a_claim_in_use_is_kept(driver: ClusterDriver, controllers: ControllerManager) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    await driver.objects.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec}, "default")
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod = await driver.create_pod("reads", volumes=volumes)

    async def claims() -> list[Any]:
        return (await driver.objects.list("persistentvolumeclaims", "default"))[0]

    async def protected() -> bool:
        return (await claims())[0]["metadata"].get("finalizers") == ["kubernetes.io/pvc-protection"]

    await driver.eventually(protected)
    await driver.objects.delete("persistentvolumeclaims", "data", "default")
    assert "deletionTimestamp" in (await claims())[0]["metadata"]
    await driver.end_pod(pod)

    async def gone() -> bool:
        return not await claims()

    await driver.eventually(gone)


async def test_nodes_are_not_lost_after_the_process_was_suspended(registry: Any) -> None:
    controller = NodeController(Cluster(registry, Settings()))
    node = {"metadata": {"name": "n"}, "status": {}}
    assert controller._grace_left(node) == 40
    sign = controller._heartbeats["n"][0]
    now = asyncio.get_running_loop().time()
    controller._heartbeats["n"] = sign, now - 41
    assert controller._grace_left(node) < 0
    controller._heartbeats["n"] = sign, now - 3600
    assert controller._grace_left(node) == 40
