"""The node lifecycle: taints nodes that are lost, not ready or cordoned, and evicts pods without a toleration.

A node is lost when its lease is no longer renewed. Pods of nodes that no longer exist are deleted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from aksgpu.common import times, tolerations
from aksgpu.local.control import filters
from aksgpu.local.control.controller_runtime import Cluster, Controller, get_condition, is_finished
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object
from aksgpu.local.status_error import ignoring

LEASE_NAMESPACE = "kube-node-lease"
DEFAULT_GRACE = 40.0
"""Seconds without a heartbeat after which a node is lost, if its lease does not name a duration."""

_MANAGED_TAINTS = (filters.NOT_READY, filters.UNREACHABLE, filters.UNSCHEDULABLE)


def taints_for(node: Object) -> list[dict[str, Any]]:
    """Return the taints that a node should have: the user's, and those for its readiness and cordon."""
    spec = node.get("spec") or {}
    ready = get_condition(node, "Ready").get("status")
    wanted: list[tuple[str, str]] = []
    if ready != "True":
        key = filters.UNREACHABLE if ready == "Unknown" else filters.NOT_READY
        wanted.append((key, "NoSchedule"))
        if ready:  # Pods of a new node that has not reported yet are not evicted.
            wanted.append((key, "NoExecute"))
    if spec.get("unschedulable"):
        wanted.append((filters.UNSCHEDULABLE, "NoSchedule"))
    current = spec.get("taints") or ()
    current_by_key = {(taint["key"], taint["effect"]): taint for taint in current}
    taints = [taint for taint in current if taint["key"] not in _MANAGED_TAINTS]
    for key, effect in wanted:
        new = {"key": key, "effect": effect, "timeAdded": times.now()}
        taints.append(current_by_key.get((key, effect), new))
    return taints


class NodeController(Controller):
    """Watches the nodes' leases and heartbeats."""

    resource = "nodes"
    component = "node-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._leases = cluster.informer("leases")
        # The last heartbeat of each node, and when it was seen by the monotonic clock. The system clock may jump.
        self._heartbeats: dict[str, tuple[Any, float]] = {}
        self._leases.on_change(self._lease_changed)

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        node = self.informer.get(name)
        if node is not None and name in self._heartbeats:
            # The duration may be shorter than the one that the next sync waits for.
            self.queue.add_after(name, self._grace_left(node))

    async def sync(self, key: str) -> float | None:
        """Mark one node as lost if its grace period is over, and set its taints."""
        node = self.informer.get(key)
        if node is None:
            if self._heartbeats.pop(key, None):
                deleted = {"kind": "Node", "metadata": {"name": key}}
                message = f"Node {key} event: Removing Node {key} from Controller"
                self.record_event(deleted, "Normal", "RemovingNode", message)
            return None
        if key not in self._heartbeats:
            self.record_event(
                node, "Normal", "RegisteredNode", f"Node {key} event: Registered Node {key} in Controller"
            )
        remaining = self._grace_left(node)
        if remaining <= 0 and get_condition(node, "Ready").get("status") != "Unknown":
            node = await self._mark_unknown(node)
        taints = taints_for(node)
        if taints != ((node.get("spec") or {}).get("taints") or []):
            version = {"resourceVersion": node["metadata"]["resourceVersion"]}
            with ignoring(404):
                await self.cluster.patch("nodes", node, {"metadata": version, "spec": {"taints": taints}})
        # A lost node that comes back changes its status, which queues it again.
        return remaining if remaining > 0 else None

    def _grace_left(self, node: Object) -> float:
        """Return the seconds until the node is lost."""
        name = node["metadata"]["name"]
        lease = (self._leases.get(f"{LEASE_NAMESPACE}/{name}") or {}).get("spec") or {}
        heartbeat = (lease.get("renewTime"), get_condition(node, "Ready").get("lastHeartbeatTime"))
        grace = float(lease.get("leaseDurationSeconds") or DEFAULT_GRACE)
        now = asyncio.get_running_loop().time()
        last, since = self._heartbeats.get(name, (None, now))
        # If much more time has passed, this process was suspended, and the node could not report to it.
        if heartbeat != last or now - since > 1.25 * grace:
            since = now
        self._heartbeats[name] = (heartbeat, since)
        return grace - (now - since)

    async def _mark_unknown(self, node: Object) -> Object:
        """Set the node's conditions to Unknown."""
        unknown = {
            "status": "Unknown",
            "lastTransitionTime": times.now(),
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
        }
        status = node.get("status") or {}
        conditions: list[dict[str, Any]] = []
        for condition in status.get("conditions") or ():
            if condition["type"].endswith("Pressure"):
                conditions.append({**condition, **unknown})
            elif condition["type"] != "Ready":
                conditions.append(condition)
        conditions.append({"type": "Ready", **get_condition(node, "Ready"), **unknown})
        node = await self.cluster.update_status("nodes", node, {**status, "conditions": conditions})
        name = node["metadata"]["name"]
        self.record_event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return node


