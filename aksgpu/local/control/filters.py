"""Filters of the scheduler: whether a node can run a pod, by resources, taints and selectors.

These are pure functions. The texts are those of the Kubernetes scheduler. Inter-pod affinity, topology spread
constraints and host ports are not supported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import orjson

from aksgpu.common import quantities
from aksgpu.common.tolerations import tolerates
from aksgpu.local import selectors
from aksgpu.local.api.admission import pod_resources
from aksgpu.local.control.claim_topology import ZONE_CONFLICT, ZONE_LABEL, VolumeRequirements
from aksgpu.local.control.controller_runtime import get_condition
from aksgpu.local.objects import Object

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

Amounts = Mapping[str, int]
"""Amounts by resource name: CPU in thousandths, everything else in its own unit."""


def _integer_amount(resource: str, value: Decimal) -> int:
    return ceil(value * 1000) if resource == "cpu" else ceil(value)


@lru_cache(maxsize=4096)
def _amount(resource: str, value: str | int | float) -> int:
    return _integer_amount(resource, quantities.parse(value))


def integer_quantities(quantities: Mapping[str, Any] | None) -> Counter[str]:
    """Return quantities, such as a node's allocatable resources, as integers, rounded up."""
    return Counter({name: _amount(name, value) for name, value in (quantities or {}).items()})


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    """Return the resources that a pod's spec requests."""
    amounts: Counter[str] = Counter()
    for name, value in pod_resources(spec, "requests").items():
        if value:
            amounts[name] = _integer_amount(name, value)
    return amounts


def effective_taints(node: Object) -> list[dict[str, Any]]:
    """Return a node's taints, including the one that the node controller is about to add if it is not ready."""
    taints = list((node.get("spec") or {}).get("taints") or ())
    ready = get_condition(node, "Ready").get("status")
    if ready != "True" and not any(taint["key"] in (NOT_READY, UNREACHABLE) for taint in taints):
        taints.append({"key": UNREACHABLE if ready == "Unknown" else NOT_READY, "effect": "NoSchedule"})
    return taints


