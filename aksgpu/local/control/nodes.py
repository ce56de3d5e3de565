"""Lost nodes: notices that a node stopped renewing its lease, taints it, and moves its pods away.

Readiness, cordons and pressure become taints here; what tolerates which taint how long is the pods' own business.
Pods of nodes that do not exist any more are removed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aksgpu.local.control import fit, times
from aksgpu.local.control.events import Recorder
from aksgpu.local.control.informer import key_of
from aksgpu.local.control.runtime import Cluster, Controller, Worker, condition, finished, suppress_gone
from aksgpu.local.objects import Object
from aksgpu.local.status import StatusError

LEASES = "kube-node-lease"
GRACE = 40.0
"""Seconds without a sign of life after which a node counts as lost, where its lease does not say otherwise."""

_PREFIX = "node.kubernetes.io/"
_PRESSURES = {"MemoryPressure": "memory-pressure", "DiskPressure": "disk-pressure", "PIDPressure": "pid-pressure"}
_OURS = frozenset(
    {fit.NOT_READY, fit.UNREACHABLE, fit.UNSCHEDULABLE} | {_PREFIX + name for name in _PRESSURES.values()}
)


def taints_for(node: Object) -> list[dict[str, Any]]:
    """A node's taints as they should be: the user's, and those that follow from its state."""
    wanted: list[dict[str, Any]] = []
    ready = condition(node, "Ready").get("status")
    if ready != "True":
        key = fit.UNREACHABLE if ready == "Unknown" else fit.NOT_READY
        wanted.append({"key": key, "effect": "NoSchedule"})
        if ready:
            wanted.append({"key": key, "effect": "NoExecute"})
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.append({"key": fit.UNSCHEDULABLE, "effect": "NoSchedule"})
    for kind, name in _PRESSURES.items():
        if condition(node, kind).get("status") == "True":
            wanted.append({"key": _PREFIX + name, "effect": "NoSchedule"})
    have = (node.get("spec") or {}).get("taints") or ()
    kept = [taint for taint in have if taint["key"] not in _OURS]
    old = {(taint["key"], taint["effect"]): taint for taint in have}
    fresh = {"timeAdded": times.now()}
    return kept + [old.get((taint["key"], taint["effect"])) or {**taint, **fresh} for taint in wanted]


class NodeController(Controller):
    """Watches over the nodes' leases."""

    resource = "nodes"

    def __init__(self, cluster: Cluster, events: Recorder) -> None:
        super().__init__(cluster)
        self._events = events
        self._leases = cluster.informer("leases")
        self._registered: set[str] = set()
        # What was seen of a node last, and when by this process's clock: wall clocks jump, and machines sleep.
        self._signs: dict[str, tuple[Any, float]] = {}
        self._leases.on_change(self._lease_changed)

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        if new and new["metadata"].get("namespace") == LEASES and (node := self.informer.get(new["metadata"]["name"])):
            self._left(node)

    async def sync(self, key: str) -> float | None:
        """Judge one node."""
        node = self.informer.get(key)
        if node is None:
            self._signs.pop(key, None)
            self._registered.discard(key)
            return None
        if key not in self._registered:
            self._registered.add(key)
            text = f"Node {key} event: Registered Node {key} in Controller"
            self._events.tell("node-controller", node, "Normal", "RegisteredNode", text)
        left = self._left(node)
        if left <= 0 and condition(node, "Ready").get("status") != "Unknown":
            node = await self._lost(key, node)
        await self._taint(key, node)
        return left if left > 0 else None  # a node that comes back says so in its status

    def _left(self, node: Object) -> float:
        """Seconds until the node counts as lost."""
        key = node["metadata"]["name"]
        lease = (self._leases.get(f"{LEASES}/{key}") or {}).get("spec") or {}
        sign = lease.get("renewTime"), condition(node, "Ready").get("lastHeartbeatTime")
        now, grace = asyncio.get_running_loop().time(), float(lease.get("leaseDurationSeconds") or GRACE)
        last, since = self._signs.get(key, (None, now))
        if last != sign or now - since > 1.25 * grace:
            # A new sign; or it is this process that stood still, and the node may have had nobody to report to.
            since = now
        self._signs[key] = sign, since
        return grace - (now - since)

    async def _lost(self, key: str, node: Object) -> Object:
        conditions = []
        for kind in (*_PRESSURES, "Ready"):
            before = condition(node, kind)
            never = {"reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status."}
            stopped = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
            state = {"type": kind, "status": "Unknown", "lastTransitionTime": times.now()}
            conditions.append({**before, **state, **(stopped if before else never)})
        rest = [
            each
            for each in (node.get("status") or {}).get("conditions") or ()
            if each["type"] not in {each["type"] for each in conditions}
        ]
        status = {**(node.get("status") or {}), "conditions": rest + conditions}
        node = await self.cluster.update("nodes", {**node, "status": status}, subresource="status")
        text = f"Node {key} status is now: NodeNotReady"
        self._events.tell("node-controller", node, "Normal", "NodeNotReady", text)
        return node

    async def _taint(self, key: str, node: Object) -> None:
        taints = taints_for(node)
        if taints == ((node.get("spec") or {}).get("taints") or []):
            return
        patch = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": taints}}
        with suppress_gone():
            await self.cluster.patch("nodes", key, patch)