class TaintEvictionController(Controller):
    """Deletes pods from nodes whose NoExecute taints they do not tolerate, and from nodes that no longer exist.

    A pod that is deleted before it has a node is marked as failed, as PodGC does it. Its Job then releases it.
    """

    component = "taint-eviction-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._nodes = cluster.informer("nodes")
        # By node and key, when a taint was first seen. The taint of a user has no ``timeAdded``.
        self._first_seen: dict[str, dict[str, str]] = {}
        self._pods = self.follow("pods", self._evictable_key)
        self._on_node = self._pods.index(lambda pod: pod["spec"].get("nodeName") or "")
        self._nodes.on_change(self._node_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        before = self._first_seen.pop(name, {})
        if new is not None:
            keys = [taint["key"] for taint in _no_execute_taints(new)]
            self._first_seen[name] = {key: before.get(key) or times.now() for key in keys}
        if new is None or _no_execute_taints(new) != _no_execute_taints(old):
            for pod in self._on_node[name]:
                self.queue.add(object_key(pod))

    def _evictable_key(self, pod: Object) -> str:
        name = pod["spec"].get("nodeName")
        if not name:
            is_deleted = pod["metadata"].get("deletionTimestamp") and not is_finished(pod)
            return object_key(pod) if is_deleted else ""
        node = self._nodes.get(name)
        return object_key(pod) if node is None or _no_execute_taints(node) else ""

    async def sync(self, key: str) -> float | None:
        """Delete one pod if its node is gone or it no longer tolerates the node's taints."""
        pod = self._pods.get(key)
        if pod is None:
            return None
        if not pod["spec"].get("nodeName"):
            if pod["metadata"].get("deletionTimestamp") and not is_finished(pod):
                await self.cluster.update_status("pods", pod, {**pod["status"], "phase": "Failed"})
            return None
        name = pod["spec"]["nodeName"]
        node = self._nodes.get(name)
        if node is None:
            await self._delete_orphan(pod, name)
            return None
        if is_finished(pod) or pod["metadata"].get("deletionTimestamp"):
            return None
        remaining = _toleration_left(pod, _no_execute_taints(node), self._first_seen[name])
        if remaining > 0:
            return remaining
        self.record_event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        message = "Taint manager: deleting due to NoExecute taint"
        await self.cluster.disrupt(pod, "DeletionByTaintManager", message)
        await self.cluster.delete("pods", pod)
        return None

    async def _delete_orphan(self, pod: Object, name: str) -> None:
        """Delete a pod whose node no longer exists. No node agent can end it."""
        with ignoring(404):
            # Once the node is in the cache, its deletion is noticed even if the watch has missed its creation.
            await self.cluster.read("nodes", name)
        if self._nodes.get(name) is not None:
            return  # The node was missing only from the cache.
        if not is_finished(pod):
            await self.cluster.disrupt(pod, "DeletionByPodGC", "PodGC: node no longer exists", phase="Failed")
        await self.cluster.delete("pods", pod, grace_period_seconds=0)


def _no_execute_taints(node: Object | None) -> list[dict[str, Any]]:
    taints = (node.get("spec") or {}).get("taints") or () if node else ()
    return [taint for taint in taints if taint["effect"] == "NoExecute"]


def _toleration_left(pod: Object, taints: list[dict[str, Any]], first_seen: Mapping[str, str]) -> float:
    """Return the seconds for which a pod may stay on a node with these taints.

    Args:
        pod: the pod.
        taints: the taints.
        first_seen: when taints were first seen, by their key. It is used for taints without ``timeAdded``.
    """
    remaining = math.inf
    for taint in taints:
        matching = [each for each in pod["spec"].get("tolerations") or () if tolerations.matches(each, taint)]
        if not matching:
            return 0.0
        limits = [each["tolerationSeconds"] for each in matching if each.get("tolerationSeconds") is not None]
        if limits:
            age = times.age(taint.get("timeAdded") or first_seen[taint["key"]])
            remaining = min(remaining, min(limits) - age)
    return remaining
