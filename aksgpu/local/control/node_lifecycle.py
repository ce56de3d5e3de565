"""Lost nodes: notices that a node stopped renewing its lease, taints it, and moves its pods away.

Readiness and cordons become taints here; what tolerates which taint how long is the pods' own business.
Pods of nodes that do not exist any more are removed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aksgpu.common import times, tolerations
from aksgpu.local.control import filters
from aksgpu.local.control.controller_runtime import Cluster, Controller, get_condition, is_finished
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object
from aksgpu.local.status_error import ignoring

LEASE_NAMESPACE = "kube-node-lease"
DEFAULT_GRACE = 40.0
"""Seconds without a sign of life after which a node counts as lost, where its lease does not say otherwise."""

_MANAGED_TAINTS = (filters.NOT_READY, filters.UNREACHABLE, filters.UNSCHEDULABLE)


def taints_for(node: Object) -> list[dict[str, Any]]:
    """A node's taints as they should be: the user's, and those that follow from its readiness and cordon."""
    spec = node.get("spec") or {}
    ready = get_condition(node, "Ready").get("status")
    wanted: list[tuple[str, str]] = []
    if ready != "True":
        key = filters.UNREACHABLE if ready == "Unknown" else filters.NOT_READY
        wanted = [(key, effect) for effect in (("NoSchedule", "NoExecute") if ready else ("NoSchedule",))]
    if spec.get("unschedulable"):
        wanted.append((filters.UNSCHEDULABLE, "NoSchedule"))
    have = spec.get("taints") or ()
    old = {(taint["key"], taint["effect"]): taint for taint in have}
    made = [old.get(each) or {"key": each[0], "effect": each[1], "timeAdded": times.now()} for each in wanted]
    return [taint for taint in have if taint["key"] not in _MANAGED_TAINTS] + made


class NodeController(Controller):
    """Watches over the nodes' leases."""

    resource = "nodes"
    component = "node-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._leases = cluster.informer("leases")
        # What was seen of a node last, and when by this process's clock: wall clocks jump, and machines sleep.
        self._heartbeats: dict[str, tuple[Any, float]] = {}
        self._leases.on_change(self._lease_changed)

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if name in self._heartbeats and (node := self.informer.get(name)):
            self._grace_left(node)

    async def sync(self, key: str) -> float | None:
        """Judge one node."""
        node = self.informer.get(key)
        if node is None:
            if self._heartbeats.pop(key, None):
                gone = {"kind": "Node", "metadata": {"name": key}}
                self.record_event(
                    gone, "Normal", "RemovingNode", f"Node {key} event: Removing Node {key} from Controller"
                )
            return None
        if key not in self._heartbeats:
            self.record_event(
                node, "Normal", "RegisteredNode", f"Node {key} event: Registered Node {key} in Controller"
            )
        left = self._grace_left(node)
        if left <= 0 and get_condition(node, "Ready").get("status") != "Unknown":
            node = await self._mark_unknown(node)
        taints = taints_for(node)
        if taints != ((node.get("spec") or {}).get("taints") or []):
            version = {"resourceVersion": node["metadata"]["resourceVersion"]}
            with ignoring(404):
                await self.cluster.patch("nodes", node, {"metadata": version, "spec": {"taints": taints}})
        return left if left > 0 else None  # a node that comes back says so in its status

    def _grace_left(self, node: Object) -> float:
        """Seconds until the node counts as lost."""
        key = node["metadata"]["name"]
        lease = (self._leases.get(f"{LEASE_NAMESPACE}/{key}") or {}).get("spec") or {}
        sign = lease.get("renewTime"), get_condition(node, "Ready").get("lastHeartbeatTime")
        now = asyncio.get_running_loop().time()
        grace = float(lease.get("leaseDurationSeconds") or DEFAULT_GRACE)
        last, since = self._heartbeats.get(key, (None, now))
        if last != sign or now - since > 1.25 * grace:
            # A new sign; or it is this process that stood still, and the node may have had nobody to report to.
            since = now
        self._heartbeats[key] = sign, since
        return grace - (now - since)

    async def _mark_unknown(self, node: Object) -> Object:
        """Say that nothing is known of the node any more."""
        stopped = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
        unknown = {"status": "Unknown", "lastTransitionTime": times.now(), **stopped}
        status = node.get("status") or {}
        kept = [each for each in status.get("conditions") or () if each["type"] != "Ready"]
        conditions = [{**each, **unknown} if each["type"].endswith("Pressure") else each for each in kept]
        conditions.append({"type": "Ready", **get_condition(node, "Ready"), **unknown})
        node = await self.cluster.update_status("nodes", node, {**status, "conditions": conditions})
        name = node["metadata"]["name"]
        self.record_event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return node


class TaintEvictionController(Controller):
    """Deletes pods from nodes that they do not tolerate any longer, or that are gone."""

    component = "taint-eviction-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._nodes = cluster.informer("nodes")
        self._pods = self.follow("pods", self._evictable_key)
        self._on_node = self._pods.index(lambda pod: pod["spec"].get("nodeName") or "")
        self._nodes.on_change(self._node_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        some = new or old
        if some and (new is None or _no_execute_taints(new) != _no_execute_taints(old)):
            for pod in self._on_node[some["metadata"]["name"]]:
                self.queue.add(object_key(pod))

    def _evictable_key(self, pod: Object) -> str:
        name = pod["spec"].get("nodeName")
        node = self._nodes.get(name) if name else None
        return object_key(pod) if name and (node is None or _no_execute_taints(node)) else ""

    async def sync(self, key: str) -> float | None:
        """Judge one pod."""
        pod = self._pods.get(key)
        if pod is None or not (name := pod["spec"].get("nodeName")):
            return None
        if (node := self._nodes.get(name)) is None:
            await self._delete_orphan(pod, name)
            return None
        if is_finished(pod) or pod["metadata"].get("deletionTimestamp"):
            return None
        if (left := _toleration_left(pod, _no_execute_taints(node))) > 0:
            return left
        self.record_event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        why = "Taint manager: deleting due to NoExecute taint"
        await self.cluster.disrupt(pod, "DeletionByTaintManager", why)
        await self.cluster.delete("pods", pod)
        return None

    async def _delete_orphan(self, pod: Object, name: str) -> None:
        """Remove a pod whose node is gone: nobody is left who could end it."""
        with ignoring(404):
            await self.cluster.objects.get("nodes", name)
            return  # only the cache lacks it
        if not is_finished(pod):
            await self.cluster.disrupt(pod, "DeletionByPodGC", "PodGC: node no longer exists", phase="Failed")
        await self.cluster.delete("pods", pod, grace_period_seconds=0)


def _no_execute_taints(node: Object | None) -> list[dict[str, Any]]:
    taints = (node.get("spec") or {}).get("taints") or () if node else ()
    return [taint for taint in taints if taint["effect"] == "NoExecute"]


def _toleration_left(pod: Object, taints: list[dict[str, Any]]) -> float:
    """Seconds that a pod may stay on a node with these taints."""
    left = float("inf")
    for taint in taints:
        covering = [each for each in pod["spec"].get("tolerations") or () if tolerations.matches(each, taint)]
        if not covering:
            return 0.0
        limits = [each["tolerationSeconds"] for each in covering if each.get("tolerationSeconds") is not None]
        if limits:
            left = min(left, min(limits) - times.age(taint.get("timeAdded") or times.now()))
    return left