class PodMover(Worker):
    """Deletes pods from nodes that they do not tolerate any longer, or that are gone."""

    def __init__(self, cluster: Cluster, events: Recorder) -> None:
        super().__init__(cluster)
        self._events = events
        self._nodes, self._pods = cluster.informer("nodes"), cluster.informer("pods")
        self._on_node = self._pods.index("node", lambda pod: pod["spec"].get("nodeName") or "")
        self._nodes.on_change(self._node_changed)
        self._pods.on_change(self._pod_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        some = new or old
        if some and (new is None or _evicting(new) != _evicting(old)):
            for pod in self._on_node[some["metadata"]["name"]]:
                self.queue.add(key_of(pod))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new and (name := new["spec"].get("nodeName")):
            node = self._nodes.get(name)
            if node is None or _evicting(node):
                self.queue.add(key_of(new))

    async def sync(self, key: str) -> float | None:
        """Judge one pod."""
        pod = self._pods.get(key)
        if pod is None or not (name := pod["spec"].get("nodeName")):
            return None
        node = self._nodes.get(name)
        if node is None:
            await self._bury(pod, name)
            return None
        if finished(pod) or pod["metadata"].get("deletionTimestamp"):
            return None
        left = _patience(pod, _evicting(node))
        if left > 0:
            return left
        text = f"Marking for deletion Pod {key}"
        self._events.tell("taint-eviction-controller", pod, "Normal", "TaintManagerEviction", text)
        why = "Taint manager: deleting due to NoExecute taint"
        await self.cluster.disrupt(pod, "DeletionByTaintManager", why)
        await self.cluster.delete("pods", pod)
        return None

    async def _bury(self, pod: Object, name: str) -> None:
        """Remove a pod whose node is gone: nobody is left who could end it."""
        try:
            await self.cluster.objects.get("nodes", name)
            return  # only the cache lacks it
        except StatusError as error:
            if error.code != 404:
                raise
        if not finished(pod):
            with suppress_gone():
                await self.cluster.disrupt(pod, "DeletionByPodGC", "PodGC: node no longer exists")
                await self.cluster.patch("pods", key_of(pod), {"status": {"phase": "Failed"}}, subresource="status")
        await self.cluster.delete("pods", pod, grace_period_seconds=0)


def _evicting(node: Object | None) -> list[dict[str, Any]]:
    taints = (node.get("spec") or {}).get("taints") or () if node else ()
    return [taint for taint in taints if taint["effect"] == "NoExecute"]


def _patience(pod: Object, taints: list[dict[str, Any]]) -> float:
    """Seconds that a pod may stay on a node with these taints."""
    left = float("inf")
    for taint in taints:
        covering = [each for each in pod["spec"].get("tolerations") or () if fit.covers(each, taint)]
        if not covering:
            return 0.0
        limits = [each["tolerationSeconds"] for each in covering if each.get("tolerationSeconds") is not None]
        if limits:
            left = min(left, min(limits) - times.age(taint.get("timeAdded") or times.now()))
    return left
