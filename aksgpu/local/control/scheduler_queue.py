"""The scheduler's cache of the cluster: nodes with their pods, and pending pods in groups with equal requirements.

A change affects one node, which is evaluated once per group rather than once per pod. The cost of a change therefore
does not grow with the number of pods or nodes. Nothing in this module reads or writes the API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from aksgpu.local.control import filters
from aksgpu.local.control.claim_topology import VolumeRequirements, claim_keys
from aksgpu.local.control.controller_runtime import is_finished
from aksgpu.local.control.filters import AssignedPod, FilterResult, NodeInfo, PodRequirements
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object

SCHEDULER = "default-scheduler"

REPORT_INTERVAL = 1.0
"""Seconds between two messages to the same pending pods."""

_MAX_IDLE_GROUPS = 16
"""Number of groups without pods that are kept, so that not all nodes must be evaluated for the next such pod."""
_MAX_NODES_COMPARED = 100
"""Maximum number of feasible nodes that are compared, as in the Kubernetes scheduler."""

_NO_CLAIMS = "no new claims to deallocate"
"""The report of the scheduler's plug-in for resource claims about every pod that no node can run."""
_NOT_HELPFUL = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_OTHER_NODE = "node(s) didn't satisfy plugin(s) [NodeAffinity]"


class PendingGroup:
    """Pending pods with equal requirements, oldest first, and the result of each node's filters for them."""

    def __init__(self, requirements: PodRequirements) -> None:
        self.requirements = requirements
        self.node_names = requirements.node_names
        self.pods: dict[str, Object] = {}
        self.unreported: dict[str, None] = {}
        """Uids of the pods that do not have the current message in their status yet."""
        self.reported_message = ""
        self.reported_at = 0.0
        self.feasible: dict[str, float] = {}
        """The nodes that can run the pods, with their scores."""
        self.preemptable: dict[str, None] = {}
        """The nodes that could run a pod if others were preempted."""
        self.full_nodes = 0
        """Number of nodes that lack only free resources."""
        self._results: dict[str, FilterResult] = {}
        self._reasons: Counter[str] = Counter()

    def evaluate(self, node: NodeInfo) -> None:
        """Run the filters on one node again."""
        self.forget(node.name)
        if self.node_names is not None and node.name not in self.node_names:
            return
        result = filters.filter_node(self.requirements, node)
        self._results[node.name] = result
        self._reasons.update(result.reasons)
        if not result.reasons:
            self.feasible[node.name] = node.score(self.requirements)
        elif result.preemption_may_help:
            self.full_nodes += 1
            if self.requirements.preempts and filters.select_victims(self.requirements, node):
                self.preemptable[node.name] = None

    def forget(self, name: str) -> None:
        """Drop the result of a node."""
        result = self._results.pop(name, None)
        if result is None:
            return
        self._reasons.subtract(result.reasons)
        if result.preemption_may_help:
            self.full_nodes -= 1
        self.feasible.pop(name, None)
        self.preemptable.pop(name, None)

    def sort_key(self) -> tuple[int, str]:
        """Order groups by priority, highest first, then by the age of their first pod."""
        first = next(iter(self.pods.values()))
        return -self.requirements.priority, first["metadata"].get("creationTimestamp") or ""

    def reasons(self, nodes: int) -> str:
        """Return why no node can run these pods, as the text of the Kubernetes scheduler."""
        if self.requirements.volumes.problem:
            return f"0/{nodes} nodes are available: {self.requirements.volumes.problem}."
        reasons = {**self._reasons, _OTHER_NODE: nodes - len(self._results)}
        return f"0/{nodes} nodes are available: {_histogram(reasons)}."

    def message(self, nodes: int) -> str:
        """Return why these pods are pending and why preemption does not help."""
        if not nodes:
            return "no nodes available to schedule pods"
        if not self.requirements.preempts:
            return f"{self.reasons(nodes)} {_NO_CLAIMS}, preemption: not eligible due to preemptionPolicy=Never."
        preemption = _histogram({_NOT_HELPFUL: nodes - self.full_nodes, _NO_VICTIMS: self.full_nodes})
        return f"{self.reasons(nodes)} {_NO_CLAIMS}, preemption: 0/{nodes} nodes are available: {preemption}."


