"""The scheduler's picture of the cluster: nodes with what is in use, and waiting pods in groups of the same shape.

What a change costs does not grow with the number of pods or nodes: it alters one node, and that node is judged anew
once a *group*, not once a pod. Nothing here reads or writes the API.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from aksgpu.local.control import filters
from aksgpu.local.control.controller_runtime import is_finished
from aksgpu.local.control.filters import AssignedPod, FilterResult, NodeInfo, PodRequirements
from aksgpu.local.control.informer import object_key
from aksgpu.local.objects import Object

SCHEDULER = "default-scheduler"

REPORT_INTERVAL = 1.0
"""Seconds after which waiting pods are told a new reason."""

_MAX_IDLE_GROUPS = 16
_MAX_NODES_COMPARED = 100
"""Comparing this many feasible nodes is enough, as for the Kubernetes scheduler."""

_NOT_HELPFUL = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_ELSEWHERE = "node(s) didn't satisfy plugin(s) [NodeAffinity]"


class PendingGroup:
    """Waiting pods of one shape, the first to come first, and what each node says to them."""

    def __init__(self, shape: PodRequirements) -> None:
        self.shape = shape
        self.names = shape.names
        self.pods: dict[str, Object] = {}
        self.unreported: dict[str, None] = {}
        """Pods that do not bear the present message yet."""
        self.reported_message = ""
        self.reported_at = 0.0
        self.feasible: dict[str, float] = {}
        """Nodes where the pod fits, and how well."""
        self.preemptable: dict[str, None] = {}
        """Nodes where the pod would fit if others were preempted."""
        self.full_nodes = 0
        """Nodes that lack nothing but room."""
        self._verdicts: dict[str, FilterResult] = {}
        self._reasons: Counter[str] = Counter()

    def evaluate(self, node: NodeInfo) -> None:
        """Ask one node anew."""
        self.forget(node.name)
        if self.names is not None and node.name not in self.names:
            return
        verdict = self._verdicts[node.name] = filters.filter_node(self.shape, node)
        self._reasons.update(verdict.reasons)
        if not verdict.reasons:
            self.feasible[node.name] = node.score(self.shape)
        elif verdict.preemption_may_help:
            self.full_nodes += 1
            if self.shape.preempts and filters.select_victims(self.shape, node):
                self.preemptable[node.name] = None

    def forget(self, name: str) -> None:
        """Take back what a node said."""
        if verdict := self._verdicts.pop(name, None):
            self._reasons.subtract(verdict.reasons)
            self.full_nodes -= verdict.preemption_may_help
            self.feasible.pop(name, None)
            self.preemptable.pop(name, None)

    def sort_key(self) -> tuple[int, str]:
        """Groups whose turn is earlier have a smaller one."""
        first = next(iter(self.pods.values()))
        return -self.shape.priority, first["metadata"].get("creationTimestamp") or ""

    def reasons(self, nodes: int) -> str:
        """Why these pods fit nowhere, in the Kubernetes scheduler's words."""
        reasons = {**self._reasons, _ELSEWHERE: nodes - len(self._verdicts)}
        return f"0/{nodes} nodes are available: {_histogram(reasons)}."

    def message(self, nodes: int) -> str:
        """Why these pods wait, and why nothing is done about it."""
        if not nodes:
            return "no nodes available to schedule pods"
        if not self.shape.preempts:
            return f"{self.reasons(nodes)} preemption: not eligible due to preemptionPolicy=Never."
        tried = _histogram({_NOT_HELPFUL: nodes - self.full_nodes, _NO_VICTIMS: self.full_nodes})
        return f"{self.reasons(nodes)} preemption: 0/{nodes} nodes are available: {tried}."


def _histogram(counts: dict[str, int]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items() if count > 0))


class Placement(NamedTuple):
    """A pod, the node that it goes to, and the pods that must leave that node for it before."""

    pod: Object
    node: str
    victims: list[AssignedPod]
    reason: str
    """Why others must leave."""


