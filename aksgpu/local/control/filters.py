"""Whether a pod may run on a node: resources, taints, selectors. Pure functions, without a cluster.

The texts are those of the Kubernetes scheduler. Left out, as nothing here needs them: inter-pod affinity, topology
spread, host ports, volumes' zones.
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
from aksgpu.local.control.controller_runtime import get_condition
from aksgpu.local.objects import Object

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

Amounts = Mapping[str, int]
"""Resource name to amount: CPU in thousandths, everything else in its unit."""


def _whole(resource: str, exact: Decimal) -> int:
    return ceil(exact * 1000) if resource == "cpu" else ceil(exact)


@lru_cache(maxsize=4096)
def _amount(resource: str, value: str | int | float) -> int:
    return _whole(resource, quantities.parse(value))


def integer_quantities(quantities: Mapping[str, Any] | None) -> Counter[str]:
    """Quantities, as in a node's allocatable, as integers, rounded up."""
    return Counter({name: _amount(name, value) for name, value in (quantities or {}).items()})


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    """What a pod's spec asks of a node."""
    return Counter({name: _whole(name, exact) for name, exact in pod_resources(spec, "requests").items() if exact})


def effective_taints(node: Object) -> list[dict[str, Any]]:
    """A node's taints, and the one that a node that is not ready is about to get."""
    taints = list((node.get("spec") or {}).get("taints") or ())
    ready = get_condition(node, "Ready").get("status")
    if ready != "True" and not any(taint["key"] in (NOT_READY, UNREACHABLE) for taint in taints):
        taints.append({"key": UNREACHABLE if ready == "Unknown" else NOT_READY, "effect": "NoSchedule"})
    return taints


def term_matches(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether a node selector term selects the node; an empty one selects none."""
    rules = [(labels, rule) for rule in term.get("matchExpressions") or ()]
    rules += [({"metadata.name": name}, rule) for rule in term.get("matchFields") or ()]
    return bool(rules) and all(
        selectors.requirement_matches(rule["operator"], values.get(rule["key"]), rule.get("values") or ("",))
        for values, rule in rules
    )


class PodRequirements:
    """What the scheduler looks at in a pod's spec. Pods whose shapes have the same key fit the same nodes."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
        self.requests = pod_requests(spec)
        self.selector: Mapping[str, str] = spec.get("nodeSelector") or {}
        self.terms: list[dict[str, Any]] | None = None if required is None else required.get("nodeSelectorTerms") or []
        """The required node affinity's terms, one of which must match; None when any node will do."""
        self.tolerations: list[dict[str, Any]] = spec.get("tolerations") or []
        self.priority = int(spec.get("priority") or 0)
        self.preempts = spec.get("preemptionPolicy") != "Never"
        self.key = orjson.dumps(vars(self), option=orjson.OPT_SORT_KEYS)

    @property
    def names(self) -> set[str] | None:
        """The only nodes that can match, where every term names its node, as a DaemonSet's pods do."""
        fields = [term.get("matchFields") or () for term in self.terms or ()]
        named = [next((rule["values"] for rule in rules if rule["operator"] == "In"), None) for rules in fields]
        return None if None in named or not named else {name for names in named for name in names or ()}

    def selects(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether node selector and required node affinity allow the node."""
        if any(labels.get(key) != value for key, value in self.selector.items()):
            return False
        return self.terms is None or any(term_matches(term, name, labels) for term in self.terms)


@dataclass(frozen=True, eq=False)
class AssignedPod:
    """What a pod holds of a node."""

    uid: str
    key: str
    priority: int
    requests: Amounts
    created: str = ""


class NodeInfo:
    """A node with what is in use on it, kept up to date pod by pod."""

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
        """Take over a Node object; whether anything that matters changed."""
        before = (self.node is None, self.labels, self.taints, self.unschedulable, self.allocatable)
        self.node = node
        self.labels = node["metadata"].get("labels") or {}
        self.taints = effective_taints(node)
        self.unschedulable = bool((node.get("spec") or {}).get("unschedulable"))
        self.allocatable = integer_quantities((node.get("status") or {}).get("allocatable"))
        return before != (False, self.labels, self.taints, self.unschedulable, self.allocatable)

    def add_pod(self, pod: AssignedPod) -> None:
        """Count a pod in."""
        self.pods[pod.uid] = pod
        self._count(pod.requests, 1)

    def remove_pod(self, uid: str) -> None:
        """Count a pod out."""
        self._count(self.pods.pop(uid).requests, -1)

    def _count(self, wants: Amounts, sign: int) -> None:
        self.used["pods"] += sign
        for name, value in wants.items():
            self.used[name] += sign * value

    def score(self, wanted: PodRequirements) -> float:
        """How much stays free with the pod on it, 0 to 1, less soft taints; more is better."""
        free = 0.0
        for name in ("cpu", "memory", "pods"):  # pods, so that those without requests spread as well
            if total := self.allocatable.get(name, 0):
                free += max(0.0, 1 - (self.used[name] + wanted.requests.get(name, 0)) / total) / 3
        soft = [taint for taint in self.taints if taint["effect"] == "PreferNoSchedule"]
        return free - sum(not tolerates(wanted.tolerations, taint) for taint in soft)


class FilterResult(NamedTuple):
    """Whether a node takes a pod, and if not, why."""

    reasons: tuple[str, ...] = ()
    preemption_may_help: bool = False
    """Whether the pod would fit if others left."""


def filter_node(wanted: PodRequirements, node: NodeInfo, without: Collection[AssignedPod] = ()) -> FilterResult:
    """Whether the node takes a pod of this shape, once the pods ``without`` have left it."""
    if node.unschedulable and not tolerates(wanted.tolerations, {"key": UNSCHEDULABLE, "effect": "NoSchedule"}):
        return FilterResult(("node(s) were unschedulable",))
    for taint in node.taints:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(wanted.tolerations, taint):
            return FilterResult((f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}",))
    if not wanted.selects(node.name, node.labels):
        return FilterResult(("node(s) didn't match Pod's node affinity/selector",))
    reasons = ["Too many pods"] if node.used["pods"] - len(without) >= node.allocatable.get("pods", 0) else []
    for name, value in wanted.requests.items():
        used = node.used[name] - sum(pod.requests.get(name, 0) for pod in without)
        if used + value > node.allocatable.get(name, 0):
            reasons.append(f"Insufficient {name}")
    return FilterResult(tuple(reasons), preemption_may_help=bool(reasons))


def select_victims(wanted: PodRequirements, node: NodeInfo) -> list[AssignedPod]:
    """The pods of lower priority that would have to leave the node, as few and as unimportant as possible.

    Empty when even that would not help.
    """
    leaving = {pod for pod in node.pods.values() if pod.priority < wanted.priority}
    if not leaving or filter_node(wanted, node, leaving).reasons:
        return []
    for pod in sorted(leaving, key=lambda pod: (-pod.priority, pod.created)):
        if not filter_node(wanted, node, leaving - {pod}).reasons:
            leaving.remove(pod)
    return sorted(leaving, key=lambda pod: (pod.priority, pod.key))