def _histogram(counts: dict[str, int]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items() if count > 0))


class Placement(NamedTuple):
    """A pod, the node it is placed on, and the pods that must be preempted first."""

    pod: Object
    node: str
    victims: list[AssignedPod]
    reason: str
    """Why preemption is necessary."""


class SchedulerQueue:
    """Nodes, pods that are assigned to them, and pending pods.

    Args:
        volumes: returns the requirements that a pod's claims have for its node.
    """

    def __init__(self, volumes: Callable[[Object], VolumeRequirements] = lambda _: VolumeRequirements()) -> None:
        self._volumes = volumes
        self.nodes: dict[str, NodeInfo] = {}
        self.assumed: dict[str, str] = {}
        """Node names of pods that count as assigned before the API server confirms it, by uid."""
        self._node_count = 0
        self._node_names: dict[str, str] = {}
        self._groups: dict[bytes, PendingGroup] = {}
        self._group_keys: dict[str, bytes] = {}

    # Changes in the cluster

    def node_changed(self, name: str, node: Object | None) -> None:
        """Handle a node that was added, changed or, with None, deleted."""
        info = self.nodes.get(name) or NodeInfo(name)
        if node is None:
            if info.node is not None:
                self._node_count -= 1
            info.node = None
            if not info.pods:
                self.nodes.pop(name, None)
            for group in self._groups.values():
                group.forget(name)
            return
        if info.node is None:
            self._node_count += 1
        self.nodes[name] = info
        if info.set_node(node):
            self._evaluate(info)

    def pod_changed(self, uid: str, pod: Object | None) -> None:
        """Handle a pod that was added, changed or, with None, deleted."""
        if pod is None or is_finished(pod):
            self.assumed.pop(uid, None)
            self._dequeue(uid)
            self._unassign(uid)
        elif pod["spec"].get("nodeName"):
            self.assumed.pop(uid, None)
            self._assign(pod, pod["spec"]["nodeName"])
        elif uid not in self.assumed:
            self._enqueue(pod)

    def assume(self, pod: Object, node: str) -> None:
        """Count a pod as assigned to a node before the API server confirms it."""
        self.assumed[pod["metadata"]["uid"]] = node
        self._assign(pod, node)

    def requeue(self, pod: Object) -> None:
        """Make an assumed pod pending again."""
        uid = pod["metadata"]["uid"]
        if self.assumed.pop(uid, None):
            self._unassign(uid)
            self._enqueue(pod)

    def claim_changed(self, key: str) -> None:
        """Evaluate again the pending pods that use a claim."""
        for group in list(self._groups.values()):
            for pod in list(group.pods.values()):
                if key in claim_keys(pod):
                    self._enqueue(pod)

    # Decisions

    def is_pending(self, pod: Object) -> bool:
        """Return whether the pod is waiting for a node."""
        return pod["metadata"]["uid"] in self._group_keys

    def next(self) -> Placement | None:
        """Return the pending pod of the highest priority that a node can run, and the best node for it.

        If no node can run it without preemption, the placement names the pods to preempt.
        """
        groups = [group for group in self._groups.values() if group.pods and (group.feasible or group.preemptable)]
        if not groups:
            return None
        group = min(groups, key=PendingGroup.sort_key)
        pod = next(iter(group.pods.values()))
        if group.feasible:
            best, _ = max(islice(group.feasible.items(), _MAX_NODES_COMPARED), key=itemgetter(1))
            return Placement(pod, best, [], "")
        victims: dict[str, list[AssignedPod]] = {}
        for name in islice(group.preemptable, _MAX_NODES_COMPARED):
            victims[name] = filters.select_victims(group.requirements, self.nodes[name])
        best = min(victims, key=lambda name: _preemption_cost(victims[name]))
        return Placement(pod, best, victims[best], group.reasons(self._node_count))

    def unreported(self, now: float) -> tuple[list[tuple[Object, str]], bool]:
        """Return the pending pods whose message is new, with the message, at the time ``now`` in seconds.

        Messages change often while nodes are added or removed, so a pod gets a new one only after
        :data:`REPORT_INTERVAL`. The second value is whether messages were held back for that reason.
        """
        reports: list[tuple[Object, str]] = []
        held_back = False
        for group in self._groups.values():
            if not group.pods or group.feasible:
                continue
            message = group.message(self._node_count)
            if message != group.reported_message and now - group.reported_at >= REPORT_INTERVAL:
                group.unreported.update(dict.fromkeys(group.pods))
                group.reported_message = message
                group.reported_at = now
            held_back |= message != group.reported_message
            reports += [(group.pods[uid], message) for uid in group.unreported]
            group.unreported.clear()
        return reports, held_back

    # Bookkeeping

    def _evaluate(self, info: NodeInfo) -> None:
        if info.node is not None:
            for group in self._groups.values():
                group.evaluate(info)

    def _assign(self, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        uid = meta["uid"]
        if self._node_names.get(uid) == node:
            return
        self._dequeue(uid)
        self._unassign(uid)
        requests = filters.pod_requests(pod["spec"])
        priority = int(pod["spec"].get("priority") or 0)
        info = self.nodes.setdefault(node, NodeInfo(node))
        info.add_pod(AssignedPod(uid, object_key(pod), priority, requests, meta.get("creationTimestamp") or ""))
        self._node_names[uid] = node
        self._evaluate(info)

    def _unassign(self, uid: str) -> None:
        info = self.nodes.get(self._node_names.pop(uid, ""))
        if info is None:
            return
        info.remove_pod(uid)
        if info.node is None and not info.pods:
            del self.nodes[info.name]
        self._evaluate(info)

    def _enqueue(self, pod: Object) -> None:
        meta = pod["metadata"]
        spec = pod["spec"]
        uid = meta["uid"]
        is_deleted = bool(meta.get("deletionTimestamp"))
        if uid in self._group_keys:
            group = self._groups[self._group_keys[uid]]
            unchanged = group.pods[uid]["spec"] == spec and group.requirements.volumes == self._volumes(pod)
            if not is_deleted and unchanged:
                group.pods[uid] = pod
                return
            self._dequeue(uid)
        is_ours = spec.get("schedulerName", SCHEDULER) == SCHEDULER
        if is_ours and not spec.get("schedulingGates") and not is_deleted:
            group = self._group(PodRequirements(spec, self._volumes(pod)))
            self._group_keys[uid] = group.requirements.key
            group.pods[uid] = pod
            group.unreported[uid] = None

    def _group(self, requirements: PodRequirements) -> PendingGroup:
        group = self._groups.get(requirements.key)
        if group is not None:
            return group
        idle = [key for key, each in self._groups.items() if not each.pods]
        for key in idle[:-_MAX_IDLE_GROUPS]:
            del self._groups[key]
        group = PendingGroup(requirements)
        self._groups[requirements.key] = group
        names = self.nodes if group.node_names is None else group.node_names
        for name in names:
            info = self.nodes.get(name)
            if info is not None and info.node is not None:
                group.evaluate(info)
        return group

    def _dequeue(self, uid: str) -> None:
        key = self._group_keys.pop(uid, None)
        if key is None:
            return
        group = self._groups[key]
        del group.pods[uid]
        group.unreported.pop(uid, None)
        if not group.pods and group.node_names is not None:
            del self._groups[key]


def _preemption_cost(victims: list[AssignedPod]) -> tuple[Any, ...]:
    """Rank nodes for preemption as Kubernetes does: lowest priority of victims first, then fewest victims."""
    return max(pod.priority for pod in victims), sum(pod.priority for pod in victims), len(victims)