class SchedulerQueue:
    """Nodes, pods that hold a part of them, and pods that wait."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.assumed: dict[str, str] = {}
        """Pods that count as running on a node before the API server says so."""
        self._known = 0
        self._node_names: dict[str, str] = {}
        self._groups: dict[bytes, PendingGroup] = {}
        self._waiting: dict[str, bytes] = {}

    # What happens in the cluster

    def node_changed(self, name: str, node: Object | None) -> None:
        """A Node object is there, changed, or is gone (None)."""
        view = self.nodes.get(name) or NodeInfo(name)
        self._known += (node is not None) - (view.node is not None)
        if node is None:
            view.node = None
            if not view.pods:
                self.nodes.pop(name, None)
            for group in self._groups.values():
                group.forget(name)
            return
        self.nodes[name] = view
        if view.set_node(node):
            self._evaluate(view)

    def pod_changed(self, uid: str, pod: Object | None) -> None:
        """A pod is there, changed, or is gone (None)."""
        if pod is None or is_finished(pod):
            self.assumed.pop(uid, None)
            self._dequeue(uid)
            self._unassign(uid)
        elif place := pod["spec"].get("nodeName"):
            self.assumed.pop(uid, None)
            self._assign(pod, place)
        elif uid not in self.assumed:
            self._enqueue(pod)

    def assume(self, pod: Object, node: str) -> None:
        """Count the pod as running on the node, before the API server says so."""
        self.assumed[pod["metadata"]["uid"]] = node
        self._assign(pod, node)

    def requeue(self, pod: Object) -> None:
        """The node could not be given to the pod after all: it waits again."""
        uid = pod["metadata"]["uid"]
        if self.assumed.pop(uid, None):
            self._unassign(uid)
            self._enqueue(pod)

    # What is to be done

    def is_pending(self, pod: Object) -> bool:
        """Whether the pod has no node yet."""
        return pod["metadata"]["uid"] in self._waiting

    def next(self) -> Placement | None:
        """The most important pod that fits somewhere, or would if others left, and the best node for it."""
        able = [group for group in self._groups.values() if group.pods and (group.feasible or group.preemptable)]
        if not able:
            return None
        group = min(able, key=PendingGroup.sort_key)
        pod = next(iter(group.pods.values()))
        if group.feasible:
            best, _ = max(islice(group.feasible.items(), _MAX_NODES_COMPARED), key=itemgetter(1))
            return Placement(pod, best, [], "")
        plans = {
            name: filters.select_victims(group.shape, self.nodes[name])
            for name in islice(group.preemptable, _MAX_NODES_COMPARED)
        }
        name, victims = min(plans.items(), key=lambda plan: _preemption_cost(plan[1]))
        return Placement(pod, name, victims, group.reasons(self._known))

    def unreported(self, now: float) -> tuple[list[tuple[Object, str]], bool]:
        """Pods that wait and have not been told why, or not the present reason, at ``now`` in seconds.

        While nodes come and go, reasons change often: pods that were told one hear the next a second later. The second
        answer is whether there are such pods.
        """
        news: list[tuple[Object, str]] = []
        more = False
        for group in self._groups.values():
            if not group.pods or group.feasible:
                continue
            message = group.message(self._known)
            if message != group.reported_message and now - group.reported_at >= REPORT_INTERVAL:
                group.unreported.update(dict.fromkeys(group.pods))
                group.reported_message = message
                group.reported_at = now
            more |= message != group.reported_message
            news += [(group.pods[uid], message) for uid in group.unreported]
            group.unreported.clear()
        return news, more

    # Bookkeeping

    def _evaluate(self, view: NodeInfo) -> None:
        if view.node is not None:
            for group in self._groups.values():
                group.evaluate(view)

    def _assign(self, pod: Object, place: str) -> None:
        meta = pod["metadata"]
        uid = meta["uid"]
        if self._node_names.get(uid) == place:
            return
        self._dequeue(uid)
        self._unassign(uid)
        wants = filters.pod_requests(pod["spec"])
        priority = int(pod["spec"].get("priority") or 0)
        view = self.nodes.setdefault(place, NodeInfo(place))
        view.add_pod(AssignedPod(uid, object_key(pod), priority, wants, meta.get("creationTimestamp") or ""))
        self._node_names[uid] = place
        self._evaluate(view)

    def _unassign(self, uid: str) -> None:
        if view := self.nodes.get(self._node_names.pop(uid, "")):
            view.remove_pod(uid)
            if view.node is None and not view.pods:
                del self.nodes[view.name]
            self._evaluate(view)

    def _enqueue(self, pod: Object) -> None:
        meta = pod["metadata"]
        spec = pod["spec"]
        uid = meta["uid"]
        if uid in self._waiting:
            group = self._groups[self._waiting[uid]]
            if not meta.get("deletionTimestamp") and group.pods[uid]["spec"] == spec:
                group.pods[uid] = pod
                return
            self._dequeue(uid)
        ours = spec.get("schedulerName", SCHEDULER) == SCHEDULER and not spec.get("schedulingGates")
        if ours and not meta.get("deletionTimestamp"):
            group = self._group(PodRequirements(spec))
            self._waiting[uid] = group.shape.key
            group.pods[uid] = pod
            group.unreported[uid] = None

    def _group(self, shape: PodRequirements) -> PendingGroup:
        if (group := self._groups.get(shape.key)) is None:
            # A few empty groups are kept: the next pod of that shape is spared the round of all nodes.
            idle = [key for key, each in self._groups.items() if not each.pods]
            for key in idle[:-_MAX_IDLE_GROUPS]:
                del self._groups[key]
            group = self._groups[shape.key] = PendingGroup(shape)
            for view in self.nodes.values() if group.names is None else map(self.nodes.get, group.names):
                if view and view.node is not None:
                    group.evaluate(view)
        return group

    def _dequeue(self, uid: str) -> None:
        if (key := self._waiting.pop(uid, None)) is not None:
            group = self._groups[key]
            del group.pods[uid]
            group.unreported.pop(uid, None)
            if not group.pods and group.names is not None:
                del self._groups[key]


def _preemption_cost(victims: list[AssignedPod]) -> tuple[Any, ...]:
    """Least important victims first, then fewest, as Kubernetes chooses among nodes."""
    return max(pod.priority for pod in victims), sum(pod.priority for pod in victims), len(victims)