def term_matches(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Return whether a node selector term selects a node. An empty term selects none."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False

    def matches(requirement: Mapping[str, Any], values: Mapping[str, str]) -> bool:
        value = values.get(requirement["key"])
        return selectors.requirement_matches(requirement["operator"], value, requirement.get("values") or ("",))

    return all(matches(each, labels) for each in expressions) and all(
        matches(each, {"metadata.name": name}) for each in fields
    )


_NO_VOLUMES = VolumeRequirements()


class PodRequirements:
    """The part of a pod's spec and claims that the scheduler uses. Pods with the same ``key`` fit the same nodes."""

    def __init__(self, spec: Mapping[str, Any], volumes: VolumeRequirements = _NO_VOLUMES) -> None:
        affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        self.requests = pod_requests(spec)
        self.selector: Mapping[str, str] = spec.get("nodeSelector") or {}
        self.terms: list[dict[str, Any]] | None = None
        """The terms of the required node affinity, one of which must match; None without such an affinity."""
        if required is not None:
            self.terms = required.get("nodeSelectorTerms") or []
        self.tolerations: list[dict[str, Any]] = spec.get("tolerations") or []
        self.priority = int(spec.get("priority") or 0)
        self.preempts = spec.get("preemptionPolicy") != "Never"
        self.key = orjson.dumps([vars(self), list(volumes)], option=orjson.OPT_SORT_KEYS)
        self.volumes = volumes

    @property
    def node_names(self) -> set[str] | None:
        """The only nodes that can match if every term names nodes, as in the pods of a DaemonSet; otherwise None."""
        if not self.terms:
            return None
        names: set[str] = set()
        for term in self.terms:
            requirements = [each for each in term.get("matchFields") or () if each["operator"] == "In"]
            if not requirements:
                return None
            names.update(requirements[0]["values"])
        return names

    def selects(self, name: str, labels: Mapping[str, str]) -> bool:
        """Return whether the node selector and the required node affinity allow a node."""
        if any(labels.get(key) != value for key, value in self.selector.items()):
            return False
        return self.terms is None or any(term_matches(term, name, labels) for term in self.terms)


@dataclass(frozen=True, eq=False)
class AssignedPod:
    """A pod that is assigned to a node, and its requests."""

    uid: str
    key: str
    priority: int
    requests: Amounts
    created: str = ""


class NodeInfo:
    """A node and the pods that are assigned to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Object | None = None
        self.labels: Mapping[str, str] = {}
        self.taints: list[dict[str, Any]] = []
        self.unschedulable = False
        self.allocatable: Amounts = {}
        self.pods: dict[str, AssignedPod] = {}
        self.used: Counter[str] = Counter()

    def set_node(self, node: Object) -> bool:
        """Set the Node object. Returns whether anything that matters for scheduling has changed."""
        before = (self.node is None, self.labels, self.taints, self.unschedulable, self.allocatable)
        self.node = node
        self.labels = node["metadata"].get("labels") or {}
        self.taints = effective_taints(node)
        self.unschedulable = bool((node.get("spec") or {}).get("unschedulable"))
        self.allocatable = integer_quantities((node.get("status") or {}).get("allocatable"))
        return before != (False, self.labels, self.taints, self.unschedulable, self.allocatable)

    def add_pod(self, pod: AssignedPod) -> None:
        """Add a pod to the node."""
        self.pods[pod.uid] = pod
        self._count(pod.requests, 1)

    def remove_pod(self, uid: str) -> None:
        """Remove a pod from the node."""
        self._count(self.pods.pop(uid).requests, -1)

    def _count(self, requests: Amounts, sign: int) -> None:
        self.used["pods"] += sign
        for name, value in requests.items():
            self.used[name] += sign * value

    def score(self, pod: PodRequirements) -> float:
        """Return how well a pod fits. A higher score is better.

        The score is the mean share of CPU, memory and pods that would stay free, 0 to 1, minus 1 for each
        PreferNoSchedule taint that the pod does not tolerate. The number of pods counts, so that pods without requests
        are spread too.
        """
        resources = ("cpu", "memory", "pods")
        score = 0.0
        for name in resources:
            total = self.allocatable.get(name, 0)
            if total:
                used = self.used[name] + pod.requests.get(name, 0)
                score += max(0.0, 1 - used / total) / len(resources)
        for taint in self.taints:
            if taint["effect"] == "PreferNoSchedule" and not tolerates(pod.tolerations, taint):
                score -= 1
        return score


class FilterResult(NamedTuple):
    """The reasons why a node cannot run a pod; empty if it can."""

    reasons: tuple[str, ...] = ()
    preemption_may_help: bool = False
    """Whether the pod would fit if other pods were removed from the node."""


def filter_node(pod: PodRequirements, node: NodeInfo, without: Collection[AssignedPod] = ()) -> FilterResult:
    """Check whether a node can run a pod, ignoring the pods in ``without``."""
    if pod.volumes.problem:
        return FilterResult((pod.volumes.problem,))
    if node.unschedulable and not tolerates(pod.tolerations, {"key": UNSCHEDULABLE, "effect": "NoSchedule"}):
        return FilterResult(("node(s) were unschedulable",))
    for taint in node.taints:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(pod.tolerations, taint):
            return FilterResult(("node(s) had untolerated taint(s)",))
    if not pod.selects(node.name, node.labels):
        return FilterResult(("node(s) didn't match Pod's node affinity/selector",))
    reasons: list[str] = []
    if node.used["pods"] - len(without) >= node.allocatable.get("pods", 0):
        reasons.append("Too many pods")
    for name, value in pod.requests.items():
        used = node.used[name] - sum(each.requests.get(name, 0) for each in without)
        if used + value > node.allocatable.get(name, 0):
            reasons.append(f"Insufficient {name}")
    if not reasons and not pod.volumes.allow(node.labels.get(ZONE_LABEL, "")):
        return FilterResult((ZONE_CONFLICT,))
    return FilterResult(tuple(reasons), preemption_may_help=bool(reasons))


def select_victims(pod: PodRequirements, node: NodeInfo) -> list[AssignedPod]:
    """Return the pods of lower priority to preempt: as few as possible, and those of the lowest priority.

    The list is empty if preemption would not help.
    """
    victims = {each for each in node.pods.values() if each.priority < pod.priority}
    if not victims or filter_node(pod, node, victims).reasons:
        return []
    for each in sorted(victims, key=lambda each: (-each.priority, each.created)):
        if not filter_node(pod, node, victims - {each}).reasons:
            victims.remove(each)
    return sorted(victims, key=lambda each: (each.priority, each.key))
